/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A virtual interrupt that waits until the guest's CR8 lets it through. */
#include "machine.h"
#include "tests.h"

#define WAITING	(V_IRQ | V_PRIORITY(4ul) | V_MASKING | V_VECTOR(INTERRUPT))
#define TPR	6ul

static void set_cr8(const char *what, uint64_t cr8, uint64_t vector, uint64_t waits)
{
	expect(what, guest_do(SET_CR8, 0, cr8, 0), EXIT_VMGEXIT);
	expect("vector", request->vector, vector);
	expect("V_TPR", guest_get_interrupt() & 0xff, cr8);
	expect("V_IRQ", guest_get_interrupt() & V_IRQ, waits);
}

void interrupt_tests(void)
{
	guest_set_interrupt(WAITING | TPR);
	set_cr8("CR8 that masks the interrupt", 5, 0, V_IRQ);
	expect("CR8", request->rax, 5);
	set_cr8("CR8 that does not", 3, INTERRUPT, 0);
	set_cr8("after that", 2, 0, 0);
	guest_set_interrupt(0);
}
