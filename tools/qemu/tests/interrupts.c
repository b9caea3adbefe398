// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Interrupts that meet VMRUN. Without Linux, so that nothing raises an interrupt again.
 *
 * - One CPU enters a guest with a virtual interrupt again and again, while the other one sends it
 *   an interrupt, and the next when that has arrived. The guest never gets to its first instruction.
 * - One CPU injects an interrupt, again and again, while the other one stops it for instructions
 *   that the emulator executes alone. The guest gets the interrupt once.
 */
#include "snp/machine.h"

#define INTERRUPTS	30000u
#define PATIENCE	1000u		/* #VMEXITs until an interrupt is lost */
#define INJECTIONS	20000u
#define VECTOR		32

#define EXIT_INTR	0x60
#define EXIT_VINTR	0x64
#define EXIT_VMMCALL	0x81

static uint8_t vmcb[4096] __attribute__((aligned(4096)));
static uint8_t hsave[4096] __attribute__((aligned(4096)));
static uint8_t permissions[5 * 4096] __attribute__((aligned(4096)));	/* of I/O ports and MSRs */
#define VMCB(offset, type)	(*(volatile type *)(vmcb + (offset)))

static volatile uint32_t *const apic = (uint32_t *)0xfee00000ul;

static volatile uint32_t received, exits, other_exits;
static volatile uint64_t other_exit;
static volatile bool inject;
static volatile uint32_t injections, twice;

static struct gate {
	uint16_t offset, selector, type, offset_middle;
	uint32_t offset_high, reserved;
} idt[VECTOR + 1], guest_idt[VECTOR + 1];

/* void interrupt(void): counts, and is the end of the interrupt */
extern const char interrupt[], guest[];
asm(".pushsection .text\n"
    "interrupt:\n"
    "	push %rax\n"
    "	incl received(%rip)\n"
    "	mov $0xfee000b0, %eax\n"
    "	movl $0, (%rax)\n"
    "	pop %rax\n"
    "	iretq\n"
    "guest:	vmmcall\n"
    ".popsection\n");

static void segment(int offset, uint16_t selector, uint16_t attributes)
{
	VMCB(0x400 + offset, uint16_t) = selector;
	VMCB(0x400 + offset + 2, uint16_t) = attributes;
	VMCB(0x400 + offset + 4, uint32_t) = ~0u;
}

/* A guest with the memory of the host, which has interrupts enabled */
static void make_guest(void)
{
	uint64_t cr3;
	int i;

	asm volatile("mov %%cr3, %0" : "=r"(cr3));
	VMCB(0x0c, uint32_t) = 1 << 0 | 1 << 4;		/* intercept INTR, VINTR */
	VMCB(0x10, uint32_t) = 1 << 0 | 1 << 1;		/* VMRUN, VMMCALL */
	VMCB(0x40, uint64_t) = (uint64_t)permissions;
	VMCB(0x48, uint64_t) = (uint64_t)permissions;
	VMCB(0x58, uint32_t) = 1;			/* ASID */
	VMCB(0x60, uint32_t) = 1 << 24 | 1 << 20 | 1 << 8;	/* V_INTR_MASKING, V_IGN_TPR, V_IRQ */
	VMCB(0x64, uint32_t) = VECTOR;
	for (i = 0; i < 0x40; i += 16)
		segment(i, i == 0x10 ? 8 : 16, i == 0x10 ? 0xa9b : 0xc93);
	VMCB(0x4d0, uint64_t) = 0x1d00;			/* EFER: SVME, NXE, LMA, LME */
	VMCB(0x548, uint64_t) = 0x620;			/* CR4 */
	VMCB(0x550, uint64_t) = cr3;
	VMCB(0x558, uint64_t) = 0x80010033;		/* CR0 */
	VMCB(0x560, uint64_t) = 0x400;			/* DR7, DR6 */
	VMCB(0x568, uint64_t) = 0xffff0ff0;
	VMCB(0x570, uint64_t) = 0x202;			/* RFLAGS: IF */
	VMCB(0x578, uint64_t) = (uint64_t)guest;
}

