// SPDX-License-Identifier: GPL-2.0
//! Carrying messages between an SEV-SNP guest and the firmware.
//!
//! The firmware gets copies: the guest's pages could change, move or be needed by the host while it
//! works on them, and it would have to own the one that it writes to.

use kernel::prelude::*;
use kernel::sync::{new_mutex, Mutex};

use super::blob::Blob;
use super::channel::Channel;
use super::snp::SnpGuestRequest;
use super::status::FwStatus;
use crate::hw::addr::{PspAddr, PAGE_SIZE};
use crate::hw::page::FirmwarePage;

/// The pages for one message at a time.
struct Pages {
    message: Blob,
    answer: FirmwarePage,
}

/// A guest's way to the firmware.
#[pin_data]
pub(crate) struct GuestRequests {
    /// Locks: → the PSP driver's mutex.
    #[pin]
    pages: Mutex<Pages>,
}

impl GuestRequests {
    /// Once the firmware was started. ENOMEM; EIO if it does not take a page.
    pub(crate) fn new() -> Result<Pin<KBox<Self>>> {
        let pages = Pages {
            message: Blob::zeroed(PAGE_SIZE as u32)?,
            answer: FirmwarePage::new().map_err(|_| EIO)?,
        };
        KBox::pin_init(
            pin_init!(Self { pages <- new_mutex!(pages, "kvm_sev_guest_requests") }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Has `read` fill in a message of the guest `gctx`, and `write` pass the answer on. May sleep.
    ///
    /// It is not an error if the firmware refuses: the guest is told by `status`. Errors: those of
    /// `read` and `write`; of [`Channel::issue`] if the firmware is not reached.
    pub(crate) fn exchange(
        &self,
        gctx: PspAddr,
        channel: Channel<'_>,
        status: &mut FwStatus,
        read: impl FnOnce(&mut [u8]) -> Result,
        write: impl FnOnce(&FirmwarePage) -> Result,
    ) -> Result {
        let mut pages = self.pages.lock();

        read(pages.message.as_mut_slice())?;
        let mut command =
            SnpGuestRequest::new(gctx, pages.message.address(), pages.answer.address());
        match channel.query(&mut command, status) {
            Err(error) if *status == FwStatus::success() => return Err(error),
            _ => {}
        }
        write(&pages.answer)
    }
}
