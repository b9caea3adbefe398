// SPDX-License-Identifier: GPL-2.0
//! All vCPUs of a VM at once.
//!
//! Locks: `kvm->lock` → the mutexes of all vCPUs, in the order of their creation.

#![allow(unsafe_code)]

use kernel::prelude::*;

use super::vcpu::Vcpu;
use super::vm::VmLocked;
use crate::ffi::bindings;
use crate::rejection::{Because, Outcome, Reason};

/// Proof that no vCPU of a VM runs, or does anything else, and that none is being created.
pub(crate) struct AllVcpus<'l, 'a> {
    vm: &'l VmLocked<'a>,
}

impl<'l, 'a> AllVcpus<'l, 'a> {
    /// Waits for all vCPUs. Errors: EBUSY if a vCPU is being created; EINTR if the task is being
    /// killed.
    pub(crate) fn lock(vm: &'l VmLocked<'a>) -> Outcome<Self> {
        if vm.is_creating_vcpu() {
            return Err(EBUSY.because(Reason::CreatingVcpu));
        }
        // SAFETY: The VM is alive and its lock held.
        kernel::error::to_result(unsafe { bindings::kvm_lock_all_vcpus(vm.as_raw()) })?;
        Ok(Self { vm })
    }

    pub(crate) fn vm(&self) -> &VmLocked<'a> {
        self.vm
    }

    /// Number of vCPUs.
    pub(crate) fn count(&self) -> usize {
        // SAFETY: The VM is alive. With its lock held and no vCPU being created, the number is that
        // of all vCPUs.
        unsafe { (*self.vm.as_raw()).created_vcpus as usize }
    }

    /// The vCPUs, in the order of their creation.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Vcpu> {
        (0..self.count()).filter_map(|index| self.get(index))
    }

    /// `None` if there are not as many.
    pub(crate) fn get(&self, index: usize) -> Option<&Vcpu> {
        if index >= self.count() {
            return None;
        }
        // SAFETY: The VM is alive and has so many vCPUs. Their mutexes are held as long as `self`
        // lives, and vCPUs live as long as their VM.
        unsafe {
            let vcpu = bindings::kvm_get_vcpu(self.vm.as_raw(), index as i32);

            (!vcpu.is_null())
                .then(|| Vcpu::from_raw(kernel::container_of!(vcpu, bindings::vcpu_svm, vcpu)))
        }
    }
}

impl Drop for AllVcpus<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: Locked in `lock`; no vCPU was created since, as `kvm->lock` is held.
        unsafe { bindings::kvm_unlock_all_vcpus(self.vm.as_raw()) }
    }
}

/// The same for a VM whose lock is borrowed exclusively: nothing that was read with the lock, or
/// with the mutex of a vCPU, is still in use.
pub(crate) struct Frozen<'l, 'a>(AllVcpus<'l, 'a>);

impl<'l, 'a> Frozen<'l, 'a> {
    /// Errors as [`AllVcpus::lock`].
    pub(crate) fn new(vm: &'l mut VmLocked<'a>) -> Outcome<Self> {
        AllVcpus::lock(vm).map(Self)
    }

    pub(crate) fn vcpus(&self) -> &AllVcpus<'l, 'a> {
        &self.0
    }
}
