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
}
