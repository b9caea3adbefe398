// SPDX-License-Identifier: GPL-2.0-or-later
//! A walk over the whole RMP, for the control protocol: how many pages are in which state.

use std::collections::BTreeMap;

use super::platform::{MSR_RMP_BASE, MSR_RMP_END};
use super::rmp::{Entry, LARGE, PageState};
use crate::firmware::Firmware;
use crate::memory::PAGE;

/// Bytes at the beginning of the table that hold no entries, and bytes of an entry.
/// Source: Linux `arch/x86/virt/svm/sev.c`.
const BOOKKEEPING: u64 = 16 << 10;
const ENTRY: u64 = 16;
/// Bytes of a small page.
const SMALL: u64 = PAGE as u64;

/// 4 KiB pages by name of their state; those of the hypervisor are left out. Empty if SNP
/// is not initialised.
pub fn census(fw: &Firmware) -> BTreeMap<String, u64> {
    let mut pages = BTreeMap::new();
    let msr = |msr| fw.host.msr_get(0, msr).unwrap_or(0);
    let begin = msr(MSR_RMP_BASE).saturating_add(BOOKKEEPING);
    let table = msr(MSR_RMP_END).saturating_add(1).saturating_sub(begin);
    let end = (table / ENTRY).saturating_mul(SMALL);
    let mut at = 0;
    while fw.snp.is_initialized() && at < end {
        let Ok(entry) = Entry::read(&fw.mem, fw.mem.spa(at)) else {
            break;
        };
        let state = entry.state();
        if state == PageState::Hypervisor {
            at = at.saturating_add(SMALL);
            continue;
        }
        let (size, small_pages) = if entry.is_2m() {
            (LARGE, LARGE / SMALL)
        } else {
            (SMALL, 1)
        };
        let count: &mut u64 = pages.entry(format!("{state:?}")).or_default();
        *count = count.saturating_add(small_pages);
        at = at.saturating_add(size);
    }
    pages
}
