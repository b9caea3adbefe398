// SPDX-License-Identifier: GPL-2.0
//! Pages that C code or the firmware gets.

#![allow(unsafe_code)]

use core::ptr::NonNull;

use kernel::prelude::*;

use crate::ffi::bindings::{self, sev_es_save_area};
use crate::hw::addr::{Pfn, PspAddr, PAGE_SIZE};
use crate::hw::asid::Asid;

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

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    /// The firmware did not let go of the page.
    pub(crate) fn leak(self) {
        core::mem::forget(self);
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

/// A page for the registers of a SEV-ES guest's vCPU, or a copy of them.
///
/// # Invariants
///
/// The pointer is that of a page, whose owner this is.
pub(crate) struct SaveArea(NonNull<sev_es_save_area>);

impl SaveArea {
    /// A zeroed page. ENOMEM. May sleep.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: No requirements; the context may sleep.
        let page = unsafe { bindings::kvm_sev_alloc_vmsa() };
        // INVARIANT: A non-null result is ours.
        NonNull::new(page.cast()).map(Self).ok_or(ENOMEM)
    }

    /// Gives the page away.
    pub(crate) fn into_raw(self) -> *mut sev_es_save_area {
        core::mem::ManuallyDrop::new(self).as_ptr()
    }

    /// # Safety
    ///
    /// `page` must have come from [`SaveArea::into_raw`] and not be used any more.
    pub(crate) unsafe fn from_raw(page: *mut sev_es_save_area) -> Option<Self> {
        // INVARIANT: By the contract.
        NonNull::new(page).map(Self)
    }

    /// For C code.
    pub(crate) fn as_ptr(&self) -> *mut sev_es_save_area {
        self.0.as_ptr()
    }

    /// Everything becomes 0 again.
    pub(crate) fn clear(&mut self) {
        // SAFETY: The page is ours. Nobody else has a reference, as `self` is borrowed exclusively.
        unsafe { self.as_ptr().cast::<u8>().write_bytes(0, PAGE_SIZE) }
    }

    /// The registers.
    pub(crate) fn registers(&mut self) -> &mut sev_es_save_area {
        // SAFETY: As above. The page is initialised, and fields may have any value.
        unsafe { self.0.as_mut() }
    }

    /// The address for the processor, which uses the guest's key.
    pub(crate) fn guest_address(&self) -> PspAddr {
        // SAFETY: The pointer is one of the kernel's direct map.
        PspAddr::new(unsafe { bindings::kvm_sev_pa(self.as_ptr().cast()) })
    }

    /// The address for the firmware.
    pub(crate) fn address(&self) -> PspAddr {
        // SAFETY: The pointer is one of the kernel's direct map.
        PspAddr::new(unsafe { bindings::kvm_sev_psp_pa(self.as_ptr().cast()) })
    }

    /// The number of the page.
    pub(crate) fn pfn(&self) -> Pfn {
        // SAFETY: The pointer is one of the kernel's direct map.
        Pfn::new(unsafe { bindings::kvm_sev_pa(self.as_ptr().cast()) } / PAGE_SIZE as u64)
    }

    /// Copies what the firmware wrote to a page of its own.
    pub(crate) fn copy_from(&mut self, page: &FirmwarePage) {
        // SAFETY: Both are pages, and ours; they differ, as each has one owner. The host can read
        // what the firmware owns, and the firmware does not write to it now.
        unsafe {
            self.as_ptr()
                .cast::<u8>()
                .copy_from_nonoverlapping(page.0.as_ptr(), PAGE_SIZE)
        }
    }

    /// Writes back and drops what CPU caches hold of the host's view of the page.
    pub(crate) fn flush_caches(&self) {
        // SAFETY: The page is ours.
        unsafe { bindings::clflush_cache_range(self.as_ptr().cast(), PAGE_SIZE as u32) }
    }

    /// The same for a guest's view of it. False if the processor refused.
    pub(crate) fn flush_guest_caches(&self, asid: Asid) -> bool {
        // SAFETY: The page is ours, and in the kernel's direct map.
        unsafe { bindings::kvm_sev_flush_encrypted_page(self.as_ptr().cast(), asid.get()) }
    }
}

impl Drop for SaveArea {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::free_pages(self.as_ptr() as usize, 0) }
    }
}
