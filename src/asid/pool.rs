// SPDX-License-Identifier: GPL-2.0
//! Which ASIDs are in use. Pure: no kernel dependencies, no locking (see `lease.rs`).
//!
//! ```text
//!   Free --lease--> Leased --retire--> Dirty --begin_flush--> Flushing --end_flush--> Free
//!                      |                 ^---------failed flush---------'
//!                      '--leak--> Leaked   (never leaves)
//! ```
//!
//! A retired ASID may still tag cache lines of the guest that is gone, and the firmware refuses to
//! activate it again until every CPU executed WBINVD and DF_FLUSH succeeded. The only way from
//! `Dirty` to `Free` therefore goes through a [`Flushed`] token, which only a flush can make.

use core::ops::DerefMut;

use crate::hw::asid::{Asid, Range};

/// State of one ASID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    /// Not in use, and clean.
    Free,
    /// Held by an encryption context.
    Leased,
    /// Given back, not flushed yet.
    Dirty,
    /// Covered by a flush that is in progress.
    Flushing,
    /// Still bound in the firmware because releasing it failed; lost until reboot.
    Leaked,
}

/// Why no ASID could be leased.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exhausted {
    /// A flush would free some, or one in progress will.
    Recyclable,
    /// All of them are in use or leaked.
    InUse,
}

/// Numbers of ASIDs of a range in each state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) free: u32,
    pub(crate) leased: u32,
    pub(crate) dirty: u32,
    pub(crate) leaked: u32,
}

/// Outcome of a WBINVD on all CPUs followed by DF_FLUSH.
///
/// Deliberately neither `Clone` nor `Copy`: one token ends one flush.
#[derive(Debug)]
pub(crate) struct Flushed {
    ok: bool,
}

impl Flushed {
    /// To be called only with the result of the firmware's DF_FLUSH command.
    pub(crate) fn by_firmware(ok: bool) -> Self {
        Self { ok }
    }
}

/// The state of all ASIDs, indexed by ASID; entry 0, the host, is never touched.
///
/// `S` is a `KVec` in the kernel and a `Vec` in tests.
pub(crate) struct Pool<S> {
    slots: S,
    /// Completed flushes.
    flushes: u64,
}

impl<S: DerefMut<Target = [Slot]>> Pool<S> {
    /// `slots` has an entry for each ASID, and one for the host, all [`Slot::Free`].
    pub(crate) fn new(slots: S) -> Self {
        Self { slots, flushes: 0 }
    }

    /// Leases the lowest free ASID of `range`.
    pub(crate) fn lease(&mut self, range: Range) -> Result<Asid, Exhausted> {
        let mut recyclable = false;

        for n in range.first().get()..=range.last().get() {
            let Some(asid) = Asid::new(n) else { continue };
            match self.slots.get_mut(asid.index()) {
                Some(slot @ Slot::Free) => {
                    *slot = Slot::Leased;
                    return Ok(asid);
                }
                Some(Slot::Dirty | Slot::Flushing) => recyclable = true,
                _ => {}
            }
        }
        Err(if recyclable {
            Exhausted::Recyclable
        } else {
            Exhausted::InUse
        })
    }

    /// Gives a leased ASID back. Anything else is ignored.
    pub(crate) fn retire(&mut self, asid: Asid) {
        self.change(asid, Slot::Leased, Slot::Dirty);
    }

    /// Takes a leased ASID out of circulation: the firmware could not release it.
    pub(crate) fn leak(&mut self, asid: Asid) {
        self.change(asid, Slot::Leased, Slot::Leaked);
    }

    /// Marks what the flush that is about to start will clean, and returns how many.
    ///
    /// ASIDs that are retired while the flush runs stay dirty: they may have been deactivated after
    /// a CPU wrote its caches back.
    pub(crate) fn begin_flush(&mut self) -> usize {
        self.change_all(Slot::Dirty, Slot::Flushing)
    }

    /// Ends a flush; if it succeeded, what it cleaned is free.
    pub(crate) fn end_flush(&mut self, flushed: Flushed) {
        if flushed.ok {
            self.change_all(Slot::Flushing, Slot::Free);
            self.flushes = self.flushes.wrapping_add(1);
        } else {
            self.change_all(Slot::Flushing, Slot::Dirty);
        }
    }

    /// Counts the states in `range`. What is being flushed still counts as dirty.
    pub(crate) fn usage(&self, range: Range) -> Usage {
        let mut usage = Usage::default();

        for slot in self.slots.get(range.indices()).unwrap_or_default() {
            let count = match slot {
                Slot::Free => &mut usage.free,
                Slot::Leased => &mut usage.leased,
                Slot::Dirty | Slot::Flushing => &mut usage.dirty,
                Slot::Leaked => &mut usage.leaked,
            };
            *count = count.saturating_add(1);
        }
        usage
    }

    /// Number of successful flushes so far.
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes
    }

    fn change(&mut self, asid: Asid, from: Slot, to: Slot) {
        if let Some(slot) = self.slots.get_mut(asid.index()) {
            if *slot == from {
                *slot = to;
            }
        }
    }

    fn change_all(&mut self, from: Slot, to: Slot) -> usize {
        let mut changed: usize = 0;

        // Not the host's entry.
        for slot in self.slots.iter_mut().skip(1) {
            if *slot == from {
                *slot = to;
                changed = changed.wrapping_add(1);
            }
        }
        changed
    }
}
