// SPDX-License-Identifier: GPL-2.0
//! The reverse map table (RMP): whether a page is the host's, or which guest's, and where that guest
//! has it.
//!
//! Only the processor changes an entry, by RMPUPDATE and PSMASH, and only if the rules allow it. A
//! page whose entry could not be changed back must not be used by the host any more: whoever owns it
//! leaks it.
//!
//! Source: APM volume 2, "Secure Nested Paging"; arch/x86/virt/svm/sev.c.

#![allow(unsafe_code)]

use kernel::prelude::*;

use crate::ffi::bindings as b;
use crate::hw::addr::{Pfn, PspAddr, PAGE_SIZE};
use crate::hw::asid::Asid;
use crate::trace::{self, Transition};

pub(crate) use crate::trace::Owner;

/// How much an entry is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageSize {
    /// 4 KiB
    Small,
    /// 2 MiB
    Large,
}

impl PageSize {
    /// In pages of 4 KiB.
    pub(crate) const fn pages(self) -> u64 {
        match self {
            PageSize::Small => 1,
            PageSize::Large => Pfn::PER_LARGE,
        }
    }

    /// `PG_LEVEL_*`.
    pub(crate) const fn level(self) -> u32 {
        match self {
            PageSize::Small => b::pg_level_PG_LEVEL_4K,
            PageSize::Large => b::pg_level_PG_LEVEL_2M,
        }
    }
}

/// What the table says about a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// It is a guest's or the firmware's: the host cannot write to it.
    pub(crate) assigned: bool,
    pub(crate) size: PageSize,
}

/// Whether a page can be changed by RMPUPDATE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mutable {
    Yes,
    /// Not until the firmware had it: a page that is going to be measured.
    No,
}

impl Pfn {
    /// The address of the page for the firmware.
    pub(crate) fn psp_address(self) -> PspAddr {
        // SAFETY: No requirements.
        PspAddr::new(unsafe { b::kvm_sev_pfn_psp_pa(self.get()) })
    }

    /// The address for the processor, which uses the guest's key.
    pub(crate) fn guest_address(self) -> PspAddr {
        PspAddr::new(self.get().wrapping_mul(PAGE_SIZE as u64))
    }
}

/// Reads an entry. ENODEV without RMP; EFAULT and others if the table has none for the page.
pub(crate) fn lookup(pfn: Pfn) -> Result<Entry> {
    let (mut assigned, mut level) = (false, 0);

    // SAFETY: The pointers are valid for the call.
    let ret = unsafe { b::snp_lookup_rmpentry(pfn.get(), &mut assigned, &mut level) };
    kernel::error::to_result(ret)?;
    Ok(Entry {
        assigned,
        size: if level as u32 == b::pg_level_PG_LEVEL_4K {
            PageSize::Small
        } else {
            PageSize::Large
        },
    })
}

/// A change of the entry of a page of this size.
fn transition(pfn: Pfn, size: PageSize, from: Owner, to: Owner) -> Transition {
    Transition {
        pfn: pfn.get(),
        pages: size.pages(),
        entry_pages: size.pages(),
        gpa: 0,
        asid: 0,
        from,
        to,
    }
}

/// Gives memory of the host's to a guest, at the guest physical address `gpa`. May sleep.
///
/// The host must not write to it from now on. Errors: EFAULT if the processor refuses, which is
/// logged; EINVAL.
pub(crate) fn make_private(
    pfn: Pfn,
    gpa: u64,
    size: PageSize,
    asid: Asid,
    mutable: Mutable,
) -> Result {
    // SAFETY: No requirements of the function; what the host loses is the caller's to know.
    let ret = unsafe {
        b::rmp_make_private(
            pfn.get(),
            gpa,
            size.level(),
            asid.get(),
            mutable == Mutable::No,
        )
    };
    let to = match mutable {
        Mutable::Yes => Owner::Guest,
        Mutable::No => Owner::Launch,
    };
    let transition = Transition {
        gpa,
        asid: asid.get(),
        ..transition(pfn, size, Owner::Host, to)
    };
    trace::rmp(&transition, ret);
    kernel::error::to_result(ret)
}

/// Gives memory back to the host. May sleep. Errors: as [`make_private`]; the memory cannot be used
/// then.
pub(crate) fn make_shared(pfn: Pfn, size: PageSize, from: Owner) -> Result {
    // SAFETY: No requirements.
    let ret = unsafe { b::rmp_make_shared(pfn.get(), size.level()) };

    trace::rmp(&transition(pfn, size, from, Owner::Host), ret);
    kernel::error::to_result(ret)
}

/// Splits the entry of the large page that contains `pfn`. The result is the processor's if it
/// refuses, `PSMASH_FAIL_*`, or an error number.
pub(crate) fn psmash(pfn: Pfn) -> Result<(), i32> {
    let first = pfn.large_page();
    let result = loop {
        // SAFETY: No requirements.
        match unsafe { b::psmash(first.get()) } {
            0 => break Ok(()),
            // Another processor is changing it.
            ret if ret == b::KVM_SEV_CONST_PSMASH_FAIL_INUSE => core::hint::spin_loop(),
            ret => break Err(ret),
        }
    };
    let transition = Transition {
        entry_pages: 1,
        ..transition(first, PageSize::Large, Owner::Guest, Owner::Guest)
    };

    trace::rmp(&transition, result.err().unwrap_or(0));
    result
}

/// Writes back and drops what CPU caches hold of memory that was a guest's.
pub(crate) fn flush_caches(pfn: Pfn, size: PageSize) {
    // SAFETY: Memory that has an entry is in the direct map.
    unsafe { b::kvm_sev_clflush_pfn(pfn.get(), size.pages()) }
}

/// Keeps a page from ever being used again, also if somebody else owns it.
pub(crate) fn leak(pfn: Pfn) {
    // SAFETY: The page exists: somebody owns it.
    unsafe { b::kvm_sev_leak_page(pfn.get()) }
}
