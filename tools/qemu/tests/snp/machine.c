/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine.h"

static unsigned int passed, failed;

static void outb(uint16_t port, uint8_t value)
{
	asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void outl(uint16_t port, uint32_t value)
{
	asm volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static uint32_t inl(uint16_t port)
{
	uint32_t value;

	asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

void print(const char *text)
{
	while (*text)
		outb(0x3f8, *text++);
}

void print_hex(uint64_t value)
{
	int shift = 60;

	while (shift && !(value >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		outb(0x3f8, "0123456789abcdef"[value >> shift & 15]);
}

static void print_number(unsigned int n)
{
	if (n > 9)
		print_number(n / 10);
	outb(0x3f8, '0' + n % 10);
}

void expect(const char *what, uint64_t is, uint64_t should)
{
	if (is == should) {
		passed++;
		return;
	}
	failed++;
	print("not ok ");
	print(what);
	print(": 0x");
	print_hex(is);
	print(" instead of 0x");
	print_hex(should);
	print("\n");
}

int finish(void)
{
	print_number(passed);
	print(" passed, ");
	print_number(failed);
	print(" failed\n");
	return failed || !passed ? 1 : 2;
}

uint32_t cpuid(uint32_t leaf)
{
	uint32_t eax = leaf, ebx, ecx = 0, edx;

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	return eax;
}

uint64_t rdtsc(void)
{
	uint32_t low, high;

	asm volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

void wrmsr(uint32_t msr, uint64_t value)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

/* Exceptions */

extern char handler_6[], handler_13[], handler_14[];

static struct gate {
	uint16_t offset, selector, type, offset_middle;
	uint32_t offset_high, reserved;
} idt[32];

/* An exception outside of TRY(); the status to exit with */
int unexpected(uint64_t at)
{
	print("exception ");
	print_hex(exception);
	print(" (error code ");
	print_hex(exception_code);
	print(", address ");
	print_hex(exception_address);
	print(") at ");
	print_hex(at);
	print("\n");
	failed++;
	return finish();
}

static void set_gate(int vector, const char *handler)
{
	uint64_t at = (uint64_t)handler;

	idt[vector] = (struct gate){ at, 8, 0x8e00, at >> 16, at >> 32, 0 };
}

void machine_init(void)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) idtr = { sizeof(idt) - 1, (uint64_t)idt };

	set_gate(UD, handler_6);
	set_gate(GP, handler_13);
	set_gate(PF, handler_14);
	asm volatile("lidt %0" : : "m"(idtr));
}

void start_other_cpu(void)
{
	extern const uint8_t start_cpu[], start_cpu_end[];
	volatile uint32_t *apic = (uint32_t *)0xfee00000ul;
	uint8_t *at = (uint8_t *)0x8000;
	long i;

	for (i = 0; i < start_cpu_end - start_cpu; i++)
		at[i] = start_cpu[i];
	apic[0x310 / 4] = 1 << 24;
	apic[0x300 / 4] = 0x4500;	/* INIT */
	apic[0x300 / 4] = 0x4608;	/* start at page 8 */
}

void flush_tlb(void)
{
	asm volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" : : : "rax", "memory");
}

void map_4k(uint64_t address)
{
	static uint64_t tables[4][512] __attribute__((aligned(4096)));
	static int used;
	uint64_t *table = tables[used++];
	int i;

	for (i = 0; i < 512; i++)
		table[i] = (address & -LARGE) + i * PAGE + 3;
	pd[address / LARGE] = (uint64_t)table + 3;
	flush_tlb();
}

/* Firmware */

static volatile struct {
	uint64_t spa, entry[2], asid, from;
} buffer __attribute__((aligned(64)));

static volatile uint32_t *psp;

static uint32_t pci_read(int device, int reg)
{
	outl(0xcf8, 0x80000000 | device << 8 | reg);
	return inl(0xcfc);
}

static void command(int cmd)
{
	uint64_t at = (uint64_t)&buffer;

	psp[0x109e0 / 4] = at;
	psp[0x109e4 / 4] = at >> 32;
	psp[0x10980 / 4] = cmd << 16;
	while (!(psp[0x10980 / 4] & 1u << 31))
		asm volatile("pause");
	if (psp[0x10980 / 4] & 0xffff)
		expect("command of the firmware", cmd, 0);
}

void firmware_init(void)
{
	int device;

	for (device = 0; device < 256; device++) {
		if (pci_read(device, 0) != 0x14ca1022)
			continue;
		psp = (uint32_t *)(uint64_t)(pci_read(device, 0x18) & ~15u);
		outl(0xcf8, 0x80000000 | device << 8 | 4);
		outl(0xcfc, 6);
		command(1);
		return;
	}
	expect("a secure processor", 0, 1);
}

void rmp_set(uint64_t spa, uint64_t entry, uint64_t permissions)
{
	buffer.spa = spa;
	buffer.entry[0] = entry;
	buffer.entry[1] = permissions;
	command(3);
}

uint64_t rmp_get(uint64_t spa)
{
	buffer.spa = spa;
	command(2);
	return buffer.entry[0];
}

void copy_to_guest(uint64_t spa, const void *page)
{
	buffer.spa = spa;
	buffer.asid = ASID;
	buffer.from = (uint64_t)page;
	command(4);
}

/* Instructions */

uint32_t rmpupdate(uint64_t spa, uint64_t gpa, uint64_t state)
{
	uint64_t operand[2] = { gpa, state };
	uint32_t result;

	asm volatile(".byte 0xf2, 0x0f, 0x01, 0xfe"
		     : "=a"(result) : "a"(spa), "c"(operand) : "memory", "cc");
	return result;
}

uint32_t psmash(uint64_t spa)
{
	uint32_t result;

	asm volatile(".byte 0xf3, 0x0f, 0x01, 0xff" : "=a"(result) : "a"(spa) : "memory", "cc");
	return result;
}

uint32_t rmpread(uint64_t spa, uint64_t entry[2])
{
	uint32_t result;

	asm volatile(".byte 0xf2, 0x0f, 0x01, 0xfd"
		     : "=a"(result) : "a"(spa), "c"(entry) : "memory", "cc");
	return result;
}

/* Guest. Its pages: 1 code, 2-5 tables, 6 stack, 7 shared, 8 VMSA, 9 code without paging */

#define PAGE_AT(name)	static uint8_t name[4096] __attribute__((aligned(4096)))
static uint8_t vmcbs[2][4096] __attribute__((aligned(4096)));
static uint8_t hsaves[2][4096] __attribute__((aligned(4096)));
PAGE_AT(vmsa);
PAGE_AT(msrpm_iopm);
static uint64_t npt[8][512] __attribute__((aligned(4096)));
static int tables;
extern const uint8_t guest_code[], guest_unpaged_code[];
void vmrun(uint64_t vmcb);

volatile struct request *request = (void *)(GUEST_SPA + 0x7000);

#define AT(page, offset, type)	(*(volatile type *)((page) + (offset)))

void guest_map(uint64_t gpa, uint64_t spa, bool large)
{
	uint64_t *entry = &npt[2][gpa / LARGE];
	uint64_t *table;
	int i;

	if (large) {
		*entry = spa | 0x87;
		return;
	}
	table = *entry && !(*entry & 0x80) ? (uint64_t *)(*entry & ~0xffful) : npt[3 + tables++];
	for (i = 0; i < 512; i++)
		table[i] = (spa + i * PAGE) | 7;
	*entry = (uint64_t)table | 7;
}

static void segment(int offset, uint16_t selector, uint16_t attributes)
{
	AT(vmsa, offset, uint16_t) = selector;
	AT(vmsa, offset + 2, uint16_t) = attributes;
	AT(vmsa, offset + 4, uint32_t) = ~0u;
}

static void put(uint64_t gpa, const void *page)
{
	rmp_set(GUEST_SPA + gpa, ASSIGNED | VALIDATED | OF_ASID(ASID) | gpa, 0xf0f0f0f);
	copy_to_guest(GUEST_SPA + gpa, page);
}

static void put_vmsa(void)
{
	copy_to_guest(GUEST_SPA + GUEST_VMSA, vmsa);
}

static void make_vmsa(void)
{
	int i;

	for (i = 0; i < 0x60; i += 16)
		segment(i, i == 0x10 ? 8 : 16, i == 0x10 ? 0xa9b : 0xc93);
	segment(0x60, 0, 0);
	segment(0x70, 0, 0x82);
	segment(0x80, 0, 0);
	segment(0x90, 0, 0x8b);
	AT(vmsa, 0xd0, uint64_t) = 0x1d00;		/* EFER: SVME, NXE, LMA, LME */
	AT(vmsa, 0x148, uint64_t) = 0x20;		/* CR4: PAE */
	AT(vmsa, 0x150, uint64_t) = 0x2000 | C_BIT;	/* CR3 */
	AT(vmsa, 0x158, uint64_t) = 0x80010033;		/* CR0 */
	AT(vmsa, 0x160, uint64_t) = 0x400;		/* DR7, DR6 */
	AT(vmsa, 0x168, uint64_t) = 0xffff0ff0;
	AT(vmsa, 0x170, uint64_t) = 2;			/* RFLAGS */
	AT(vmsa, 0x178, uint64_t) = 0x1000;		/* RIP */
	AT(vmsa, 0x1d8, uint64_t) = 0x7000;		/* RSP */
	AT(vmsa, 0x318, uint64_t) = 0x7000;		/* RBX */
	AT(vmsa, 0x268, uint64_t) = 0x0007040600070406;	/* PAT */
	AT(vmsa, 0x3b0, uint64_t) = 1;			/* SEV_FEATURES: SNP */
	AT(vmsa, 0x3e8, uint64_t) = 1;			/* XCR0 */
	AT(vmsa, 0x408, uint32_t) = 0x1f80;		/* MXCSR */
}

void guest_init(void)
{
	static uint64_t page[512] __attribute__((aligned(4096)));
	int i;

	/* Code may be anything up to a page. */
	put(0x1000, guest_code);
	page[0] = 0x3003 | C_BIT;
	put(0x2000, page);
	page[0] = 0x4003 | C_BIT;
	put(0x3000, page);
	page[0] = 0x5003 | C_BIT;
	for (i = 1; i < 4; i++)		/* and 3 times 2 MiB; the last is not private */
		page[i] = (i * LARGE) | 0x83 | (i < 3 ? C_BIT : 0);
	put(0x4000, page);
	for (i = 0; i < 512; i++)
		page[i] = (i * PAGE) | 3 | (i == 7 ? 0 : C_BIT);
	put(0x5000, page);
	put(GUEST_STACK, page);
	put(0x9000, guest_unpaged_code);

	make_vmsa();
	rmp_set(GUEST_SPA + GUEST_VMSA,
		ASSIGNED | VALIDATED | VMSA | OF_ASID(ASID) | GUEST_VMSA, 0xf0f0f0f);
	put_vmsa();

	npt[0][0] = (uint64_t)npt[1] | 7;
	npt[1][0] = (uint64_t)npt[2] | 7;
	guest_map(0, GUEST_SPA, false);

	guest_host(0);
}

void guest_host(int cpu)
{
	uint8_t *vmcb = vmcbs[cpu];

	AT(vmcb, 0x10, uint32_t) = 1;			/* intercept VMRUN */
	AT(vmcb, 0x40, uint64_t) = (uint64_t)msrpm_iopm;
	AT(vmcb, 0x48, uint64_t) = (uint64_t)msrpm_iopm;
	AT(vmcb, 0x58, uint32_t) = ASID;
	AT(vmcb, 0x5c, uint8_t) = 1;			/* flush the TLB */
	AT(vmcb, 0x90, uint64_t) = 7;			/* nested paging, SEV, SEV-ES */
	AT(vmcb, 0xb0, uint64_t) = (uint64_t)npt[0];
	AT(vmcb, 0x108, uint64_t) = GUEST_SPA + GUEST_VMSA;
	wrmsr(0xc0010117, (uint64_t)hsaves[cpu]);
}

static int this_cpu(void)
{
	return rdmsr(0xc0010117) == (uint64_t)hsaves[1];
}

uint64_t guest_enter(void)
{
	int cpu = this_cpu();
	uint8_t *vmcb = vmcbs[cpu];

	asm volatile("vmsave %%rax" : : "a"(hsaves[cpu]) : "memory");
	vmrun((uint64_t)vmcb);
	return AT(vmcb, 0x70, uint64_t);
}

void guest_set_interrupt(uint64_t control)
{
	AT(vmcbs[this_cpu()], 0x60, uint64_t) = control;
}

uint64_t guest_get_interrupt(void)
{
	return AT(vmcbs[this_cpu()], 0x60, uint64_t);
}

uint64_t exit_info(int n)
{
	return AT(vmcbs[this_cpu()], n == 1 ? 0x78 : 0x80, uint64_t);
}

uint64_t guest_do(enum op op, uint64_t rax, uint64_t rcx, uint64_t rdx)
{
	request->op = op;
	request->rax = rax;
	request->rcx = rcx;
	request->rdx = rdx;
	request->vector = request->code = 0;
	return guest_enter();
}

uint64_t guest_do_unpaged(enum op op, uint64_t address)
{
	uint64_t exit;

	AT(vmsa, 0x12, uint16_t) = 0xc9b;		/* CS: 32 bits */
	AT(vmsa, 0xd0, uint64_t) = 0x1000;		/* EFER: SVME */
	AT(vmsa, 0x148, uint64_t) = 0;			/* CR4 */
	AT(vmsa, 0x150, uint64_t) = 0;			/* CR3 */
	AT(vmsa, 0x158, uint64_t) = 0x33;		/* CR0 */
	AT(vmsa, 0x178, uint64_t) = 0x9000;		/* RIP */
	AT(vmsa, 0x1f8, uint64_t) = op;			/* RAX */
	AT(vmsa, 0x318, uint64_t) = address;		/* RBX */
	put_vmsa();
	exit = guest_enter();
	make_vmsa();
	return exit;
}

/* Registers as at the start. */
void guest_skip(void)
{
	put_vmsa();
	expect("the guest starts again", guest_enter(), EXIT_VMGEXIT);
}

void guest_vmpl(int vmpl)
{
	AT(vmsa, 0xca, uint8_t) = vmpl;
	guest_skip();
}

void guest_features(uint64_t features)
{
	AT(vmsa, 0x3b0, uint64_t) = features;
	put_vmsa();
}

void guest_tsc(uint64_t scale, uint64_t offset)
{
	AT(vmsa, 0x2f0, uint64_t) = scale;
	AT(vmsa, 0x2f8, uint64_t) = offset;
}
