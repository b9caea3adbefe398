// SPDX-License-Identifier: GPL-2.0
#include <linux/kvm_host.h>
#include <linux/cc_platform.h>
#include <linux/highmem.h>
#include <linux/psp.h>
#include <linux/psp-sev.h>
#include <linux/ratelimit.h>
#include <linux/rwsem.h>
#include <linux/sched.h>

#include <asm/cpufeature.h>

#include "svm.h"
#include "cpuid.h"
#include "helpers.h"

bool kvm_sev_ratelimit(void)
{
	static DEFINE_RATELIMIT_STATE(state, DEFAULT_RATELIMIT_INTERVAL, DEFAULT_RATELIMIT_BURST);

	return __ratelimit(&state);
}

int kvm_sev_current_task(char *comm)
{
	strscpy(comm, current->comm, TASK_COMM_LEN);
	return task_tgid_nr(current);
}

void kvm_sev_cond_resched(void)
{
	cond_resched();
}

void kvm_sev_cpu_cap_set(unsigned int bit)
{
	/* The word of the capability must be a constant. */
	switch (bit) {
	case X86_FEATURE_SEV:
		kvm_cpu_cap_set(X86_FEATURE_SEV);
		break;
	case X86_FEATURE_SEV_ES:
		kvm_cpu_cap_set(X86_FEATURE_SEV_ES);
		break;
	case X86_FEATURE_SEV_SNP:
		kvm_cpu_cap_set(X86_FEATURE_SEV_SNP);
		break;
	default:
		WARN_ON_ONCE(1);
	}
}

int kvm_sev_mutex_lock_killable(struct mutex *lock, unsigned int depth)
{
	return mutex_lock_killable_nested(lock, depth);
}

static DECLARE_RWSEM(deactivate_lock);

void kvm_sev_deactivate_lock_shared(void)
{
	down_read(&deactivate_lock);
}

void kvm_sev_deactivate_unlock_shared(void)
{
	up_read(&deactivate_lock);
}

void kvm_sev_deactivate_lock(void)
{
	down_write(&deactivate_lock);
}

void kvm_sev_deactivate_unlock(void)
{
	up_write(&deactivate_lock);
}

u64 kvm_sev_psp_pa(const void *p)
{
	return __psp_pa(p);
}

u64 kvm_sev_page_psp_pa(struct page *page)
{
	return __sme_page_pa(page);
}

void kvm_sev_clflush_pages(struct page *const *pages, size_t count)
{
	size_t i;

	if (this_cpu_has(X86_FEATURE_SME_COHERENT))
		return;

	for (i = 0; i < count; i++) {
		void *va = kmap_local_page(pages[i]);

		clflush_cache_range(va, PAGE_SIZE);
		kunmap_local(va);
		cond_resched();
	}
}

u64 kvm_sev_pfn_psp_pa(u64 pfn)
{
	return __sme_set(PFN_PHYS(pfn));
}

void kvm_sev_copy_to_pfn(u64 pfn, struct page *from)
{
	copy_highpage(pfn_to_page(pfn), from);
}

void kvm_sev_copy_from_pfn(struct page *to, u64 pfn)
{
	copy_highpage(to, pfn_to_page(pfn));
	set_page_dirty_lock(to);
}

void kvm_sev_clflush_pfn(u64 pfn, u64 pages)
{
	clflush_cache_range(__va(PFN_PHYS(pfn)), pages * PAGE_SIZE);
}

void kvm_sev_leak_page(u64 pfn)
{
	get_page(pfn_to_page(pfn));
}

void *kvm_sev_alloc_firmware_page(void)
{
	return snp_alloc_firmware_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
}

struct page *kvm_sev_alloc_save_area(int node, gfp_t gfp)
{
	struct page *pair;
	bool first_is_bad;

	if (!cc_platform_has(CC_ATTR_HOST_SEV_SNP))
		return alloc_pages_node(node, gfp | __GFP_ZERO, 0);

	/* Of two neighbours, at most the first is 2 MiB aligned: keep the other one. */
	pair = alloc_pages_node(node, gfp | __GFP_ZERO, 1);
	if (!pair)
		return NULL;

	split_page(pair, 1);
	first_is_bad = IS_ALIGNED(page_to_pfn(pair), PTRS_PER_PMD);
	__free_page(first_is_bad ? pair : pair + 1);
	return first_is_bad ? pair + 1 : pair;
}
