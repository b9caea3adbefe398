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

    assert!(size_of::<kvm_host_map>() == SIZEOF_KVM_HOST_MAP);
    assert!(size_of::<vmcb_save_area>() == SIZEOF_VMCB_SAVE);
    assert!(size_of::<sev_es_save_area>() == SIZEOF_VMSA);
    assert!(size_of::<ghcb>() == SIZEOF_GHCB);
    assert!(offset_of!(vcpu_svm, sev_es) == OFFSET_VCPU_SVM_SEV_ES);
    assert!(offset_of!(vcpu_svm, nmi_masked) == OFFSET_VCPU_SVM_NMI_MASKED);
    assert!(offset_of!(vcpu_sev_es_state, vmsa) == OFFSET_SEV_ES_STATE_VMSA);
    assert!(offset_of!(vcpu_sev_es_state, ghcb) == OFFSET_SEV_ES_STATE_GHCB);
    assert!(offset_of!(kvm_vcpu, vcpu_id) == OFFSET_KVM_VCPU_VCPU_ID);
    assert!(offset_of!(kvm_vcpu, guest_debug) == OFFSET_KVM_VCPU_GUEST_DEBUG);
    assert!(offset_of!(kvm_vcpu, stat) == OFFSET_KVM_VCPU_STAT);
    assert!(offset_of!(kvm_vcpu_stat, nmi_window_exits) == OFFSET_KVM_VCPU_STAT_NMI_WINDOW_EXITS);
    assert!(offset_of!(kvm_vcpu_arch, regs) == OFFSET_KVM_VCPU_ARCH_REGS);
    assert!(offset_of!(kvm_vcpu_arch, rip) == OFFSET_KVM_VCPU_ARCH_RIP);
    assert!(offset_of!(kvm_vcpu_arch, xcr0) == OFFSET_KVM_VCPU_ARCH_XCR);
    assert!(offset_of!(kvm_vcpu_arch, pkru) == OFFSET_KVM_VCPU_ARCH_PKRU);
    assert!(offset_of!(kvm_vcpu_arch, ia32_xss) == OFFSET_KVM_VCPU_ARCH_XSS);
    assert!(offset_of!(kvm_vcpu_arch, dr6) == OFFSET_KVM_VCPU_ARCH_DR);
    assert!(
        offset_of!(kvm_vcpu_arch, guest_state_protected)
            == OFFSET_KVM_VCPU_ARCH_GUEST_STATE_PROTECTED
    );
    assert!(offset_of!(kvm_host_map, hva) == OFFSET_KVM_HOST_MAP_HVA);
    assert!(offset_of!(vmcb_control_area, intercepts) == OFFSET_VMCB_INTERCEPTS);
    assert!(offset_of!(vmcb_control_area, exit_code) == OFFSET_VMCB_EXIT_CODE);
    assert!(offset_of!(vmcb_control_area, exit_info_2) == OFFSET_VMCB_EXIT_INFO);
    assert!(offset_of!(vmcb_control_area, ghcb_gpa) == OFFSET_VMCB_GHCB_GPA);
    assert!(offset_of!(vmcb_control_area, vmsa_pa) == OFFSET_VMCB_VMSA_PA);
    assert!(
        offset_of!(vmcb_control_area, allowed_sev_features) == OFFSET_VMCB_ALLOWED_SEV_FEATURES
    );
    assert!(offset_of!(vmcb_save_area, cpl) == OFFSET_VMCB_SAVE_CPL);
    assert!(offset_of!(vmcb_save_area, dr7) == OFFSET_VMCB_SAVE_DR);
    assert!(offset_of!(sev_es_save_area, cpl) == OFFSET_VMSA_CPL);
    assert!(offset_of!(sev_es_save_area, dr7) == OFFSET_VMSA_DR);
    assert!(offset_of!(sev_es_save_area, sev_features) == OFFSET_VMSA_SEV_FEATURES);
    assert!(offset_of!(sev_es_save_area, fpreg_x87) == OFFSET_VMSA_FPREG);
    assert!(offset_of!(ghcb_save_area, valid_bitmap) == OFFSET_GHCB_SAVE_VALID_BITMAP);
    assert!(offset_of!(ghcb_save_area, xcr0) == OFFSET_GHCB_SAVE_XCR);
    assert!(offset_of!(ghcb, shared_buffer) == OFFSET_GHCB_SHARED_BUFFER);
    assert!(offset_of!(ghcb, ghcb_usage) == OFFSET_GHCB_USAGE);
};
