// SPDX-License-Identifier: GPL-2.0-or-later
//! RMP entries in the raw form of Family 19h, and the page states that they encode.
//!
//! Source: Linux `arch/x86/virt/svm/sev.c`, struct rmpentry_raw. unspecified: what tells Context
//! and Metadata pages from Firmware pages (here: the VMSA bit, which RMPUPDATE cannot set, and a
//! guest physical address), and the place of the VMPL permissions (here: second quadword, a byte
//! for each VMPL).

use crate::memory::{Memory, PAGE, Spa};
use crate::status::{Result, Status};

const ASSIGNED: u64 = 1 << 0;
const PAGE_SIZE_2M: u64 = 1 << 1;
const IMMUTABLE: u64 = 1 << 2;
const GPA: u64 = ((1 << 39) - 1) << 12;
const ASID_SHIFT: u32 = 51;
const ASID: u64 = 0x3ff << ASID_SHIFT;
const VMSA: u64 = 1 << 61;
const VALIDATED: u64 = 1 << 62;

/// Bytes of a large page.
pub const LARGE: u64 = 2 << 20;

/// Page states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Not assigned: the host's.
    Hypervisor,
    /// Not assigned and immutable: the host's for good.
    HvFixed,
    /// Assigned to the firmware, which is done with it.
    Reclaim,
    /// Assigned to the firmware, which may write it.
    Firmware,
    /// Holds a guest context.
    Context,
    /// Holds metadata of pages that were swapped out.
    Metadata,
    /// Assigned to a guest, content to come from the firmware.
    PreGuest,
    /// Assigned to a guest that has not validated it.
    GuestInvalid,
    /// A validated page that the firmware may move.
    PreSwap,
    /// Assigned to a guest, and validated.
    GuestValid,
}

impl PageState {
    /// Whether the page belongs to a guest.
    pub fn is_guest(self) -> bool {
        use PageState::*;
        matches!(self, PreGuest | GuestInvalid | PreSwap | GuestValid)
    }
}

/// A raw entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry([u64; 2]);

impl Entry {
    /// The entry of the 4 KiB page at `spa`; INVALID_ADDRESS if the table does not cover it.
    pub fn read(mem: &Memory, spa: Spa) -> Result<Self> {
        mem.rmp_get(spa).map(Entry)
    }

    /// The entry that decides about the page at `spa`: its own or that of the large page around
    /// it.
    pub fn covering(mem: &Memory, spa: Spa) -> Result<Self> {
        let own = Self::read(mem, spa)?;
        // Those of a large page say that they are assigned, and no more.
        if !own.is_assigned() {
            return Ok(own);
        }
        let large = Self::read(mem, spa.align_down(LARGE))?;
        let around = large.is_assigned() && large.is_2m();
        Ok(if around { large } else { own })
    }

    /// Puts the entry back.
    pub fn write(self, mem: &Memory, spa: Spa) -> Result {
        mem.rmp_set(spa, self.0)
    }

    fn has(self, bits: u64) -> bool {
        self.0[0] & bits != 0
    }

    fn is_assigned(self) -> bool {
        self.has(ASSIGNED)
    }

    /// The state that the entry encodes.
    pub fn state(self) -> PageState {
        use PageState::*;
        let (immutable, validated) = (self.has(IMMUTABLE), self.has(VALIDATED));
        if !self.is_assigned() {
            return if immutable { HvFixed } else { Hypervisor };
        }
        if self.has(ASID) {
            return match (immutable, validated) {
                (true, false) => PreGuest,
                (true, true) => PreSwap,
                (false, false) => GuestInvalid,
                (false, true) => GuestValid,
            };
        }
        match immutable {
            false => Reclaim,
            true if self.has(VMSA) => Context,
            true if self.has(GPA) => Metadata,
            true => Firmware,
        }
    }

    /// Whether it covers 2 MiB.
    pub fn is_2m(self) -> bool {
        self.has(PAGE_SIZE_2M)
    }

    /// The ASID of the guest, 0 if it has none.
    pub fn asid(self) -> u32 {
        ((self.0[0] & ASID) >> ASID_SHIFT) as u32
    }

    /// The guest physical address.
    pub fn gpa(self) -> u64 {
        self.0[0] & GPA
    }

    /// Whether the page is a VMSA.
    pub fn is_vmsa(self) -> bool {
        self.has(VMSA) && self.has(ASID)
    }

    /// The same page in another state. Guest, address and permissions stay in the states of
    /// guests and are forgotten in the others; Metadata pages keep the address.
    pub fn to(self, state: PageState) -> Self {
        use PageState::*;
        let [low, high] = self.0;
        let size = low & PAGE_SIZE_2M;
        let guest = low & (PAGE_SIZE_2M | GPA | ASID | VMSA) | ASSIGNED;
        match state {
            Hypervisor => Entry([0, 0]),
            HvFixed => Entry([IMMUTABLE, 0]),
            Reclaim => Entry([ASSIGNED | size, 0]),
            Firmware => Entry([ASSIGNED | IMMUTABLE | size, 0]),
            Context => Entry([ASSIGNED | IMMUTABLE | VMSA, 0]),
            Metadata => Entry([ASSIGNED | IMMUTABLE | low & GPA, 0]),
            PreGuest => Entry([guest | IMMUTABLE, high]),
            PreSwap => Entry([guest | IMMUTABLE | VALIDATED, high]),
            GuestInvalid => Entry([guest & !VMSA, 0]),
            GuestValid => Entry([guest | VALIDATED, high]),
        }
    }

    /// The same page with the permissions of VMPL 0 to 3.
    pub fn with_permissions(self, vmpl: [u8; 4]) -> Self {
        Entry([self.0[0], u32::from_le_bytes(vmpl).into()])
    }

    /// The same page, a VMSA.
    pub fn with_vmsa(self) -> Self {
        Entry([self.0[0] | VMSA, self.0[1]])
    }

    /// The same page at another guest physical address.
    pub fn with_gpa(self, gpa: u64) -> Self {
        Entry([self.0[0] & !GPA | gpa & GPA, self.0[1]])
    }
}

/// The entry of a page that must be in a state: INVALID_ADDRESS (not page-aligned, not covered),
/// INVALID_PAGE_STATE, INVALID_PAGE_SIZE (part of a large page).
pub fn expect_4k(mem: &Memory, spa: Spa, state: PageState) -> Result<Entry> {
    let entry = Entry::covering(mem, spa.aligned(PAGE as u64)?)?;
    if entry.state() != state {
        Err(Status::INVALID_PAGE_STATE)
    } else if entry.is_2m() {
        Err(Status::INVALID_PAGE_SIZE)
    } else {
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_encoded_one_to_one() {
        use PageState::*;
        let guest = Entry([ASSIGNED | IMMUTABLE | (5 << ASID_SHIFT) | 0x7000, 0]);
        assert_eq!((guest.state(), guest.asid()), (PreGuest, 5));
        for state in [
            Hypervisor,
            HvFixed,
            Reclaim,
            Firmware,
            Context,
            Metadata,
            PreGuest,
            GuestInvalid,
            PreSwap,
            GuestValid,
        ] {
            let entry = guest.to(state);
            assert_eq!(entry.state(), state);
            assert_eq!(entry.asid() == 5, state.is_guest());
            assert_eq!(entry.gpa() == 0x7000, state.is_guest() || state == Metadata);
        }
        let vmsa = guest.with_vmsa().to(GuestValid);
        assert!(vmsa.is_vmsa() && !vmsa.to(GuestInvalid).is_vmsa());
        assert!(!vmsa.to(Context).is_vmsa());
    }
}
