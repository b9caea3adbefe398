// SPDX-License-Identifier: GPL-2.0-or-later
//! The ASID pool against a model that remembers what the firmware would: which ASIDs are bound, and
//! which were not flushed since they were.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::asid::pool::{Exhausted, Flushed, Pool, Slot};
use crate::hw::asid::{Asid, Range};

const ASIDS: u32 = 12;
/// The pool also has ASIDs that the range under test must not touch.
const FIRST: u32 = 4;

#[derive(Clone, Debug)]
enum Op {
    Lease,
    /// Of the n-th ASID in use.
    Retire(usize),
    Leak(usize),
    BeginFlush,
    EndFlush(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Lease),
        3 => any::<usize>().prop_map(Op::Retire),
        1 => any::<usize>().prop_map(Op::Leak),
        1 => Just(Op::BeginFlush),
        1 => any::<bool>().prop_map(Op::EndFlush),
    ]
}

#[derive(Default)]
struct Model {
    used: BTreeSet<u32>,
    dirty: BTreeSet<u32>,
    flushing: BTreeSet<u32>,
    leaked: BTreeSet<u32>,
}

impl Model {
    fn pick(&self, n: usize) -> Option<u32> {
        let len = self.used.len();
        self.used.iter().nth(n.checked_rem(len)?).copied()
    }
}

proptest! {
    #[test]
    fn no_asid_is_used_twice_or_unflushed(ops in prop::collection::vec(op(), 0..200)) {
        let range = Range::new(FIRST, ASIDS).unwrap();
        let mut pool = Pool::new(vec![Slot::Free; ASIDS as usize + 1]);
        let mut model = Model::default();
        let mut flushes = 0;

        for op in ops {
            match op {
                Op::Lease => match pool.lease(range) {
                    Ok(asid) => {
                        let n = asid.get();
                        prop_assert!((FIRST..=ASIDS).contains(&n));
                        prop_assert!(!model.dirty.contains(&n) && !model.flushing.contains(&n));
                        prop_assert!(!model.leaked.contains(&n));
                        prop_assert!(model.used.insert(n), "ASID {} leased twice", n);
                    }
                    Err(why) => {
                        let unflushed = model.dirty.len() + model.flushing.len();
                        let unfree = model.used.len() + model.leaked.len() + unflushed;
                        prop_assert_eq!(unfree, range.count() as usize);
                        prop_assert_eq!(why == Exhausted::Recyclable, unflushed > 0);
                    }
                },
                Op::Retire(n) => if let Some(n) = model.pick(n) {
                    pool.retire(Asid::new(n).unwrap());
                    model.used.remove(&n);
                    model.dirty.insert(n);
                },
                Op::Leak(n) => if let Some(n) = model.pick(n) {
                    pool.leak(Asid::new(n).unwrap());
                    model.used.remove(&n);
                    model.leaked.insert(n);
                },
                Op::BeginFlush => {
                    prop_assert_eq!(pool.begin_flush(), model.dirty.len());
                    model.flushing.append(&mut model.dirty);
                }
                Op::EndFlush(ok) => {
                    pool.end_flush(Flushed::by_firmware(ok));
                    if ok {
                        model.flushing.clear();
                        flushes += 1;
                    } else {
                        model.dirty.append(&mut model.flushing);
                    }
                }
            }

            let usage = pool.usage(range);
            prop_assert_eq!(usage.leased as usize, model.used.len());
            prop_assert_eq!(usage.dirty as usize, model.dirty.len() + model.flushing.len());
            prop_assert_eq!(usage.leaked as usize, model.leaked.len());
            prop_assert_eq!(usage.free + usage.leased + usage.dirty + usage.leaked, range.count());
            prop_assert_eq!(pool.flushes(), flushes);
        }
    }
}

#[test]
fn giving_back_what_is_not_leased_changes_nothing() {
    let range = Range::new(1, 3).unwrap();
    let mut pool = Pool::new(vec![Slot::Free; 4]);
    let asid = pool.lease(range).unwrap();

    pool.retire(Asid::new(3).unwrap());
    pool.leak(Asid::new(1000).unwrap());
    assert_eq!((pool.usage(range).free, pool.usage(range).leased), (2, 1));
    pool.retire(asid);
    pool.leak(asid);
    assert_eq!((pool.usage(range).dirty, pool.usage(range).leaked), (1, 0));
}

#[test]
fn what_is_retired_during_a_flush_waits_for_the_next() {
    let range = Range::new(1, 2).unwrap();
    let mut pool = Pool::new(vec![Slot::Free; 3]);
    let first = pool.lease(range).unwrap();
    let second = pool.lease(range).unwrap();

    pool.retire(first);
    pool.begin_flush();
    pool.retire(second);
    pool.end_flush(Flushed::by_firmware(true));
    assert_eq!(pool.lease(range), Ok(first));
    assert_eq!(pool.lease(range), Err(Exhausted::Recyclable));
}
