// SPDX-License-Identifier: GPL-2.0-or-later
//! RMP entries in the raw form of Family 19h, and the page states that they encode.
//!
//! Source: Linux `arch/x86/virt/svm/sev.c`, struct rmpentry_raw.

use crate::firmware::Firmware;
use crate::memory::Spa;
use crate::status::{Result, Status};

const ASSIGNED: u64 = 1 << 0;
const PAGE_SIZE_2M: u64 = 1 << 1;
const IMMUTABLE: u64 = 1 << 2;
const ASID: u64 = 0x3ff << 51;
const VMSA: u64 = 1 << 61;
const VALIDATED: u64 = 1 << 62;

/// Page states, as far as the platform commands tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Not assigned: the host's.
    Hypervisor,
    /// Not assigned and immutable: the host's for good.
    HvFixed,
    /// Assigned to the firmware, which may write it.
    Firmware,
    /// Assigned to the firmware, which is done with it.
    Reclaim,
    /// Assigned to a guest.
    Guest,
}

/// A raw entry.
#[derive(Clone, Copy)]
pub struct Entry([u64; 2]);

impl Entry {
    /// The entry of the page at `spa`; `None` if the table does not cover it.
    pub fn read(fw: &Firmware, spa: Spa) -> Option<Self> {
        fw.host.rmp_get(spa.get()).ok().map(Entry)
    }

    /// Puts the entry back.
    pub fn write(self, fw: &Firmware, spa: Spa) -> Result {
        fw.host
            .rmp_set(spa.get(), self.0)
            .map_err(|_| Status::HWERROR_PLATFORM)
    }

    /// The state that the entry encodes.
    pub fn state(self) -> PageState {
        let [low, _] = self.0;
        match (low & ASSIGNED != 0, low & IMMUTABLE != 0, low & ASID != 0) {
            (false, false, _) => PageState::Hypervisor,
            (false, true, _) => PageState::HvFixed,
            (true, _, true) => PageState::Guest,
            (true, true, false) => PageState::Firmware,
            (true, false, false) => PageState::Reclaim,
        }
    }

    /// Whether it covers 2 MiB.
    pub fn is_2m(self) -> bool {
        self.0[0] & PAGE_SIZE_2M != 0
    }

    /// The same page in the Reclaim state.
    pub fn reclaimed(self) -> Self {
        let [low, high] = self.0;
        Entry([low & !(IMMUTABLE | VMSA | VALIDATED), high])
    }

    /// The same page in the HV-fixed state.
    pub fn hv_fixed(self) -> Self {
        let [low, high] = self.0;
        Entry([low | IMMUTABLE, high])
    }
}
