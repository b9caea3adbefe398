// SPDX-License-Identifier: GPL-2.0
//! What a VM has to do with an encryption context.
//!
//! It is one value, which a move takes from one VM and gives to another as a whole. A mirror gets a
//! value of its own, with a reference to the same context.

use kernel::prelude::*;
use kernel::sync::atomic::{ordering::Relaxed, Atomic};
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
    ap_jump_table: Atomic<u64>,
    registry: Arc<Registry>,
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
        Self::new(self.context.clone(), Role::Mirror, &self.registry)
    }

    fn new(context: Arc<EncContext>, role: Role, registry: &Arc<Registry>) -> Result<Self> {
        Ok(Self {
            registered: Registered::new(registry, context.card(), role)?,
            context,
            role,
            ap_jump_table: Atomic::new(0),
            registry: registry.clone(),
        })
    }

    /// What a VM of the current task has to prepare to take this over. ENOMEM; and for an owner's,
    /// EBUSY if the task's cgroup is over its limit.
    pub(crate) fn prepare_move(&self) -> Result<Takeover> {
        let registered = Registered::new(&self.registry, self.context.card(), self.role)?;
        let charge = match self.role {
            Role::Owner => self.context.lease().charge_current()?,
            // The owner pays.
            Role::Mirror => None,
        };
        Ok(Takeover { registered, charge })
    }

    /// The same binding, of the task that prepared the takeover.
    pub(crate) fn taken_over(mut self, takeover: Takeover) -> Self {
        if let Some(charge) = takeover.charge {
            self.context.lease().set_charge(charge);
        }
        self.registered = takeover.registered;
        self
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

/// All that can fail of a move, done before it. Dropped, it changes nothing.
pub(crate) struct Takeover {
    registered: Registered,
    charge: Option<Charge>,
}
