// SPDX-License-Identifier: GPL-2.0
//! A VM as a SEV VM: its encryption context, and where its vCPUs ran.

mod context;
mod guest;
mod region;
mod registry;

use kernel::prelude::*;
use kernel::sync::Arc;

pub(crate) use self::context::{EncContext, Launched};
pub(crate) use self::guest::Guest;
pub(crate) use self::registry::Registry;
use crate::kvm::cpumask::RunCpus;

/// What a `struct kvm` owns from its first SEV init until it is destroyed.
pub(crate) struct SevVm {
    /// The key that its memory is encrypted with, and all that hangs on it.
    context: Arc<EncContext>,
    /// Belongs to the VM, not to the context: only these CPUs can have cached memory that this VM
    /// gave its guest.
    run_cpus: RunCpus,
}

impl SevVm {
    /// ENOMEM.
    pub(crate) fn new(context: Arc<EncContext>) -> Result<Pin<KBox<Self>>> {
        let state = Self {
            context,
            run_cpus: RunCpus::new()?,
        };
        Ok(KBox::pin(state, GFP_KERNEL_ACCOUNT)?)
    }

    pub(crate) fn context(&self) -> &EncContext {
        &self.context
    }

    pub(crate) fn run_cpus(&self) -> &RunCpus {
        &self.run_cpus
    }
}
