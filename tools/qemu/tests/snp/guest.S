/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The SNP guest: does what the page that it shares with the host says (struct request of
 * host.c), notes an exception, and exits. Runs at any address; RBX is that of the shared page.
 */
	.set OP, 0
	.set RAX, 8
	.set RCX, 16
	.set RDX, 24
	.set FLAGS, 32
	.set VECTOR, 40
	.set CODE, 48
	/* enum op */
	.set READ, 2
	.set WRITE, 3
	.set EXECUTE, 4

	.section .rodata
	.balign 4096
	.global guest_code
guest_code:
	/* IDT: at the end of the page of code, made here as the gates hold addresses in pieces */
	lea idt(%rip), %rdi
	.irp vector, 6, 13, 14, 28, 29
	lea handle_\vector(%rip), %rax
	mov %ax, 16 * \vector(%rdi)
	movw $8, 16 * \vector + 2(%rdi)
	movw $0x8e00, 16 * \vector + 4(%rdi)
	shr $16, %rax
	mov %ax, 16 * \vector + 6(%rdi)
	.endr
	mov %rdi, idt_pointer + 2(%rip)
	lidt idt_pointer(%rip)
	lea gdt(%rip), %rax
	mov %rax, gdt_pointer + 2(%rip)
	lgdt gdt_pointer(%rip)
	mov %rsp, %rbp

next:
	mov %rbp, %rsp
	rep; vmmcall			/* VMGEXIT */
	movq $0, VECTOR(%rbx)
	mov RAX(%rbx), %rax
	mov RCX(%rbx), %rcx
	mov RDX(%rbx), %rdx
	mov OP(%rbx), %rsi
	cmp $1, %rsi
	jb do_pvalidate
	je do_rmpadjust
	cmp $3, %rsi
	jb do_read
	je do_write
	cmp $5, %rsi
	jb do_execute
	je do_rdmsr
	cmp $7, %rsi
	jb do_rdtsc
	je do_spin
	cmp $9, %rsi
	jb do_rmpquery

	/* Set CR8 and let an interrupt come */
	mov %rcx, %cr8
	sti
	nop
	cli
	mov %cr8, %rax
	jmp result
do_rdtsc:
	rdtsc
	shl $32, %rdx
	or %rdx, %rax
	jmp result
do_spin:
	movq $1, FLAGS(%rbx)
1:	pause
	cmpq $0, FLAGS(%rbx)
	jne 1b
	jmp result
do_pvalidate:
	.byte 0xf2, 0x0f, 0x01, 0xff
	jmp result
do_rmpadjust:
	.byte 0xf3, 0x0f, 0x01, 0xfe
	jmp result
do_rmpquery:
	.byte 0xf3, 0x0f, 0x01, 0xfd
	jmp result
do_read:
	invlpg (%rax)
	mov (%rax), %rax
	clc
	jmp result
do_write:
	invlpg (%rax)
	mov %rcx, (%rax)
	clc
	jmp result
do_execute:
	call *%rax
	jmp result
do_rdmsr:
	rdmsr
result:
	mov %rax, RAX(%rbx)
	mov %rcx, RCX(%rbx)
	mov %rdx, RDX(%rbx)
	pushf
	pop %rax
	mov %rax, FLAGS(%rbx)
	jmp next

	.irp vector, 6, 28
handle_\vector:
	movq $\vector, VECTOR(%rbx)
	jmp next
	.endr
	.irp vector, 13, 14, 29
handle_\vector:
	pop CODE(%rbx)
	movq $\vector, VECTOR(%rbx)
	jmp next
	.endr

	.balign 16
idt_pointer:
	.word 30 * 16 - 1
	.quad 0
	.balign 8
gdt:	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
	.word gdt_pointer - gdt - 1
	.quad 0
	.balign 16
idt:	.skip 30 * 16

	/*
	 * What runs without paging, where nothing can be shared: RAX says what to do with the
	 * address in RBX. The IDT would be at 0, where the guest has no memory.
	 */
	.balign 4096
	.code32
	.global guest_unpaged_code
guest_unpaged_code:
	cmp $READ, %eax
	je 1f
	cmp $WRITE, %eax
	je 2f
	cmp $EXECUTE, %eax
	je 3f
	mov %ebx, %eax
	mov $1, %edx
	.byte 0xf3, 0x0f, 0x01, 0xfd	/* RMPQUERY */
	jmp 4f
1:	mov (%ebx), %eax
	jmp 4f
2:	mov %eax, (%ebx)
	jmp 4f
3:	jmp *%ebx
4:	rep; vmmcall			/* VMGEXIT */
	.code64
	.section .note.GNU-stack, "", @progbits
