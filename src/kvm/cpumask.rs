// SPDX-License-Identifier: GPL-2.0
//! Which CPUs ran a guest, and writing back their caches.

#![allow(unsafe_code)]

use core::sync::atomic::{AtomicUsize, Ordering};

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
        // The test keeps the cache line shared in the usual case.
        if !self.contains(cpu) {
            // SAFETY: The mask is live, the function atomic, and `cpu` one that KVM runs on.
            unsafe { bindings::cpumask_set_cpu(cpu as u32, self.0.as_raw()) }
        }
    }

    /// As cpumask_test_cpu(), which is not inlined and would be a good part of the way into the
    /// guest.
    fn contains(&self, cpu: i32) -> bool {
        let (word, bit) = (
            cpu as usize / usize::BITS as usize,
            cpu as u32 % usize::BITS,
        );
        // SAFETY: The mask is live and has a bit for each CPU; others change it atomically.
        let word = unsafe { AtomicUsize::from_ptr(self.0.as_raw().cast::<usize>().add(word)) };

        word.load(Ordering::Relaxed) & 1usize.wrapping_shl(bit) != 0
    }

    /// Makes all these CPUs write back dirty cache lines. May sleep, sends IPIs and waits.
    pub(crate) fn write_back_caches(&self) {
        // SAFETY: The mask is live. CPUs that are added meanwhile need no flush: whoever calls this
        // has excluded guest accesses to the memory in question.
        unsafe { bindings::wbnoinvd_on_cpus_mask(self.0.as_raw()) }
    }
}
