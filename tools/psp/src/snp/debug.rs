// SPDX-License-Identifier: GPL-2.0-or-later
//! DBG_DECRYPT, DBG_ENCRYPT: one page. unspecified: the guest and page states that permit them.
//! Here: from LAUNCH_START on, and every page of the guest.

use zerocopy::little_endian::U64;

use super::context::find;
use super::rmp::Entry;
use super::wire::Debug;
use crate::asid::Asid;
use crate::firmware::Firmware;
use crate::memory::{PAGE, Spa};
use crate::status::{Result, Status};

fn page(fw: &Firmware, address: U64) -> Result<Spa> {
    fw.mem.spa(address.get()).aligned(PAGE as u64)
}

/// The page of a guest: INVALID_ADDRESS, INVALID_PAGE_STATE, INVALID_PAGE_OWNER.
fn guest_page(fw: &Firmware, address: U64, asid: Asid) -> Result<Spa> {
    let spa = page(fw, address)?;
    let entry = Entry::covering(&fw.mem, spa)?;
    if !entry.state().is_guest() {
        Err(Status::INVALID_PAGE_STATE)
    } else if entry.asid() != asid.get() {
        Err(Status::INVALID_PAGE_OWNER)
    } else {
        Ok(spa)
    }
}

fn debuggable(fw: &mut Firmware, cmd: &Debug) -> Result<Asid> {
    let (_, context) = find(&fw.mem, &mut fw.snp, cmd.gctx_address)?;
    context.started()?.policy.allows_debug()?;
    context.active()
}

/// DBG_DECRYPT: a page of the guest to a page in the Firmware state.
pub fn decrypt(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Debug = fw.mem.read(buffer)?;
    let asid = debuggable(fw, &cmd)?;
    let (src, dst) = (
        guest_page(fw, cmd.src_address, asid)?,
        page(fw, cmd.dst_address)?,
    );
    let mut bytes = [0; PAGE];
    fw.mem.read_guest(src, asid, &mut bytes)?;
    fw.mem.write_bytes(dst, &bytes)
}

/// DBG_ENCRYPT: a page of the host to a page of the guest.
pub fn encrypt(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Debug = fw.mem.read(buffer)?;
    let asid = debuggable(fw, &cmd)?;
    let (src, dst) = (
        page(fw, cmd.src_address)?,
        guest_page(fw, cmd.dst_address, asid)?,
    );
    let mut bytes = [0; PAGE];
    fw.mem.read_bytes(src, &mut bytes)?;
    fw.mem.write_owned(dst, Some(asid), &bytes)
}
