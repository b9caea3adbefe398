/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the RMP does to a host: its instructions, and writes to pages that are not its own. */
#include "machine.h"
#include "tests.h"

#define TEST	0x4000000ul
#define FAR	0x48000000ul	/* another segment of the table, if it has segments of 1 GiB */
#define RMP_PF	0x80000003ul	/* error code of a write */

static void write_to(uint64_t spa)
{
	*(volatile uint64_t *)spa = 1;
}

static void small_pages(void)
{
	uint64_t entry[2];

	expect("RMPUPDATE, not aligned", rmpupdate(TEST + 8, 0, ASSIGNED), FAIL_INPUT);
	expect("RMPUPDATE, no memory", rmpupdate(1ul << 45, 0, ASSIGNED), FAIL_INPUT);
	expect("RMPUPDATE, reserved bits", rmpupdate(TEST, 0, ASSIGNED | 0x80), FAIL_INPUT);
	expect("RMPUPDATE", rmpupdate(TEST, 0x7000, ASSIGNED | STATE_ASID(ASID)), SUCCESS);
	expect("its entry", rmp_get(TEST), ASSIGNED | OF_ASID(ASID) | 0x7000);
	if (cpuid(0x8000001f) & RMPREAD) {
		expect("RMPREAD", rmpread(TEST, entry), SUCCESS);
		expect("its GPA", entry[0], 0x7000);
		expect("its state", entry[1], ASSIGNED | 1ul << 9 | STATE_ASID(ASID));
		expect("RMPREAD beside it", rmpread(TEST + PAGE, entry), SUCCESS);
		expect("its state", entry[1], 1ul << 9);
	} else {
		expect("RMPREAD", TRY(rmpread(TEST, entry)), UD);
	}

	expect("write beside it, large mapping", TRY(write_to(TEST + PAGE)), PF);
	expect("its error code", exception_code, RMP_PF);
	expect("its address", exception_address, TEST + PAGE);
	expect("read, large mapping", TRY(*(volatile uint64_t *)TEST), 0);
	map_4k(TEST);
	expect("write beside it", TRY(write_to(TEST + PAGE)), 0);
	expect("write to an assigned page", TRY(write_to(TEST)), PF);
	expect("its error code", exception_code, RMP_PF);
	expect("write after a read", TRY(*(volatile uint64_t *)TEST; write_to(TEST)), PF);

	expect("RMPUPDATE of 2 MiB over 4 KiB", rmpupdate(TEST, 0, ASSIGNED | STATE_2M),
	       FAIL_OVERLAP);
	expect("that are shared", rmpupdate(TEST, 0, STATE_2M), FAIL_OVERLAP);
	expect("RMPUPDATE back", rmpupdate(TEST, 0, 0), SUCCESS);
	expect("write to a page that was assigned", TRY(write_to(TEST)), 0);
	expect("PSMASH of a page of the host", psmash(TEST), FAIL_INPUT);
}

static void large_pages(void)
{
	const uint64_t state = ASSIGNED | STATE_2M | STATE_ASID(ASID);
	int i;

	expect("RMPUPDATE of 2 MiB, not aligned", rmpupdate(TEST + PAGE, LARGE, state), FAIL_INPUT);
	expect("RMPUPDATE of 2 MiB, GPA not aligned", rmpupdate(TEST, PAGE, state), FAIL_INPUT);
	expect("RMPUPDATE of 2 MiB", rmpupdate(TEST, LARGE, state), SUCCESS);
	expect("again", rmpupdate(TEST, LARGE, state), SUCCESS);
	expect("an entry amid", rmp_get(TEST + 5 * PAGE) & ASSIGNED, ASSIGNED);
	expect("the last entry", rmp_get(TEST + 511 * PAGE) & ASSIGNED, ASSIGNED);
	expect("write to it", TRY(write_to(TEST + 5 * PAGE)), PF);
	expect("RMPUPDATE in it", rmpupdate(TEST + 5 * PAGE, 0, 0), FAIL_OVERLAP);
	expect("RMPUPDATE at its start", rmpupdate(TEST, 0, 0), FAIL_OVERLAP);
	expect("PSMASH, not aligned", psmash(TEST + PAGE), FAIL_INPUT);
	expect("PSMASH", psmash(TEST), SUCCESS);
	expect("PSMASH again", psmash(TEST), FAIL_INPUT);
	expect("the entry of a page in it", rmp_get(TEST + 5 * PAGE),
	       ASSIGNED | OF_ASID(ASID) | (LARGE + 5 * PAGE));
	expect("RMPUPDATE of a page in it", rmpupdate(TEST + 5 * PAGE, 0, 0), SUCCESS);
	expect("write to that", TRY(write_to(TEST + 5 * PAGE)), 0);
	expect("write to the next", TRY(write_to(TEST + 6 * PAGE)), PF);
	for (i = 0; i < 512; i++)
		expect("RMPUPDATE of a page", rmpupdate(TEST + i * PAGE, 0, 0), SUCCESS);
	expect("RMPUPDATE of 2 MiB", rmpupdate(TEST, LARGE, state), SUCCESS);
	expect("RMPUPDATE of 2 MiB back", rmpupdate(TEST, 0, STATE_2M), SUCCESS);
	for (i = 0; i < 512; i++)
		expect("the entry of a page", rmp_get(TEST + i * PAGE), 0);
	expect("write to it", TRY(write_to(TEST + 5 * PAGE)), 0);
}

static void immutable_pages(void)
{
	expect("RMPUPDATE, immutable", rmpupdate(TEST, 0, ASSIGNED | STATE_IMMUTABLE), SUCCESS);
	expect("RMPUPDATE of that", rmpupdate(TEST, 0, 0), FAIL_PERMISSION);
	rmp_set(TEST, ASSIGNED, 0);
	expect("RMPUPDATE of a reclaimed page", rmpupdate(TEST, 0, 0), SUCCESS);
	rmp_set(TEST + PAGE, IMMUTABLE, 0);
	expect("RMPUPDATE over a page that is fixed", rmpupdate(TEST, 0, ASSIGNED | STATE_2M),
	       FAIL_PERMISSION);
	expect("write to a page that is fixed", TRY(write_to(TEST + PAGE)), 0);
	rmp_set(TEST + PAGE, 0, 0);
}

static void table(void)
{
	uint64_t base = rdmsr(0xc0010132);

	expect("write to the table", TRY(write_to(base + 0x4000)), PF);
	expect("its error code", exception_code, RMP_PF);
	expect("read of it", TRY(*(volatile uint64_t *)(base + 0x4000)), 0);
	expect("RMPUPDATE of it", rmpupdate(base, 0, ASSIGNED), FAIL_PERMISSION);
	expect("its MSRs", TRY(wrmsr(0xc0010132, 0)), GP);
}

static void far_page(void)
{
	map_4k(FAR);
	expect("RMPUPDATE far away", rmpupdate(FAR, 0, ASSIGNED), SUCCESS);
	expect("its entry", rmp_get(FAR), ASSIGNED);
	expect("write to it", TRY(write_to(FAR)), PF);
	expect("write beside it", TRY(write_to(FAR + PAGE)), 0);
	expect("RMPUPDATE back", rmpupdate(FAR, 0, 0), SUCCESS);
	expect("write to it", TRY(write_to(FAR)), 0);
}

void host_tests(void)
{
	far_page();
	small_pages();
	large_pages();
	immutable_pages();
	table();
}
