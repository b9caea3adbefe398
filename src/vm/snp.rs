// SPDX-License-Identifier: GPL-2.0
//! SEV-SNP guests that the firmware knows, from SNP_GCTX_CREATE to SNP_DECOMMISSION.
//!
//! Dropping issues commands and so may sleep. If the firmware will not let go of a guest, its context
//! page and its ASID are leaked.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::asid::Lease;
use crate::hw::addr::PspAddr;
use crate::hw::page::FirmwarePage;
use crate::kvm::file::SevDevice;
use crate::kvm::lock::FlushExclusive;
use crate::psp::{Channel, FwStatus, SnpActivate, SnpDecommission, SnpGctxCreate, SnpLaunchStart};

/// A guest context in the firmware, bound to an ASID or not yet.
struct GuestContext {
    /// `None` only once it is being dropped.
    page: Option<FirmwarePage>,
    address: PspAddr,
    asid: Arc<Lease>,
}

impl GuestContext {
    /// ENOMEM; else as [`Channel::issue`].
    fn create(device: &SevDevice, asid: Arc<Lease>, status: &mut FwStatus) -> Result<Self> {
        let page = FirmwarePage::new()?;
        let address = page.address();

        Channel::Device(device).issue(&mut SnpGctxCreate::new(address), status)?;
        Ok(Self {
            page: Some(page),
            address,
            asid,
        })
    }
}

impl Drop for GuestContext {
    fn drop(&mut self) {
        // It deactivates, too, and this is what must not happen between WBINVD and DF_FLUSH.
        let result = {
            let _alone = FlushExclusive::enter();
            let mut command = SnpDecommission::new(self.address);
            Channel::Kernel.issue(&mut command, &mut FwStatus::success())
        };

        if result.is_err() {
            pr_err!(
                "SEV: ASID {} is lost: its guest could not be decommissioned\n",
                self.asid.asid()
            );
            self.asid.leak();
            if let Some(page) = self.page.take() {
                page.leak();
            }
        }
    }
}

/// A guest that is being launched, or was.
pub(crate) struct SnpLaunched {
    context: GuestContext,
    policy: u64,
    /// Whoever launched the guest had this open.
    device: SevDevice,
}

impl SnpLaunched {
    /// Creates a guest through `device` and binds it to its ASID. May sleep.
    ///
    /// `tsc_khz`, `gosvw`: see [`SnpLaunchStart::new`]. Nothing is left of it if this fails. Errors:
    /// ENOTTY if there is no context for it, for whatever reason; else as [`Channel::issue`].
    pub(crate) fn start(
        device: SevDevice,
        asid: Arc<Lease>,
        policy: u64,
        tsc_khz: Option<u32>,
        gosvw: [u8; 16],
        status: &mut FwStatus,
    ) -> Result<Self> {
        let context = GuestContext::create(&device, asid, status).map_err(|_| ENOTTY)?;
        let channel = Channel::Device(&device);
        let gctx = context.address;

        channel.issue(
            &mut SnpLaunchStart::new(gctx, policy, tsc_khz, gosvw),
            status,
        )?;
        channel.issue(&mut SnpActivate::new(gctx, context.asid.asid()), status)?;
        Ok(Self {
            context,
            policy,
            device,
        })
    }

    /// How the firmware knows the guest.
    pub(crate) fn gctx(&self) -> PspAddr {
        self.context.address
    }

    /// What the guest's owner allows the host.
    pub(crate) fn policy(&self) -> u64 {
        self.policy
    }

    /// For commands about this guest.
    pub(crate) fn channel(&self) -> Channel<'_> {
        Channel::Device(&self.device)
    }
}
