// SPDX-License-Identifier: GPL-2.0
//! vCPUs whose mutex the current task does not hold.

#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::vm::Vm;
use crate::ffi::bindings as b;
use crate::vcpu::Ap;

/// A vCPU that anybody may be using. All that can be done with it is what is made for that.
pub(crate) struct RemoteVcpu<'a> {
    vcpu: NonNull<b::kvm_vcpu>,
    _vm: PhantomData<&'a Vm>,
}

impl<'a> RemoteVcpu<'a> {
    /// # Safety
    ///
    /// `vcpu` must be null or a vCPU of the VM that `'a` borrows, which everybody can see.
    unsafe fn new(vcpu: *mut b::kvm_vcpu) -> Option<Self> {
        Some(Self {
            vcpu: NonNull::new(vcpu)?,
            _vm: PhantomData,
        })
    }

    /// What others may ask of it; `None` unless it is an SEV-SNP guest's.
    pub(crate) fn ap(&self) -> Option<&'a Ap> {
        // SAFETY: A vCPU lives as long as its VM. This part of its state is shared.
        unsafe {
            Vm::from_raw((*self.vcpu.as_ptr()).kvm).snp_context()?;
            let svm = kernel::container_of!(self.vcpu.as_ptr(), b::vcpu_svm, vcpu);
            super::es_slot::state(svm)?.ap()
        }
    }

    /// Makes it look for requests before it runs on, and wakes it up.
    pub(crate) fn update_state(&self) {
        // SAFETY: The vCPU is alive.
        unsafe { b::kvm_sev_request_update(self.vcpu.as_ptr()) }
    }

    /// Makes it find its registers again before it runs on. If it is in the guest, it is not when this
    /// returns: the processor has let go of the page with the registers. Does not sleep, but must not be
    /// called with interrupts off.
    pub(crate) fn reload_vmsa(&self) {
        // SAFETY: The vCPU is alive.
        unsafe { b::kvm_sev_request_reload_and_wait(self.vcpu.as_ptr()) }
    }
}

impl Vm {
    /// The vCPU with the number that userspace gave it.
    pub(crate) fn vcpu_by_id(&self, id: u32) -> Option<RemoteVcpu<'_>> {
        // SAFETY: The VM is alive.
        unsafe {
            RemoteVcpu::new(b::kvm_get_vcpu_by_id(
                self.as_raw(),
                i32::try_from(id).ok()?,
            ))
        }
    }

    /// All vCPUs, as they are now. Any context.
    pub(crate) fn remote_vcpus(&self) -> impl Iterator<Item = RemoteVcpu<'_>> {
        // SAFETY: The VM is alive; there are so many vCPUs, and maybe more by now.
        (0..i32::MAX).map_while(|index| unsafe {
            if index >= b::kvm_sev_online_vcpus(self.as_raw()) {
                return None;
            }
            RemoteVcpu::new(b::kvm_get_vcpu(self.as_raw(), index))
        })
    }
}
