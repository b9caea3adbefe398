// SPDX-License-Identifier: GPL-2.0
//! Tracepoints of KVM's.

#![allow(unsafe_code)]

/// Whether somebody traces an event, given by its `struct tracepoint`. Patched into the code, as in
/// C.
macro_rules! traced {
    ($tracepoint:path) => {
        // SAFETY: It is a tracepoint of KVM's.
        unsafe {
            kernel::jump_label::static_branch_unlikely!(
                $tracepoint,
                kernel::bindings::tracepoint,
                key
            )
        }
    };
}
pub(super) use traced;
