// SPDX-License-Identifier: GPL-2.0
//! How a transfer between user memory and guest memory is cut up for the firmware. Pure: no kernel
//! dependencies.

use super::addr::{PspAddr, UserRange, PAGE_SIZE};

/// Bytes that the firmware encrypts at once; its debug commands take multiples of it, at addresses
/// that are multiples of it.
pub(crate) const BLOCK: usize = 16;

/// A part of a transfer that lies in one page on each side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) src: UserRange,
    pub(crate) dst: UserRange,
}

impl Piece {
    /// In bytes, from 1 to the size of a page.
    pub(crate) fn len(self) -> usize {
        self.src.len()
    }

    /// Whether the firmware can do it directly.
    pub(crate) fn is_aligned(self) -> bool {
        let bits = self.src.offset() | self.dst.offset() | self.len();
        bits % BLOCK == 0
    }
}

/// Cuts a transfer between two ranges of one length into pieces, in order.
pub(crate) fn pieces(src: UserRange, dst: UserRange) -> impl Iterator<Item = Piece> {
    let mut done: usize = 0;

    core::iter::from_fn(move || {
        let src = src.skip(done)?;
        let dst = dst.skip(done)?;
        let len = src.len().min(src.left_in_page()).min(dst.left_in_page());

        done = done.wrapping_add(len);
        Some(Piece {
            src: src.first(len),
            dst: dst.first(len),
        })
    })
}

/// The whole blocks around a piece of guest memory. They are in the same page, as pages consist of
/// whole blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Blocks {
    /// Address of the first block.
    pub(crate) start: PspAddr,
    /// In bytes.
    pub(crate) len: u32,
    /// Bytes before the piece.
    before: usize,
    /// Bytes of the piece.
    piece: usize,
}

impl Blocks {
    /// `piece` bytes from `address` on must be within one page.
    pub(crate) fn around(address: PspAddr, piece: usize) -> Self {
        let before = address.get() as usize % BLOCK;
        // Less than a page and two blocks.
        let end = before.wrapping_add(piece).wrapping_add(BLOCK - 1);

        Self {
            start: address.back(before),
            len: (end - end % BLOCK) as u32,
            before,
            piece,
        }
    }

    /// Where the piece is within the blocks.
    pub(crate) fn inner(&self) -> core::ops::Range<usize> {
        self.before..self.before.wrapping_add(self.piece)
    }
}

const _: () = assert!(PAGE_SIZE % BLOCK == 0);
