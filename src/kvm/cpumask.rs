// SPDX-License-Identifier: GPL-2.0
//! Which CPUs ran a guest, and writing back their caches.

#![allow(unsafe_code)]

use kernel::cpumask::CpumaskVar;
use kernel::prelude::*;

use crate::ffi::bindings;

/// The CPUs that executed VMRUN for a VM, and whose caches may hold its memory.
///
/// CPUs are only ever added, concurrently and without a lock: removing one would have to be
/// serialised against a vCPU that is about to enter the guest on it.
pub(crate) struct RunCpus(CpumaskVar);

impl RunCpus {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(CpumaskVar::new_zero(GFP_KERNEL_ACCOUNT)?))
    }

    /// Adds a CPU. Any context.
    pub(crate) fn add(&self, cpu: i32) {
        let mask = self.0.as_raw();

        // SAFETY: The mask is live; both functions are atomic, and `cpu` is a CPU number that KVM
        // runs on. The test keeps the cache line shared in the usual case.
        unsafe {
            if !bindings::cpumask_test_cpu(cpu, mask) {
                bindings::cpumask_set_cpu(cpu as u32, mask);
            }
        }
    }

    /// Makes all these CPUs write back dirty cache lines. May sleep, sends IPIs and waits.
    pub(crate) fn write_back_caches(&self) {
        // SAFETY: The mask is live. CPUs that are added meanwhile need no flush: whoever calls this
        // has excluded guest accesses to the memory in question.
        unsafe { bindings::wbnoinvd_on_cpus_mask(self.0.as_raw()) }
    }
}
