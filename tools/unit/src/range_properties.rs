// SPDX-License-Identifier: GPL-2.0-or-later
//! Cutting up memory: nothing lost, nothing twice, nothing beyond a page or a run.

use proptest::prelude::*;

use crate::hw::addr::{PspAddr, UserRange, PAGE_SIZE};
use crate::hw::blocks::{pieces, Blocks, BLOCK};
use crate::hw::runs::Runs;

/// Ranges of up to 20 pages that start anywhere in a page, also just below the end of addresses.
fn range() -> impl Strategy<Value = UserRange> {
    let len = prop_oneof![1..64u64, 1..(20 * PAGE_SIZE as u64)];
    (
        prop_oneof![0..PAGE_SIZE as u64, Just(u64::MAX - 30 * PAGE_SIZE as u64)],
        0..5u64,
        len,
    )
        .prop_map(|(offset, page, len)| {
            UserRange::new(offset + page * PAGE_SIZE as u64, len).unwrap()
        })
}

proptest! {
    /// `gaps[n]`: the n-th page does not follow the one before it.
    #[test]
    fn runs_cover_the_range_in_order(range in range(), gaps in prop::collection::vec(any::<bool>(), 21)) {
        let mut address = 0x10_0000u64;
        let pages: Vec<u64> = gaps.iter().take(range.pages()).map(|&gap| {
            address += PAGE_SIZE as u64 * if gap { 3 } else { 1 };
            address
        }).collect();

        // Byte by byte, what the n-th byte of the range maps to.
        let byte = |n: usize| {
            let n = range.offset() + n;
            pages[n / PAGE_SIZE] + (n % PAGE_SIZE) as u64
        };
        let mut done = 0;
        let runs: Vec<_> = Runs::new(range, |n| pages.get(n).map(|&a| PspAddr::new(a))).collect();
        for run in &runs {
            prop_assert_ne!(run.len, 0);
            prop_assert_eq!(run.address.get(), byte(done));
            done += run.len as usize;
            prop_assert_eq!(run.address.get() + u64::from(run.len) - 1, byte(done - 1));
            // Maximal: the next byte, if any, is elsewhere.
            if done < range.len() {
                prop_assert_ne!(run.address.get() + u64::from(run.len), byte(done));
            }
        }
        prop_assert_eq!(done, range.len());
    }

    #[test]
    fn pieces_cover_both_ranges_and_stay_in_pages(src in range(), dst_start in 0..(1u64 << 40)) {
        let dst = UserRange::new(dst_start, src.len() as u64).unwrap();
        let mut done = 0u64;

        for piece in pieces(src, dst) {
            prop_assert_eq!(piece.src.start(), src.start() + done);
            prop_assert_eq!(piece.dst.start(), dst.start() + done);
            prop_assert_eq!(piece.src.len(), piece.dst.len());
            prop_assert_eq!((piece.src.pages(), piece.dst.pages()), (1, 1));
            done += piece.len() as u64;
        }
        prop_assert_eq!(done, src.len() as u64);
    }

    #[test]
    fn blocks_contain_the_piece_and_stay_in_the_page(page in 1..1000u64, offset in 0..PAGE_SIZE, len in 1..=PAGE_SIZE) {
        let len = len.min(PAGE_SIZE - offset);
        let address = page * PAGE_SIZE as u64 + offset as u64;
        let blocks = Blocks::around(PspAddr::new(address), len);
        let start = blocks.start.get();
        let end = start + u64::from(blocks.len);

        prop_assert_eq!((start % BLOCK as u64, blocks.len as usize % BLOCK), (0, 0));
        prop_assert!(start <= address && address + len as u64 <= end);
        prop_assert_eq!(start / PAGE_SIZE as u64, (end - 1) / PAGE_SIZE as u64);
        // No block too many.
        prop_assert!(address - start < BLOCK as u64);
        prop_assert!(end - (address + len as u64) < BLOCK as u64);
        prop_assert_eq!(start + blocks.inner().start as u64, address);
        prop_assert_eq!(blocks.inner().len(), len);
    }
}

#[test]
fn runs_are_bounded() {
    // 3 GiB of contiguous memory do not fit into one command.
    let range = UserRange::new(0x1000, 3 << 30).unwrap();
    let lens: Vec<u32> = Runs::new(range, |n| Some(PspAddr::new((n * PAGE_SIZE) as u64)))
        .map(|run| run.len)
        .collect();
    assert_eq!(lens, [1 << 30; 3]);
}
