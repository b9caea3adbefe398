/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Privilege levels of a guest: what RMPADJUST lets them do, and who may use it. */
#include "machine.h"
#include "tests.h"

#define CODE		(GUEST_DATA + 0xa000)
#define DATA		(GUEST_DATA + 0xb000)
#define VMSA_BIT	(1ul << 16)
#define PERMIT(vmpl, what) ((what) << 8 | (vmpl))
#define R		1ul
#define W		2ul
#define X		8ul	/* supervisor's */

static void adjust(const char *what, uint64_t address, uint64_t operand, uint64_t result)
{
	expect(what, guest_do(RMPADJUST, address, 0, operand), EXIT_VMGEXIT);
	expect("exception", request->vector, 0);
	expect("result", request->rax, result);
}

static void denied(const char *what, enum op op, uint64_t address, uint64_t access)
{
	expect(what, guest_do(op, address, 0, 0), EXIT_NPF);
	expect("error code", exit_info(1), NPF_RMP | NPF_ENC | NPF_FINAL | NPF_VMPL | 5 | access);
	expect("address", exit_info(2), address);
	guest_skip();
}

static void allowed(const char *what, enum op op, uint64_t address)
{
	expect(what, guest_do(op, address, 0, 0), EXIT_VMGEXIT);
	expect("exception", request->vector, 0);
}

static void page(uint64_t gpa)
{
	expect("RMPUPDATE", rmpupdate(GUEST_SPA + gpa, gpa, ASSIGNED | STATE_ASID(ASID)), SUCCESS);
	guest_do(PVALIDATE, gpa, 0, 1);
	expect("PVALIDATE", request->rax, SUCCESS);
}

void vmpl_tests(void)
{
	uint64_t entry;

	page(CODE);
	page(DATA);
	adjust("the offset into the page", DATA + 8, PERMIT(1, R), SUCCESS);
	adjust("no such VMPL", DATA, PERMIT(4, R), FAIL_INPUT);
	adjust("no such permission", DATA, PERMIT(1, 0x40ul), FAIL_INPUT);
	adjust("its own VMPL", DATA, PERMIT(0, R), FAIL_PERMISSION);
	adjust("VMPL 1 may read", DATA, PERMIT(1, R), SUCCESS);
	adjust("VMPL 1 may execute", CODE, PERMIT(1, R | X), SUCCESS);
	adjust("in use", GUEST_VMSA, VMSA_BIT | PERMIT(1, R), FAIL_INUSE);
	expect("2 MiB of 4 KiB", guest_do(RMPADJUST, GUEST_DATA, 1, PERMIT(1, R)), EXIT_VMGEXIT);
	expect("result", request->rax, SIZEMISMATCH);
	expect("a RET", guest_do(WRITE, CODE, 0xc3, 0), EXIT_VMGEXIT);
	allowed("VMPL 0 executes", EXECUTE, CODE);

	entry = rmp_get(GUEST_SPA + DATA);
	adjust("a VMSA", DATA, VMSA_BIT | PERMIT(1, R), SUCCESS);
	expect("its entry", rmp_get(GUEST_SPA + DATA), entry | VMSA);
	adjust("not a VMSA", DATA, PERMIT(1, R), SUCCESS);
	expect("its entry", rmp_get(GUEST_SPA + DATA), entry);

	guest_vmpl(1);
	allowed("VMPL 1 reads", READ, DATA);
	denied("VMPL 1 writes", WRITE, DATA, 2);
	denied("VMPL 1 executes", EXECUTE, DATA, 16);
	allowed("VMPL 1 executes code", EXECUTE, CODE);
	adjust("more than it may itself", DATA, PERMIT(2, R | W), FAIL_PERMISSION);
	adjust("a VMSA", DATA, VMSA_BIT | PERMIT(2, R), FAIL_PERMISSION);
	adjust("what it may itself", DATA, PERMIT(2, R), SUCCESS);
	expect("PVALIDATE", guest_do(PVALIDATE, DATA, 0, 0), EXIT_VMGEXIT);
	expect("result", request->rax, FAIL_PERMISSION);
	guest_vmpl(2);
	allowed("VMPL 2 reads", READ, DATA);
	denied("VMPL 2 reads code", READ, CODE, 0);
	guest_vmpl(3);
	denied("VMPL 3 reads", READ, DATA, 0);
	guest_vmpl(0);
	allowed("VMPL 0 writes", WRITE, DATA);

	expect("SEV_STATUS", guest_do(RDMSR, 0, 0xc0010131, 0), EXIT_VMGEXIT);
	expect("its value", request->rax, 7);
	guest_features(1 | 1ul << 63);
	expect("SEV_FEATURES that there are not", guest_enter(), EXIT_INVALID);
	guest_features(1);
	guest_skip();
}
