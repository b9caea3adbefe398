// SPDX-License-Identifier: GPL-2.0
#include <linux/kvm_host.h>
#include <linux/mm.h>

#include <asm/cacheflush.h>
#include <asm/fpu/api.h>
#include <asm/fpu/xstate.h>
#include <asm/msr.h>

#include "trace.h"
#include "x86.h"
#include "cpuid.h"
#include "svm.h"
#include "helpers.h"

/* The tracepoints read the shared page themselves: nothing is done with what they read. */
void kvm_sev_trace_enter(unsigned int vcpu_id, struct ghcb *ghcb)
{
	trace_kvm_vmgexit_enter(vcpu_id, ghcb);
}

void kvm_sev_trace_exit(unsigned int vcpu_id, struct ghcb *ghcb)
{
	trace_kvm_vmgexit_exit(vcpu_id, ghcb);
}

void kvm_sev_trace_msr_enter(unsigned int vcpu_id, u64 value)
{
	trace_kvm_vmgexit_msr_protocol_enter(vcpu_id, value);
}

void kvm_sev_trace_msr_exit(unsigned int vcpu_id, u64 value, int result)
{
	trace_kvm_vmgexit_msr_protocol_exit(vcpu_id, value, result);
}

void kvm_sev_trace_rmp_fault(struct kvm_vcpu *vcpu, u64 gpa, u64 pfn, u64 error_code,
			     int level, int result)
{
	trace_kvm_rmp_fault(vcpu, gpa, pfn, error_code, level, result);
}

bool kvm_sev_guest_has_tsc_aux(struct kvm_vcpu *vcpu)
{
	return guest_cpu_cap_has(vcpu, X86_FEATURE_RDTSCP) ||
	       guest_cpu_cap_has(vcpu, X86_FEATURE_RDPID);
}

bool kvm_sev_guest_has_xsaves(struct kvm_vcpu *vcpu)
{
	return guest_cpu_cap_has(vcpu, X86_FEATURE_XSAVES) &&
	       guest_cpuid_has(vcpu, X86_FEATURE_XSAVES);
}

void kvm_sev_exit_sev_term(struct kvm_vcpu *vcpu, u64 ghcb_msr)
{
	struct kvm_run *run = vcpu->run;

	run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
	run->system_event.type = KVM_SYSTEM_EVENT_SEV_TERM;
	run->system_event.ndata = 1;
	run->system_event.data[0] = ghcb_msr;
}

void kvm_sev_request_event(struct kvm_vcpu *vcpu)
{
	kvm_make_request(KVM_REQ_EVENT, vcpu);
}

void *kvm_sev_alloc_vmsa(void)
{
	struct page *page = kvm_sev_alloc_save_area(numa_node_id(), GFP_KERNEL_ACCOUNT);

	return page ? page_address(page) : NULL;
}

u64 kvm_sev_pa(const void *p)
{
	return __pa(p);
}

bool kvm_sev_flush_encrypted_page(void *va, unsigned int asid)
{
	if (boot_cpu_has(X86_FEATURE_SME_COHERENT)) {
		clflush_cache_range(va, PAGE_SIZE);
		return true;
	}

	return !wrmsrq_safe(MSR_AMD64_VM_PAGE_FLUSH, (unsigned long)va | asid);
}

void kvm_sev_protect_fpu(struct kvm_vcpu *vcpu)
{
	fpstate_set_confidential(&vcpu->arch.guest_fpu);
}

struct fxregs_state *kvm_sev_fx_state(struct kvm_vcpu *vcpu)
{
	return &vcpu->arch.guest_fpu.fpstate->regs.xsave.i387;
}

void *kvm_sev_ymm_state(struct kvm_vcpu *vcpu)
{
	return get_xsave_addr(&vcpu->arch.guest_fpu.fpstate->regs.xsave, XFEATURE_YMM);
}
