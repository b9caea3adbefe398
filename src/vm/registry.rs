// SPDX-License-Identifier: GPL-2.0
//! The contexts that exist and the VMs that use them, for people to look at.
//!
//! It holds descriptions, not contexts, and so keeps none of them alive.

// The kernel's own atomics are calls.
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use kernel::fmt;
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNode};
use kernel::sync::{new_mutex, Arc, Mutex};

use super::binding::Role;
use crate::hw::asid::Asid;
use crate::hw::kind::Kind;
use crate::kvm::host::Task;
use crate::kvm::pin::PinAccount;
use crate::psp::Handle;
use crate::trace;

/// How far a guest is, as of the commands that succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// The firmware does not know it yet.
    Initialised,
    /// From LAUNCH_START on.
    Launching,
    /// From LAUNCH_MEASURE on.
    Secret,
    /// After LAUNCH_FINISH, RECEIVE_FINISH or SEND_CANCEL.
    Running,
    /// From SEND_START on.
    Sending,
    /// After SEND_FINISH.
    Sent,
    /// From RECEIVE_START on.
    Receiving,
}

impl State {
    const ALL: [Self; 7] = [
        State::Initialised,
        State::Launching,
        State::Secret,
        State::Running,
        State::Sending,
        State::Sent,
        State::Receiving,
    ];

    const fn name(self) -> &'static str {
        match self {
            State::Initialised => "initialised",
            State::Launching => "launching",
            State::Secret => "secret",
            State::Running => "running",
            State::Sending => "sending",
            State::Sent => "sent",
            State::Receiving => "receiving",
        }
    }
}

/// What is known of a context.
pub(crate) struct Card {
    asid: Asid,
    kind: Kind,
    /// 0 until the firmware knows the guest.
    handle: AtomicU32,
    /// Of a [`State`].
    state: AtomicU32,
    pins: Arc<PinAccount>,
}

impl Card {
    pub(super) fn new(asid: Asid, kind: Kind, pins: Arc<PinAccount>) -> Self {
        let this = Self {
            asid,
            kind,
            handle: AtomicU32::new(0),
            state: AtomicU32::new(State::Initialised as u32),
            pins,
        };
        this.trace(State::Initialised.name());
        this
    }

    pub(super) fn set_handle(&self, handle: Handle) {
        self.handle.store(handle.get(), Relaxed);
    }

    pub(super) fn set_state(&self, state: State) {
        self.state.store(state as u32, Relaxed);
        self.trace(state.name());
    }

    /// The context is, or was, in this state.
    fn trace(&self, state: &str) {
        trace::context(self.asid.get(), self.kind.name(), state);
    }

    fn state(&self) -> &'static str {
        let state = self.state.load(Relaxed);

        State::ALL
            .into_iter()
            .find(|known| *known as u32 == state)
            .map_or("?", State::name)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.trace("gone");
    }
}

/// A VM that uses a context.
struct Holder {
    card: Arc<Card>,
    role: Role,
    /// The process that bound the VM.
    task: Task,
}

impl Holder {
    /// One line of the table; see [`Registry::write_table`].
    fn write_row(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>5} {:<6} {:>6} {:<11} {:>8} {:<6} {:>7} {}",
            self.card.asid.get(),
            self.card.kind.name(),
            self.card.handle.load(Relaxed),
            self.card.state(),
            self.card.pins.pages(),
            self.role.name(),
            self.task.pid,
            self.task.name(),
        )
    }
}

/// ASID, and the number of the binding: contexts stay together, the oldest holder first.
type Key = (u32, u64);

struct Holders {
    tree: RBTree<Key, Holder>,
    bindings: u64,
}

/// All contexts with all their holders.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    holders: Mutex<Holders>,
}

impl Registry {
    /// ENOMEM.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let holders = Holders {
            tree: RBTree::new(),
            bindings: 0,
        };
        Arc::pin_init(
            pin_init!(Self { holders <- new_mutex!(holders, "kvm_sev_registry") }),
            GFP_KERNEL,
        )
    }

    /// Writes a line for each use of each context, under a heading. Pinned memory is in pages.
    pub(crate) fn write_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            " asid kind   handle state         pinned role       pid command"
        )?;
        for holder in self.holders.lock().tree.values() {
            holder.write_row(f)?;
        }
        Ok(())
    }
}

/// The current task's use of a context, in the registry until it is dropped.
pub(super) struct Registered {
    registry: Arc<Registry>,
    key: Key,
}

impl Registered {
    /// ENOMEM.
    pub(super) fn new(registry: &Arc<Registry>, card: &Arc<Card>, role: Role) -> Result<Self> {
        let holder = Holder {
            card: card.clone(),
            role,
            task: Task::current(),
        };
        let asid = card.asid.get();
        let number = {
            let mut holders = registry.holders.lock();
            holders.bindings = holders.bindings.wrapping_add(1);
            holders.bindings
        };
        let key = (asid, number);

        // Allocated before the lock is taken.
        let node = RBTreeNode::new(key, holder, GFP_KERNEL_ACCOUNT)?;
        registry.holders.lock().tree.insert(node);
        Ok(Self {
            registry: registry.clone(),
            key,
        })
    }

    /// The binding is another VM's now, of the current task.
    pub(super) fn taken_over(&self) {
        if let Some(holder) = self.registry.holders.lock().tree.get_mut(&self.key) {
            holder.task = Task::current();
        }
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.holders.lock().tree.remove(&self.key);
    }
}
