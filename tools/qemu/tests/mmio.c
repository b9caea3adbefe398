// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * KVM emulates an SEV guest's access to a device from the bytes of the instruction
 * that the nested page fault reports, since it cannot read them from memory; and a write
 * of CR0 from the register that the selective intercept reports.
 */
#include <stdio.h>
#include <string.h>

#include "guest.h"

struct access {
	uint64_t gpa;
	uint32_t len;
	int write;
	uint64_t value;		/* written, or what a read is to get */
};

/* As the guest makes them */
static const struct access accesses[] = {
	{ GPA_MMIO + 0x10, 4, 1, 0x89abcdef },
	{ GPA_MMIO + 0x20, 8, 1, 0x0123456789abcdef },
	{ GPA_MMIO + 0x30, 1, 0, 0x5a },
	{ GPA_MMIO + 0x40, 4, 0, 0xfeedf00d },
	{ GPA_MMIO + 0x50, 2, 1, 0x1234 },		/* an instruction in two pages */
	{ GPA_MMIO + 0x60, 8, 0, 0x1122334455667788 },	/* an indexed one */
};

/* The last but one access is by an instruction that begins 3 bytes before a page's end. */
extern const char guest_code[], guest_code_end[];
asm(".pushsection .rodata\n"
    ".balign 4096\n"
    ".globl guest_code, guest_code_end\n"
    "guest_code:\n"
    "	mov %cr0, %r9\n"
    "	or $0x40000, %r9\n"	/* AM */
    "	mov %r9, %cr0\n"
    "	mov %cr0, %r10\n"
    "	mov %r10, 0x20018\n"
    "	mov $0x80000000, %ebx\n"
    "	movl $0x89abcdef, 0x10(%rbx)\n"
    "	movabs $0x0123456789abcdef, %rax\n"
    "	mov %rax, 0x20(%rbx)\n"
    "	movzbl 0x30(%rbx), %ecx\n"
    "	mov %rcx, 0x20000\n"
    "	mov 0x40(%rbx), %ecx\n"
    "	mov %rcx, 0x20008\n"
    "	jmp 1f\n"
    "	.org guest_code + 4096 - 3, 0x90\n"
    "1:	movw $0x1234, 0x50(%rbx)\n"
    "	mov $0xc, %edx\n"
    "	mov (%rbx,%rdx,8), %rax\n"
    "	mov %rax, 0x20010\n"
    "	hlt\n"
    "guest_code_end:\n"
    ".popsection\n");

int main(void)
{
	struct guest *guest = guest_start(guest_code, guest_code_end - guest_code, 1);
	struct kvm_run *run = guest->vcpu[0].run;
	uint64_t *told = guest_pointer(guest, GPA_SHARED);
	uint32_t reason;
	size_t i;

	for (i = 0; i < sizeof(accesses) / sizeof(accesses[0]); i++) {
		const struct access *want = &accesses[i];
		uint64_t value = 0;

		reason = guest_run(guest, 0);
		if (reason != KVM_EXIT_MMIO) {
			report(0, "access %zu: exit reason %u", i, reason);
			return 1;
		}
		if (run->mmio.is_write)
			memcpy(&value, run->mmio.data, run->mmio.len);
		else
			memcpy(run->mmio.data, &want->value, want->len);
		report(run->mmio.phys_addr == want->gpa && run->mmio.len == want->len &&
		       run->mmio.is_write == want->write && (!want->write || value == want->value),
		       "%s of %u bytes at %#llx%s%#lx", run->mmio.is_write ? "write" : "read",
		       run->mmio.len, run->mmio.phys_addr, run->mmio.is_write ? ": " : ", gets ",
		       run->mmio.is_write ? value : want->value);
	}
	reason = guest_run(guest, 0);
	report(reason == KVM_EXIT_HLT, "the guest ran to its end (exit reason %u)", reason);
	report(told[0] == accesses[2].value && told[1] == accesses[3].value &&
	       told[2] == accesses[5].value, "it read %#lx, %#lx and %#lx", told[0], told[1], told[2]);
	report(told[3] & 0x40000, "it wrote CR0, which is now %#lx", told[3]);
	guest_end(guest);
	return failures() != 0;
}
