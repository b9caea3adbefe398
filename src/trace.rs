// SPDX-License-Identifier: GPL-2.0
//! The events of `events/kvm_sev/`, whose fields are in Documentation/tracing.rst, and whether anybody
//! watches these and KVM's.
//!
//! Names are those of the specifications and of debugfs. They and the fields are an interface: they
//! can become more, not others.

#![allow(unsafe_code)]

use kernel::prelude::*;

use crate::ffi::bindings as b;

/// Whether somebody traces an event, given by its `struct tracepoint`. Patched into the code, as in
/// C.
macro_rules! traced {
    ($tracepoint:path) => {
        // SAFETY: It is a tracepoint of KVM's, or of this module's.
        unsafe {
            kernel::jump_label::static_branch_unlikely!(
                $tracepoint,
                kernel::bindings::tracepoint,
                key
            )
        }
    };
}
pub(crate) use traced;

fn errno(result: Result) -> i32 {
    result.map_or_else(Error::to_errno, |()| 0)
}

/// Measures how long something takes. (The kernel's own type for that panics if clocks go backwards.)
pub(crate) struct Stopwatch(i64);

impl Stopwatch {
    fn now() -> i64 {
        // SAFETY: No requirements but that the kernel has booted.
        unsafe { kernel::bindings::ktime_get() }
    }

    /// `None` if nobody wants to know.
    pub(crate) fn for_command() -> Option<Self> {
        traced!(b::__tracepoint_psp_command).then(|| Self(Self::now()))
    }

    fn nanoseconds(&self) -> u64 {
        Self::now().wrapping_sub(self.0) as u64
    }
}

/// `psp_command`: the firmware was asked for something. `guest`: its handle, or the address of its
/// context, or 0.
pub(crate) fn command(
    name: &str,
    guest: u64,
    status: (u32, &str),
    result: Result,
    stopwatch: &Stopwatch,
) {
    // SAFETY: The strings are as long as it says.
    unsafe {
        b::kvm_sev_trace_command(
            name.as_ptr().cast(),
            name.len(),
            guest,
            status.0,
            status.1.as_ptr().cast(),
            status.1.len(),
            errno(result),
            stopwatch.nanoseconds(),
        )
    }
}

/// Whose a page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    Host = 0,
    Guest = 1,
    /// Assigned and immutable, for the firmware to load.
    Launch = 2,
}

/// A change of the RMP.
pub(crate) struct Transition {
    pub(crate) pfn: u64,
    /// 4 KiB pages that it is about.
    pub(crate) pages: u64,
    /// 4 KiB pages that an entry is about thereafter.
    pub(crate) entry_pages: u64,
    /// Guest physical address, and ASID; 0 if the host gets the page.
    pub(crate) gpa: u64,
    pub(crate) asid: u32,
    pub(crate) from: Owner,
    pub(crate) to: Owner,
}

/// `rmp`: an entry of the RMP was changed, or not: `result` is the processor's or the kernel's.
pub(crate) fn rmp(transition: &Transition, result: i32) {
    if !traced!(b::__tracepoint_rmp) {
        return;
    }
    // SAFETY: No requirements.
    unsafe {
        b::kvm_sev_trace_rmp(
            transition.pfn,
            transition.pages,
            transition.gpa,
            transition.asid,
            transition.from as u32,
            transition.to as u32,
            transition.entry_pages as u32,
            result,
        )
    }
}

/// `rejected`: an ioctl was, with this negative error number.
pub(crate) fn rejected(ioctl: &str, reason: &str, errno: i32) {
    // SAFETY: The strings are as long as it says.
    unsafe {
        b::kvm_sev_trace_rejected(
            ioctl.as_ptr().cast(),
            ioctl.len(),
            reason.as_ptr().cast(),
            reason.len(),
            errno,
        )
    }
}

/// `asid`: `what` happened to an ASID.
pub(crate) fn asid(asid: u32, what: &str) {
    if !traced!(b::__tracepoint_asid) {
        return;
    }
    // SAFETY: The string is as long as it says.
    unsafe { b::kvm_sev_trace_asid(asid, what.as_ptr().cast(), what.len()) }
}

/// `asids_recycled`: so many ASIDs were flushed, or not.
pub(crate) fn recycled(asids: usize, result: Result) {
    // SAFETY: No requirements.
    unsafe { b::kvm_sev_trace_recycled(asids as u32, errno(result)) }
}

/// `context`: an encryption context entered a state, or is gone.
pub(crate) fn context(asid: u32, kind: &str, state: &str) {
    if !traced!(b::__tracepoint_context) {
        return;
    }
    // SAFETY: The strings are as long as it says.
    unsafe {
        b::kvm_sev_trace_context(
            asid,
            kind.as_ptr().cast(),
            kind.len(),
            state.as_ptr().cast(),
            state.len(),
        )
    }
}
