/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RMPQUERY: what it says about pages of 4 KiB and of 2 MiB, and to whom. */
#include "machine.h"
#include "tests.h"

#define DATA		(GUEST_DATA + 0xd000)
#define LARGE_PAGE	(2 * LARGE)
#define STATE(what)	(ASSIGNED | (what) | STATE_ASID(ASID))
#define VMSA_BIT	(1ul << 16)
#define PERMIT(vmpl, what) ((what) << 8 | (vmpl))
#define R		1ul
#define W		2ul
#define XU		4ul	/* user's */
#define XS		8ul	/* supervisor's */
#define ZERO		0x40
#define BEFORE		0x123456789abcdeful

static void adjust(uint64_t address, uint64_t large, uint64_t operand)
{
	guest_do(RMPADJUST, address, large, operand);
	expect("RMPADJUST", request->rax, SUCCESS);
}

static void answer(const char *what, uint64_t address, uint64_t vmpl, uint64_t rdx, uint64_t rcx)
{
	expect(what, guest_do(QUERY, address, BEFORE, vmpl), EXIT_VMGEXIT);
	expect("exception", request->vector, 0);
	expect("result", request->rax, SUCCESS);
	expect("ZF", request->flags & ZERO, ZERO);
	expect("page size", request->rcx, rcx);
	expect("permissions", request->rdx, rdx);
}

static void refused(const char *what, uint64_t vmpl)
{
	expect(what, guest_do(QUERY, DATA, BEFORE, vmpl), EXIT_VMGEXIT);
	expect("exception", request->vector, 0);
	expect("result", request->rax, FAIL_PERMISSION);
	expect("ZF", request->flags & ZERO, 0);
	expect("RCX", request->rcx, BEFORE);
	expect("RDX", request->rdx, vmpl);
}

static void fault(const char *what, uint64_t address, uint64_t bits)
{
	expect(what, guest_do(QUERY, address, 0, 3), EXIT_NPF);
	expect("error code", exit_info(1), NPF_RMP | NPF_ENC | NPF_FINAL | bits | 5);
	expect("address", exit_info(2), address);
	guest_skip();
}

static void small_page(void)
{
	expect("RMPUPDATE", rmpupdate(GUEST_SPA + DATA, DATA, STATE(0)), SUCCESS);
	expect("not validated", guest_do(QUERY, DATA, 0, 1), EXIT_VMGEXIT);
	expect("exception", request->vector, VC);
	expect("error code", request->code, 0x404);
	guest_do(PVALIDATE, DATA, 0, 1);
	expect("PVALIDATE", request->rax, SUCCESS);
	answer("VMPL 1 may nothing", DATA, 1, PERMIT(1, 0ul), 0);
	adjust(DATA, 0, PERMIT(1, R | W | XS));
	adjust(DATA, 0, PERMIT(2, R | XU));
	answer("VMPL 1", DATA, 1, PERMIT(1, R | W | XS), 0);
	answer("VMPL 2, offset into the page", DATA + 8, 2, PERMIT(2, R | XU), 0);
	answer("VMPL 3", DATA, 3, PERMIT(3, 0ul), 0);
	adjust(DATA, 0, VMSA_BIT | PERMIT(3, R));
	answer("a VMSA", DATA, 1, VMSA_BIT | PERMIT(1, R | W | XS), 0);
	adjust(DATA, 0, PERMIT(3, 0ul));
	refused("its own VMPL", 0);
	refused("no such VMPL", 4);
}

static void other_vmpls(void)
{
	guest_vmpl(1);
	refused("VMPL 1 about VMPL 0", 0);
	refused("VMPL 1 about itself", 1);
	answer("VMPL 1 about VMPL 2", DATA, 2, PERMIT(2, R | XU), 0);
	guest_vmpl(3);
	refused("VMPL 3 about itself", 3);
	guest_vmpl(0);
	adjust(DATA, 0, PERMIT(2, XU));
	guest_vmpl(2);
	fault("VMPL 2 may not read the page", DATA, NPF_VMPL);
	guest_vmpl(0);
}

static void large_page(void)
{
	uint64_t inside = LARGE_PAGE + 0x5000;

	expect("RMPUPDATE", rmpupdate(GUEST_SPA + LARGE_PAGE, LARGE_PAGE, STATE(STATE_2M)), SUCCESS);
	guest_map(LARGE_PAGE, GUEST_SPA + LARGE_PAGE, true);
	guest_do(PVALIDATE, LARGE_PAGE, 1, 1);
	expect("PVALIDATE", request->rax, SUCCESS);
	adjust(LARGE_PAGE, 1, PERMIT(2, R | W));
	answer("of 2 MiB", LARGE_PAGE, 2, PERMIT(2, R | W), 1);
	answer("in 2 MiB", inside, 2, PERMIT(2, R | W), 1);
	guest_map(LARGE_PAGE, GUEST_SPA + LARGE_PAGE, false);
	fault("mapping is smaller", inside, NPF_SIZEM);
	expect("PSMASH", psmash(GUEST_SPA + LARGE_PAGE), SUCCESS);
	adjust(inside, 0, PERMIT(2, R));
	answer("after PSMASH", inside, 2, PERMIT(2, R), 0);
	answer("beside it", inside + PAGE, 2, PERMIT(2, R | W), 0);
	guest_map(LARGE_PAGE, GUEST_SPA + LARGE_PAGE, true);
	answer("mapping is larger", inside, 2, PERMIT(2, R), 0);
}

void query_tests(void)
{
	if (!(cpuid(0x8000001f) & RMPQUERY)) {
		expect("no RMPQUERY", guest_do(QUERY, DATA, 0, 1), EXIT_VMGEXIT);
		expect("exception", request->vector, UD);
		return;
	}
	small_page();
	other_vmpls();
	large_page();
}
