/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kvm_sev

#if !defined(KVM_SEV_EVENTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define KVM_SEV_EVENTS_H

#include <linux/tracepoint.h>

TRACE_EVENT(psp_command,
	TP_PROTO(const char *name, size_t name_len, u64 guest, u32 status,
		 const char *status_name, size_t status_len, int result, u64 ns),
	TP_ARGS(name, name_len, guest, status, status_name, status_len, result, ns),

	TP_STRUCT__entry(
		__string_len(name, name, name_len)
		__string_len(status_name, status_name, status_len)
		__field(u64, guest)
		__field(u64, ns)
		__field(u32, status)
		__field(int, result)
	),

	TP_fast_assign(
		__assign_str(name);
		__assign_str(status_name);
		__entry->guest = guest;
		__entry->ns = ns;
		__entry->status = status;
		__entry->result = result;
	),

	TP_printk("%s guest=%#llx status=%s (%#x) result=%d ns=%llu",
		  __get_str(name), __entry->guest, __get_str(status_name),
		  __entry->status, __entry->result, __entry->ns)
);

TRACE_EVENT(rmp,
	TP_PROTO(u64 pfn, u64 pages, u64 gpa, u32 asid, u32 from, u32 to, u32 entry_pages,
		 int result),
	TP_ARGS(pfn, pages, gpa, asid, from, to, entry_pages, result),

	TP_STRUCT__entry(
		__field(u64, pfn)
		__field(u64, pages)
		__field(u64, gpa)
		__field(u32, asid)
		__field(u32, from)
		__field(u32, to)
		__field(u32, entry_pages)
		__field(int, result)
	),

	TP_fast_assign(
		__entry->pfn = pfn;
		__entry->pages = pages;
		__entry->gpa = gpa;
		__entry->asid = asid;
		__entry->from = from;
		__entry->to = to;
		__entry->entry_pages = entry_pages;
		__entry->result = result;
	),

	TP_printk("pfn=%#llx pages=%llu entries_of=%u gpa=%#llx asid=%u %s -> %s result=%d",
		  __entry->pfn, __entry->pages, __entry->entry_pages, __entry->gpa,
		  __entry->asid,
		  __print_symbolic(__entry->from,
				   { 0, "shared" }, { 1, "private" }, { 2, "launch" }),
		  __print_symbolic(__entry->to,
				   { 0, "shared" }, { 1, "private" }, { 2, "launch" }),
		  __entry->result)
);

TRACE_EVENT(rejected,
	TP_PROTO(const char *ioctl, size_t ioctl_len, const char *reason, size_t reason_len,
		 int result),
	TP_ARGS(ioctl, ioctl_len, reason, reason_len, result),

	TP_STRUCT__entry(
		__string_len(ioctl, ioctl, ioctl_len)
		__string_len(reason, reason, reason_len)
		__field(int, result)
	),

	TP_fast_assign(
		__assign_str(ioctl);
		__assign_str(reason);
		__entry->result = result;
	),

	TP_printk("%s reason=%s result=%d", __get_str(ioctl), __get_str(reason),
		  __entry->result)
);

TRACE_EVENT(asid,
	TP_PROTO(u32 asid, const char *what, size_t what_len),
	TP_ARGS(asid, what, what_len),

	TP_STRUCT__entry(
		__string_len(what, what, what_len)
		__field(u32, asid)
	),

	TP_fast_assign(
		__assign_str(what);
		__entry->asid = asid;
	),

	TP_printk("asid=%u %s", __entry->asid, __get_str(what))
);

TRACE_EVENT(asids_recycled,
	TP_PROTO(u32 asids, int result),
	TP_ARGS(asids, result),

	TP_STRUCT__entry(
		__field(u32, asids)
		__field(int, result)
	),

	TP_fast_assign(
		__entry->asids = asids;
		__entry->result = result;
	),

	TP_printk("asids=%u result=%d", __entry->asids, __entry->result)
);

TRACE_EVENT(context,
	TP_PROTO(u32 asid, const char *kind, size_t kind_len, const char *state, size_t state_len),
	TP_ARGS(asid, kind, kind_len, state, state_len),

	TP_STRUCT__entry(
		__string_len(kind, kind, kind_len)
		__string_len(state, state, state_len)
		__field(u32, asid)
	),

	TP_fast_assign(
		__assign_str(kind);
		__assign_str(state);
		__entry->asid = asid;
	),

	TP_printk("asid=%u %s %s", __entry->asid, __get_str(kind), __get_str(state))
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE events
#include <trace/define_trace.h>
