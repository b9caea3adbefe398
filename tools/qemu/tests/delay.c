// SPDX-License-Identifier: GPL-2.0-or-later
/* delay MIN MAX: a PLATFORM_STATUS takes at least MIN and less than MAX milliseconds. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <linux/psp-sev.h>

int main(int argc, char **argv)
{
	struct sev_user_data_status status = { };
	struct sev_issue_cmd cmd = { .cmd = SEV_PLATFORM_STATUS, .data = (unsigned long)&status };
	int fd = open("/dev/sev", O_RDWR);
	struct timespec start, end;
	double ms;

	if (argc != 3 || fd < 0) {
		fprintf(stderr, "usage: delay MIN MAX, with a /dev/sev\n");
		return 2;
	}
	clock_gettime(CLOCK_MONOTONIC, &start);
	if (ioctl(fd, SEV_ISSUE_CMD, &cmd)) {
		fprintf(stderr, "PLATFORM_STATUS: %s, firmware error %#x\n", strerror(errno), cmd.error);
		return 2;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	ms = (end.tv_sec - start.tv_sec) * 1e3 + (end.tv_nsec - start.tv_nsec) / 1e6;
	printf("  PLATFORM_STATUS took %.1f ms\n", ms);
	return !(ms >= atof(argv[1]) && ms < atof(argv[2]));
}
