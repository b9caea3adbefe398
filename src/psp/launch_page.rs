// SPDX-License-Identifier: GPL-2.0
//! A page on its way from the host to an SEV-SNP guest that is being launched.
//!
//! ```text
//!   shared --assign--> LaunchPage --SNP_LAUNCH_UPDATE--> the guest's
//!     ^                    |
//!     '-----reclaimed------'------> leaked, if that is refused
//! ```
//!
//! Always 4 KiB: the firmware measures no other pages, and the table's entry is of the size that the
//! command says.

use kernel::prelude::*;

use super::channel::Channel;
use super::snp::{PageType, SnpLaunchUpdate, SnpPageReclaim};
use super::status::FwStatus;
use crate::hw::addr::{Pfn, PspAddr};
use crate::hw::asid::Asid;
use crate::hw::rmp::{self, Mutable, Owner, PageSize};

/// Assigned to the guest, and immutable. The host cannot write to it any more.
#[must_use]
pub(crate) struct LaunchPage(Pfn);

/// What became of a page that the guest did not get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// The host's again, as before; the firmware may have written to it.
    Shared,
    /// It must not be used or freed.
    Leaked,
}

impl LaunchPage {
    /// Assigns a page of the host's to a guest, at `gpa`. May sleep. Errors as
    /// [`rmp::make_private`]; the page is still the host's then.
    pub(crate) fn assign(pfn: Pfn, gpa: u64, asid: Asid) -> Result<Self> {
        rmp::make_private(pfn, gpa, PageSize::Small, asid, Mutable::No)?;
        Ok(Self(pfn))
    }

    /// Has the firmware encrypt the page, for the guest with the context `gctx`. Errors as
    /// [`Channel::issue`], and what became of the page.
    pub(crate) fn update(
        self,
        gctx: PspAddr,
        page_type: PageType,
        channel: Channel<'_>,
        status: &mut FwStatus,
    ) -> Result<(), (Error, Fate)> {
        let mut command = SnpLaunchUpdate::new(gctx, self.0.psp_address(), page_type);

        channel
            .issue(&mut command, status)
            .map_err(|error| (error, self.reclaim()))
    }

    fn reclaim(self) -> Fate {
        let mut command = SnpPageReclaim::new(self.0.psp_address());
        let reclaimed = Channel::Kernel
            .issue(&mut command, &mut FwStatus::success())
            .and_then(|()| rmp::make_shared(self.0, PageSize::Small, Owner::Launch));

        match reclaimed {
            Ok(()) => Fate::Shared,
            Err(error) => {
                pr_err!(
                    "SEV: page {:#x} is lost: the firmware keeps it: {error:?}\n",
                    self.0.get()
                );
                rmp::leak(self.0);
                Fate::Leaked
            }
        }
    }
}
