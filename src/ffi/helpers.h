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
struct kvm;
struct kvm_vcpu;
struct mutex;
struct page;

/* Kernel and processor */
bool kvm_sev_ratelimit(void);
int kvm_sev_current_task(char *comm);
void kvm_sev_cond_resched(void);
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
u64 kvm_sev_pfn_psp_pa(u64 pfn);
void kvm_sev_clflush_pages(struct page *const *pages, size_t count);
void kvm_sev_copy_to_pfn(u64 pfn, struct page *from);
void kvm_sev_copy_from_pfn(struct page *to, u64 pfn);
void kvm_sev_clflush_pfn(u64 pfn, u64 pages);
void kvm_sev_leak_page(u64 pfn);
void *kvm_sev_alloc_firmware_page(void);
struct page *kvm_sev_alloc_save_area(int node, gfp_t gfp);

/* vCPUs of SEV-ES guests */
void kvm_sev_trace_enter(unsigned int vcpu_id, struct ghcb *ghcb);
void kvm_sev_trace_exit(unsigned int vcpu_id, struct ghcb *ghcb);
void kvm_sev_trace_msr_enter(unsigned int vcpu_id, u64 value);
void kvm_sev_trace_msr_exit(unsigned int vcpu_id, u64 value, int result);
void kvm_sev_trace_rmp_fault(struct kvm_vcpu *vcpu, u64 gpa, u64 pfn, u64 error_code,
			     int level, int result);
bool kvm_sev_guest_has_tsc_aux(struct kvm_vcpu *vcpu);
bool kvm_sev_guest_has_xsaves(struct kvm_vcpu *vcpu);
void kvm_sev_exit_sev_term(struct kvm_vcpu *vcpu, u64 ghcb_msr);
void kvm_sev_request_event(struct kvm_vcpu *vcpu);
void kvm_sev_protect_fpu(struct kvm_vcpu *vcpu);
struct fxregs_state *kvm_sev_fx_state(struct kvm_vcpu *vcpu);
void *kvm_sev_ymm_state(struct kvm_vcpu *vcpu);
void *kvm_sev_alloc_vmsa(void);
u64 kvm_sev_pa(const void *p);
bool kvm_sev_flush_encrypted_page(void *va, unsigned int asid);

/* Events */
void kvm_sev_trace_command(const char *name, size_t name_len, u64 guest, u32 status,
			   const char *status_name, size_t status_len, int result, u64 ns);
void kvm_sev_trace_rmp(u64 pfn, u64 pages, u64 gpa, u32 asid, u32 from, u32 to,
		       u32 entry_pages, int result);
void kvm_sev_trace_rejected(const char *ioctl, size_t ioctl_len, const char *reason,
			    size_t reason_len, int result);
void kvm_sev_trace_asid(u32 asid, const char *what, size_t what_len);
void kvm_sev_trace_recycled(u32 asids, int result);
void kvm_sev_trace_context(u32 asid, const char *kind, size_t kind_len,
			   const char *state, size_t state_len);

/* vCPUs and memory of SEV-SNP guests */
int kvm_sev_online_vcpus(struct kvm *kvm);
void kvm_sev_request_update(struct kvm_vcpu *vcpu);
void kvm_sev_request_reload(struct kvm_vcpu *vcpu);
void kvm_sev_request_reload_and_wait(struct kvm_vcpu *vcpu);
void kvm_sev_set_run_state(struct kvm_vcpu *vcpu, bool runnable);
bool kvm_sev_is_page_address(struct kvm_vcpu *vcpu, u64 gpa);
unsigned long kvm_sev_invalidations(struct kvm *kvm);
void kvm_sev_mmu_read_lock(struct kvm *kvm);
void kvm_sev_mmu_read_unlock(struct kvm *kvm);
bool kvm_sev_was_invalidated(struct kvm *kvm, unsigned long seq, u64 gfn);
bool kvm_sev_user_maps_pages(struct kvm *kvm);
void kvm_sev_exit_map_pages(struct kvm_vcpu *vcpu, u64 gpa, u64 pages, bool private, bool large);
bool kvm_sev_map_pages_result(struct kvm_vcpu *vcpu, u64 *result);
void kvm_sev_exit_req_certs(struct kvm_vcpu *vcpu, u64 gpa, u64 pages);
u64 kvm_sev_req_certs_result(struct kvm_vcpu *vcpu, u64 *pages);

#endif
