/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest of es.c. It tells what it finds by port output through its GHCB: the
 * port is 0x200 + the number of the finding (es.h). RDI is the number of the vCPU,
 * RSI its SEV_FEATURES.
 */
#include "es.h"

#define GHCB_MSR	$0xc0010130
#define VMGEXIT		rep; vmmcall

/* R15 GHCB, RBP vCPU, RSI features; R14 length to skip in #VC; R12, R13 of an exception: what, RIP */

.macro gate vector, handler
	lea	\handler(%rip), %rax
	mov	%ax, 16 * \vector(%r14)
	movw	$8, 16 * \vector + 2(%r14)
	movw	$0x8e00, 16 * \vector + 4(%r14)
	shr	$16, %rax
	mov	%ax, 16 * \vector + 6(%r14)
	shr	$16, %rax
	mov	%eax, 16 * \vector + 8(%r14)
.endm

.macro tell number
	mov	$\number, %edi
	call	tell
.endm

/* The error code of the #VC that the instruction causes, 0 if none */
.macro vc number, insn:vararg
	xor	%r12d, %r12d
	mov	$(2f - 1f), %r14d
1:	\insn
2:	mov	%r12, %rax
	tell	\number
.endm

	.section .rodata
	.balign	4096
	.globl	es_guest, es_guest_end
es_guest:
	mov	%rdi, %rbp
	shl	$12, %edi
	lea	GUEST_GHCBS(%rdi), %r15
	lea	GUEST_IDTS(%rdi), %r14
	lea	gdt(%rip), %rax
	push	%rax
	sub	$2, %rsp
	movw	$(gdt_end - gdt - 1), (%rsp)
	lgdt	(%rsp)
	mov	%r14, %rdi
	xor	%eax, %eax
	mov	$512, %ecx
	rep stosq
	gate	1, debug
	gate	29, vmm_communication
	mov	%r14, 2(%rsp)
	movw	$0xfff, (%rsp)
	lidt	(%rsp)
	add	$10, %rsp

	mov	$0xc0010131, %ecx
	rdmsr
	tell	SEV_STATUS

/* Writes of control registers and EFER */
	mov	%cr0, %rax
	or	$0x40000, %rax
	mov	%rax, %cr0
	mov	%cr0, %rax
	tell	CR0
	mov	$0x40620, %eax		/* OSXSAVE, OSXMMEXCPT, OSFXSR, PAE */
	mov	%rax, %cr4
	mov	%cr4, %rax
	tell	CR4
	lea	5(%rbp), %eax
	mov	%rax, %cr8
	tell	WROTE_CR8
	mov	%cr8, %rax
	tell	CR8
	mov	$0xc0000080, %ecx
	rdmsr
	or	$1, %eax
	wrmsr
	rdmsr
	tell	EFER

/* Extended state: XSAVE before and after the host has used the registers, and compare */
	mov	$7, %eax
	xor	%edx, %edx
	xor	%ecx, %ecx
	xsetbv
	mov	%ebp, %r8d
	shl	$13, %r8d
	add	$GUEST_AREAS, %r8d
	mov	%r8, %rdi
	xor	%eax, %eax
	mov	$1024, %ecx
	rep stosq
	fninit
	fldpi
	fldl2e
	fld1
	fldz
	fdivrp				/* 1/0, which sets a flag */
	fldcw	control_word(%rip)
	ldmxcsr	control_and_status(%rip)
	vpcmpeqb %ymm4, %ymm4, %ymm4
	lea	gdt(%rip), %rax
	vmovups	(%rax), %ymm15
	cvtsi2sd %rbp, %xmm7
	mov	$3, %eax
	cvtsi2sd %eax, %xmm8
	divsd	%xmm8, %xmm7		/* inexact, for the vCPU 1 */
	mov	$7, %eax
	xor	%edx, %edx
	xsave	(%r8)
	mov	$512 + 256 + 64, %eax
	tell	STATE
	mov	$7, %eax
	xor	%edx, %edx
	xsave	4096(%r8)
	mov	%r8, %rdi
	mov	%rsi, %r9
	lea	4096(%r8), %rsi
	mov	$(512 + 256 + 64), %ecx
	xor	%eax, %eax
1:	cmpsb
	je	2f
	inc	%eax
2:	loop	1b
	mov	%r9, %rsi
	tell	STATE_CHANGED
	xor	%ecx, %ecx
	xgetbv
	tell	XCR0
	mov	2(%r8), %ax
	movzwl	%ax, %eax
	tell	FSW
	mov	24(%r8), %eax
	tell	MXCSR

