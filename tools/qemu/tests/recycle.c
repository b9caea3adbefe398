// SPDX-License-Identifier: GPL-2.0-or-later
/* recycle N: N SEV-ES guests, one after the other, each of which runs. */
#include <stdio.h>
#include <stdlib.h>

#include "guest.h"

extern const char guest_code[], guest_code_end[];
asm(".pushsection .rodata\n"
    ".globl guest_code, guest_code_end\n"
    "guest_code:\n"
    "	mov $0xc0010130, %ecx\n"	/* GHCB MSR: termination request */
    "	mov $0x100, %eax\n"
    "	xor %edx, %edx\n"
    "	wrmsr\n"
    "	rep; vmmcall\n"			/* VMGEXIT */
    "guest_code_end:\n"
    ".popsection\n");

int main(int argc, char **argv)
{
	unsigned int guests = argc > 1 ? atoi(argv[1]) : 0, ran = 0, i;

	for (i = 0; i < guests; i++) {
		struct guest *guest = guest_start_es(guest_code, guest_code_end - guest_code, 1, 0);

		pin_to_cpu(i);
		ran += guest_run(guest, 0) == KVM_EXIT_SYSTEM_EVENT;
		guest_end(guest);
	}
	report(guests && ran == guests, "%u of %u guests ran", ran, guests);
	return failures() != 0;
}
