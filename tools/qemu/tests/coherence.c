// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest's encrypted memory stays what the guest wrote, and secret, while other
 * CPUs of the host read it.
 *
 * coherence one|two [above-4g]
 *   one       one vCPU; what it uses is read from another CPU
 *   two       two vCPUs on two CPUs share pages, which a third process reads
 *   above-4g  fail if the guest's memory is not above 4 GiB
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define ROUNDS_ONE	3000000u	/* reads that are checked, by each vCPU */
#define ROUNDS_TWO	1500000u

/* What the vCPUs share: encrypted at launch, when it is zero */
#define GPA_COUNTER	(GPA_LAUNCHED - PAGE)

/* In GPA_SHARED, 64 bytes for each vCPU */
struct outcome {
	uint64_t wrong;
	uint64_t wrong_straddling;
	uint64_t counter;
	uint64_t done;
};

#define DONE		0x600d600d600d600dul

/*
 * RDI is the number of the vCPU. In each round a value is written and read
 * back after a while; another one that lies in two pages, likewise every 64th time;
 * and a counter that the vCPUs share is incremented.
 */
extern const char guest_code[], guest_code_end[], guest_rounds[];
asm(".pushsection .rodata\n"
    ".globl guest_code, guest_code_end, guest_rounds\n"
    "guest_code:\n"
    "	mov guest_rounds(%rip), %ecx\n"
    "	mov $0x30100, %ebx\n"		/* own value: GPA_DATA + 0x100 + 8 * vCPU */
    "	lea (%rbx,%rdi,8), %rbx\n"
    "	imul $0x3000, %rdi, %rsi\n"	/* own two pages: GPA_DATA + 0x2000 - 4 + ... */
    "	add $0x31ffc, %rsi\n"
    "	xor %r8d, %r8d\n"
    "	xor %r9d, %r9d\n"
    "1:	mov %rcx, (%rbx)\n"
    "	mov $100, %eax\n"
    "2:	dec %eax\n"
    "	jnz 2b\n"
    "	cmp %rcx, (%rbx)\n"
    "	je 3f\n"
    "	inc %r8\n"
    "3:	test $63, %cl\n"
    "	jnz 4f\n"
    "	mov %rcx, %rdx\n"
    "	shl $32, %rdx\n"
    "	or %rcx, %rdx\n"
    "	mov %rdx, (%rsi)\n"
    "	cmp %rdx, (%rsi)\n"
    "	je 4f\n"
    "	inc %r9\n"
    "4:	lock incq 0x1f000\n"		/* GPA_COUNTER */
    "	dec %ecx\n"
    "	jnz 1b\n"
    "	shl $6, %rdi\n"			/* struct outcome */
    "	add $0x20000, %rdi\n"
    "	mov %r8, (%rdi)\n"
    "	mov %r9, 8(%rdi)\n"
    "	mov 0x1f000, %rax\n"
    "	mov %rax, 16(%rdi)\n"
    "	movabs $0x600d600d600d600d, %rax\n"
    "	mov %rax, 24(%rdi)\n"
    "	hlt\n"
    "	.balign 8\n"
    "guest_rounds: .quad 0\n"
    "guest_code_end:\n"
    ".popsection\n");

/* Between the processes */
struct shared {
	volatile int stop;
	volatile uint64_t reads;
	volatile uint64_t plaintext;
};

