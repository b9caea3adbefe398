// SPDX-License-Identifier: GPL-2.0-or-later
//! PAGE_RECLAIM.

use super::rmp::{Entry, LARGE, PageState};
use super::wire::Address;
use crate::firmware::Firmware;
use crate::memory::{PAGE, Spa};
use crate::status::{Result, Status};

/// The page that an address names whose bit 0 says 2 MiB, and its entry: INVALID_ADDRESS,
/// INVALID_PAGE_SIZE.
fn sized(fw: &Firmware, address: u64) -> Result<(Spa, Entry)> {
    let large = address & 1 != 0;
    let size = if large { LARGE } else { PAGE as u64 };
    let spa = fw.mem.spa(address & !1).aligned(size)?;
    let entry = Entry::covering(&fw.mem, spa)?;
    if entry.is_2m() != large {
        return Err(Status::INVALID_PAGE_SIZE);
    }
    Ok((spa, entry))
}

/// PAGE_RECLAIM: gives a page up that the firmware holds. A page of a guest stays that of the
/// guest; others go to the Reclaim state.
pub fn reclaim(fw: &mut Firmware, buffer: Spa) -> Result {
    use PageState::*;
    let cmd: Address = fw.mem.read(buffer)?;
    let (spa, entry) = sized(fw, cmd.address.get())?;
    let state = match entry.state() {
        Firmware | Metadata | Reclaim => Reclaim,
        PreGuest => GuestInvalid,
        PreSwap => GuestValid,
        Hypervisor | HvFixed | Context | GuestInvalid | GuestValid => {
            return Err(Status::INVALID_PAGE_STATE);
        }
    };
    entry.to(state).write(&fw.mem, spa)
}
