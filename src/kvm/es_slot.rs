// SPDX-License-Identifier: GPL-2.0
//! Where the state of this implementation hangs off a SEV-ES guest's vCPU.
//!
//! `vcpu_sev_es_state.vmsa` is a pointer that only sev.c used: it is zero when the vCPU is created
//! and no C code reads it. It owns the vCPU's [`EsVcpu`], until the vCPU is destroyed or its
//! registers move to another vCPU.

#![allow(unsafe_code)]

use core::ptr;

use kernel::prelude::*;

use super::vcpu::Vcpu;
use crate::ffi::bindings;
use crate::vcpu::EsVcpu;

/// The state of a vCPU whose mutex the current task need not hold.
///
/// # Safety
///
/// The vCPU must be one of an SEV-SNP VM, or of another VM that nothing is moved from or to, and live
/// for `'a`. Only what is meant to be shared may be used.
pub(super) unsafe fn state<'a>(svm: *mut bindings::vcpu_svm) -> Option<&'a EsVcpu> {
    // SAFETY: The slot is null or owns an `EsVcpu`, from before others saw the vCPU.
    unsafe { (*svm).sev_es.vmsa.cast::<EsVcpu>().as_ref() }
}

impl Vcpu {
    fn es_slot(&self) -> *mut *mut EsVcpu {
        // SAFETY: The vCPU is alive.
        unsafe { (&raw mut (*self.as_raw()).sev_es.vmsa).cast() }
    }

    /// What a vCPU has besides if its registers are protected, or will be.
    pub(crate) fn es(&self) -> Option<&EsVcpu> {
        // SAFETY: The slot is null or owns an `EsVcpu`; it is ours as long as the vCPU is. The
        // state outlives what is borrowed from this vCPU, also if it moves to another one.
        unsafe { (*self.es_slot()).as_ref() }
    }

    /// Gives the vCPU its state. EINVAL if it has one.
    pub(crate) fn attach_es(&self, state: KBox<EsVcpu>) -> Result {
        if self.es().is_some() {
            return Err(EINVAL);
        }
        // SAFETY: The slot is null, and ours as long as the vCPU is.
        unsafe { *self.es_slot() = KBox::into_raw(state) }
        Ok(())
    }

    /// Takes the state out of a vCPU.
    ///
    /// # Safety
    ///
    /// Nobody else may use the vCPU any more: it is being destroyed.
    pub(crate) unsafe fn detach_es(&self) -> Option<KBox<EsVcpu>> {
        // SAFETY: The slot is ours as long as the vCPU is.
        let state = unsafe { self.es_slot().replace(ptr::null_mut()) };

        // SAFETY: A non-null pointer came from `KBox::into_raw` in `attach_es`, and by this
        // function's contract there is no reference to it left.
        (!state.is_null()).then(|| unsafe { KBox::from_raw(state) })
    }

    /// Takes another vCPU's state over. EINVAL if that has none, or if this one has.
    pub(crate) fn take_es_of(&self, other: &Vcpu) -> Result {
        let state = other.es().ok_or(EINVAL)?;
        if self.es().is_some() {
            return Err(EINVAL);
        }
        state.exchange().hand_over(self);
        // SAFETY: Both slots are ours as long as the vCPUs are; this one is null.
        unsafe { ptr::swap(self.es_slot(), other.es_slot()) }
        Ok(())
    }
}
