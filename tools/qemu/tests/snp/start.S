/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A multiboot kernel without an operating system: long mode, the first 4 GiB mapped to
 * themselves in pages of 2 MiB, handlers that note an exception and go on where the test says.
 */
	.section .multiboot, "a"
	.balign 4
	.long 0x1badb002, 0, -0x1badb002

	.macro enter_long_mode at
	mov $pml4, %eax
	mov %eax, %cr3
	mov $0x620, %eax		/* PAE, OSFXSR, OSXMMEXCPT */
	mov %eax, %cr4
	mov $0xc0000080, %ecx		/* EFER: LME, NXE, SVME */
	mov $0x1900, %eax
	xor %edx, %edx
	wrmsr
	mov $0x80010033, %eax		/* PG, WP, NE, ET, MP, PE */
	mov %eax, %cr0
	lgdt gdt_pointer
	ljmp $8, $\at
	.endm

	.text
	.code32
	.global _start
_start:
	cli
	mov $stack_top, %esp
	/* pml4 -> pdpt -> 4 page directories */
	movl $pdpt + 3, pml4
	mov $pd + 3, %eax
	mov $pdpt, %edi
	mov $4, %ecx
1:	mov %eax, (%edi)
	add $0x1000, %eax
	add $8, %edi
	loop 1b
	mov $pd, %edi
	mov $0x83, %eax
	mov $2048, %ecx
2:	mov %eax, (%edi)
	add $0x200000, %eax
	add $8, %edi
	loop 2b
	enter_long_mode long_mode

	.code64
long_mode:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	call main
	/* isa-debug-exit */
	mov $0xf4, %dx
	out %eax, %dx
3:	hlt
	jmp 3b

	/* A second CPU: start_cpu is copied to where it begins, in 16 bits */
	.code16
	.global start_cpu, start_cpu_end
start_cpu:
	cli
	mov %cs, %ax
	mov %ax, %ds
	lgdtl start_cpu_gdt - start_cpu
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	ljmpl $24, $start_cpu_32
start_cpu_gdt:
	.word 31
	.long gdt
start_cpu_end:
	.code32
start_cpu_32:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %ss
	mov $other_stack_top, %esp
	enter_long_mode other_long_mode
	.code64
other_long_mode:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	call other_cpu
4:	cli
	hlt
	jmp 4b

	.macro handler vector, has_code
handler_\vector:
	.if \has_code
	pop exception_code(%rip)
	.else
	movq $0, exception_code(%rip)
	.endif
	movq $\vector, exception(%rip)
	mov %cr2, %rax
	mov %rax, exception_address(%rip)
	jmp resume_or_stop
	.endm
	.global handler_6, handler_13, handler_14
	handler 6 0
	handler 13 1
	handler 14 1

resume_or_stop:
	mov resume(%rip), %rax
	test %rax, %rax
	jz 1f
	mov %rax, (%rsp)
	mov resume_stack(%rip), %rax
	mov %rax, 24(%rsp)
	iretq
1:	mov (%rsp), %rdi
	call unexpected
	mov $0xf4, %dx
	out %eax, %dx

	/* void vmrun(uint64_t vmcb): all registers are the guest's afterwards */
	.global vmrun
vmrun:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rdi, %rax
	vmrun %rax
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

	.data
	.balign 16
gdt:	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
gdt_pointer:
	.word gdt_pointer - gdt - 1
	.long gdt

	.bss
	.global exception, exception_code, exception_address, resume, resume_stack, pd
	.lcomm stack, 16384
	.set stack_top, stack + 16384
	.lcomm other_stack, 16384
	.set other_stack_top, other_stack + 16384
exception: .skip 8
exception_code: .skip 8
exception_address: .skip 8
resume:	.skip 8
resume_stack: .skip 8
	.balign 4096
pml4:	.skip 4096
pdpt:	.skip 4096
pd:	.skip 4 * 4096
	.section .note.GNU-stack, "", @progbits