/* HLT exits after the instruction */
	hlt
	mov	$1, %eax
	tell	AFTER_HLT

/* Non-automatic exits */
	vc	VC_CPUID, cpuid
	mov	$0xc0011029, %ecx
	vc	VC_RDMSR, rdmsr
	mov	$0xc0011029, %ecx
	vc	VC_WRMSR, wrmsr
	vc	VC_IN, in $0x80, %al
	vc	VC_OUT, out %al, $0x80
	vc	VC_VMMCALL, vmmcall
	vc	VC_WBINVD, wbinvd
	vc	VC_INVD, invd
	xor	%ecx, %ecx
	vc	VC_RDPMC, rdpmc
	mov	$0x80000000, %r11d
	vc	VC_MMIO, movl $1, 0x10(%r11)
	vc	VC_READ_DR7, mov %dr7, %rax
	mov	$0x400, %eax
	vc	VC_WRITE_DR7, mov %rax, %dr7

/* The page that a #VC pushes to is not there yet. */
	mov	%rsp, %rbx
	mov	%ebp, %eax
	shl	$13, %eax
	lea	GUEST_FRESH(%rax), %rsp
	xor	%r12d, %r12d
	mov	$2, %r14d
	cpuid
	mov	%rbx, %rsp
	mov	%r12, %rax
	tell	VC_FRESH_STACK

/* An intercepted exception, a trap: #DB of a single step */
	xor	%r12d, %r12d
	xor	%r14d, %r14d
	pushf
	orl	$0x100, (%rsp)
	popf
	nop
stepped:
	lea	stepped(%rip), %rax
	sub	%rax, %r13
	mov	%r12, %rax
	tell	DB
	mov	%r13, %rax
	tell	DB_RIP

/* Its own breakpoint, with DebugSwap */
	test	$0x20, %esi
	jz	2f
	lea	1f(%rip), %rax
	add	%rbp, %rax		/* another for each vCPU */
	mov	%rax, %dr0
	mov	$0x402, %eax
	mov	%rax, %dr7
	xor	%r12d, %r12d
	tell	DR_SET			/* an exit */
1:	nop
	nop
	mov	%r12, %rax
	tell	DR_DB
	lea	1b(%rip), %rax
	sub	%rax, %r13
	mov	%r13, %rax
	tell	DR_RIP
	mov	%dr0, %rax
	lea	1b(%rip), %rcx
	sub	%rcx, %rax
	tell	DR0
	mov	%dr7, %rax
	tell	DR7
2:

/* MSRs that are exchanged */
	mov	$0xc0000103, %ecx
	lea	0x5a5a(%rbp), %eax
	xor	%edx, %edx
	vc	VC_TSC_AUX, wrmsr
	rdtscp
	mov	%ecx, %eax
	tell	TSC_AUX
	mov	$0x1db, %ecx
	lea	0x123456(%rbp), %eax
	xor	%edx, %edx
	vc	VC_LBR, wrmsr
	mov	$0x1db, %ecx
	rdmsr
	tell	LBR

/* Termination request, by the MSR protocol */
	mov	GHCB_MSR, %ecx
	mov	$0x100, %eax
	xor	%edx, %edx
	wrmsr
	VMGEXIT
	hlt

/* Tell EAX as the finding EDI. */
tell:
	mov	%rax, 0x1f8(%r15)
	movq	$0x7b, 0x390(%r15)
	add	$0x200, %edi
	shl	$16, %edi
	or	$0x40, %edi		/* 32 bits */
	mov	%rdi, 0x398(%r15)
	movq	$0, 0x3a0(%r15)
	movabs	$0x8000000000000000, %rdi
	mov	%rdi, 0x3f0(%r15)
	movabs	$0x001c000000000000, %rdi
	mov	%rdi, 0x3f8(%r15)
	push	%rcx
	push	%rdx
	mov	GHCB_MSR, %ecx
	mov	%r15d, %eax
	xor	%edx, %edx
	wrmsr
	VMGEXIT
	pop	%rdx
	pop	%rcx
	ret

debug:
	push	$0x1000			/* in place of an error code */
vmm_communication:
	pop	%r12
	mov	(%rsp), %r13
	add	%r14, (%rsp)
	andl	$~0x100, 16(%rsp)
	orl	$0x10000, 16(%rsp)	/* RF, for the instruction breakpoint */
	iretq

	.balign	8
gdt:	.quad	0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x1122334455667788
gdt_end:
control_word:
	.word	0x0a7f
	.balign	4
control_and_status:
	.long	0x3f84
es_guest_end:
	.section .note.GNU-stack, "", @progbits
