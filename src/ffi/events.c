// SPDX-License-Identifier: GPL-2.0
#include <linux/types.h>

#include "helpers.h"

#define CREATE_TRACE_POINTS
#include "events.h"

void kvm_sev_trace_command(const char *name, size_t name_len, u64 guest, u32 status,
			   const char *status_name, size_t status_len, int result, u64 ns)
{
	trace_psp_command(name, name_len, guest, status, status_name, status_len, result, ns);
}

void kvm_sev_trace_rmp(u64 pfn, u64 pages, u64 gpa, u32 asid, u32 from, u32 to,
		       u32 entry_pages, int result)
{
	trace_rmp(pfn, pages, gpa, asid, from, to, entry_pages, result);
}

void kvm_sev_trace_rejected(const char *ioctl, size_t ioctl_len, const char *reason,
			    size_t reason_len, int result)
{
	trace_rejected(ioctl, ioctl_len, reason, reason_len, result);
}

void kvm_sev_trace_asid(u32 asid, const char *what, size_t what_len)
{
	trace_asid(asid, what, what_len);
}

void kvm_sev_trace_recycled(u32 asids, int result)
{
	trace_asids_recycled(asids, result);
}

void kvm_sev_trace_context(u32 asid, const char *kind, size_t kind_len,
			   const char *state, size_t state_len)
{
	trace_context(asid, kind, kind_len, state, state_len);
}
