/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the RMP does to a guest: accesses to pages that are not, or not yet, its own. */
#include "machine.h"
#include "tests.h"

#define DATA		GUEST_DATA
#define DATA_SPA	(GUEST_SPA + DATA)
#define STATE		(ASSIGNED | STATE_ASID(ASID))
#define CARRY		1
#define READ_FAULT	(NPF_RMP | NPF_ENC | NPF_FINAL | 5)

static void fault(const char *what, uint64_t exit, uint64_t info1, uint64_t gpa)
{
	print("# ");
	print(what);
	print("\n");
	expect("exits", exit, EXIT_NPF);
	expect("error code", exit_info(1), info1);
	expect("address", exit_info(2), gpa);
	guest_skip();
}

static void result(const char *what, uint64_t exit, uint64_t rax, bool carry)
{
	print("# ");
	print(what);
	print("\n");
	expect("exits", exit, EXIT_VMGEXIT);
	expect("exception", request->vector, 0);
	expect("result", request->rax, rax);
	expect("carry", request->flags & CARRY, carry);
}

static void raises(const char *what, uint64_t exit, uint64_t vector, uint64_t code)
{
	print("# ");
	print(what);
	print("\n");
	expect("exits", exit, EXIT_VMGEXIT);
	expect("exception", request->vector, vector);
	expect("error code", request->code, code);
}

static void large_page(void)
{
	expect("RMPUPDATE", rmpupdate(DATA_SPA, DATA, STATE | STATE_2M), SUCCESS);
	guest_map(DATA, DATA_SPA, true);
	raises("not validated", guest_do(READ, DATA, 0, 0), VC, 0x404);
	result("not aligned", guest_do(PVALIDATE, DATA + PAGE, 1, 1), FAIL_INPUT, false);
	result("valid", guest_do(PVALIDATE, DATA, 1, 1), SUCCESS, false);
	result("valid again", guest_do(PVALIDATE, DATA + 8, 1, 1), SUCCESS, true);
	result("write", guest_do(WRITE, DATA + 0x5008, 77, 0), DATA + 0x5008, false);
	result("read", guest_do(READ, DATA + 0x5008, 0, 0), 77, false);
	fault("4 KiB of 2 MiB", guest_do(PVALIDATE, DATA + PAGE, 0, 1), READ_FAULT | NPF_SIZEM,
	      DATA + PAGE);

	guest_map(DATA, DATA_SPA, false);
	fault("mapping is smaller", guest_do(READ, DATA + 0x5008, 0, 0), READ_FAULT | NPF_SIZEM,
	      DATA + 0x5008);
	expect("PSMASH", psmash(DATA_SPA), SUCCESS);
	result("read after PSMASH", guest_do(READ, DATA + 0x5008, 0, 0), 77, false);
	result("2 MiB of 4 KiB", guest_do(PVALIDATE, DATA, 1, 1), SIZEMISMATCH, false);
	guest_map(DATA, DATA_SPA, true);
	result("mapping is larger", guest_do(READ, DATA + 0x5008, 0, 0), 77, false);
	guest_map(DATA, DATA_SPA, false);
	result("not valid", guest_do(PVALIDATE, DATA + 0x5000, 0, 0), SUCCESS, false);
	result("not valid again", guest_do(PVALIDATE, DATA + 0x5000, 0, 0), SUCCESS, true);
	raises("not valid, read", guest_do(READ, DATA + 0x5008, 0, 0), VC, 0x404);
	result("valid", guest_do(PVALIDATE, DATA + 0x5000, 0, 1), SUCCESS, false);
}

