// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The registers of SEV-ES guests are their own, and only they decide what the
 * hypervisor gets to know.
 *
 * es [debug-swap]    two vCPUs, at the same time on two CPUs; es_guest.S is what they run
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>
#include <x86intrin.h>

#include "es.h"
#include "guest.h"

#define VCPUS		2
#define DEBUG_SWAP	(1 << 5)
#define IO_PORT		0x200
#define TRACING		"/sys/kernel/tracing/"

extern const char es_guest[], es_guest_end[];

/* What the guest is to find; vcpu: plus the number of the vCPU; swap: with DebugSwap */
#define VCPU		1
static const struct {
	const char *what;
	uint32_t want, want_swap;
	int flags;
} findings[FINDINGS] = {
	[SEV_STATUS]	= { "SEV_STATUS: SEV and SEV-ES", 3, 3, 0 },
	[CR0]		= { "CR0 after a write of AM", 0x80040033, 0x80040033, 0 },
	[CR4]		= { "CR4 after a write", 0x40620, 0x40620, 0 },
	[CR8]		= { "CR8 after a write", 5, 5, VCPU },
	[EFER]		= { "EFER after a write of SCE, with SVME", 0x1501, 0x1501, 0 },
	[STATE_CHANGED]	= { "bytes of XSAVE that the host has changed", 0, 0, 0 },
	[XCR0]		= { "XCR0", 7, 7, 0 },
	[FSW]		= { "x87 status: three registers, #Z", 0x2804, 0x2804, 0 },
	[AFTER_HLT]	= { "goes on after HLT", 1, 1, 0 },
	[VC_CPUID]	= { "#VC of CPUID", 0x72, 0x72, 0 },
	[VC_RDMSR]	= { "#VC of RDMSR", 0x7c, 0x7c, 0 },
	[VC_WRMSR]	= { "#VC of WRMSR", 0x7c, 0x7c, 0 },
	[VC_IN]		= { "#VC of IN", 0x7b, 0x7b, 0 },
	[VC_OUT]	= { "#VC of OUT", 0x7b, 0x7b, 0 },
	[VC_VMMCALL]	= { "#VC of VMMCALL", 0x81, 0x81, 0 },
	[VC_WBINVD]	= { "#VC of WBINVD", 0x89, 0x89, 0 },
	[VC_INVD]	= { "#VC of INVD", 0x76, 0x76, 0 },
	[VC_RDPMC]	= { "#VC of RDPMC", 0x6f, 0x6f, 0 },
	[VC_MMIO]	= { "#VC of MMIO", 0x400, 0x400, 0 },
	[VC_READ_DR7]	= { "#VC of a read of DR7", 0x27, 0, 0 },
	[VC_WRITE_DR7]	= { "#VC of a write of DR7", 0x37, 0, 0 },
	[VC_FRESH_STACK] = { "#VC that pushes to a page that KVM has to map", 0x72, 0x72, 0 },
	[DB]		= { "a single step: #VC, or #DB (1000)", 0x41, 0x1000, 0 },
	[DB_RIP]	= { "bytes from its end to where it reports", 0, 0, 0 },
	[DR_DB]		= { "#DB of a breakpoint (1000)", 0, 0x1000, 0 },
	[DR_RIP]	= { "bytes from the first place to where it is", 0, 0, VCPU },
	[DR0]		= { "the same, in DR0", 0, 0, VCPU },
	[DR7]		= { "DR7", 0, 0x402, 0 },
	[VC_TSC_AUX]	= { "#VC of a write of TSC_AUX", 0, 0, 0 },
	[TSC_AUX]	= { "TSC_AUX in RDTSCP", 0x5a5a, 0x5a5a, VCPU },
	[VC_LBR]	= { "#VC of a write of an LBR MSR", 0, 0, 0 },
	[LBR]		= { "the LBR MSR", 0x123456, 0x123456, VCPU },
};

struct vcpu_run {
	struct guest *guest;
	unsigned int number;
	pthread_barrier_t *barrier;
	uint32_t found[FINDINGS];
	uint8_t told[FINDINGS];
	unsigned int halts;
	uint64_t cr8;
	uint32_t end;		/* exit reason */
	unsigned int aux_wrong;	/* times that the host's TSC_AUX was not the host's */
};

/* Leaves other values in the registers that the guest's state is compared in. */
static void use_registers(void)
{
	asm volatile("fninit; fldlg2; fldln2; vpcmpeqd %%ymm15, %%ymm15, %%ymm15;"
		     "vpxor %%ymm4, %%ymm4, %%ymm4; vmovdqa %%ymm15, %%ymm7; fninit"
		     ::: "xmm4", "xmm7", "xmm15", "st", "st(1)");
}

