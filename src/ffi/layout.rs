// SPDX-License-Identifier: GPL-2.0
//! Compares the layouts that bindgen (clang) found with those of the compiler of the kernel.
//!
//! The constants come from `layout.c`, compiled by the kernel's compiler. A difference, for example
//! from a configuration option that only one of the two saw, fails the build.

// The assertions, whose values nobody uses, do not count as uses.
#![allow(dead_code)]

use core::mem::{offset_of, size_of};

use super::bindings::*;

include!(env!("KVM_SEV_LAYOUT"));

const _: () = {
    assert!(size_of::<kvm_svm>() == SIZEOF_KVM_SVM);
    assert!(offset_of!(kvm_svm, kvm) == OFFSET_KVM_SVM_KVM);
    assert!(offset_of!(kvm_svm, sev_info) == OFFSET_KVM_SVM_SEV_INFO);
    assert!(offset_of!(kvm_sev_info, active) == OFFSET_SEV_INFO_ACTIVE);
    assert!(offset_of!(kvm_sev_info, es_active) == OFFSET_SEV_INFO_ES_ACTIVE);
    assert!(offset_of!(kvm_sev_info, vmsa_features) == OFFSET_SEV_INFO_VMSA_FEATURES);
    assert!(
        offset_of!(kvm_sev_info, migration_in_progress) == OFFSET_SEV_INFO_MIGRATION_IN_PROGRESS
    );
    assert!(offset_of!(kvm_sev_info, need_init) == OFFSET_SEV_INFO_NEED_INIT);
    assert!(offset_of!(kvm_sev_info, snp_context) == OFFSET_SEV_INFO_SNP_CONTEXT);

    assert!(size_of::<kvm>() == SIZEOF_KVM);
    assert!(offset_of!(kvm, lock) == OFFSET_KVM_LOCK);
    assert!(offset_of!(kvm, created_vcpus) == OFFSET_KVM_CREATED_VCPUS);
    assert!(offset_of!(kvm, arch) == OFFSET_KVM_ARCH);
    assert!(offset_of!(kvm_arch, vm_type) == OFFSET_KVM_ARCH_VM_TYPE);
    assert!(offset_of!(kvm_arch, has_protected_state) == OFFSET_KVM_ARCH_HAS_PROTECTED_STATE);
    assert!(offset_of!(kvm_arch, pre_fault_allowed) == OFFSET_KVM_ARCH_PRE_FAULT_ALLOWED);

    assert!(size_of::<vcpu_svm>() == SIZEOF_VCPU_SVM);
    assert!(offset_of!(vcpu_svm, vcpu) == OFFSET_VCPU_SVM_VCPU);
    assert!(offset_of!(vcpu_svm, vmcb) == OFFSET_VCPU_SVM_VMCB);
    assert!(offset_of!(vcpu_svm, asid) == OFFSET_VCPU_SVM_ASID);
    assert!(offset_of!(kvm_vcpu, kvm) == OFFSET_KVM_VCPU_KVM);
    assert!(offset_of!(kvm_vcpu, arch) == OFFSET_KVM_VCPU_ARCH);
    assert!(offset_of!(kvm_vcpu_arch, reserved_gpa_bits) == OFFSET_KVM_VCPU_ARCH_RESERVED_GPA_BITS);
    assert!(offset_of!(kvm_vcpu_arch, last_vmentry_cpu) == OFFSET_KVM_VCPU_ARCH_LAST_VMENTRY_CPU);

    assert!(offset_of!(vmcb_control_area, tlb_ctl) == OFFSET_VMCB_TLB_CTL);
    assert!(offset_of!(vmcb_control_area, misc_ctl) == OFFSET_VMCB_MISC_CTL);
    assert!(offset_of!(vmcb_control_area, clean) == OFFSET_VMCB_CLEAN);
    assert!(offset_of!(kvm_caps, supported_vm_types) == OFFSET_KVM_CAPS_SUPPORTED_VM_TYPES);
};
