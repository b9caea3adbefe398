// SPDX-License-Identifier: GPL-2.0
//! Where the state of this implementation hangs off a VM.
//!
//! `kvm_sev_info.snp_context` is a pointer that only sev.c used: it is zero when the VM is created
//! and no C code reads it. From the day when it becomes a SEV VM it owns the VM's [`SevVm`], which
//! stays until the VM is destroyed. It can therefore be read without any lock.
//!
//! What binds the VM to its encryption context can be taken away by a move to another VM, for which
//! all vCPUs must stand still. It can therefore be read with `kvm->lock` or any vCPU's mutex held.

#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::prelude::*;

use super::vcpu::Vcpu;
use super::vcpus::Frozen;
use super::vm::{Vm, VmLocked};
use crate::vm::{Binding, EncContext, SevVm};

/// A value that is read and taken by the rules at the head of this file.
pub(crate) struct Slot<T>(UnsafeCell<Option<T>>);

// SAFETY: Shared references give access only to those who hold one of the locks.
unsafe impl<T: Send + Sync> Sync for Slot<T> {}

impl<T> Slot<T> {
    pub(crate) const fn empty() -> Self {
        Self(UnsafeCell::new(None))
    }

    /// Before anybody else sees the slot.
    pub(crate) fn fill(&mut self, value: T) {
        *self.0.get_mut() = Some(value);
    }

    /// # Safety
    ///
    /// The VM's lock or the mutex of one of its vCPUs must be held as long as the result lives; or it
    /// is a value that is never taken.
    unsafe fn get(&self) -> Option<&T> {
        // SAFETY: `take` needs all of these locks, so it does not run meanwhile.
        unsafe { (*self.0.get()).as_ref() }
    }

    /// # Safety
    ///
    /// The VM must be frozen, with nothing that [`Slot::get`] returned still in use.
    unsafe fn take(&self) -> Option<T> {
        // SAFETY: By the contract nobody else accesses the value.
        unsafe { (*self.0.get()).take() }
    }
}

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
    pub(crate) unsafe fn detach(&self) -> Option<KBox<SevVm>> {
        let state = self.slot().swap(ptr::null_mut(), Ordering::AcqRel);

        // SAFETY: A non-null pointer came from `KBox::into_raw` in `attach`, and by this function's
        // contract there is no reference to it left.
        (!state.is_null()).then(|| unsafe { KBox::from_raw(state) })
    }
}

impl VmLocked<'_> {
    /// Makes the VM a SEV VM. Its state is complete, so that this comes last. EINVAL if it is one.
    pub(crate) fn become_sev(&self, state: KBox<SevVm>) -> Result {
        self.attach(state).map_err(|_| EINVAL)?;
        let params = self.binding().ok_or(EINVAL)?.context().params();

        self.inhibit_apicv();
        self.publish_sev(params.kind(), params.vmsa_features());
        Ok(())
    }

    /// Gives the VM its state; hands it back if it already had one.
    fn attach(&self, state: KBox<SevVm>) -> Result<(), KBox<SevVm>> {
        let state = KBox::into_raw(state);

        match self.slot().compare_exchange(
            ptr::null_mut(),
            state,
            Ordering::Release,
            Ordering::Relaxed,
        ) {
            Ok(_) => Ok(()),
            // SAFETY: The pointer came from `into_raw` just above and was not stored.
            Err(_) => Err(unsafe { KBox::from_raw(state) }),
        }
    }

    /// What the VM has to do with an encryption context; `None` if it is no SEV VM, or not any
    /// more.
    pub(crate) fn binding(&self) -> Option<&Binding> {
        // SAFETY: The lock is held as long as `self` lives.
        unsafe { self.sev()?.binding().get() }
    }
}

impl Vm {
    /// The context of an SEV-SNP VM; `None` for other VMs. Any context.
    pub(crate) fn snp_context(&self) -> Option<&EncContext> {
        let sev = self.sev().filter(|sev| sev.is_snp())?;

        // SAFETY: `Frozen::take_binding` does not take the binding of such a VM.
        unsafe { sev.binding().get() }.map(Binding::context)
    }
}

impl Vcpu {
    /// As [`VmLocked::binding`].
    pub(crate) fn binding(&self) -> Option<&Binding> {
        self.bound().map(|(_, binding)| binding)
    }

    /// The VM's state with its binding.
    pub(crate) fn bound(&self) -> Option<(&SevVm, &Binding)> {
        let sev = self.vm().sev()?;

        // SAFETY: The vCPU's mutex is held as long as `self` lives; or it is being created, which
        // keeps the VM from being frozen.
        Some((sev, unsafe { sev.binding().get()? }))
    }
}

impl Frozen<'_, '_> {
    /// Takes the VM's context away, for another VM. Never that of an SEV-SNP VM.
    pub(crate) fn take_binding(&mut self) -> Option<Binding> {
        if self.vcpus().vm().sev()?.is_snp() {
            return None;
        }
        // SAFETY: All locks are held. What was read through them borrows the VM's lock or `self`,
        // both of which are borrowed exclusively.
        unsafe { self.vcpus().vm().sev()?.binding().take() }
    }
}
