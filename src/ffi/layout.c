// SPDX-License-Identifier: GPL-2.0
/*
 * Layouts as the kernel's compiler sees them, for layout.rs.
 *
 * Compiled to assembly only; the build turns the markers into Rust constants.
 */
#include <linux/kbuild.h>
#include "bindings_helper.h"

static void __used layouts(void)
{
	DEFINE(SIZEOF_KVM_SVM, sizeof(struct kvm_svm));
	OFFSET(OFFSET_KVM_SVM_KVM, kvm_svm, kvm);
	OFFSET(OFFSET_KVM_SVM_SEV_INFO, kvm_svm, sev_info);
	OFFSET(OFFSET_SEV_INFO_ACTIVE, kvm_sev_info, active);
	OFFSET(OFFSET_SEV_INFO_ES_ACTIVE, kvm_sev_info, es_active);
	OFFSET(OFFSET_SEV_INFO_VMSA_FEATURES, kvm_sev_info, vmsa_features);
	OFFSET(OFFSET_SEV_INFO_MIGRATION_IN_PROGRESS, kvm_sev_info, migration_in_progress);
	OFFSET(OFFSET_SEV_INFO_NEED_INIT, kvm_sev_info, need_init);
	OFFSET(OFFSET_SEV_INFO_SNP_CONTEXT, kvm_sev_info, snp_context);

	DEFINE(SIZEOF_KVM, sizeof(struct kvm));
	OFFSET(OFFSET_KVM_LOCK, kvm, lock);
	OFFSET(OFFSET_KVM_CREATED_VCPUS, kvm, created_vcpus);
	OFFSET(OFFSET_KVM_ARCH, kvm, arch);
	OFFSET(OFFSET_KVM_ARCH_VM_TYPE, kvm_arch, vm_type);
	OFFSET(OFFSET_KVM_ARCH_HAS_PROTECTED_STATE, kvm_arch, has_protected_state);
	OFFSET(OFFSET_KVM_ARCH_PRE_FAULT_ALLOWED, kvm_arch, pre_fault_allowed);

	DEFINE(SIZEOF_VCPU_SVM, sizeof(struct vcpu_svm));
	OFFSET(OFFSET_VCPU_SVM_VCPU, vcpu_svm, vcpu);
	OFFSET(OFFSET_VCPU_SVM_VMCB, vcpu_svm, vmcb);
	OFFSET(OFFSET_VCPU_SVM_ASID, vcpu_svm, asid);
	OFFSET(OFFSET_KVM_VCPU_KVM, kvm_vcpu, kvm);
	OFFSET(OFFSET_KVM_VCPU_ARCH, kvm_vcpu, arch);
	OFFSET(OFFSET_KVM_VCPU_ARCH_RESERVED_GPA_BITS, kvm_vcpu_arch, reserved_gpa_bits);
	OFFSET(OFFSET_KVM_VCPU_ARCH_LAST_VMENTRY_CPU, kvm_vcpu_arch, last_vmentry_cpu);

	OFFSET(OFFSET_VMCB_TLB_CTL, vmcb_control_area, tlb_ctl);
	OFFSET(OFFSET_VMCB_MISC_CTL, vmcb_control_area, misc_ctl);
	OFFSET(OFFSET_VMCB_CLEAN, vmcb_control_area, clean);
	OFFSET(OFFSET_KVM_CAPS_SUPPORTED_VM_TYPES, kvm_caps, supported_vm_types);

	DEFINE(SIZEOF_KVM_HOST_MAP, sizeof(struct kvm_host_map));
	DEFINE(SIZEOF_VMCB_SAVE, sizeof(struct vmcb_save_area));
	DEFINE(SIZEOF_VMSA, sizeof(struct sev_es_save_area));
	DEFINE(SIZEOF_GHCB, sizeof(struct ghcb));
	OFFSET(OFFSET_VCPU_SVM_SEV_ES, vcpu_svm, sev_es);
	OFFSET(OFFSET_VCPU_SVM_NMI_MASKED, vcpu_svm, nmi_masked);
	OFFSET(OFFSET_SEV_ES_STATE_VMSA, vcpu_sev_es_state, vmsa);
	OFFSET(OFFSET_SEV_ES_STATE_GHCB, vcpu_sev_es_state, ghcb);
	OFFSET(OFFSET_KVM_VCPU_VCPU_ID, kvm_vcpu, vcpu_id);
	OFFSET(OFFSET_KVM_VCPU_GUEST_DEBUG, kvm_vcpu, guest_debug);
	OFFSET(OFFSET_KVM_VCPU_STAT, kvm_vcpu, stat);
	OFFSET(OFFSET_KVM_VCPU_STAT_NMI_WINDOW_EXITS, kvm_vcpu_stat, nmi_window_exits);
	OFFSET(OFFSET_KVM_VCPU_ARCH_REGS, kvm_vcpu_arch, regs);
	OFFSET(OFFSET_KVM_VCPU_ARCH_RIP, kvm_vcpu_arch, rip);
	OFFSET(OFFSET_KVM_VCPU_ARCH_XCR, kvm_vcpu_arch, xcr0);
	OFFSET(OFFSET_KVM_VCPU_ARCH_PKRU, kvm_vcpu_arch, pkru);
	OFFSET(OFFSET_KVM_VCPU_ARCH_XSS, kvm_vcpu_arch, ia32_xss);
	OFFSET(OFFSET_KVM_VCPU_ARCH_DR, kvm_vcpu_arch, dr6);
	OFFSET(OFFSET_KVM_VCPU_ARCH_GUEST_STATE_PROTECTED, kvm_vcpu_arch, guest_state_protected);
	OFFSET(OFFSET_KVM_HOST_MAP_HVA, kvm_host_map, hva);
	OFFSET(OFFSET_VMCB_INTERCEPTS, vmcb_control_area, intercepts);
	OFFSET(OFFSET_VMCB_EXIT_CODE, vmcb_control_area, exit_code);
	OFFSET(OFFSET_VMCB_EXIT_INFO, vmcb_control_area, exit_info_2);
	OFFSET(OFFSET_VMCB_GHCB_GPA, vmcb_control_area, ghcb_gpa);
	OFFSET(OFFSET_VMCB_VMSA_PA, vmcb_control_area, vmsa_pa);
	OFFSET(OFFSET_VMCB_ALLOWED_SEV_FEATURES, vmcb_control_area, allowed_sev_features);
	OFFSET(OFFSET_VMCB_SAVE_CPL, vmcb_save_area, cpl);
	OFFSET(OFFSET_VMCB_SAVE_DR, vmcb_save_area, dr7);
	OFFSET(OFFSET_VMSA_CPL, sev_es_save_area, cpl);
	OFFSET(OFFSET_VMSA_DR, sev_es_save_area, dr7);
	OFFSET(OFFSET_VMSA_SEV_FEATURES, sev_es_save_area, sev_features);
	OFFSET(OFFSET_VMSA_FPREG, sev_es_save_area, fpreg_x87);
	OFFSET(OFFSET_GHCB_SAVE_VALID_BITMAP, ghcb_save_area, valid_bitmap);
	OFFSET(OFFSET_GHCB_SAVE_XCR, ghcb_save_area, xcr0);
	OFFSET(OFFSET_GHCB_SHARED_BUFFER, ghcb, shared_buffer);
	OFFSET(OFFSET_GHCB_USAGE, ghcb, ghcb_usage);
}
