// SPDX-License-Identifier: GPL-2.0
//! A VM as a SEV VM: what it has to do with which encryption context, and where its vCPUs ran.
//!
//! ```text
//!   struct kvm ──owns──> SevVm ──owns──> Binding (owner)  ──┐
//!   struct kvm ──owns──> SevVm ──owns──> Binding (mirror) ──┼─ counted ──> EncContext
//!   struct kvm ──owns──> SevVm           (moved away)       │
//! ```
//!
//! A mirror holds the context, not its owner: it does not matter which of them goes first.

mod binding;
mod context;
mod guest;
mod region;
mod registry;
mod snp;

use kernel::prelude::*;

pub(crate) use self::binding::{Binding, Role};
pub(crate) use self::context::{EncContext, GuestParams, Launched};
pub(crate) use self::guest::Guest;
pub(crate) use self::registry::{Registry, State};
pub(crate) use self::snp::SnpLaunched;
use crate::hw::kind::Kind;
use crate::kvm::cpumask::RunCpus;
use crate::kvm::slot::Slot;

/// What a `struct kvm` owns from when it becomes a SEV VM until it is destroyed.
pub(crate) struct SevVm {
    /// Of a guest whose context cannot be moved, so that it can be used without locks.
    is_snp: bool,
    /// Empty once the context was moved to another VM.
    binding: Slot<Binding>,
    /// Belongs to the VM and stays with it: only these CPUs can have cached memory that this VM
    /// gave its guest.
    run_cpus: RunCpus,
}

impl SevVm {
    /// The state of a VM that is about to be bound. ENOMEM.
    pub(crate) fn new() -> Result<KBox<Self>> {
        let state = Self {
            is_snp: false,
            binding: Slot::empty(),
            run_cpus: RunCpus::new()?,
        };
        Ok(KBox::new(state, GFP_KERNEL_ACCOUNT)?)
    }

    /// Binds the VM, before anybody else sees its state.
    pub(crate) fn bind(&mut self, binding: Binding) {
        self.is_snp = binding.context().kind() == Kind::Snp;
        self.binding.fill(binding);
    }

    /// Whether it is an SEV-SNP VM.
    pub(crate) fn is_snp(&self) -> bool {
        self.is_snp
    }

    pub(crate) fn binding(&self) -> &Slot<Binding> {
        &self.binding
    }

    pub(crate) fn run_cpus(&self) -> &RunCpus {
        &self.run_cpus
    }
}
