// SPDX-License-Identifier: GPL-2.0
//! `struct kvm`, and the proof that its lock is held.
//!
//! Locks: `kvm->lock` is outermost; the vCPUs' mutexes, the PSP driver's mutex, the ASID pool and
//! the locks of an encryption context are taken inside it. It is never taken on the path that
//! destroys a VM.

#![allow(unsafe_code)]

use core::sync::atomic::{AtomicBool, Ordering};

use kernel::types::{NotThreadSafe, Opaque};

use crate::ffi::bindings;
use crate::hw::kind::Kind;

/// What userspace asked for when it created a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VmType {
    /// `KVM_X86_DEFAULT_VM`: becomes a SEV VM by `KVM_SEV_INIT` or `KVM_SEV_ES_INIT`.
    Default,
    /// `KVM_X86_SEV_VM`, `KVM_X86_SEV_ES_VM` or `KVM_X86_SNP_VM`: waits for `KVM_SEV_INIT2`.
    Encrypted(Kind),
    /// One that cannot become a SEV VM here.
    Other,
}

/// A VM, `struct kvm`.
///
/// # Invariants
///
/// It is embedded in a `struct kvm_svm`, and referenced or not yet destroyed.
#[repr(transparent)]
pub(crate) struct Vm(Opaque<bindings::kvm>);

impl Vm {
    /// # Safety
    ///
    /// `kvm` must be a VM of this module that stays alive for `'a`.
    pub(crate) unsafe fn from_raw<'a>(kvm: *mut bindings::kvm) -> &'a Self {
        // SAFETY: `Vm` is a transparent wrapper of an opaque `struct kvm`, alive by the contract.
        unsafe { &*kvm.cast() }
    }

    pub(super) fn as_raw(&self) -> *mut bindings::kvm {
        self.0.get()
    }

    /// SEV's part of the VM. Only raw accesses are allowed: C code reads some of the fields.
    pub(super) fn sev_info(&self) -> *mut bindings::kvm_sev_info {
        // SAFETY: By the type invariant the VM is the `kvm` member of a live `struct kvm_svm`.
        unsafe {
            let svm = kernel::container_of!(self.as_raw(), bindings::kvm_svm, kvm);
            &raw mut (*svm).sev_info
        }
    }

    /// From now on, whatever userspace wants of the VM fails with EIO, and its vCPUs do not run. Does
    /// not sleep.
    pub(crate) fn stop(&self) {
        // SAFETY: The VM is alive.
        unsafe { bindings::kvm_vm_dead(self.as_raw()) }
    }

    /// Takes `kvm->lock`. May sleep.
    pub(crate) fn lock(&self) -> VmLocked<'_> {
        // SAFETY: The VM and with it its initialised mutex are alive.
        unsafe { bindings::mutex_lock(&raw mut (*self.as_raw()).lock) };
        // SAFETY: Taken just above.
        unsafe { VmLocked::new(self) }
    }

    /// Constant over the life of the VM.
    pub(crate) fn vm_type(&self) -> VmType {
        // SAFETY: The VM is alive; the field is written before anybody else sees the VM.
        match u32::from(unsafe { (*self.as_raw()).arch.vm_type }) {
            bindings::KVM_X86_DEFAULT_VM => VmType::Default,
            bindings::KVM_X86_SEV_VM => VmType::Encrypted(Kind::Sev),
            bindings::KVM_X86_SEV_ES_VM => VmType::Encrypted(Kind::SevEs),
            bindings::KVM_X86_SNP_VM => VmType::Encrypted(Kind::Snp),
            _ => VmType::Other,
        }
    }

    /// Whether `KVM_SEV_INIT2` is still due. From a vCPU, which cannot exist before it.
    #[cfg(sev_vcpu_needs_initialization)]
    pub(crate) fn needs_init2(&self) -> bool {
        // SAFETY: The field is written for the last time before the first vCPU exists.
        unsafe { (*self.sev_info()).need_init }
    }

    /// To be called once, from the creation of the VM, before anybody else sees it.
    pub(crate) fn expect_init2(&self, kind: Kind) {
        // SAFETY: Nobody else sees the VM yet.
        unsafe {
            let arch = &raw mut (*self.as_raw()).arch;

            // Memory of an SEV-SNP guest is not for the guest before it was launched.
            (*arch).has_private_mem = kind == Kind::Snp;
            (*arch).pre_fault_allowed = kind != Kind::Snp;
            (*arch).has_protected_state = kind.protects_registers();
            (*self.sev_info()).need_init = true;
        }
    }
}

