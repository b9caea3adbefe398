/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The smallest SEV or SEV-ES guest: 64-bit mode, one identity-mapped page table for
 * 2 MiB with the C-bit on every page but those that are shared, and code that is
 * linked into the test.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stddef.h>
#include <stdint.h>
#include <linux/kvm.h>

#define PAGE		4096ul
#define C_BIT		(1ul << 51)
#define GUEST_SIZE	(2ul << 20)

/* Guest physical addresses */
#define GPA_TABLES	0x1000ul	/* to 0x4fff */
#define GPA_CODE	0x10000ul	/* to 0x1ffff; encrypted at launch, as what precedes it */
#define GPA_LAUNCHED	0x20000ul	/* end of what is encrypted at launch */
#define GPA_SHARED	0x20000ul	/* pages without the C-bit, one for each vCPU */
#define GPA_DATA	0x30000ul
#define GPA_STACK	0x50000ul	/* grows down; one page for each vCPU */
#define GPA_MMIO	0x80000000ul	/* mapped, without the C-bit; not memory */

#define MAX_VCPUS	2

struct vcpu {
	int fd;
	struct kvm_run *run;
};

struct guest {
	int vm;
	int memfd;
	uint8_t *memory;
	size_t run_size;
	struct vcpu vcpu[MAX_VCPUS];
};

/* Prints a message with errno and ends the test. */
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/*
 * Makes and launches a guest whose vCPUs start at the code, with their number in
 * RDI. Ends the test if anything fails.
 */
struct guest *guest_start(const void *code, size_t code_size, unsigned int vcpus);

/* An SEV-ES guest, with SEV_FEATURES, also in RSI. */
struct guest *guest_start_es(const void *code, size_t code_size, unsigned int vcpus,
			     uint64_t features);
void guest_end(struct guest *guest);

/* Runs a vCPU until it has to leave the kernel; the exit reason. */
uint32_t guest_run(struct guest *guest, unsigned int vcpu);

uint64_t *guest_pointer(struct guest *guest, uint64_t gpa);

/* System physical address of a page of the guest, as root sees it in /proc. */
uint64_t guest_spa(struct guest *guest, uint64_t gpa);

void pin_to_cpu(unsigned int cpu);

/* "not " is for the caller's status. */
void report(int ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
int failures(void);

#endif
