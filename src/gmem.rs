// SPDX-License-Identifier: GPL-2.0
//! Private memory and the RMP: pages become an SEV-SNP guest's when it first uses them, and the host's
//! again when they are freed.
//!
//! What is in an entry of the RMP, only the entry knows. Nobody else changes those of private memory
//! but the firmware, during the launch; two tasks may race to do the same.

use kernel::prelude::*;

use crate::hw::addr::{Pfn, PAGE_SIZE};
use crate::hw::rmp::{self, Entry, Mutable, Owner, PageSize};
use crate::kvm::gmem::VcpuMemory;
use crate::kvm::host;
use crate::kvm::log;
use crate::kvm::vcpu::Vcpu;
use crate::vm::EncContext;

/// Gives a page to the guest, at its page `gfn`, unless it is the guest's already. `large`: it is part
/// of an aligned 2 MiB of memory, all of which may be given. May sleep.
///
/// Errors: ENOENT if there is no entry; EINVAL if it cannot be changed.
pub(crate) fn make_private(context: &EncContext, gfn: u64, pfn: Pfn, large: bool) -> Result {
    let entry = rmp::lookup(pfn).map_err(|error| {
        complain(gfn, pfn, error);
        ENOENT
    })?;
    if entry.assigned {
        return Ok(());
    }
    let (gfn, pfn, size) = if large && is_shared(pfn.large_page()) {
        (
            gfn & !(Pfn::PER_LARGE - 1),
            pfn.large_page(),
            PageSize::Large,
        )
    } else {
        (gfn, pfn, PageSize::Small)
    };
    let gpa = gfn.wrapping_mul(PAGE_SIZE as u64);

    rmp::make_private(pfn, gpa, size, context.asid(), Mutable::Yes).map_err(|error| {
        complain(gfn, pfn, error);
        EINVAL
    })
}

fn complain(gfn: u64, pfn: Pfn, error: Error) {
    if log::allowed() {
        pr_err!(
            "SEV: page {:#x} cannot be given to the guest at {gfn:#x}: {error:?}\n",
            pfn.get()
        );
    }
}

/// Whether no part of a large page is a guest's.
fn is_shared(first: Pfn) -> bool {
    (0..Pfn::PER_LARGE).all(|n| rmp::lookup(first.offset(n)).is_ok_and(|entry| !entry.assigned))
}

/// Gives pages that are about to be freed back to the host. May sleep.
///
/// A page that cannot be given back is leaked.
pub(crate) fn make_shared(first: Pfn, pages: u64) {
    if !host::has_rmp() {
        return;
    }
    let mut done = 0;

    while let Some(left) = pages.checked_sub(done).filter(|left| *left > 0) {
        let pfn = first.offset(done);
        let size = match rmp::lookup(pfn) {
            Ok(entry) if entry.assigned => release(pfn, left, entry),
            _ => PageSize::Small,
        };

        done = done.saturating_add(size.pages());
        host::cond_resched();
    }
}

/// Gives one page back, a large one if all of it is among the `left` pages.
fn release(pfn: Pfn, left: u64, entry: Entry) -> PageSize {
    let whole =
        entry.size == PageSize::Large && pfn.begins_large_page() && left >= PageSize::Large.pages();
    let size = if whole {
        PageSize::Large
    } else {
        PageSize::Small
    };

    // Of a large page, the others remain the guest's.
    if entry.size != size {
        if let Err(code) = rmp::psmash(pfn) {
            pr_err!("SEV: page {:#x} cannot be split: {code}\n", pfn.get());
        }
    }
    match rmp::make_shared(pfn, size, Owner::Guest) {
        // The guest's dirty cache lines must not hit the memory once somebody else has it.
        Ok(()) => rmp::flush_caches(pfn, size),
        Err(error) => {
            pr_err!(
                "SEV: page {:#x} is lost: it is still a guest's: {error:?}\n",
                pfn.get()
            );
            for n in 0..size.pages() {
                rmp::leak(pfn.offset(n));
            }
        }
    }
    size
}

/// The largest mapping for a page of private memory.
pub(crate) fn max_mapping(pfn: Pfn) -> PageSize {
    match rmp::lookup(pfn) {
        Ok(entry) if entry.assigned => entry.size,
        _ => PageSize::Small,
    }
}

/// Repairs what kept the guest from accessing its private memory at `gpa`: the guest, or the nested
/// page table, uses smaller pages than the RMP. May sleep.
///
/// If there is nothing to repair, the guest just tries again: another vCPU may have been faster.
pub(crate) fn handle_fault(vcpu: &Vcpu, gpa: u64, error_code: u64) {
    let memory = vcpu.memory();
    let gfn = gpa / PAGE_SIZE as u64;

    // If userspace has to convert memory first, this is not how it is asked to.
    if !memory.is_private(gfn) {
        return unexpected(gpa, "memory that is not private");
    }
    let Ok(page) = memory.page(gfn) else {
        return unexpected(gpa, "memory that is not there");
    };
    let entry = match rmp::lookup(page.pfn()) {
        Ok(entry) if entry.assigned => entry,
        _ => return unexpected(gpa, "a page that is not the guest's"),
    };

    let result = match entry.size {
        PageSize::Small => 0,
        PageSize::Large => split(&memory, gfn, page.pfn()),
    };
    vcpu.trace_rmp_fault(gpa, page.pfn(), error_code, entry.size, result);
}

/// Splits the large page that contains `pfn`, and drops the large mapping of it. 0, or why it could
/// not be split.
fn split(memory: &VcpuMemory<'_>, gfn: u64, pfn: Pfn) -> i32 {
    let Err(code) = rmp::psmash(pfn) else {
        memory.unmap(gfn..gfn.saturating_add(Pfn::PER_LARGE));
        return 0;
    };
    let done_by_another =
        rmp::lookup(pfn).is_ok_and(|entry| entry.assigned && entry.size == PageSize::Small);

    if !done_by_another {
        if log::allowed() {
            pr_warn!("SEV: page {:#x} cannot be split: {code}\n", pfn.get());
        }
        memory.unmap(gfn..gfn.saturating_add(Pfn::PER_LARGE));
    }
    code
}

fn unexpected(gpa: u64, why: &str) {
    if log::allowed() {
        pr_warn!("SEV: unexpected RMP fault at {gpa:#x}: {why}\n");
    }
}
