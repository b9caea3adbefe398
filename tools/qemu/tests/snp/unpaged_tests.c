/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest without paging: what it accesses is private, also where the host has nothing. */
#include "machine.h"
#include "tests.h"

#define DATA		(GUEST_DATA + 0xe000)
#define NOTHING		(4 * LARGE + 0x3008)	/* not in the nested tables */

static void fault(const char *what, enum op op, uint64_t address, uint64_t error_code)
{
	expect(what, guest_do_unpaged(op, address), EXIT_NPF);
	expect("error code", exit_info(1), NPF_ENC | NPF_FINAL | error_code);
	expect("address", exit_info(2), address);
}

void unpaged_tests(void)
{
	expect("RMPUPDATE", rmpupdate(GUEST_SPA + DATA, DATA, ASSIGNED | STATE_ASID(ASID)), SUCCESS);
	guest_do(PVALIDATE, DATA, 0, 1);
	expect("PVALIDATE", request->rax, SUCCESS);
	expect("read", guest_do_unpaged(READ, DATA), EXIT_VMGEXIT);
	expect("write", guest_do_unpaged(WRITE, DATA), EXIT_VMGEXIT);
	fault("read of what the host has not mapped", READ, NOTHING, 4);
	fault("write of it", WRITE, NOTHING, 6);
	fault("it as code", EXECUTE, NOTHING, 20);
	expect("RMPUPDATE", rmpupdate(GUEST_SPA + DATA, 0, 0), SUCCESS);
	fault("read of the host's", READ, DATA, NPF_RMP | 5);
	fault("write of the host's", WRITE, DATA, NPF_RMP | 7);
	fault("the host's as code", EXECUTE, DATA, NPF_RMP | 21);
	expect("RMPQUERY in 32 bits", guest_do_unpaged(QUERY, GUEST_DATA), EXIT_NPF);
	expect("where the gate of #UD would be", exit_info(2), 8 * UD);
	guest_skip();
}
