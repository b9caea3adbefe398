// SPDX-License-Identifier: GPL-2.0-or-later
//! ACTIVATE, ACTIVATE_EX, DEACTIVATE, DECOMMISSION, GUEST_STATUS.
//!
//! unspecified: which error wins when several apply. Here: guest, its state, ASID range, guest
//! already active, ASID owned, ASID not flushed.

use zerocopy::little_endian::U32;

use crate::firmware::Firmware;
use crate::memory::Spa;
use crate::status::{Result, Status};
use crate::wire;

fn bind(fw: &mut Firmware, handle: U32, asid: U32) -> Result {
    let guest = fw.guests.get_mut(handle)?;
    guest.not_sent()?;
    let asid = fw.asids.check_range(asid.get(), guest.policy.es())?;
    if guest.asid.is_some() {
        return Err(Status::ACTIVE);
    }
    fw.asids.bind(asid)?;
    if fw.host.asid_key(asid.get(), Some(&guest.vek)).is_err() {
        fw.asids.unbind(asid, fw.running_cores());
        return Err(Status::HWERROR_PLATFORM);
    }
    guest.asid = Some(asid);
    Ok(())
}

/// ACTIVATE: the guest's key goes into the memory controllers under an ASID.
pub fn activate(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: wire::Activate = fw.mem.read(buffer)?;
    bind(fw, cmd.handle, cmd.asid)
}

/// ACTIVATE_EX: the same, for a list of core complexes only. The machine has one memory
/// controller, so the list is read and not acted on. unspecified: its checks.
pub fn activate_ex(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: wire::ActivateEx = fw.mem.read(buffer)?;
    wire::exact_len::<wire::ActivateEx>(cmd.length)?;
    if cmd.num_ids.get() == 0 || cmd.num_ids.get() > fw.host.ncpus() {
        return Err(Status::INVALID_PARAM);
    }
    let ids = fw.mem.spa(cmd.ids_address.get());
    for id in 0..cmd.num_ids.get() {
        let _: U32 = fw.mem.read(ids.offset(u64::from(id).saturating_mul(4))?)?;
    }
    bind(fw, cmd.handle, cmd.asid)
}

/// DEACTIVATE: the key is removed; the ASID needs WBINVD on every core and DF_FLUSH.
pub fn deactivate(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: wire::Handle = fw.mem.read(buffer)?;
    let guest = fw.guests.get_mut(cmd.handle)?;
    let asid = guest.active()?;
    fw.host
        .asid_key(asid.get(), None)
        .map_err(|_| Status::HWERROR_PLATFORM)?;
    guest.asid = None;
    fw.asids.unbind(asid, fw.running_cores());
    Ok(())
}

/// DECOMMISSION: the context of an inactive guest is deleted.
pub fn decommission(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: wire::Handle = fw.mem.read(buffer)?;
    if fw.guests.get(cmd.handle)?.asid.is_some() {
        return Err(Status::ACTIVE);
    }
    fw.guests.remove(cmd.handle.get());
    Ok(())
}

/// GUEST_STATUS.
pub fn guest_status(fw: &mut Firmware, buffer: Spa) -> Result {
    let mut cmd: wire::GuestStatus = fw.mem.read(buffer)?;
    let guest = fw.guests.get(cmd.handle)?;
    cmd.policy = U32::new(guest.policy.bits());
    cmd.asid = U32::new(guest.asid.map_or(0, |asid| asid.get()));
    cmd.state = guest.phase.code();
    fw.mem.write(buffer, &cmd)
}
