// SPDX-License-Identifier: GPL-2.0
//! The lock that keeps DEACTIVATE away from a cache flush.
//!
//! DEACTIVATE resets the firmware's record of which CPUs executed WBINVD, so one that slips in
//! between the WBINVD and the DF_FLUSH of a flush makes the latter fail. Deactivating takes the
//! lock shared, flushing takes it exclusively. Order: ASID flush mutex → this → PSP driver's mutex.

#![allow(unsafe_code)]

use kernel::types::NotThreadSafe;

use crate::ffi::bindings;

/// Held while a guest is deactivated.
pub(crate) struct Deactivating(#[allow(dead_code)] NotThreadSafe);

/// Held from WBINVD to DF_FLUSH.
pub(crate) struct FlushExclusive(#[allow(dead_code)] NotThreadSafe);

impl Deactivating {
    /// May sleep.
    pub(crate) fn enter() -> Self {
        // SAFETY: May sleep by this function's contract; released in `drop` by the same task.
        unsafe { bindings::kvm_sev_deactivate_lock_shared() };
        Self(NotThreadSafe)
    }
}

impl Drop for Deactivating {
    fn drop(&mut self) {
        // SAFETY: Taken in `enter` by the same task.
        unsafe { bindings::kvm_sev_deactivate_unlock_shared() }
    }
}

impl FlushExclusive {
    /// May sleep.
    pub(crate) fn enter() -> Self {
        // SAFETY: May sleep by this function's contract; released in `drop` by the same task.
        unsafe { bindings::kvm_sev_deactivate_lock() };
        Self(NotThreadSafe)
    }
}

impl Drop for FlushExclusive {
    fn drop(&mut self) {
        // SAFETY: Taken in `enter` by the same task.
        unsafe { bindings::kvm_sev_deactivate_unlock() }
    }
}
