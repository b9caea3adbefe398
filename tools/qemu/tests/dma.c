// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A device of the host finds ciphertext in the encrypted page that a guest has just
 * written, and can replace it: old ciphertext makes the guest see old contents.
 *
 * dma DISK   the disk is accessed with O_DIRECT, so that its device transfers the page
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest.h"

#define FIRST	0x1111222233334444ul
#define SECOND	0xaaaabbbbccccddddul

/* Fill the page with FIRST; then with SECOND; then tell what is in it. */
extern const char guest_code[], guest_code_end[];
asm(".pushsection .rodata\n"
    ".globl guest_code, guest_code_end\n"
    "guest_code:\n"
    "	movabs $0x1111222233334444, %rax\n"
    "	call 1f\n"
    "	movabs $0xaaaabbbbccccdddd, %rax\n"
    "	call 1f\n"
    "2:	mov 0x30000, %rax\n"
    "	mov %rax, 0x20000\n"
    "	mov 0x30ff8, %rax\n"
    "	mov %rax, 0x20008\n"
    "	hlt\n"
    "	jmp 2b\n"
    "1:	mov $0x30000, %edi\n"
    "	mov $512, %ecx\n"
    "	cld\n"
    "	rep stosq\n"
    "	hlt\n"
    "	ret\n"
    "guest_code_end:\n"
    ".popsection\n");

static void next(struct guest *guest)
{
	uint32_t reason = guest_run(guest, 0);

	if (reason != KVM_EXIT_HLT)
		report(0, "the guest stopped with exit reason %u", reason);
}

static void transfer(int disk, off_t offset, void *page, int to_disk)
{
	ssize_t n = to_disk ? pwrite(disk, page, PAGE, offset) : pread(disk, page, PAGE, offset);

	if (n != (ssize_t)PAGE)
		fail("%s the disk", to_disk ? "writing to" : "reading from");
}

static int contains(const void *page, uint64_t value)
{
	const uint64_t *p = page;
	size_t i;

	for (i = 0; i < PAGE / sizeof(*p); i++) {
		if (p[i] == value)
			return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct guest *guest = guest_start(guest_code, guest_code_end - guest_code, 1);
	uint64_t *page = guest_pointer(guest, GPA_DATA);
	uint64_t *told = guest_pointer(guest, GPA_SHARED);
	uint64_t *device = aligned_alloc(PAGE, PAGE);
	uint64_t *first = malloc(PAGE);
	int disk = argc > 1 ? open(argv[1], O_RDWR | O_DIRECT) : -1;

	if (disk < 0)
		fail("opening the disk");

	/* The guest's CPU has the page, and this one has not touched it since. */
	next(guest);
	transfer(disk, 0, page, 1);
	transfer(disk, 0, device, 0);
	report(!contains(device, FIRST), "the device found no plaintext");
	report(!contains(device, 0), "nor what was there before");
	report(!memcmp(device, page, PAGE), "it found what a CPU of the host finds");
	memcpy(first, device, PAGE);

	next(guest);
	transfer(disk, PAGE, page, 1);
	transfer(disk, PAGE, device, 0);
	report(memcmp(device, first, PAGE), "other plaintext is other ciphertext");
	report(!contains(device, SECOND), "and none of it is plaintext");

	next(guest);
	report(told[0] == SECOND && told[1] == SECOND, "the guest still has its page (%#lx)",
	       told[0]);

	/* Replay: the page is the guest's again while the device writes it. */
	transfer(disk, 0, page, 0);
	next(guest);
	report(told[0] == FIRST && told[1] == FIRST, "old ciphertext from the disk is old plaintext (%#lx)",
	       told[0]);
	report(!memcmp(page, first, PAGE), "and is what the host then finds");

	/* Half a page: the rest stays. */
	memset(device, 0x5a, PAGE);
	transfer(disk, 2 * PAGE, device, 1);
	if (pread(disk, page, 512, 2 * PAGE) != 512)
		fail("reading from the disk");
	next(guest);
	report(told[0] != FIRST && told[1] == FIRST, "a sector changes what it covers (%#lx, %#lx)",
	       told[0], told[1]);

	guest_end(guest);
	return failures() != 0;
}