/// A VM whose `kvm->lock` the current task holds.
pub(crate) struct VmLocked<'a> {
    vm: &'a Vm,
    _not_send: NotThreadSafe,
}

impl<'a> VmLocked<'a> {
    /// # Safety
    ///
    /// The current task must have taken the VM's lock, for this value to release.
    pub(super) unsafe fn new(vm: &'a Vm) -> Self {
        Self {
            vm,
            _not_send: NotThreadSafe,
        }
    }

    /// Whether a vCPU was created, or is being created.
    pub(crate) fn has_vcpus(&self) -> bool {
        // SAFETY: The field is protected by `kvm->lock`, which is held.
        unsafe { (*self.vm.as_raw()).created_vcpus != 0 }
    }

    /// Whether a vCPU is being created: it is counted, but not among the VM's vCPUs yet.
    pub(crate) fn is_creating_vcpu(&self) -> bool {
        // SAFETY: The VM is alive, and `kvm->lock` is held.
        unsafe { bindings::kvm_is_vcpu_creation_in_progress(self.vm.as_raw()) }
    }

    /// Whether `KVM_SEV_INIT2` is still due.
    pub(crate) fn awaits_init2(&self) -> bool {
        // SAFETY: The field is only written with `kvm->lock` held, or before the VM is visible.
        unsafe { (*self.vm.sev_info()).need_init }
    }

    /// Tells the C side that this is now a SEV VM.
    ///
    /// This and [`VmLocked::retract_sev`] are the only functions that write what C reads. It must
    /// come last, once the VM's state is complete: C reads without the lock.
    pub(super) fn publish_sev(&self, kind: Kind, vmsa_features: u64) {
        let info = self.vm.sev_info();

        // SAFETY: The VM is alive and the lock held; readers without the lock read single bytes,
        // which are therefore written with release stores. C expects that what is `es_active` is
        // `active`.
        unsafe {
            (*info).need_init = false;
            (*info).vmsa_features = vmsa_features;
            AtomicBool::from_ptr(&raw mut (*info).active).store(true, Ordering::Release);
            AtomicBool::from_ptr(&raw mut (*info).es_active)
                .store(kind.protects_registers(), Ordering::Release);
        }
    }

    /// Tells the C side that this is no SEV VM any more, and refuses whatever userspace still
    /// wants of it. None of its vCPUs may be in the guest.
    pub(crate) fn retract_sev(&self) {
        let info = self.vm.sev_info();

        // SAFETY: As above.
        unsafe {
            AtomicBool::from_ptr(&raw mut (*info).es_active).store(false, Ordering::Release);
            AtomicBool::from_ptr(&raw mut (*info).active).store(false, Ordering::Release);
        }
        self.vm.stop();
    }

    /// Frequency of a new vCPU's TSC, in kHz.
    pub(crate) fn default_tsc_khz(&self) -> Option<u32> {
        // SAFETY: The VM is alive; the field is written with its lock held.
        let khz = unsafe { (*self.vm.as_raw()).arch.default_tsc_khz };
        (khz != 0).then_some(khz)
    }

    /// Private memory of the guest may be given to it before it asks.
    pub(crate) fn allow_pre_fault(&self) {
        // SAFETY: The VM is alive and the lock held; readers without the lock read one byte.
        unsafe {
            AtomicBool::from_ptr(&raw mut (*self.vm.as_raw()).arch.pre_fault_allowed)
                .store(true, Ordering::Release)
        }
    }

    /// AVIC cannot be used: it would have to access encrypted memory.
    pub(super) fn inhibit_apicv(&self) {
        // SAFETY: The VM is alive.
        unsafe {
            bindings::kvm_set_or_clear_apicv_inhibit(
                self.vm.as_raw(),
                bindings::kvm_apicv_inhibit_APICV_INHIBIT_REASON_SEV,
                true,
            )
        }
    }
}

impl core::ops::Deref for VmLocked<'_> {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        self.vm
    }
}

impl Drop for VmLocked<'_> {
    fn drop(&mut self) {
        // SAFETY: The current task took the lock in `Vm::lock`, and the witness cannot move to
        // another one.
        unsafe { bindings::mutex_unlock(&raw mut (*self.vm.as_raw()).lock) }
    }
}
