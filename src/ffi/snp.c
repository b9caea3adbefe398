// SPDX-License-Identifier: GPL-2.0
#include <linux/kvm_host.h>

#include "x86.h"
#include "cpuid.h"
#include "svm.h"
#include "helpers.h"

int kvm_sev_online_vcpus(struct kvm *kvm)
{
	return atomic_read(&kvm->online_vcpus);
}

void kvm_sev_request_update(struct kvm_vcpu *vcpu)
{
	kvm_make_request_and_kick(KVM_REQ_UPDATE_PROTECTED_GUEST_STATE, vcpu);
}

void kvm_sev_request_reload(struct kvm_vcpu *vcpu)
{
	kvm_make_request(KVM_REQ_VMSA_PAGE_RELOAD, vcpu);
}

void kvm_sev_request_reload_and_wait(struct kvm_vcpu *vcpu)
{
	kvm_make_request_and_kick(KVM_REQ_VMSA_PAGE_RELOAD, vcpu);
}

void kvm_sev_set_run_state(struct kvm_vcpu *vcpu, bool runnable)
{
	vcpu->arch.pv.pv_unhalted = false;
	kvm_set_mp_state(vcpu, runnable ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_HALTED);
}

bool kvm_sev_is_page_address(struct kvm_vcpu *vcpu, u64 gpa)
{
	return page_address_valid(vcpu, gpa);
}

unsigned long kvm_sev_invalidations(struct kvm *kvm)
{
	unsigned long seq = kvm->mmu_invalidate_seq;

	/* Pairs with the barrier in kvm_mmu_invalidate_end(). */
	smp_rmb();
	return seq;
}

void kvm_sev_mmu_read_lock(struct kvm *kvm)
{
	read_lock(&kvm->mmu_lock);
}

void kvm_sev_mmu_read_unlock(struct kvm *kvm)
{
	read_unlock(&kvm->mmu_lock);
}

bool kvm_sev_was_invalidated(struct kvm *kvm, unsigned long seq, u64 gfn)
{
	return mmu_invalidate_retry_gfn(kvm, seq, gfn);
}

bool kvm_sev_user_maps_pages(struct kvm *kvm)
{
	return user_exit_on_hypercall(kvm, KVM_HC_MAP_GPA_RANGE);
}

void kvm_sev_exit_map_pages(struct kvm_vcpu *vcpu, u64 gpa, u64 pages, bool private, bool large)
{
	struct kvm_run *run = vcpu->run;

	run->exit_reason = KVM_EXIT_HYPERCALL;
	run->hypercall.nr = KVM_HC_MAP_GPA_RANGE;
	/* QEMU before 9.2 leaves it as it is. */
	run->hypercall.ret = 0;
	run->hypercall.args[0] = gpa;
	run->hypercall.args[1] = pages;
	run->hypercall.args[2] =
		(private ? KVM_MAP_GPA_RANGE_ENCRYPTED : KVM_MAP_GPA_RANGE_DECRYPTED) |
		(large ? KVM_MAP_GPA_RANGE_PAGE_SZ_2M : KVM_MAP_GPA_RANGE_PAGE_SZ_4K);
}

bool kvm_sev_map_pages_result(struct kvm_vcpu *vcpu, u64 *result)
{
	*result = READ_ONCE(vcpu->run->hypercall.ret);
	return kvm_is_valid_map_gpa_range_ret(*result);
}

void kvm_sev_exit_req_certs(struct kvm_vcpu *vcpu, u64 gpa, u64 pages)
{
	struct kvm_run *run = vcpu->run;

	run->exit_reason = KVM_EXIT_SNP_REQ_CERTS;
	run->snp_req_certs.gpa = gpa;
	run->snp_req_certs.npages = pages;
	run->snp_req_certs.ret = 0;
}

u64 kvm_sev_req_certs_result(struct kvm_vcpu *vcpu, u64 *pages)
{
	*pages = READ_ONCE(vcpu->run->snp_req_certs.npages);
	return READ_ONCE(vcpu->run->snp_req_certs.ret);
}
