/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine.h"
#include "tests.h"

#define MSR_SYSCFG	0xc0010010
#define SNP_EN		(3ul << 24)	/* and VMPL_EN */

int main(void)
{
	machine_init();
	expect("RMPUPDATE without SNP", TRY(rmpupdate(0, 0, 0)), UD);
	wrmsr(MSR_SYSCFG, rdmsr(MSR_SYSCFG) | SNP_EN);
	firmware_init();
	host_tests();
	guest_tests();
	vmpl_tests();
	query_tests();
	unpaged_tests();
	interrupt_tests();
	tsc_tests();
	use_tests();
	return finish();
}
