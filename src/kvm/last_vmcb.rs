// SPDX-License-Identifier: GPL-2.0
//! Which VMCB ran last with a context's ASID, on each CPU.
//!
//! All vCPUs of an encryption context share its ASID. A TLB entry of one must not be taken for an
//! entry of another, so the TLB is flushed when they alternate on a CPU.

#![allow(unsafe_code)]

// The kernel's own atomics are calls, which would be a good part of the way into the guest.
use core::sync::atomic::{AtomicUsize, Ordering};

use kernel::alloc::flags::{GFP_KERNEL_ACCOUNT, __GFP_ZERO};
use kernel::cpu::nr_cpu_ids;
use kernel::prelude::*;

use super::vcpu::VmrunCtx;

/// For each CPU the address of a VMCB, or 0. It is only compared.
///
/// Each entry is only used by its CPU, with interrupts off. That there is a table for each context,
/// instead of one for each CPU with all ASIDs, makes an ASID clean when its next owner gets it.
pub(crate) struct LastVmcbs(KVVec<AtomicUsize>);

impl LastVmcbs {
    /// ENOMEM.
    pub(crate) fn new() -> Result<Self> {
        let cpus = nr_cpu_ids() as usize;
        let mut last = KVVec::with_capacity(cpus, GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;

        // SAFETY: There is room for an entry for each CPU, which the allocator has zeroed.
        unsafe { last.inc_len(cpus) };
        Ok(Self(last))
    }

    /// Remembers the vCPU that is about to run. True if it was the last one on this CPU, and did not
    /// run elsewhere since.
    pub(crate) fn continues(&self, ctx: &VmrunCtx<'_>) -> bool {
        let (vmcb, cpu) = (ctx.vmcb_address(), ctx.cpu());
        let Some(last) = usize::try_from(cpu).ok().and_then(|cpu| self.0.get(cpu)) else {
            return false;
        };
        if last.load(Ordering::Relaxed) != vmcb {
            last.store(vmcb, Ordering::Relaxed);
            return false;
        }
        ctx.last_cpu() == cpu
    }
}
