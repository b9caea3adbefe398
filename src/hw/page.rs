// SPDX-License-Identifier: GPL-2.0
//! Pages that C code or the firmware gets.

#![allow(unsafe_code)]

use core::ptr::NonNull;

use kernel::prelude::*;

use crate::ffi::bindings;
use crate::hw::addr::{PspAddr, PAGE_SIZE};

/// Allocates a zeroed page for a VMCB, a VMSA or an AVIC backing page.
///
/// With an active RMP the page is never 2 MiB aligned: the processor wrongly reports an RMP
/// violation when a huge page elsewhere collides with the entry of such a page. Null if there is no
/// memory. Source: AMD's revision guides, as worked around in KVM.
pub(crate) fn alloc_save_area(node: i32, gfp: bindings::gfp_t) -> *mut bindings::page {
    // SAFETY: No requirements but a context that fits `gfp`.
    unsafe { bindings::kvm_sev_alloc_save_area(node, gfp) }
}

/// A page into which the SNP firmware writes an answer.
///
/// # Invariants
///
/// The pointer came from the PSP driver's `snp_alloc_firmware_page`, whose owner this is.
pub(crate) struct FirmwarePage(NonNull<u8>);

impl FirmwarePage {
    /// A zeroed page. ENOMEM. May sleep.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: No requirements; the context may sleep.
        let page = unsafe { bindings::kvm_sev_alloc_firmware_page() };
        // INVARIANT: A non-null result is ours.
        NonNull::new(page.cast()).map(Self).ok_or(ENOMEM)
    }

    pub(crate) fn address(&self) -> PspAddr {
        // SAFETY: The pointer is one of the kernel's direct map.
        PspAddr::new(unsafe { bindings::kvm_sev_psp_pa(self.0.as_ptr().cast()) })
    }

    /// What the firmware wrote at `offset`; 0 beyond the page.
    pub(crate) fn byte(&self, offset: usize) -> u8 {
        if offset >= PAGE_SIZE {
            return 0;
        }
        // SAFETY: In bounds of a live page. Volatile: the firmware wrote it.
        unsafe { self.0.as_ptr().add(offset).read_volatile() }
    }
}

impl Drop for FirmwarePage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the driver reclaims the page, or leaks it if it cannot.
        unsafe { bindings::snp_free_firmware_page(self.0.as_ptr().cast()) }
    }
}
