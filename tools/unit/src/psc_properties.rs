// SPDX-License-Identifier: GPL-2.0-or-later
//! Page-state changes, compared with a plain reading of the specification: one page at a time.

use std::cell::RefCell;

use proptest::prelude::*;

use crate::ghcb::psc::{Conversion, List, PageState, Psc, Step};

/// The buffer of the GHCB, as a guest that changes nothing later would see it.
struct Buffer(RefCell<Vec<u64>>);

impl List for Buffer {
    fn word(&self, index: usize) -> u64 {
        self.0.borrow().get(index).copied().unwrap_or(0)
    }

    fn set_word(&self, index: usize, value: u64) {
        if let Some(word) = self.0.borrow_mut().get_mut(index) {
            *word = value;
        }
    }
}

impl Buffer {
    fn new(current: u16, last: u16, entries: &[u64]) -> Self {
        let header = u64::from(current) | (u64::from(last) << 16);
        let words = [header].into_iter().chain(entries.iter().copied());
        Self(RefCell::new(words.collect()))
    }

    fn len(&self) -> usize {
        self.0.borrow().len() * 8
    }

    fn current(&self) -> u16 {
        self.word(0) as u16
    }
}

fn entry(done: u64, gfn: u64, operation: u64, large: bool) -> u64 {
    done | (gfn << 12) | (operation << 52) | (u64::from(large) << 56)
}

/// A page, what it becomes, and whether it is part of a large one.
type Page = (u64, PageState, bool);

/// What becomes of a list if userspace does as it is told: the pages that are converted, in order,
/// the answer, and the header's first number.
fn expected(current: u16, last: u16, entries: &[u64]) -> (Vec<Page>, u64, u16) {
    let mut pages = Vec::new();

    for index in current..=last {
        let entry = entries[usize::from(index)];
        let (done, gfn) = (entry & 0xfff, (entry >> 12) & 0xff_ffff_ffff);
        let all = if (entry >> 56) & 1 == 1 { 512 } else { 1 };
        if done > all || gfn % all != 0 {
            return (pages, (1 << 32) | 2, index);
        }
        let state = match (entry >> 52) & 0xf {
            1 => PageState::Private,
            2 => PageState::Shared,
            _ => continue,
        };
        pages.extend((done..all).map(|page| (gfn + page, state, all > 1)));
    }
    (pages, 0, current.max(last + 1))
}

/// Does the work, and collects what userspace is asked for.
fn run(buffer: &Buffer) -> (Vec<Conversion>, u64) {
    let mut asked = Vec::new();
    let mut psc = match Psc::begin(buffer, buffer.len()) {
        Ok(psc) => psc,
        Err(answer) => return (asked, answer),
    };

    loop {
        match psc.next(buffer) {
            Step::Finished(answer) => return (asked, answer),
            Step::Convert(what) => {
                asked.push(what);
                psc.complete(buffer);
            }
        }
    }
}

/// Mostly sensible entries, many of which follow each other.
fn entries() -> impl Strategy<Value = Vec<u64>> {
    let operation = prop_oneof![4 => Just(1u64), 2 => Just(2), 1 => 0..5u64];
    let one = (operation, 0..40u64, 0..12u64, any::<bool>());

    prop::collection::vec(one, 1..20).prop_map(|list| {
        let mut next = 0;
        list.into_iter()
            .map(|(operation, jump, done, large)| {
                let size = if large { 512 } else { 1 };
                let next_whole = u64::div_ceil(next, size) * size;
                let gfn = match jump {
                    0 => next_whole + 1,
                    1..5 => next_whole + size,
                    _ => next_whole,
                };
                let done = match done {
                    0 => size,
                    1 => 1,
                    2..4 if large => 3,
                    4 if jump == 9 => size + 1,
                    _ => 0,
                };
                next = gfn + size;
                entry(done, gfn, operation, large)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn all_pages_and_no_others(list in entries(), start in 0..3u16, rest in 0..3usize) {
        let last = (list.len() - 1).saturating_sub(rest) as u16;
        let buffer = Buffer::new(start, last, &list);
        let (asked, answer) = run(&buffer);
        let (pages, expected_answer, current) = expected(start, last, &list);

        let converted: Vec<_> = asked
            .iter()
            .flat_map(|what| {
                let gfns = what.gfn..what.gfn + what.pages;
                gfns.map(|gfn| (gfn, what.state, what.large))
            })
            .collect();
        prop_assert_eq!(converted, pages);
        prop_assert_eq!(answer, expected_answer);
        prop_assert_eq!(buffer.current(), current);

        // Nothing but the progress has changed, and that only where it was allowed to.
        for (index, before) in list.iter().enumerate() {
            let after = buffer.word(index + 1);
            prop_assert_eq!(after >> 12, before >> 12);
            let processed = index >= usize::from(start) && index < usize::from(current);
            let all = if (before >> 56) & 1 == 1 { 512 } else { 1 };
            prop_assert_eq!(after & 0xfff, if processed { all } else { before & 0xfff });
        }
    }

    /// Whatever the guest writes, it comes to an end.
    #[test]
    fn ends(words in prop::collection::vec(any::<u64>(), 0..254)) {
        let buffer = Buffer(RefCell::new(words));
        let (asked, _) = run(&buffer);
        prop_assert!(asked.len() <= 253);
    }
}

#[test]
fn adjacent_entries_are_one_request() {
    let pages: Vec<u64> = (0..253).map(|gfn| entry(0, gfn, 1, false)).collect();
    let (asked, answer) = run(&Buffer::new(0, 252, &pages));

    assert_eq!((asked.len(), asked[0].pages, answer), (1, 253, 0));
}

#[test]
fn a_list_longer_than_the_buffer_is_refused() {
    assert_eq!(run(&Buffer::new(0, 1, &[0])), (vec![], (1 << 32) | 1));
    assert_eq!(run(&Buffer::new(5, 0, &[0])), (vec![], 0));
}