static void set_gate(struct gate *gate, const char *handler)
{
	const uint64_t at = (uint64_t)handler;

	*gate = (struct gate){ at, 8, 0x8e00, at >> 16, at >> 32, 0 };
}

static void enter_guest(void)
{
	asm volatile("vmrun %%rax; stgi" : : "a"(vmcb) : "memory");
}

static void virtual_interrupts(void)
{
	volatile uint32_t delay;

	while (!inject) {
		enter_guest();
		if (VMCB(0x70, uint64_t) != EXIT_INTR && VMCB(0x70, uint64_t) != EXIT_VINTR) {
			other_exit = VMCB(0x70, uint64_t);
			other_exits++;
		}
		exits++;
		/* Leaves the emulator's lock to the other CPU for a while. */
		for (delay = 300; delay; delay--)
			;
	}
}

/* The guest's handler of the interrupt exits. */
static void injected_interrupts(void)
{
	static uint64_t stack[64] __attribute__((aligned(16)));
	const uint64_t top = (uint64_t)(stack + 64);

	set_gate(&guest_idt[VECTOR], guest);
	VMCB(0x480 + 4, uint32_t) = sizeof(guest_idt) - 1;
	VMCB(0x480 + 8, uint64_t) = (uint64_t)guest_idt;
	asm volatile("sgdt %0" : "=m"(*(char (*)[10])(stack)));
	VMCB(0x460 + 4, uint32_t) = *(uint16_t *)stack;
	VMCB(0x460 + 8, uint64_t) = *(uint64_t *)((uint8_t *)stack + 2);
	VMCB(0x60, uint32_t) = 1 << 24;			/* no V_IRQ */
	while (injections < INJECTIONS) {
		VMCB(0x570, uint64_t) = 2;		/* RFLAGS */
		VMCB(0x578, uint64_t) = 0;		/* RIP: never gets there */
		VMCB(0x5d8, uint64_t) = top;		/* RSP */
		VMCB(0xa8, uint64_t) = 1u << 31 | VECTOR;
		enter_guest();
		if (VMCB(0x70, uint64_t) != EXIT_VMMCALL) {
			other_exit = VMCB(0x70, uint64_t);
			other_exits++;
		}
		/* SS, RSP, RFLAGS, CS, RIP */
		if (VMCB(0x5d8, uint64_t) != top - 5 * 8)
			twice++;
		injections++;
	}
}

void other_cpu(void)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) idtr = { sizeof(idt) - 1, (uint64_t)idt };

	set_gate(&idt[VECTOR], interrupt);
	asm volatile("lidt %0" : : "m"(idtr));
	apic[0xf0 / 4] = 0x1ff;		/* enabled */
	make_guest();
	wrmsr(0xc0010117, (uint64_t)hsave);
	asm volatile("sti");
	virtual_interrupts();
	injected_interrupts();
}

/* Another time for each number */
static void wait(uint32_t number)
{
	volatile uint32_t delay;

	for (delay = number * 2654435761u >> 20; delay; delay--)
		;
}

int main(void)
{
	static uint32_t words[2];
	uint32_t *const word = (uint32_t *)((uint8_t *)words + 1);
	uint32_t sent, before;

	machine_init();
	start_other_cpu();
	while (!exits)
		;
	apic[0x310 / 4] = 1 << 24;
	for (sent = 1; sent <= INTERRUPTS; sent++) {
		wait(sent);
		apic[0x300 / 4] = 0x4000 | VECTOR;
		before = exits;
		while (received != sent && exits - before < PATIENCE)
			;
		if (received != sent)
			break;
	}
	expect("interrupts that arrived", received, INTERRUPTS);
	inject = true;
	while (injections < INJECTIONS)
		asm volatile("lock incl %0" : "+m"(*word));	/* not aligned */
	expect("interrupts that were injected twice", twice, 0);
	expect("exits without an interrupt", other_exits, 0);
	expect("the last of them", other_exit, 0);
	return finish();
}
