// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * MOV from each control register, by an ordinary guest that is just out of reset: as
 * CR0.CD is set then, KVM intercepts reads of CR0, and of no other.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest.h"

#define CR2	0x12345678u
#define CR3	0x00234000u
#define CR4	0x00000600u	/* OSFXSR and OSXMMEXCPT */
#define CR0	0x60000010u	/* the value at reset */

extern const char guest_code[], guest_code_end[];
asm(".pushsection .rodata\n"
    ".globl guest_code, guest_code_end\n"
    ".code16\n"
    "guest_code:\n"
    "	mov $0x12345678, %eax\n"
    "	mov %eax, %cr2\n"
    "	mov $0x00234000, %eax\n"
    "	mov %eax, %cr3\n"
    "	mov $0x00000600, %eax\n"
    "	mov %eax, %cr4\n"
    "	mov %cr0, %eax\n"
    "	mov %cr2, %ebx\n"
    "	mov %cr3, %ecx\n"
    "	mov %cr4, %edx\n"
    "	hlt\n"
    ".code64\n"
    "guest_code_end:\n"
    ".popsection\n");

static void expect(const char *name, uint64_t value, uint32_t expected)
{
	report(value == expected, "%s is %#lx, to be %#x", name, (unsigned long)value, expected);
}

int main(void)
{
	struct kvm_userspace_memory_region region = { .memory_size = GUEST_SIZE };
	int kvm = open("/dev/kvm", O_RDWR), vm, fd;
	struct kvm_sregs sregs;
	struct kvm_run *run;
	struct kvm_regs regs = { .rip = GPA_CODE & 0xffff, .rflags = 2 };
	uint8_t *memory;

	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	memory = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (vm < 0 || memory == MAP_FAILED)
		fail("a VM");
	region.userspace_addr = (uintptr_t)memory;
	memcpy(memory + GPA_CODE, guest_code, guest_code_end - guest_code);
	fd = ioctl(vm, KVM_CREATE_VCPU, 0);
	run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE,
		   MAP_SHARED, fd, 0);
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) || run == MAP_FAILED ||
	    ioctl(fd, KVM_GET_SREGS, &sregs))
		fail("a vCPU");
	sregs.cs.base = GPA_CODE;
	sregs.cs.selector = GPA_CODE >> 4;
	if (ioctl(fd, KVM_SET_SREGS, &sregs) || ioctl(fd, KVM_SET_REGS, &regs) ||
	    ioctl(fd, KVM_RUN, 0) || ioctl(fd, KVM_GET_REGS, &regs))
		fail("KVM_RUN");
	report(run->exit_reason == KVM_EXIT_HLT, "the guest halted: exit %u", run->exit_reason);
	expect("CR0", regs.rax, CR0);
	expect("CR2", regs.rbx, CR2);
	expect("CR3", regs.rcx, CR3);
	expect("CR4", regs.rdx, CR4);
	return failures() != 0;
}
