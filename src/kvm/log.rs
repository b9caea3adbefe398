// SPDX-License-Identifier: GPL-2.0
//! Rate limiting of messages that users can provoke.

#![allow(unsafe_code)]

use crate::ffi::bindings;

/// Whether another message may be printed now; counts it if so. Any context.
pub(crate) fn allowed() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::kvm_sev_ratelimit() }
}
