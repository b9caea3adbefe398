// SPDX-License-Identifier: GPL-2.0-or-later
//! A walk over the whole RMP, for the control protocol: how many pages are in which state.

use std::collections::BTreeMap;

use super::rmp::{Entry, LARGE, PageState};
use super::table;
use crate::firmware::Firmware;
use crate::memory::PAGE;

/// Bytes of a small page.
const SMALL: u64 = PAGE as u64;

/// 4 KiB pages by name of their state; those of the hypervisor are left out. Empty if there is no
/// RMP.
pub fn census(fw: &Firmware) -> BTreeMap<String, u64> {
    let mut pages = BTreeMap::new();
    if !fw.snp.has_rmp() {
        return pages;
    }
    for range in table::covered(fw) {
        let mut at = range.start;
        while at < range.end {
            // A table may have entries beyond the memory.
            let Ok(entry) = Entry::read(&fw.mem, fw.mem.spa(at)) else {
                break;
            };
            let state = entry.state();
            let (size, small_pages) = if entry.is_2m() {
                (LARGE, LARGE / SMALL)
            } else {
                (SMALL, 1)
            };
            at = at.saturating_add(size);
            if state != PageState::Hypervisor {
                let count: &mut u64 = pages.entry(format!("{state:?}")).or_default();
                *count = count.saturating_add(small_pages);
            }
        }
    }
    pages
}
