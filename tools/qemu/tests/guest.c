// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest.h"

#define PRESENT_WRITABLE	3ul
#define LARGE			0x80ul
#define POLICY_ES		4

#define TIME_LIMIT		60	/* seconds, for each guest */

static int failed;

void fail(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "cannot go on: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, ": %s\n", strerror(errno));
	exit(2);
}

void report(int ok, const char *format, ...)
{
	va_list args;

	printf("  %s ", ok ? "ok    " : "FAILED");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	failed += !ok;
}

int failures(void)
{
	return failed;
}

void pin_to_cpu(unsigned int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu % sysconf(_SC_NPROCESSORS_ONLN), &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("sched_setaffinity");
}

static int check(int result, const char *what)
{
	if (result < 0)
		fail("%s", what);
	return result;
}

static void sev(struct guest *guest, int sev_fd, uint32_t id, const char *name, void *data)
{
	struct kvm_sev_cmd cmd = { .id = id, .sev_fd = sev_fd, .data = (uintptr_t)data };

	if (ioctl(guest->vm, KVM_MEMORY_ENCRYPT_OP, &cmd))
		fail("%s, firmware error %#x", name, cmd.error);
}

static void make_tables(struct guest *guest)
{
	uint64_t *pml4 = guest_pointer(guest, GPA_TABLES);
	uint64_t *pdpt = pml4 + 512, *pd = pml4 + 1024, *pt = pml4 + 1536;
	uint64_t gpa;

	pml4[0] = (GPA_TABLES + PAGE) | C_BIT | PRESENT_WRITABLE;
	pdpt[0] = (GPA_TABLES + 2 * PAGE) | C_BIT | PRESENT_WRITABLE;
	pdpt[GPA_MMIO >> 30] = GPA_MMIO | LARGE | PRESENT_WRITABLE;
	pd[0] = (GPA_TABLES + 3 * PAGE) | C_BIT | PRESENT_WRITABLE;
	for (gpa = 0; gpa < GUEST_SIZE; gpa += PAGE)
		pt[gpa / PAGE] = gpa | PRESENT_WRITABLE |
				 (gpa >= GPA_SHARED && gpa < GPA_SHARED + MAX_VCPUS * PAGE ? 0 : C_BIT);
}