static void *run_vcpu(void *arg)
{
	struct vcpu_run *vcpu = arg;
	struct kvm_run *run = vcpu->guest->vcpu[vcpu->number].run;

	pin_to_cpu(vcpu->number);
	pthread_barrier_wait(vcpu->barrier);
	for (;;) {
		uint32_t reason = guest_run(vcpu->guest, vcpu->number);
		unsigned int number, aux;

		__rdtscp(&aux);
		vcpu->aux_wrong += (aux & 0xfff) != (unsigned int)sched_getcpu();
		use_registers();
		if (reason == KVM_EXIT_HLT) {
			vcpu->halts++;
			continue;
		}
		number = run->io.port - IO_PORT;
		if (reason != KVM_EXIT_IO || run->io.size != 4 || number >= FINDINGS) {
			vcpu->end = reason;
			return NULL;
		}
		if (number == WROTE_CR8)
			vcpu->cr8 = run->cr8;
		memcpy(&vcpu->found[number], (uint8_t *)run + run->io.data_offset, 4);
		vcpu->told[number] = 1;
	}
}

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	if (!file || fputs(text, file) == EOF || fclose(file))
		fail("%s", path);
}

static void trace_start(void)
{
	mount("tracefs", TRACING, "tracefs", 0, NULL);
	write_file(TRACING "trace", "");
	write_file(TRACING "events/kvm/kvm_exit/enable", "1");
}

/* The exits after a write, each of which must be there for both vCPUs */
static void check_trace(void)
{
	static const struct {
		const char *name;
		uint64_t value;
		int per_vcpu;
	} traps[] = {
		{ "write_cr0_trap", 0x80040033, 0 },
		{ "write_cr4_trap", 0x40620, 0 },
		{ "write_cr8_trap", 5, 1 },
		{ "write_efer_trap", 0x1501, 0 },
	};
	unsigned int seen[4] = { }, i;
	char line[512];
	FILE *file;

	write_file(TRACING "events/kvm/kvm_exit/enable", "0");
	file = fopen(TRACING "trace", "r");
	if (!file)
		fail(TRACING "trace");
	while (fgets(line, sizeof(line), file)) {
		const char *info = strstr(line, "info1 "), *vcpu = strstr(line, "vcpu ");

		for (i = 0; info && vcpu && i < 4; i++) {
			unsigned int number = atoi(vcpu + 5);
			uint64_t want = traps[i].value + (traps[i].per_vcpu ? number : 0);

			if (strstr(line, traps[i].name) && strtoull(info + 6, NULL, 16) == want)
				seen[i] |= 1 << number;
		}
	}
	fclose(file);
	for (i = 0; i < 4; i++)
		report(seen[i] == 3, "%s with the new value %#lx in EXITINFO1", traps[i].name,
		       traps[i].value);
}

static void run_both(uint64_t features)
{
	struct guest *guest = guest_start_es(es_guest, es_guest_end - es_guest, VCPUS, features);
	struct vcpu_run vcpus[VCPUS] = { };
	pthread_barrier_t barrier;
	pthread_t threads[VCPUS];
	unsigned int i, j;

	pthread_barrier_init(&barrier, NULL, VCPUS);
	trace_start();
	for (i = 0; i < VCPUS; i++) {
		vcpus[i].guest = guest;
		vcpus[i].number = i;
		vcpus[i].barrier = &barrier;
		if (pthread_create(&threads[i], NULL, run_vcpu, &vcpus[i]))
			fail("pthread_create");
	}
	for (i = 0; i < VCPUS; i++)
		pthread_join(threads[i], NULL);
	check_trace();

	for (i = 0; i < VCPUS; i++) {
		struct vcpu_run *vcpu = &vcpus[i];
		uint32_t mxcsr = i ? 0x3fa4 : 0x3f84;

		for (j = 0; j < FINDINGS; j++) {
			uint32_t want = (features ? findings[j].want_swap : findings[j].want) +
					(findings[j].flags & VCPU ? i : 0);
			int swap_only = j >= DR_DB && j <= DR7;

			if (findings[j].what && (features || !swap_only))
				report(vcpu->told[j] && vcpu->found[j] == want,
				       "vCPU %u: %s: %#x", i, findings[j].what, vcpu->found[j]);
		}
		report(vcpu->found[MXCSR] == mxcsr, "vCPU %u: MXCSR, with a flag of its own: %#x", i,
		       vcpu->found[MXCSR]);
		report(vcpu->halts == 1, "vCPU %u: %u exits at HLT", i, vcpu->halts);
		report(vcpu->cr8 == 5 + i, "vCPU %u: KVM knows CR8: %#lx", i, vcpu->cr8);
		report(!vcpu->aux_wrong, "vCPU %u: the host's TSC_AUX was wrong %u times", i,
		       vcpu->aux_wrong);
		report(vcpu->end == KVM_EXIT_SYSTEM_EVENT, "vCPU %u: asked for termination (exit reason %u)",
		       i, vcpu->end);
	}
	guest_end(guest);
}

int main(int argc, char **argv)
{
	run_both(argc > 1 && !strcmp(argv[1], "debug-swap") ? DEBUG_SWAP : 0);
	return failures() != 0;
}
