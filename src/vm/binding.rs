// SPDX-License-Identifier: GPL-2.0
//! What a VM has to do with an encryption context.
//!
//! It is one value, which a move takes from one VM and gives to another as a whole. A mirror gets a
//! value of its own, with a reference to the same context.

// The kernel's own atomics are calls.
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kernel::prelude::*;
use kernel::sync::Arc;

use super::context::{EncContext, GuestParams};
use super::registry::{Registered, Registry};
use crate::asid::Lease;
use crate::kvm::cgroup::Charge;

/// Whose commands are served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Launches the guest, and registers its memory.
    Owner,
    /// Runs vCPUs of its own with the owner's key.
    Mirror,
}

impl Role {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Role::Owner => "owner",
            Role::Mirror => "mirror",
        }
    }
}

/// See the head of this file. Fields are dropped in the order in which they are declared.
pub(crate) struct Binding {
    /// First: the ASID, by which it is known, is still the context's.
    registered: Registered,
    context: Arc<EncContext>,
    role: Role,
    /// Guest physical address of the AP jump table, or 0. A mirror sees other memory, so it has
    /// another one.
    ap_jump_table: AtomicU64,
}

impl Binding {
    /// Binds the current task's VM to a new context. ENOMEM.
    pub(crate) fn owner(
        lease: Arc<Lease>,
        params: GuestParams,
        registry: &Arc<Registry>,
    ) -> Result<Self> {
        Self::new(EncContext::new(lease, params)?, Role::Owner, registry)
    }

    /// Binds the current task's VM to the same context. ENOMEM.
    pub(crate) fn mirror(&self) -> Result<Self> {
        let registry = self.registered.registry();
        Self::new(self.context.clone(), Role::Mirror, registry)
    }

    fn new(context: Arc<EncContext>, role: Role, registry: &Arc<Registry>) -> Result<Self> {
        Ok(Self {
            registered: Registered::new(registry, context.card(), role)?,
            context,
            role,
            ap_jump_table: AtomicU64::new(0),
        })
    }

    /// What the current task's cgroup has to pay to take this over; `None` if it pays already, or
    /// if the owner pays. EBUSY if it is over its limit.
    pub(crate) fn charge_current(&self) -> Result<Option<Charge>> {
        match self.role {
            Role::Owner => self.context.lease().charge_current(),
            Role::Mirror => Ok(None),
        }
    }

    /// The binding becomes another VM's, of the current task.
    pub(crate) fn taken_over(&self, charge: Option<Charge>) {
        self.registered.taken_over();
        if let Some(charge) = charge {
            self.context.lease().set_charge(charge);
        }
    }

    pub(crate) fn context(&self) -> &EncContext {
        &self.context
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Guest physical address of the AP jump table; 0 if the guest has set none.
    pub(crate) fn ap_jump_table(&self) -> u64 {
        self.ap_jump_table.load(Relaxed)
    }

    pub(crate) fn set_ap_jump_table(&self, gpa: u64) {
        self.ap_jump_table.store(gpa, Relaxed);
    }
}