static void set_registers(int fd, unsigned int number, uint64_t features)
{
	struct kvm_segment cs = { .limit = ~0u, .selector = 8, .type = 11, .present = 1,
				  .s = 1, .l = 1, .g = 1 };
	struct kvm_segment ds = { .limit = ~0u, .selector = 16, .type = 3, .present = 1,
				  .s = 1, .db = 1, .g = 1 };
	struct kvm_regs regs = { .rip = GPA_CODE, .rsp = GPA_STACK - number * PAGE,
				 .rdi = number, .rsi = features, .rflags = 2 };
	struct kvm_sregs sregs;

	check(ioctl(fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cr0 = 0x80000033;		/* PG, NE, ET, MP, PE */
	sregs.cr3 = GPA_TABLES | C_BIT;
	sregs.cr4 = 0x20;		/* PAE */
	sregs.efer = 0x500;		/* LMA, LME */
	sregs.cs = cs;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = ds;
	check(ioctl(fd, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	check(ioctl(fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static struct guest *start(const void *code, size_t code_size, unsigned int vcpus, int es,
			   uint64_t features)
{
	static struct {
		struct kvm_cpuid2 header;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid;
	struct kvm_sev_init init = { .vmsa_features = features };
	struct kvm_sev_launch_start start = { .policy = es ? POLICY_ES : 0 };
	struct kvm_sev_launch_update_data update = { .len = GPA_LAUNCHED };
	uint8_t measurement[64];
	struct kvm_sev_launch_measure measure = { .uaddr = (uintptr_t)measurement,
						  .len = sizeof(measurement) };
	struct kvm_userspace_memory_region slot = { .memory_size = GUEST_SIZE };
	struct kvm_enc_region region = { .size = GUEST_SIZE };
	struct guest *guest = calloc(1, sizeof(*guest));
	int kvm = check(open("/dev/kvm", O_RDWR), "/dev/kvm");
	int sev_fd = check(open("/dev/sev", O_RDWR), "/dev/sev");
	unsigned int i;

	/* A guest that makes no progress fails the test. */
	alarm(TIME_LIMIT);
	guest->run_size = check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	guest->vm = check(ioctl(kvm, KVM_CREATE_VM, es ? KVM_X86_SEV_ES_VM : KVM_X86_SEV_VM),
			  "KVM_CREATE_VM");
	guest->memfd = check(memfd_create("guest", 0), "memfd_create");
	check(ftruncate(guest->memfd, GUEST_SIZE), "ftruncate");
	guest->memory = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			     guest->memfd, 0);
	if (guest->memory == MAP_FAILED)
		fail("mmap");
	memset(guest->memory, 0, GUEST_SIZE);
	make_tables(guest);
	memcpy(guest->memory + GPA_CODE, code, code_size);
	slot.userspace_addr = region.addr = update.uaddr = (uintptr_t)guest->memory;
	check(ioctl(guest->vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");

	sev(guest, sev_fd, KVM_SEV_INIT2, "KVM_SEV_INIT2", &init);
	cpuid.header.nent = 256;
	check(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid), "KVM_GET_SUPPORTED_CPUID");
	for (i = 0; i < vcpus; i++) {
		struct vcpu *vcpu = &guest->vcpu[i];

		vcpu->fd = check(ioctl(guest->vm, KVM_CREATE_VCPU, i), "KVM_CREATE_VCPU");
		vcpu->run = mmap(NULL, guest->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
				 vcpu->fd, 0);
		if (vcpu->run == MAP_FAILED)
			fail("mmap of a vCPU");
		check(ioctl(vcpu->fd, KVM_SET_CPUID2, &cpuid), "KVM_SET_CPUID2");
		set_registers(vcpu->fd, i, features);
	}
	check(ioctl(guest->vm, KVM_MEMORY_ENCRYPT_REG_REGION, &region), "registering memory");
	sev(guest, sev_fd, KVM_SEV_LAUNCH_START, "KVM_SEV_LAUNCH_START", &start);
	sev(guest, sev_fd, KVM_SEV_LAUNCH_UPDATE_DATA, "KVM_SEV_LAUNCH_UPDATE_DATA", &update);
	if (es)
		sev(guest, sev_fd, KVM_SEV_LAUNCH_UPDATE_VMSA, "KVM_SEV_LAUNCH_UPDATE_VMSA", NULL);
	sev(guest, sev_fd, KVM_SEV_LAUNCH_MEASURE, "KVM_SEV_LAUNCH_MEASURE", &measure);
	sev(guest, sev_fd, KVM_SEV_LAUNCH_FINISH, "KVM_SEV_LAUNCH_FINISH", NULL);
	close(sev_fd);
	close(kvm);
	return guest;
}

struct guest *guest_start(const void *code, size_t code_size, unsigned int vcpus)
{
	return start(code, code_size, vcpus, 0, 0);
}

struct guest *guest_start_es(const void *code, size_t code_size, unsigned int vcpus,
			     uint64_t features)
{
	return start(code, code_size, vcpus, 1, features);
}

void guest_end(struct guest *guest)
{
	unsigned int i;

	for (i = 0; i < MAX_VCPUS; i++) {
		if (guest->vcpu[i].run) {
			munmap(guest->vcpu[i].run, guest->run_size);
			close(guest->vcpu[i].fd);
		}
	}
	close(guest->vm);
	munmap(guest->memory, GUEST_SIZE);
	close(guest->memfd);
	free(guest);
}

uint32_t guest_run(struct guest *guest, unsigned int vcpu)
{
	while (ioctl(guest->vcpu[vcpu].fd, KVM_RUN, 0)) {
		if (errno != EINTR && errno != EAGAIN)
			fail("KVM_RUN");
	}
	return guest->vcpu[vcpu].run->exit_reason;
}

uint64_t *guest_pointer(struct guest *guest, uint64_t gpa)
{
	return (uint64_t *)(guest->memory + gpa);
}

uint64_t guest_spa(struct guest *guest, uint64_t gpa)
{
	int fd = check(open("/proc/self/pagemap", O_RDONLY), "/proc/self/pagemap");
	uintptr_t va = (uintptr_t)guest->memory + gpa;
	uint64_t entry;

	if (pread(fd, &entry, sizeof(entry), va / PAGE * sizeof(entry)) != sizeof(entry))
		fail("reading /proc/self/pagemap");
	close(fd);
	return (entry & ((1ull << 55) - 1)) * PAGE;
}