/* Read the guest's pages of data, code and page tables, from all CPUs in turn. */
static void read_pages(struct guest *guest, struct shared *shared, unsigned int first_cpu,
		       unsigned int cpus)
{
	static const uint64_t pages[] = {
		GPA_DATA, GPA_DATA + PAGE, GPA_COUNTER, GPA_DATA + 2 * PAGE,
		GPA_DATA, GPA_CODE, GPA_COUNTER, GPA_TABLES + 3 * PAGE,
	};
	const uint64_t offset = 0x100;
	uint64_t code, value;
	unsigned int i;

	memcpy(&code, guest_code, sizeof(code));
	for (i = 0; !shared->stop; i++) {
		uint64_t gpa = pages[i % 8];
		volatile uint64_t *page;

		if (i % 64 == 0)
			pin_to_cpu(first_cpu + i / 64 % cpus);
		/* A new mapping, so that the CPU does not have the page in its TLB. */
		page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, guest->memfd, gpa);
		if (page == MAP_FAILED)
			fail("mmap");
		value = page[gpa == GPA_DATA ? offset / 8 : 0];
		if (gpa == GPA_DATA && value && value <= ROUNDS_ONE)
			shared->plaintext++;
		if (gpa == GPA_CODE && value == code)
			shared->plaintext++;
		shared->reads++;
		munmap((void *)page, PAGE);
	}
	exit(0);
}

struct thread {
	pthread_t id;
	struct guest *guest;
	unsigned int number;
	uint32_t exit_reason;
};

static void *vcpu_thread(void *argument)
{
	struct thread *thread = argument;

	pin_to_cpu(thread->number);
	thread->exit_reason = guest_run(thread->guest, thread->number);
	return NULL;
}

static void run(struct shared *shared, unsigned int vcpus, int read, int above_4g)
{
	uint64_t rounds = vcpus == 1 ? ROUNDS_ONE : ROUNDS_TWO;
	size_t size = guest_code_end - guest_code;
	struct thread threads[MAX_VCPUS] = { };
	uint8_t code[PAGE];
	struct guest *guest;
	uint64_t counter = 0;
	pid_t reader = 0;
	unsigned int i;

	memcpy(code, guest_code, size);
	memcpy(code + (guest_rounds - guest_code), &rounds, sizeof(rounds));
	guest = guest_start(code, size, vcpus);
	if (above_4g)
		report(guest_spa(guest, GPA_DATA) >= 4ul << 30, "memory at %#lx",
		       guest_spa(guest, GPA_DATA));

	memset(shared, 0, sizeof(*shared));
	if (read) {
		reader = fork();
		if (!reader)
			read_pages(guest, shared, vcpus == 1, vcpus);
	}
	for (i = 0; i < vcpus; i++) {
		threads[i].guest = guest;
		threads[i].number = i;
		pthread_create(&threads[i].id, NULL, vcpu_thread, &threads[i]);
	}
	for (i = 0; i < vcpus; i++)
		pthread_join(threads[i].id, NULL);
	shared->stop = 1;
	if (reader)
		waitpid(reader, NULL, 0);

	for (i = 0; i < vcpus; i++) {
		struct outcome *outcome = (void *)(guest->memory + GPA_SHARED + i * 64);

		report(threads[i].exit_reason == KVM_EXIT_HLT && outcome->done == DONE,
		       "vCPU %u of %u ran to its end (exit reason %u)", i, vcpus,
		       threads[i].exit_reason);
		report(outcome->wrong == 0, "vCPU %u: %lu wrong of %lu reads", i, outcome->wrong,
		       rounds);
		report(outcome->wrong_straddling == 0, "vCPU %u: %lu wrong of %lu reads of two pages",
		       i, outcome->wrong_straddling, rounds / 64);
		if (outcome->counter > counter)
			counter = outcome->counter;
	}
	report(counter == vcpus * rounds, "the counter is %lu after %lu increments", counter,
	       vcpus * rounds);
	report(shared->plaintext == 0, "%lu of %lu reads by the host saw plaintext",
	       shared->plaintext, shared->reads);
	if (read)
		report(shared->reads >= 1000, "the host has read %lu times", shared->reads);
	guest_end(guest);
}

int main(int argc, char **argv)
{
	struct shared *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned int vcpus = argc > 1 && !strcmp(argv[1], "two") ? 2 : 1;
	int above_4g = argc > 2 && !strcmp(argv[2], "above-4g");

	run(shared, vcpus, 0, above_4g);
	run(shared, vcpus, 1, above_4g);
	return failures() != 0;
}
