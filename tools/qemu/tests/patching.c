/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * patching PATCHES: code that some CPUs run is patched by another, as Linux patches its own:
 * a breakpoint over the first byte, then the other bytes, then the first byte, and all CPUs
 * serialise after each. Whoever calls the code afterwards must run what is there.
 */
#define _GNU_SOURCE
#include <err.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE		4096
#define MAX_CALLERS	15
#define TRAPPED		0xffffffff
#define NEIGHBOUR	2048		/* offset of other code, which stays as it is */

typedef uint32_t function(void);

static uint8_t *writable, *executable;	/* two mappings of the same page */
static atomic_uint patch;		/* twice its number, and 1 while it is made */
static atomic_bool stop, with_neighbour;
static atomic_uint wrong_at, breakpoints, old;

static struct caller {
	_Alignas(64) atomic_uint calls;
	pthread_t thread;
} callers[MAX_CALLERS];

/* mov $value,%eax; ret */
static void encode(uint8_t code[6], uint32_t value)
{
	code[0] = 0xb8;
	memcpy(code + 1, &value, 4);
	code[5] = 0xc3;
}

static void breakpoint(int sig, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)sig, (void)info;
	regs[REG_RIP] += 4;
	regs[REG_RAX] = TRAPPED;
}

static void *call(void *arg)
{
	struct caller *self = arg;

	while (!stop) {
		unsigned int before = patch;
		uint32_t value = ((function *)executable)();

		if (with_neighbour && ((function *)(executable + NEIGHBOUR))() != 7)
			errx(1, "the neighbour is wrong");
		if (!(before & 1) && patch == before) {
			if (value != before / 2 && atomic_exchange(&wrong_at, before) != before)
				(*(value == TRAPPED ? &breakpoints : &old))++;
			self->calls++;
		}
	}
	return NULL;
}

static void serialise(void)
{
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0))
		err(1, "membarrier");
}

static void patch_to(uint32_t value)
{
	uint8_t code[6];

	encode(code, value);
	patch++;
	*(volatile uint8_t *)writable = 0xcc;
	serialise();
	memcpy(writable + 1, code + 1, 5);
	serialise();
	*(volatile uint8_t *)writable = code[0];
	serialise();
	patch++;
}

int main(int argc, char **argv)
{
	unsigned int patches = argc > 1 ? strtoul(argv[1], NULL, 0) : 1000;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned int n = cpus > MAX_CALLERS ? MAX_CALLERS : cpus - 1, i, done;
	struct sigaction action = {
		.sa_sigaction = breakpoint,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};
	int fd = memfd_create("code", 0);

	if (cpus < 2)
		errx(1, "needs 2 CPUs");
	if (fd < 0 || ftruncate(fd, PAGE))
		err(1, "memfd");
	writable = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	executable = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	if (writable == MAP_FAILED || executable == MAP_FAILED)
		err(1, "mmap");
	encode(writable, 0);
	encode(writable + NEIGHBOUR, 7);
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0))
		err(1, "membarrier");
	if (sigaction(SIGTRAP, &action, NULL))
		err(1, "sigaction");

	for (i = 0; i < n; i++)
		if (pthread_create(&callers[i].thread, NULL, call, &callers[i]))
			errx(1, "pthread_create");
	for (done = 1; done <= patches; done++) {
		/* First the page has no other code, so that it may become one of data meanwhile. */
		with_neighbour = done > patches / 2;
		patch_to(done);
		for (i = 0; i < n; i++) {
			unsigned int calls = callers[i].calls;

			while (callers[i].calls - calls < 2)
				sched_yield();
		}
	}
	stop = true;
	for (i = 0; i < n; i++)
		pthread_join(callers[i].thread, NULL);
	printf("%u patches, %u callers: after %u one met the breakpoint, after %u the old code\n",
	       patches, n, breakpoints, old);
	return breakpoints || old;
}
