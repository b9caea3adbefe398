/* SPDX-License-Identifier: GPL-2.0 */
/* What bindgen reads: the declarations of everything that Rust uses or provides. */
#include <linux/kvm_host.h>
#include <linux/cc_platform.h>
#include <linux/misc_cgroup.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/psp-sev.h>
#include <linux/sched/signal.h>

#include <asm/cpuid/api.h>
#include <asm/sev.h>
#include <uapi/linux/sev-guest.h>
#include <asm/smp.h>
#include <asm/svm.h>

#include "mmu.h"
#include "trace.h"
#include "x86.h"
#include "svm.h"
#include "cpuid.h"

#include "helpers.h"
#include "events.h"
#include <asm/kvm_sev_impl.h>

/* bindgen takes no macro that is an expression for a constant; see the kernel's own helper. */
static const u64 KVM_SEV_CONST_SVM_MISC_ENABLE_SEV = SVM_MISC_ENABLE_SEV;
static const u64 KVM_SEV_CONST_SVM_SEV_FEAT_DEBUG_SWAP = SVM_SEV_FEAT_DEBUG_SWAP;
static const u64 KVM_SEV_CONST_SVM_SEV_FEAT_SECURE_TSC = SVM_SEV_FEAT_SECURE_TSC;
static const u64 KVM_SEV_CONST_SVM_SEV_FEAT_SNP_ACTIVE = SVM_SEV_FEAT_SNP_ACTIVE;
static const u64 KVM_SEV_CONST_SNP_POLICY_RSVD_MBO = SNP_POLICY_MASK_RSVD_MBO;
static const u64 KVM_SEV_CONST_SNP_POLICY_DEBUG = SNP_POLICY_MASK_DEBUG;
static const u64 KVM_SEV_CONST_SNP_POLICY_BITS =
	SNP_POLICY_MASK_API_MINOR | SNP_POLICY_MASK_API_MAJOR | SNP_POLICY_MASK_SMT |
	SNP_POLICY_MASK_RSVD_MBO | SNP_POLICY_MASK_DEBUG | SNP_POLICY_MASK_SINGLE_SOCKET |
	SNP_POLICY_MASK_CXL_ALLOW | SNP_POLICY_MASK_MEM_AES_256_XTS | SNP_POLICY_MASK_RAPL_DIS |
	SNP_POLICY_MASK_CIPHERTEXT_HIDING_DRAM | SNP_POLICY_MASK_PAGE_SWAP_DISABLE;
static const u64 KVM_SEV_CONST_SVM_MISC_ENABLE_SEV_ES = SVM_MISC_ENABLE_SEV_ES;
static const unsigned int KVM_SEV_CONST_ALLOWED_FEATURES_VALID_BIT =
	__builtin_ctzll(VMCB_ALLOWED_SEV_FEATURES_VALID);
static const u64 KVM_SEV_CONST_HV_FT_SNP = GHCB_HV_FT_SNP;
static const u64 KVM_SEV_CONST_HV_FT_SNP_AP_CREATION = GHCB_HV_FT_SNP_AP_CREATION;
static const u64 KVM_SEV_CONST_PSC_ERROR_GENERIC = VMGEXIT_PSC_ERROR_GENERIC;
static const u64 KVM_SEV_CONST_PSC_ERROR_INVALID_HDR = VMGEXIT_PSC_ERROR_INVALID_HDR;
static const u64 KVM_SEV_CONST_PSC_ERROR_INVALID_ENTRY = VMGEXIT_PSC_ERROR_INVALID_ENTRY;
static const int KVM_SEV_CONST_PSMASH_FAIL_INUSE = PSMASH_FAIL_INUSE;
static const unsigned int KVM_SEV_CONST_MSR_TYPE_R = MSR_TYPE_R;
static const unsigned int KVM_SEV_CONST_MSR_TYPE_RW = MSR_TYPE_RW;
