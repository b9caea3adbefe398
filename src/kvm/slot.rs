// SPDX-License-Identifier: GPL-2.0
//! Where the state of this implementation hangs off a VM.
//!
//! `kvm_sev_info.snp_context` is a pointer that only sev.c used: it is zero when the VM is created
//! and no C code reads it. From the first SEV init on it owns the VM's [`SevVm`], which stays until
//! the VM is destroyed. It can therefore be read without any lock.

#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::prelude::*;

use super::vm::{Vm, VmLocked};
use crate::vm::SevVm;

impl Vm {
    fn slot(&self) -> &AtomicPtr<SevVm> {
        // SAFETY: The field is aligned, as long-lived as the VM, and only accessed through here.
        unsafe { AtomicPtr::from_ptr((&raw mut (*self.sev_info()).snp_context).cast()) }
    }

    /// The VM's SEV state; `None` if it never was a SEV VM. Any context.
    pub(crate) fn sev(&self) -> Option<&SevVm> {
        // SAFETY: The slot is null or owns a `SevVm`, published by `attach` with release
        // semantics; only `detach`, which excludes other users, frees it.
        unsafe { self.slot().load(Ordering::Acquire).as_ref() }
    }

    /// Takes the state out of a VM.
    ///
    /// # Safety
    ///
    /// Nobody else may use the VM any more: it is being destroyed.
    pub(crate) unsafe fn detach(&self) -> Option<Pin<KBox<SevVm>>> {
        let state = self.slot().swap(ptr::null_mut(), Ordering::AcqRel);

        // SAFETY: A non-null pointer came from `KBox::into_raw` in `attach`, and by this function's
        // contract there is no reference to it left.
        (!state.is_null()).then(|| Pin::from(unsafe { KBox::from_raw(state) }))
    }
}

impl VmLocked<'_> {
    /// Gives the VM its state; hands it back if it already had one.
    pub(crate) fn attach(&self, state: Pin<KBox<SevVm>>) -> Result<(), Pin<KBox<SevVm>>> {
        // SAFETY: The box is not moved: it stays behind the pointer until `detach` pins it again.
        let state = KBox::into_raw(unsafe { Pin::into_inner_unchecked(state) });

        match self.slot().compare_exchange(
            ptr::null_mut(),
            state,
            Ordering::Release,
            Ordering::Relaxed,
        ) {
            Ok(_) => Ok(()),
            // SAFETY: The pointer came from `into_raw` just above and was not stored.
            Err(_) => Err(Pin::from(unsafe { KBox::from_raw(state) })),
        }
    }
}
