/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine under the tests: serial line, MSRs, exceptions, firmware, and the SNP guest. */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#define PAGE		0x1000ul
#define LARGE		0x200000ul
#define C_BIT		(1ul << 51)
#define ASID		1ul

/* Entry of the RMP as it is in memory, and second half of RMPUPDATE's operand */
#define ASSIGNED	(1ul << 0)
#define PAGE_2M		(1ul << 1)
#define IMMUTABLE	(1ul << 2)
#define OF_ASID(n)	((uint64_t)(n) << 51)
#define VMSA		(1ul << 61)
#define VALIDATED	(1ul << 62)
#define STATE_2M	(1ul << 8)
#define STATE_IMMUTABLE	(1ul << 16)
#define STATE_ASID(n)	((uint64_t)(n) << 32)

/* Results of the RMP instructions */
enum { SUCCESS, FAIL_INPUT, FAIL_PERMISSION, FAIL_INUSE, FAIL_OVERLAP, SIZEMISMATCH = 6 };

/* Vectors; INTERRUPT is one that the guest has a handler for */
enum { UD = 6, GP = 13, PF = 14, INTERRUPT = 28, VC = 29 };

/* Exit codes and bits of EXITINFO1 */
#define EXIT_SHUTDOWN	0x7f
#define EXIT_NPF	0x400
#define EXIT_VMGEXIT	0x403
#define EXIT_INVALID	(~0ul)
#define NPF_RMP		(1ul << 31)
#define NPF_FINAL	(1ul << 32)
#define NPF_TABLE	(1ul << 33)
#define NPF_ENC		(1ul << 34)
#define NPF_SIZEM	(1ul << 35)
#define NPF_VMPL	(1ul << 36)

void print(const char *text);
void print_hex(uint64_t value);

/* One check: its name, what is, and what should be */
void expect(const char *what, uint64_t is, uint64_t should);
/* The status to exit with: 2 if all is well, as QEMU has 1 of its own */
int finish(void);
int unexpected(uint64_t at);

/* CPUID: EAX */
#define RMPQUERY	(1u << 6)	/* of Fn8000_001F */
#define SECURE_TSC	(1u << 8)
#define RMPREAD		(1u << 21)
uint32_t cpuid(uint32_t leaf);
uint64_t rdtsc(void);
uint64_t rdmsr(uint32_t msr);
void wrmsr(uint32_t msr, uint64_t value);

/* Whatever happens in the statement: the vector of the exception, 0 if there was none */
extern volatile uint64_t exception, exception_code, exception_address, resume, resume_stack;
#define TRY(statement) ({ \
	exception = 0; \
	asm volatile("lea 1f(%%rip), %%rax; mov %%rax, resume(%%rip);" \
		     "mov %%rsp, resume_stack(%%rip)" : : : "rax", "memory"); \
	statement; \
	asm volatile("1:" : : : "memory", "rax", "rcx", "rdx", "rbx", "rsi", "rdi", "r8", "r9", \
		     "r10", "r11", "r12", "r13", "r14", "r15", "cc"); \
	resume = 0; \
	exception; })

void machine_init(void);
extern uint64_t pd[4 * 512];	/* of the host: pages of 2 MiB */
void map_4k(uint64_t address);	/* the 2 MiB around it in pages of 4 KiB */
void flush_tlb(void);

/* Lets the second CPU call other_cpu(). */
void start_other_cpu(void);
void other_cpu(void);

/* The firmware of firmware.c */
void firmware_init(void);
void rmp_set(uint64_t spa, uint64_t entry, uint64_t permissions);
uint64_t rmp_get(uint64_t spa);
void copy_to_guest(uint64_t spa, const void *page);

/* Instructions of the host */
uint32_t rmpupdate(uint64_t spa, uint64_t gpa, uint64_t state);
uint32_t psmash(uint64_t spa);
uint32_t rmpread(uint64_t spa, uint64_t entry[2]);

/* The guest: physical memory from 0, of which the second 2 MiB are for tests */
#define GUEST_SPA	0x6000000ul
#define GUEST_DATA	LARGE
#define GUEST_STACK	0x6000ul
#define GUEST_VMSA	0x8000ul
enum op { PVALIDATE, RMPADJUST, READ, WRITE, EXECUTE, RDMSR, RDTSC, SPIN, QUERY, SET_CR8 };
struct request {
	uint64_t op, rax, rcx, rdx, flags, vector, code;
};
extern volatile struct request *request;
void guest_init(void);
void guest_map(uint64_t gpa, uint64_t spa, bool large);	/* nested; 2 MiB if large, else 512 pages */
void guest_host(int cpu);			/* another CPU is to enter it: 0 or 1 */
uint64_t guest_enter(void);			/* the exit code */
uint64_t guest_do(enum op op, uint64_t rax, uint64_t rcx, uint64_t rdx);
/* The same without paging; always from the start, and the guest is not to go on after it */
uint64_t guest_do_unpaged(enum op op, uint64_t address);
uint64_t exit_info(int n);
void guest_skip(void);	/* what exited is not to be tried again */
void guest_vmpl(int vmpl);
void guest_features(uint64_t features);
void guest_tsc(uint64_t scale, uint64_t offset);

/* Virtual interrupts of the guest on this CPU: V_TPR and so on, and the vector above 32 */
#define V_IRQ		(1ul << 8)
#define V_PRIORITY(n)	((n) << 16)
#define V_MASKING	(1ul << 24)
#define V_VECTOR(n)	((uint64_t)(n) << 32)
void guest_set_interrupt(uint64_t control);
uint64_t guest_get_interrupt(void);

#endif
