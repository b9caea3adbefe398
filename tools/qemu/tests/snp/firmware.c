/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A firmware for tests of the processor: the host asks it for what only a firmware can do.
 * The interface is that of include/hw/misc/sevfw.h of the series, as far as it is used here.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
	uint32_t abi, size;
	void *opaque;
	int (*mem_read)(void *opaque, uint64_t spa, uint32_t asid, void *buf, size_t len);
	int (*mem_write)(void *opaque, uint64_t spa, uint32_t asid, const void *buf, size_t len);
	int (*asid_key)(void *opaque, uint32_t asid, const uint8_t *key16);
	int (*vmsa_seal)(void *opaque, uint64_t spa, uint32_t asid);
	int (*rmp_init)(void *opaque);
	int (*rmp_get)(void *opaque, uint64_t spa, uint64_t entry[2]);
	int (*rmp_set)(void *opaque, uint64_t spa, const uint64_t entry[2]);
} Host;

typedef struct {
	uint32_t status, delay_us;
} Reply;

/* Command buffer: what the commands below use of it */
struct buffer {
	uint64_t spa, entry[2], asid, from;
};

enum { RMP_INIT = 1, RMP_GET, RMP_SET, COPY };

uint32_t sevfw_abi(void)
{
	return 5;
}

void *sevfw_new(const Host *host, const char *config)
{
	(void)config;
	return (void *)host;
}

void sevfw_free(void *fw)
{
	(void)fw;
}

void sevfw_command(void *fw, uint32_t cmd, uint64_t spa, Reply *reply)
{
	static const uint8_t key[16] = "a key of a guest";
	const Host *host = fw;
	struct buffer buffer;
	uint8_t page[4096];
	int failed = 1;

	host->mem_read(host->opaque, spa, 0, &buffer, sizeof(buffer));
	switch (cmd) {
	case RMP_INIT:
		failed = host->rmp_init(host->opaque) || host->asid_key(host->opaque, 1, key);
		break;
	case RMP_GET:
		failed = host->rmp_get(host->opaque, buffer.spa, buffer.entry) ||
			 host->mem_write(host->opaque, spa, 0, &buffer, sizeof(buffer));
		break;
	case RMP_SET:
		failed = host->rmp_set(host->opaque, buffer.spa, buffer.entry);
		break;
	case COPY:	/* a page of the host to one of a guest */
		failed = host->mem_read(host->opaque, buffer.from, 0, page, sizeof(page)) ||
			 host->mem_write(host->opaque, buffer.spa, buffer.asid, page, sizeof(page));
		break;
	}
	reply->status = failed;
}

void sevfw_event(void *fw, uint32_t event, uint32_t arg)
{
	(void)fw, (void)event, (void)arg;
}

size_t sevfw_control(void *fw, const char *request, char *reply, size_t size)
{
	(void)fw, (void)request;
	if (size)
		*reply = 0;
	return 1;
}
