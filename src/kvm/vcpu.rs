// SPDX-License-Identifier: GPL-2.0
//! `struct vcpu_svm` and its VMCB.

#![allow(unsafe_code)]

use kernel::types::{NotThreadSafe, Opaque};

use super::vm::Vm;
use crate::ffi::bindings;
use crate::hw::asid::Asid;
use crate::vm::{Binding, SevVm};

/// Exceptions that KVM intercepts for ordinary guests.
#[derive(Clone, Copy)]
pub(crate) enum Exception {
    /// #DB
    Debug = 1,
    /// #UD
    InvalidOpcode = 6,
    /// #GP
    GeneralProtection = 13,
}

/// A vCPU.
///
/// # Invariants
///
/// The `struct vcpu_svm` is alive and not used by another task: its mutex is held, or it is being
/// created.
#[repr(transparent)]
pub(crate) struct Vcpu(Opaque<bindings::vcpu_svm>);

impl Vcpu {
    /// # Safety
    ///
    /// The vCPU must stay alive for `'a`, and the caller must hold its mutex or be creating it.
    pub(crate) unsafe fn from_raw<'a>(svm: *mut bindings::vcpu_svm) -> &'a Self {
        // SAFETY: A transparent wrapper of an opaque structure, alive by the contract.
        unsafe { &*svm.cast() }
    }

    /// # Safety
    ///
    /// As for [`Vcpu::from_raw`].
    pub(crate) unsafe fn from_kvm<'a>(vcpu: *mut bindings::kvm_vcpu) -> &'a Self {
        // SAFETY: All vCPUs of this module are embedded in a `struct vcpu_svm`.
        unsafe { Self::from_raw(kernel::container_of!(vcpu, bindings::vcpu_svm, vcpu)) }
    }

    pub(super) fn as_raw(&self) -> *mut bindings::vcpu_svm {
        self.0.get()
    }

    pub(super) fn as_kvm_vcpu(&self) -> *mut bindings::kvm_vcpu {
        // SAFETY: The vCPU is alive.
        unsafe { &raw mut (*self.as_raw()).vcpu }
    }

    /// The number that userspace gave it.
    pub(crate) fn id(&self) -> u32 {
        // SAFETY: The vCPU is alive; the number is not negative.
        unsafe { (*self.as_raw()).vcpu.vcpu_id as u32 }
    }

    pub(super) fn vmcb(&self) -> *mut bindings::vmcb {
        // SAFETY: The vCPU is alive; the pointer is set when the vCPU is created.
        unsafe { (*self.as_raw()).vmcb }
    }

    /// The VM that the vCPU belongs to.
    pub(crate) fn vm(&self) -> &Vm {
        // SAFETY: A vCPU does not outlive its VM.
        unsafe { Vm::from_raw((*self.as_raw()).vcpu.kvm) }
    }

    /// Makes the guest a SEV guest when it next runs.
    pub(crate) fn enable_sev(&self) {
        // SAFETY: The VMCB is alive and, by the type invariant, ours.
        unsafe {
            let control = &raw mut (*self.vmcb()).control;
            (*control).misc_ctl |= bindings::KVM_SEV_CONST_SVM_MISC_ENABLE_SEV;
        }
    }

    /// Leaves an exception to the guest.
    pub(crate) fn stop_intercepting(&self, exception: Exception) {
        // SAFETY: The vCPU is alive and ours.
        unsafe { bindings::clr_exception_intercept(self.as_raw(), exception as u32) }
    }

    /// Bit position in CPUID Fn8000_001F EBX[5:0] as the guest sees it; `None` without that leaf.
    pub(crate) fn guest_c_bit(&self) -> Option<u32> {
        // SAFETY: The vCPU is alive and ours; the entry stays until its CPUID is changed.
        unsafe {
            bindings::kvm_find_cpuid_entry(&raw mut (*self.as_raw()).vcpu, 0x8000_001f)
                .as_ref()
                .map(|leaf| leaf.ebx & 0x3f)
        }
    }

    /// Whether the guest may use RDTSCP or RDPID, which read TSC_AUX.
    pub(crate) fn has_tsc_aux(&self) -> bool {
        // SAFETY: The vCPU is alive and ours.
        unsafe { bindings::kvm_sev_guest_has_tsc_aux(self.as_kvm_vcpu()) }
    }

    /// Whether the guest may use XSAVES, which needs XSS, and its CPUID says so.
    pub(crate) fn has_xsaves(&self) -> bool {
        // SAFETY: The vCPU is alive and ours.
        unsafe { bindings::kvm_sev_guest_has_xsaves(self.as_kvm_vcpu()) }
    }

    /// The C-bit is no reserved bit of the guest's CR3.
    pub(crate) fn allow_in_cr3(&self, bit: u32) {
        // SAFETY: The vCPU is alive and ours.
        unsafe {
            let arch = &raw mut (*self.as_raw()).vcpu.arch;
            (*arch).reserved_gpa_bits &= !1u64.wrapping_shl(bit);
        }
    }
}

/// A vCPU that is about to execute VMRUN on this CPU.
///
/// Interrupts are off: nothing that can be reached from here allocates or sleeps.
pub(crate) struct VmrunCtx<'a> {
    vcpu: &'a Vcpu,
    cpu: i32,
    _not_send: NotThreadSafe,
}

impl<'a> VmrunCtx<'a> {
    /// # Safety
    ///
    /// The current CPU must be `cpu`, with preemption disabled, about to run `svm`.
    pub(crate) unsafe fn new(svm: *mut bindings::vcpu_svm, cpu: i32) -> Self {
        Self {
            // SAFETY: A vCPU that runs is alive and its mutex is held.
            vcpu: unsafe { Vcpu::from_raw(svm) },
            cpu,
            _not_send: NotThreadSafe,
        }
    }

    /// See [`Vcpu::bound`].
    pub(crate) fn bound(&self) -> Option<(&'a SevVm, &'a Binding)> {
        self.vcpu.bound()
    }

    /// See [`Vcpu::has_vmsa`].
    pub(crate) fn has_vmsa(&self) -> bool {
        self.vcpu.has_vmsa()
    }

    /// Number of this CPU.
    pub(crate) fn cpu(&self) -> i32 {
        self.cpu
    }

    /// The ASID for the VMCB.
    pub(crate) fn set_asid(&self, asid: Asid) {
        // SAFETY: The vCPU is alive and ours.
        unsafe { (*self.vcpu.as_raw()).asid = asid.get() }
    }

    /// Tells the vCPU's VMCB from others.
    pub(super) fn vmcb_address(&self) -> usize {
        self.vcpu.vmcb() as usize
    }

    /// The CPU that the vCPU ran on last, or -1.
    pub(super) fn last_cpu(&self) -> i32 {
        // SAFETY: The vCPU is alive and ours.
        unsafe { (*self.vcpu.as_raw()).vcpu.arch.last_vmentry_cpu }
    }

    /// Drops all TLB entries of the VMCB's ASID at the next VMRUN.
    pub(crate) fn flush_asid_from_tlb(&self) {
        // SAFETY: The VMCB is alive and ours.
        unsafe {
            let control = &raw mut (*self.vcpu.vmcb()).control;
            (*control).tlb_ctl = bindings::TLB_CONTROL_FLUSH_ASID as u8;
            (*control).clean &= !1u32.wrapping_shl(bindings::VMCB_ASID);
        }
    }
}
