// SPDX-License-Identifier: GPL-2.0-or-later
//! ACTIVATE, ACTIVATE_EX. unspecified: which error wins when several apply.

use zerocopy::little_endian::{U32, U64};

use super::context::find;
use super::wire;
use crate::firmware::Firmware;
use crate::memory::Spa;
use crate::status::{Result, Status};
use crate::wire::{exact_len, must_be_zero};

fn bind(fw: &mut Firmware, gctx: U64, asid: U32) -> Result {
    let (_, context) = find(&fw.mem, &mut fw.snp, gctx)?;
    let vek = context.started()?.vek;
    let asid = fw.asids.check_snp_range(asid.get())?;
    if context.asid.is_some() {
        return Err(Status::ACTIVE);
    }
    fw.asids.bind(asid)?;
    if fw.host.asid_key(asid.get(), Some(&vek)).is_err() {
        fw.snp.unflushed = true;
        fw.asids.unbind(asid, fw.running_cores());
        return Err(Status::HWERROR_PLATFORM);
    }
    context.asid = Some(asid);
    Ok(())
}

/// ACTIVATE: the guest's key goes into the memory controllers under an ASID.
pub fn activate(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: wire::Activate = fw.mem.read(buffer)?;
    bind(fw, cmd.gctx_address, cmd.asid)
}

/// ACTIVATE_EX: the same, for a list of core complexes only. The machine has one memory
/// controller, so the list is read and not acted on.
pub fn activate_ex(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: wire::ActivateEx = fw.mem.read(buffer)?;
    exact_len::<wire::ActivateEx>(cmd.length)?;
    must_be_zero(&[cmd.reserved])?;
    if cmd.num_ids.get() == 0 || cmd.num_ids.get() > fw.host.ncpus() {
        return Err(Status::INVALID_PARAM);
    }
    let ids = fw.mem.spa(cmd.ids_address.get());
    for id in 0..cmd.num_ids.get() {
        let _: U32 = fw.mem.read(ids.offset(u64::from(id).saturating_mul(4))?)?;
    }
    bind(fw, cmd.gctx_address, cmd.asid)
}
