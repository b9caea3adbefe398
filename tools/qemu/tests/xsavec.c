// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * XSAVEC and the compacted form: where the components are according to CPUID, what comes
 * back from it, and which headers XRSTOR refuses.
 */
#include <cpuid.h>
#include <immintrin.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "guest.h"

#define SSE		2ul
#define AVX		4ul
#define PKRU		0x200ul
#define COMPACTED	(1ul << 63)
#define HEADER		512
#define FIRST		576	/* component after the header */

static _Alignas(64) uint8_t area[4096], standard[4096];
static sigjmp_buf refused;

static uint64_t word(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static void set_word(uint8_t *at, uint64_t value)
{
	memcpy(at, &value, sizeof(value));
}

static void on_signal(int sig)
{
	siglongjmp(refused, sig);
}

/* The signal that XRSTOR of the area raises, or 0 */
static int restore(uint64_t components)
{
	int sig = sigsetjmp(refused, 1);

	if (!sig)
		_xrstor64(area, components);
	return sig;
}

static void refuses(const char *what, uint64_t xstate_bv, uint64_t xcomp_bv, uint64_t reserved)
{
	memset(area, 0, sizeof(area));
	set_word(area + HEADER, xstate_bv);
	set_word(area + HEADER + 8, xcomp_bv);
	set_word(area + HEADER + 16, reserved);
	report(restore(SSE | AVX) == SIGSEGV, "XRSTOR refuses %s", what);
}

/* Saves registers with known values in YMM9, changes them, and gets them back */
static void there_and_back(uint64_t components, unsigned int ymm_at)
{
	static const uint64_t value[4] = { 0x1111, 0x2222, 0x3333, 0x4444 };
	uint64_t found[4];

	memset(area, 0xff, sizeof(area));
	set_word(area + HEADER + 16, 0);
	asm volatile("vmovdqu %[value], %%ymm9\n"
		     "xsavec64 %[area]\n"
		     "vpxor %%ymm9, %%ymm9, %%ymm9\n"
		     "xrstor64 %[area]\n"
		     "vmovdqu %%ymm9, %[found]\n"
		     : [found] "=m" (found), [area] "+m" (area)
		     : [value] "m" (value), "a" ((uint32_t)components), "d" (0) : "xmm9");
	report(word(area + HEADER + 8) == (COMPACTED | components), "XCOMP_BV is %#lx",
	       word(area + HEADER + 8));
	report(!(word(area + HEADER) & ~components), "XSTATE_BV is %#lx", word(area + HEADER));
	report(found[0] == value[0] && found[1] == value[1], "XMM9 came back");
	if (ymm_at) {
		report(found[2] == value[2] && found[3] == value[3], "YMM9 came back");
		report(word(area + ymm_at + 9 * 16) == value[2], "its upper half was at %u", ymm_at + 9 * 16);
	} else {
		report(!found[2] && word(area + FIRST) == ~0ul, "of YMM9 nothing was saved");
	}
}

int main(void)
{
	unsigned int eax, ebx, ecx, edx, size = FIRST, xcr0;
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGSEGV, &action, NULL);
	__cpuid_count(0xd, 1, eax, ebx, ecx, edx);
	report(eax & 2, "the CPU has XSAVEC");
	if (!(eax & 2))
		return 1;
	xcr0 = _xgetbv(0);
	for (int i = 2; i < 32; i++) {
		unsigned int length, offset, flags, high;

		if (!((xcr0 >> i) & 1))
			continue;
		__cpuid_count(0xd, i, length, offset, flags, high);
		size = ((flags & 2) ? (size + 63) & ~63u : size) + length;
	}
	report(ebx == size, "all components need %u bytes, CPUID says %u", size, ebx);

	there_and_back(SSE | AVX, FIRST);
	there_and_back(SSE, 0);
	if (xcr0 & PKRU) {
		_xsave64(standard, PKRU);
		__cpuid_count(0xd, 9, eax, ebx, ecx, edx);
		_xsavec64(area, SSE | PKRU);
		report((uint32_t)word(area + FIRST) == (uint32_t)word(standard + ebx),
		       "PKRU follows the header without AVX");
	}

	refuses("a component that XCOMP_BV lacks", SSE | AVX, COMPACTED | SSE, 0);
	refuses("a component that XCR0 lacks", 0, COMPACTED | (1ul << 62), 0);
	refuses("XCOMP_BV without the bit of the compacted form", 0, SSE, 0);
	refuses("what is reserved", SSE, COMPACTED | SSE, 1);

	memset(area, 0, sizeof(area));
	set_word(area + HEADER + 8, COMPACTED | SSE | AVX);
	set_word(area + 24, 0xffffffff);
	report(!restore(SSE | AVX) && _mm_getcsr() == 0x1f80,
	       "MXCSR that was not saved is %#x", _mm_getcsr());
	return failures() != 0;
}
