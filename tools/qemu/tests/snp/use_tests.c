/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A VMSA that another CPU runs */
#include "machine.h"
#include "tests.h"

#define SNP_EN	(3ul << 24)

static volatile uint64_t other_exit;
static volatile bool other_done;

void other_cpu(void)
{
	wrmsr(0xc0010010, rdmsr(0xc0010010) | SNP_EN);
	guest_host(1);
	other_exit = guest_do(SPIN, 0, 0, 0);
	other_done = true;
}

void use_tests(void)
{
	uint64_t vmsa = GUEST_SPA + GUEST_VMSA;

	request->flags = 0;
	start_other_cpu();
	while (!request->flags && !other_done)
		asm volatile("pause");
	expect("RMPUPDATE of a VMSA in use", rmpupdate(vmsa, 0, 0), FAIL_INUSE);
	expect("VMRUN of a VMSA in use", guest_enter(), EXIT_INVALID);
	expect("RMPUPDATE beside it", rmpupdate(vmsa + PAGE, 0, 0), SUCCESS);
	request->flags = 0;
	while (!other_done)
		asm volatile("pause");
	expect("the guest on the other CPU", other_exit, EXIT_VMGEXIT);
	expect("VMRUN after that", guest_do(READ, GUEST_DATA + 0x5008, 0, 0), EXIT_VMGEXIT);
	expect("RMPUPDATE after that", rmpupdate(vmsa, 0, 0), SUCCESS);
	expect("VMRUN after that", guest_enter(), EXIT_INVALID);
}
