/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Secure TSC: the guest's is what its VMSA says, whatever the host's control block says. */
#include "machine.h"
#include "tests.h"

#define OFFSET	123456789

void tsc_tests(void)
{
	uint64_t features = 1 | 1 << 9, before, after;

	if (!(cpuid(0x8000001f) & SECURE_TSC)) {
		guest_features(features);
		expect("Secure TSC that there is not", guest_enter(), EXIT_INVALID);
		guest_features(1);
		guest_skip();
		return;
	}
	guest_tsc(3ul << 31, OFFSET);
	guest_features(features);
	guest_skip();
	before = rdtsc();
	expect("RDTSC", guest_do(RDTSC, 0, 0, 0), EXIT_VMGEXIT);
	after = rdtsc();
	expect("not before", request->rax >= before / 2 * 3 + OFFSET, true);
	expect("not after", request->rax <= (after / 2 + 1) * 3 + OFFSET, true);
	expect("GUEST_TSC_FREQ", guest_do(RDMSR, 0, 0xc0010134, 0), EXIT_VMGEXIT);
	expect("half as much again", request->rax, rdmsr(0xc0010134) * 3 / 2);
	expect("SEV_STATUS", guest_do(RDMSR, 0, 0xc0010131, 0), EXIT_VMGEXIT);
	expect("its value", request->rax, 7 | 1 << 11);
}
