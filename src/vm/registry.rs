// SPDX-License-Identifier: GPL-2.0
//! The contexts that exist, for people to look at.
//!
//! It holds descriptions, not contexts, and so keeps none of them alive.

use core::ffi::CStr;

use kernel::fmt;
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNode};
use kernel::sync::atomic::{ordering::Relaxed, Atomic};
use kernel::sync::{new_mutex, Arc, Mutex};

use crate::hw::asid::Asid;
use crate::kvm::host::current_task;
use crate::kvm::pin::PinAccount;
use crate::psp::Handle;

/// What is known of a context.
pub(crate) struct Card {
    asid: Asid,
    /// 0 until it is launched.
    handle: Atomic<u32>,
    pins: Arc<PinAccount>,
    pid: i32,
    comm: [u8; 16],
}

impl Card {
    /// Describes a context that the current task creates.
    pub(crate) fn new(asid: Asid, pins: Arc<PinAccount>) -> Self {
        let (pid, comm) = current_task();

        Self {
            asid,
            handle: Atomic::new(0),
            pins,
            pid,
            comm,
        }
    }

    pub(crate) fn set_handle(&self, handle: Handle) {
        self.handle.store(handle.get(), Relaxed);
    }

    /// One line of the table; see [`Registry::write_table`].
    fn write_row(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comm = CStr::from_bytes_until_nul(&self.comm)
            .ok()
            .and_then(|name| name.to_str().ok())
            .unwrap_or("?");

        writeln!(
            f,
            "{:>5} {:>6} {:>8} {:>7} {comm}",
            self.asid.get(),
            self.handle.load(Relaxed),
            self.pins.pages(),
            self.pid,
        )
    }
}

/// The descriptions of all contexts, by ASID.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    cards: Mutex<RBTree<u32, Arc<Card>>>,
}

impl Registry {
    /// ENOMEM.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self { cards <- new_mutex!(RBTree::new(), "kvm_sev_registry") }),
            GFP_KERNEL,
        )
    }

    /// Adds a context until the result is dropped, which must be before it gives its ASID back.
    /// ENOMEM.
    pub(crate) fn register(self: &Arc<Self>, card: Card) -> Result<Registered> {
        let card = Arc::new(card, GFP_KERNEL)?;

        // Allocated before the lock is taken.
        let node = RBTreeNode::new(card.asid.get(), card.clone(), GFP_KERNEL)?;

        self.cards.lock().insert(node);
        Ok(Registered {
            registry: self.clone(),
            card,
        })
    }

    /// Writes a line for each context, under a heading. Pinned memory is in pages.
    pub(crate) fn write_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, " asid handle   pinned     pid command")?;
        for card in self.cards.lock().values() {
            card.write_row(f)?;
        }
        Ok(())
    }
}

/// A context's entry in the registry.
pub(crate) struct Registered {
    registry: Arc<Registry>,
    card: Arc<Card>,
}

impl Registered {
    pub(crate) fn card(&self) -> &Card {
        &self.card
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.cards.lock().remove(&self.card.asid.get());
    }
}
