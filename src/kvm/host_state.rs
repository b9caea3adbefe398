// SPDX-License-Identifier: GPL-2.0
//! What the processor loads when it leaves a SEV-ES guest but did not save when it entered it.
//!
//! Source: APM volume 2, appendix B, "swap type B".

#![allow(unsafe_code)]

use core::arch::asm;

use super::host::Feature;
use crate::ffi::bindings;

/// As the kernel's function, which is inline; 0 without protection keys.
fn read_pkru() -> u32 {
    let pkru: u32;

    if !Feature::ProtectionKeys.is_present() {
        return 0;
    }
    // SAFETY: The instruction exists, wants ECX to be 0, and clears EDX.
    unsafe {
        asm!(
            "rdpkru",
            in("ecx") 0,
            out("eax") pkru,
            out("edx") _,
            options(nomem, nostack, preserves_flags)
        )
    };
    pkru
}

/// The save area of the host on this CPU.
pub(crate) struct HostSaveArea(*mut bindings::sev_es_save_area);

impl HostSaveArea {
    /// # Safety
    ///
    /// `area` must be the save area of the current CPU, with preemption disabled while the result
    /// is used.
    pub(crate) unsafe fn new(area: *mut bindings::sev_es_save_area) -> Self {
        Self(area)
    }

    /// Saves what is loaded for every guest.
    pub(crate) fn save(&self) {
        // SAFETY: The area is this CPU's. The host's values were found when the module was loaded;
        // the slot is written at that time only.
        unsafe {
            let area = self.0;
            (*area).xcr0 = bindings::kvm_host.xcr0;
            (*area).xss = bindings::kvm_host.xss;
            (*area).pkru = read_pkru();

            // Where the processor switches it, it loads what a task of the host has.
            let slot = bindings::tsc_aux_uret_slot;
            if let (true, Ok(slot)) = (Feature::VirtualTscAux.is_present(), u32::try_from(slot)) {
                (*area).tsc_aux = bindings::kvm_get_user_return_msr(slot) as u32;
            }
        }
    }

    /// Saves what is loaded for a guest that has the debug registers for itself. The registers as
    /// such are restored by KVM.
    pub(crate) fn save_debug_masks(&self) {
        // SAFETY: The area is this CPU's, and there are four such masks.
        unsafe {
            let area = self.0;
            (*area).dr0_addr_mask = bindings::amd_get_dr_addr_mask(0) as u64;
            (*area).dr1_addr_mask = bindings::amd_get_dr_addr_mask(1) as u64;
            (*area).dr2_addr_mask = bindings::amd_get_dr_addr_mask(2) as u64;
            (*area).dr3_addr_mask = bindings::amd_get_dr_addr_mask(3) as u64;
        }
    }
}
