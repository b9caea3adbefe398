// SPDX-License-Identifier: GPL-2.0
//! Where the data of an exit is: in the GHCB, or, with the first version of the protocol, anywhere
//! in the guest's memory. Pure: no kernel dependencies.
//!
//! Source: the GHCB specification, `SW_SCRATCH`; version 2 wants the area within the GHCB.

use core::ops::Range;

/// Longest area outside the GHCB, which must be copied, in bytes.
const LIMIT: u64 = 64 << 10;
const PAGE_MASK: u64 = 0xfff;

/// A piece of guest memory that is large enough, and where it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In the GHCB, at this offset.
    Ghcb { offset: usize, len: usize },
    /// Elsewhere, at this guest physical address.
    Memory { gpa: u64, len: usize },
}

impl Place {
    /// In bytes.
    pub(crate) const fn len(self) -> usize {
        match self {
            Place::Ghcb { len, .. } | Place::Memory { len, .. } => len,
        }
    }
}

/// Why the area cannot be used; for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unusable {
    NoAddress,
    Wraps,
    LeavesBuffer,
    OutsideGhcb,
    TooLong,
}

/// Finds `len` bytes at `gpa`. The GHCB is at `ghcb`; the part of it that holds data is at the
/// offsets `buffer`.
pub(crate) fn place(
    gpa: u64,
    len: u64,
    ghcb: u64,
    buffer: Range<u64>,
    ghcb_version: u16,
) -> Result<Place, Unusable> {
    if gpa == 0 {
        return Err(Unusable::NoAddress);
    }
    let end = gpa.checked_add(len).ok_or(Unusable::Wraps)?;

    if gpa & !PAGE_MASK == ghcb {
        let offset = gpa & PAGE_MASK;
        // `end` may be beyond the page, but not before it.
        if offset < buffer.start || end.wrapping_sub(ghcb) > buffer.end {
            return Err(Unusable::LeavesBuffer);
        }
        // Both are less than a page.
        return Ok(Place::Ghcb {
            offset: offset as usize,
            len: len as usize,
        });
    }
    if ghcb_version >= 2 {
        return Err(Unusable::OutsideGhcb);
    }
    if len > LIMIT {
        return Err(Unusable::TooLong);
    }
    Ok(Place::Memory {
        gpa,
        len: len as usize,
    })
}

/// The parts of `len` bytes at `gpa` that lie in one page each: address, and offsets in the whole.
pub(crate) fn chunks(gpa: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut done: usize = 0;

    core::iter::from_fn(move || {
        let left = len.checked_sub(done).filter(|left| *left > 0)?;
        let at = gpa.wrapping_add(done as u64);
        let start = done;

        // Up to the end of the page.
        let page = (PAGE_MASK & !at).wrapping_add(1) as usize;
        done = done.wrapping_add(left.min(page));
        Some((at, start..done))
    })
}
