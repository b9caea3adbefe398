// SPDX-License-Identifier: GPL-2.0
//! Physically contiguous runs of a range of pages. Pure: no kernel dependencies.

use super::addr::{PspAddr, UserRange, PAGE_SIZE};

/// Longest run in bytes; the firmware's lengths have 32 bits.
const MAX_RUN: usize = 1 << 30;

/// Physically contiguous memory, as the firmware is told about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) address: PspAddr,
    /// In bytes, not 0.
    pub(crate) len: u32,
}

/// Iterator over the runs of a range, in order.
///
/// `page` gives the address of the n-th page that the range touches, and `None` after the last.
pub(crate) struct Runs<F> {
    range: UserRange,
    page: F,
    /// Number of the next page.
    next: usize,
    /// Bytes that remain.
    left: usize,
}

impl<F: Fn(usize) -> Option<PspAddr>> Runs<F> {
    pub(crate) fn new(range: UserRange, page: F) -> Self {
        Self {
            range,
            page,
            next: 0,
            left: range.len(),
        }
    }
}

impl<F: Fn(usize) -> Option<PspAddr>> Iterator for Runs<F> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let start = (self.page)(self.next)?;
        // Only the first page can be entered in its middle.
        let offset = if self.next == 0 {
            self.range.offset()
        } else {
            0
        };
        let mut pages: usize = 1;

        while pages < MAX_RUN / PAGE_SIZE
            && (self.page)(self.next.wrapping_add(pages))
                .is_some_and(|page| start.is_followed_by(page, pages))
        {
            pages = pages.wrapping_add(1);
        }

        // `pages` is at least 1 and bounded by MAX_RUN, `offset` less than a page.
        let len = pages
            .wrapping_mul(PAGE_SIZE)
            .wrapping_sub(offset)
            .min(self.left);
        self.next = self.next.wrapping_add(pages);
        self.left = self.left.saturating_sub(len);
        // The cast loses nothing: `len` is at most MAX_RUN.
        (len != 0).then_some(Run {
            address: start.offset(offset),
            len: len as u32,
        })
    }
}
