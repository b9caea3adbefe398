// SPDX-License-Identifier: GPL-2.0-or-later
//! Where the RMP is, and which memory it has entries for.
//!
//! Source: Linux `arch/x86/virt/svm/sev.c`. unspecified: the check of the MSRs.

use std::iter;
use std::ops::{Range, RangeInclusive};

use zerocopy::little_endian::U64;

use crate::firmware::Firmware;
use crate::host::{Host, HostError};
use crate::memory::{Memory, PAGE};
use crate::status::Result;

const MSR_RMP_BASE: u32 = 0xc001_0132;
const MSR_RMP_END: u32 = 0xc001_0133;
const MSR_RMP_CFG: u32 = 0xc001_0136;

/// RMP_CFG: the table is in segments, each for 1 << shift bytes.
const SEGMENTED: u64 = 1 << 0;
/// What the processor permits (CPUID Fn8000_0025 EAX).
const SHIFTS: RangeInclusive<u32> = 30..=40;
/// Entries of the table of segments: its page's.
const SEGMENTS: usize = 512;

/// Bytes ahead of the entries, or of the table of segments; bytes of an entry.
const BOOKKEEPING: u64 = 16 << 10;
const ENTRY: u64 = 16;

/// The MSRs of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    base: u64,
    end: u64,
    cfg: u64,
}

impl Table {
    /// That of a core.
    pub fn of(host: &dyn Host, core: u32) -> core::result::Result<Self, HostError> {
        Ok(Self {
            base: host.msr_get(core, MSR_RMP_BASE)?,
            end: host.msr_get(core, MSR_RMP_END)?,
            cfg: host.msr_get(core, MSR_RMP_CFG)?,
        })
    }

    fn shift(&self) -> u32 {
        (self.cfg >> 8) as u32 & 0x3f
    }

    fn is_segmented(&self) -> bool {
        self.cfg & SEGMENTED != 0
    }

    /// Whether there can be a table.
    pub fn is_valid(&self) -> bool {
        if self.is_segmented() {
            self.base != 0 && SHIFTS.contains(&self.shift())
        } else {
            self.base < self.end
        }
    }

    /// The memory that the table has entries for, in order.
    pub fn covered(&self, mem: &Memory) -> Result<Vec<Range<u64>>> {
        let begin = self.base.saturating_add(BOOKKEEPING);
        if self.is_segmented() {
            let entries: [U64; SEGMENTS] = mem.read(mem.spa(begin))?;
            return Ok(segments(&entries.map(U64::get), self.shift()));
        }
        let entries = self.end.saturating_add(1).saturating_sub(begin) / ENTRY;
        Ok(iter::once(0..entries.saturating_mul(PAGE as u64)).collect())
    }
}

/// What the segments cover. The low bits of an entry are how many GiB that is, at most as many as
/// lie between two segments.
fn segments(entries: &[u64], shift: u32) -> Vec<Range<u64>> {
    let distance = 1u64.checked_shl(shift).unwrap_or(0);
    let mut from = 0u64;
    let mut covered = vec![];
    for entry in entries {
        let size = ((entry & 0xf_ffff) << 30).min(distance);
        if size > 0 {
            covered.push(from..from.saturating_add(size));
        }
        from = from.saturating_add(distance);
    }
    covered
}

/// The memory that the first core's table has entries for; none if that cannot be told.
pub fn covered(fw: &Firmware) -> Vec<Range<u64>> {
    let table = Table::of(&*fw.host, 0).ok();
    let covered = table.and_then(|table| table.covered(&fw.mem).ok());
    covered.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn segments_cover_what_their_entries_say() {
        let at = 5 << 20;
        let entries = [at | 1, 0, at | 3, at | 2];
        assert_eq!(
            segments(&entries, 30),
            [0..GIB, 2 * GIB..3 * GIB, 3 * GIB..4 * GIB]
        );
        assert_eq!(
            segments(&entries, 31),
            [0..GIB, 4 * GIB..6 * GIB, 6 * GIB..8 * GIB]
        );
        assert_eq!(segments(&[at], 40), []);
    }

    #[test]
    fn the_registers_must_make_sense() {
        let table = |base, end, cfg| Table { base, end, cfg };
        let segmented = |shift: u64| (shift << 8) | SEGMENTED;
        assert!(table(0, 1, 0).is_valid() && table(1 << 20, 0, segmented(30)).is_valid());
        assert!(table(1 << 20, 0, segmented(40)).is_valid());
        for bad in [
            table(1, 1, 0),
            table(1 << 20, 0, 30 << 8),
            table(0, 1, segmented(30)),
            table(1 << 20, 1 << 30, segmented(29)),
            table(1 << 20, 1 << 30, segmented(41)),
        ] {
            assert!(!bad.is_valid(), "{bad:?}");
        }
    }

    proptest! {
        /// Address by address, as a processor finds the entry of one.
        #[test]
        fn an_address_is_covered_if_its_segment_reaches_so_far(
            entries in prop::collection::vec(prop_oneof![Just(0u64), any::<u64>()], SEGMENTS),
            shift in SHIFTS,
            page in any::<u64>(),
        ) {
            let spa = (page % (1 << (shift + 10))) & !0xfff;
            let entry = *entries.get((spa >> shift) as usize).unwrap_or(&0);
            let inside = spa % (1 << shift);
            prop_assert_eq!(
                segments(&entries, shift).iter().any(|range| range.contains(&spa)),
                inside >> 30 < entry % (1 << 20)
            );
        }
    }
}
