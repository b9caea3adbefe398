// SPDX-License-Identifier: GPL-2.0-or-later
//! RECEIVE_START, RECEIVE_UPDATE_DATA, RECEIVE_UPDATE_VMSA, RECEIVE_FINISH.

use super::launch::{enter, memory_key, session_keys};
use super::policy::Policy;
use super::{Guest, Phase, packet};
use crate::asid::Asid;
use crate::crypto::session::Context;
use crate::firmware::Firmware;
use crate::memory::Spa;
use crate::status::{Result, Status};
use crate::wire::{self, Packet, Start};

/// RECEIVE_START: a new guest, with the policy and the session of the sending platform.
pub fn start(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Start = fw.mem.read(buffer)?;
    wire::must_be_zero(&[cmd.reserved])?;
    let policy = Policy::accept(cmd.policy.get(), fw.platform.es_enabled())?;
    let vek = memory_key(&fw.guests, cmd.handle, policy, &mut fw.rng)?;
    let guest = Guest {
        policy,
        phase: Phase::ReceiveUpdate {
            keys: session_keys(fw, &cmd, policy)?,
        },
        vek,
        asid: None,
        launch_digest: None,
    };
    enter(fw, buffer, guest)
}

/// Writes a packet's data to guest memory; the ASID through whose key.
fn update(fw: &mut Firmware, cmd: &Packet, context: Context) -> Result<Asid> {
    let guest = fw.guests.get(cmd.handle)?;
    let Phase::ReceiveUpdate { keys } = &guest.phase else {
        return Err(Status::INVALID_GUEST_STATE);
    };
    let asid = guest.active()?;
    packet::receive(&fw.mem, cmd, asid, |header, data| {
        keys.open(context, header, data, &[])
    })?;
    Ok(asid)
}

/// RECEIVE_UPDATE_DATA.
pub fn update_data(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Packet = fw.mem.read(buffer)?;
    update(fw, &cmd, Context::Data).map(|_| ())
}

/// RECEIVE_UPDATE_VMSA. unspecified: the status for a guest without ES.
pub fn update_vmsa(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Packet = fw.mem.read(buffer)?;
    if !fw.guests.get(cmd.handle)?.policy.es() {
        return Err(Status::POLICY_FAILURE);
    }
    packet::check_vmsa(&fw.mem, &cmd)?;
    let asid = update(fw, &cmd, Context::Vmsa)?;
    let spa = fw.mem.spa(cmd.guest_address.get());
    fw.mem.seal_vmsa(spa, asid)
}

/// RECEIVE_FINISH.
pub fn finish(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: wire::Handle = fw.mem.read(buffer)?;
    let guest = fw.guests.get_mut(cmd.handle)?;
    match guest.phase {
        Phase::ReceiveUpdate { .. } => {
            guest.phase = Phase::Running;
            Ok(())
        }
        _ => Err(Status::INVALID_GUEST_STATE),
    }
}
