/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Functions for Rust in place of macros, of inline functions that bindgen cannot wrap, and of
 * objects that only C can define.
 */
#ifndef KVM_SEV_HELPERS_H
#define KVM_SEV_HELPERS_H

#include <linux/types.h>

struct fxregs_state;
struct ghcb;
struct kvm_vcpu;
struct mutex;
struct page;

/* Kernel and processor */
bool kvm_sev_ratelimit(void);
int kvm_sev_current_task(char *comm);
void kvm_sev_cond_resched(void);
bool kvm_sev_boot_cpu_has(unsigned int bit);
void kvm_sev_cpu_cap_set(unsigned int bit);

/* The lock between DEACTIVATE (shared) and the flush of ASIDs (exclusive) */
void kvm_sev_deactivate_lock_shared(void);
void kvm_sev_deactivate_unlock_shared(void);
void kvm_sev_deactivate_lock(void);
void kvm_sev_deactivate_unlock(void);

/* As the n-th lock of its kind that the task holds */
int kvm_sev_mutex_lock_killable(struct mutex *lock, unsigned int depth);

/* Memory */
u64 kvm_sev_psp_pa(const void *p);
u64 kvm_sev_page_psp_pa(struct page *page);
void kvm_sev_clflush_pages(struct page *const *pages, size_t count);
void *kvm_sev_alloc_firmware_page(void);
struct page *kvm_sev_alloc_save_area(int node, gfp_t gfp);

/* vCPUs of SEV-ES guests */
void kvm_sev_trace_enter(unsigned int vcpu_id, struct ghcb *ghcb);
void kvm_sev_trace_exit(unsigned int vcpu_id, struct ghcb *ghcb);
void kvm_sev_trace_msr_enter(unsigned int vcpu_id, u64 value);
void kvm_sev_trace_msr_exit(unsigned int vcpu_id, u64 value, int result);
bool kvm_sev_guest_has_tsc_aux(struct kvm_vcpu *vcpu);
bool kvm_sev_guest_has_xsaves(struct kvm_vcpu *vcpu);
void kvm_sev_exit_sev_term(struct kvm_vcpu *vcpu, u64 ghcb_msr);
void kvm_sev_request_event(struct kvm_vcpu *vcpu);
u32 kvm_sev_read_pkru(void);
void kvm_sev_protect_fpu(struct kvm_vcpu *vcpu);
struct fxregs_state *kvm_sev_fx_state(struct kvm_vcpu *vcpu);
void *kvm_sev_ymm_state(struct kvm_vcpu *vcpu);
void *kvm_sev_alloc_vmsa(void);
u64 kvm_sev_pa(const void *p);
bool kvm_sev_flush_encrypted_page(void *va, unsigned int asid);

#endif
