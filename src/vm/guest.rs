// SPDX-License-Identifier: GPL-2.0
//! Guests that the firmware knows, from LAUNCH_START to DECOMMISSION.
//!
//! ```text
//!   LAUNCH_START -> Guest --ACTIVATE--> BoundGuest
//!                     |                    |  drop: DEACTIVATE
//!                     |  drop: DECOMMISSION v
//!                     '<-------------------'
//! ```
//!
//! Dropping issues commands and so may sleep. If the firmware will not let go of an ASID, the ASID
//! is leaked: another guest could not be bound to it anyway.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::asid::Lease;
use crate::kvm::lock::Deactivating;
use crate::psp::{Activate, Channel, Deactivate, Decommission, FwStatus, Handle};

/// A guest context in the firmware that is not bound to an ASID.
pub(crate) struct Guest(Handle);

impl Guest {
    /// `handle` is what the firmware just returned; the guest is released with the value.
    pub(crate) fn new(handle: Handle) -> Self {
        Self(handle)
    }

    /// Binds the guest to an ASID, which installs its key. On failure the guest is released.
    pub(crate) fn activate(self, asid: Arc<Lease>, status: &mut FwStatus) -> Result<BoundGuest> {
        Channel::Kernel.issue(&mut Activate::new(self.0, asid.asid()), status)?;
        Ok(BoundGuest { guest: self, asid })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Nobody is left who could do something about a failure, which has been logged.
        let _ = Channel::Kernel.issue(&mut Decommission::new(self.0), &mut FwStatus::success());
    }
}

/// A guest that is bound to an ASID.
pub(crate) struct BoundGuest {
    /// Released after it was deactivated: fields are dropped after `drop` ran.
    guest: Guest,
    asid: Arc<Lease>,
}

impl BoundGuest {
    pub(crate) fn handle(&self) -> Handle {
        self.guest.0
    }
}

impl Drop for BoundGuest {
    fn drop(&mut self) {
        let _deactivating = Deactivating::enter();
        let mut command = Deactivate::new(self.guest.0);

        if Channel::Kernel
            .issue(&mut command, &mut FwStatus::success())
            .is_err()
        {
            pr_err!(
                "SEV: ASID {} is lost: its guest could not be deactivated\n",
                self.asid.asid()
            );
            self.asid.leak();
        }
    }
}
