// SPDX-License-Identifier: GPL-2.0
//! The memory regions that userspace registered, pinned as long as they are in here.

use kernel::prelude::*;
use kernel::rbtree::RBTree;

use crate::hw::addr::UserRange;
use crate::kvm::pin::Pinned;

/// Start and length of a region, and the number of its registration: the same range can be
/// registered several times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u64, usize, u64);

impl Key {
    fn new(range: UserRange, registration: u64) -> Self {
        Self(range.start(), range.len(), registration)
    }
}

/// All registered regions of an encryption context.
pub(super) struct Regions {
    tree: RBTree<Key, Pinned>,
    registrations: u64,
}

impl Regions {
    pub(super) fn new() -> Self {
        Self {
            tree: RBTree::new(),
            registrations: 0,
        }
    }

    /// Adds a region. ENOMEM.
    pub(super) fn add(&mut self, region: Pinned) -> Result {
        let key = Key::new(region.range(), self.registrations);

        self.tree
            .try_create_and_insert(key, region, GFP_KERNEL_ACCOUNT)?;
        self.registrations = self.registrations.wrapping_add(1);
        Ok(())
    }

    /// Takes out the oldest region that was registered with exactly this range.
    pub(super) fn take(&mut self, range: UserRange) -> Option<Pinned> {
        let key = {
            let cursor = self.tree.cursor_lower_bound(&Key::new(range, 0))?;
            let (key, region) = cursor.current();
            (region.range() == range).then_some(*key)?
        };

        self.tree.remove(&key)
    }
}
