/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the guest of es.c finds, and its memory */
#ifndef ES_H
#define ES_H

/* Guest physical addresses; see guest.h */
#define GUEST_GHCBS	0x20000		/* a page for each vCPU, shared */
#define GUEST_IDTS	0x30000		/* likewise */
#define GUEST_AREAS	0x40000		/* two pages for each vCPU, for XSAVE */
#define GUEST_FRESH	0x68000		/* nothing has been there */

#define SEV_STATUS	0
#define CR0		1
#define CR4		2
#define WROTE_CR8	3
#define CR8		4
#define EFER		5
#define STATE		6
#define STATE_CHANGED	7
#define XCR0		8
#define FSW		9
#define MXCSR		10
#define AFTER_HLT	11
#define VC_CPUID	12
#define VC_RDMSR	13
#define VC_WRMSR	14
#define VC_IN		15
#define VC_OUT		16
#define VC_VMMCALL	17
#define VC_WBINVD	18
#define VC_INVD		19
#define VC_RDPMC	20
#define VC_MMIO		21
#define VC_READ_DR7	22
#define VC_WRITE_DR7	23
#define VC_FRESH_STACK	24
#define DB		25
#define DB_RIP		26
#define DR_SET		27
#define DR_DB		28
#define DR_RIP		29
#define DR0		30
#define DR7		31
#define VC_TSC_AUX	32
#define TSC_AUX		33
#define VC_LBR		34
#define LBR		35
#define FINDINGS	36

#endif