static void other_pages(void)
{
	uint64_t spa = DATA_SPA + 0x9000, gpa = DATA + 0x9000;

	expect("RMPUPDATE", rmpupdate(spa, gpa + PAGE, STATE), SUCCESS);
	fault("another address", guest_do(READ, gpa, 0, 0), READ_FAULT, gpa);
	fault("another address, PVALIDATE", guest_do(PVALIDATE, gpa, 0, 1), READ_FAULT, gpa);
	expect("RMPUPDATE", rmpupdate(spa, gpa, ASSIGNED | STATE_ASID(ASID + 1)), SUCCESS);
	fault("another guest's", guest_do(READ, gpa, 0, 0), READ_FAULT, gpa);
	expect("RMPUPDATE", rmpupdate(spa, 0, 0), SUCCESS);
	fault("the host's", guest_do(WRITE, gpa, 0, 0), READ_FAULT | 2, gpa);
	fault("the host's, as code", guest_do(EXECUTE, gpa, 0, 0), READ_FAULT | 16, gpa);
	rmp_set(spa, ASSIGNED | VALIDATED | IMMUTABLE | OF_ASID(ASID) | gpa, ~0u);
	fault("immutable", guest_do(READ, gpa, 0, 0), READ_FAULT, gpa);
	rmp_set(spa, 0, 0);
	expect("RMPUPDATE", rmpupdate(spa, gpa, STATE), SUCCESS);
	result("valid", guest_do(PVALIDATE, gpa, 0, 1), SUCCESS, false);
	result("write", guest_do(WRITE, gpa, 78, 0), gpa, false);
	expect("RMPUPDATE", rmpupdate(spa, gpa, STATE), SUCCESS);
	raises("assigned anew", guest_do(READ, gpa, 0, 0), VC, 0x404);
}

/* A #VC on the way to the handler of #VC, and of the double fault: that comes to an end. */
static void no_stack(void)
{
	uint64_t entry = rmp_get(GUEST_SPA + GUEST_STACK);

	rmp_set(GUEST_SPA + GUEST_STACK, entry & ~VALIDATED, 0xf0f0f0f);
	expect("not valid, nor is the stack", guest_do(READ, DATA + 0x9000, 0, 0), EXIT_SHUTDOWN);
	rmp_set(GUEST_SPA + GUEST_STACK, entry, 0xf0f0f0f);
	guest_skip();
}

/* The guest's third 2 MiB are not private. */
static void shared_pages(void)
{
	guest_map(3 * LARGE, DATA_SPA, false);
	fault("shared write to an assigned page", guest_do(WRITE, 3 * LARGE + 0x5008, 0, 0),
	      NPF_RMP | NPF_FINAL | 7, 3 * LARGE + 0x5008);
	raises("PVALIDATE of a shared page", guest_do(PVALIDATE, 3 * LARGE, 0, 1), GP, 0);
	guest_map(3 * LARGE, GUEST_SPA + 3 * LARGE, false);
	result("shared write", guest_do(WRITE, 3 * LARGE, 79, 0), 3 * LARGE, false);
	expect("what the host sees", *(volatile uint64_t *)(GUEST_SPA + 3 * LARGE), 79);
}

static void page_tables(void)
{
	uint64_t entry = rmp_get(GUEST_SPA + 0x5000);

	rmp_set(GUEST_SPA + 0x5000, 0, 0);
	expect("a page table of the host", guest_do(READ, DATA + 0x5008, 0, 0), EXIT_NPF);
	expect("error code", exit_info(1), NPF_RMP | NPF_ENC | NPF_TABLE | 7);
	expect("page", exit_info(2) & -PAGE, 0x5000);
	rmp_set(GUEST_SPA + 0x5000, entry, 0xf0f0f0f);
	guest_skip();
}

static void vmsas(void)
{
	uint64_t entry = rmp_get(GUEST_SPA + GUEST_VMSA);

	rmp_set(GUEST_SPA + GUEST_VMSA, entry & ~VMSA, ~0u);
	expect("not a VMSA", guest_enter(), EXIT_INVALID);
	rmp_set(GUEST_SPA + GUEST_VMSA, entry | OF_ASID(2), ~0u);
	expect("a VMSA of another guest", guest_enter(), EXIT_INVALID);
	rmp_set(GUEST_SPA + GUEST_VMSA, entry, ~0u);
	guest_skip();
}

void guest_tests(void)
{
	map_4k(GUEST_SPA);
	guest_init();
	expect("the guest starts", guest_enter(), EXIT_VMGEXIT);
	large_page();
	other_pages();
	no_stack();
	shared_pages();
	page_tables();
	vmsas();
}
