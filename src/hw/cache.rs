// SPDX-License-Identifier: GPL-2.0
//! Cache maintenance of the whole machine.

#![allow(unsafe_code)]

use crate::ffi::bindings;

/// Executes WBINVD on every CPU. May sleep, sends IPIs and waits.
pub(crate) fn wbinvd_on_all_cpus() {
    // SAFETY: No requirements but a context that may wait for other CPUs.
    unsafe { bindings::wbinvd_on_all_cpus() }
}
