// SPDX-License-Identifier: GPL-2.0-or-later
//! SEND_START, SEND_UPDATE_DATA, SEND_UPDATE_VMSA, SEND_FINISH, SEND_CANCEL.

use core::mem::offset_of;

use zerocopy::little_endian::U32;

use super::launch::read_dh;
use super::policy::Policy;
use super::{Phase, packet};
use crate::crypto::ca;
use crate::crypto::cert::{Certificate, Usage};
use crate::crypto::session::{Context, TransportKeys};
use crate::crypto::sign::Authority;
use crate::firmware::Firmware;
use crate::memory::Spa;
use crate::status::{Result, Status};
use crate::wire::{self, Packet, SendStart, Session};

/// Whether the policy lets the guest go to the platform that these certificates describe.
///
/// unspecified: what is verified when the policy asks for neither SEV nor DOMAIN. Here: that
/// PEK signed the PDH.
fn check_target(fw: &Firmware, cmd: &SendStart, policy: Policy) -> Result {
    wire::exact_len::<Certificate>(cmd.pdh_len)?;
    wire::exact_len::<[Certificate; 3]>(cmd.plat_len)?;
    let pdh: Certificate = fw.mem.read(fw.mem.spa(cmd.pdh_address.get()))?;
    let [pek, oca, cek]: [Certificate; 3] = fw.mem.read(fw.mem.spa(cmd.plat_address.get()))?;
    Authority::from_certificate(pek.expect(Usage::Pek)?)?.verify(&pdh)?;
    policy.allows_firmware(pek.api)?;
    if policy.domain() {
        if !fw.platform.identity()?.has_oca(oca.expect(Usage::Oca)?) {
            return Err(Status::POLICY_FAILURE);
        }
        Authority::from_certificate(&oca)?.verify(&pek)?;
    }
    if policy.sev() {
        let len = cmd.amd_len.get() as usize;
        if len > 2 * ca::MAX_CERT_SIZE {
            return Err(Status::INVALID_LENGTH);
        }
        let mut amd = vec![0; len];
        fw.mem
            .read_bytes(fw.mem.spa(cmd.amd_address.get()), &mut amd)?;
        ca::verify_ask_ark(&amd)?.verify(cek.expect(Usage::Cek)?)?;
        Authority::from_certificate(&cek)?.verify(&pek)?;
    }
    Ok(())
}

/// SEND_START: a session with the target platform. With too short a buffer: the length.
pub fn start(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: SendStart = fw.mem.read(buffer)?;
    wire::must_be_zero(&[cmd.reserved1, cmd.reserved2, cmd.reserved3])?;
    let guest = fw.guests.get(cmd.handle)?;
    if !matches!(guest.phase, Phase::Running) {
        return Err(Status::INVALID_GUEST_STATE);
    }
    let policy = guest.policy;
    policy.allows_send()?;
    let size = size_of::<Session>();
    fw.mem
        .write_len(buffer, offset_of!(SendStart, session_len), size)?;
    if (cmd.session_len.get() as usize) < size {
        return Err(Status::INVALID_LENGTH);
    }
    check_target(fw, &cmd, policy)?;
    let peer = read_dh(fw, cmd.pdh_address.get(), cmd.pdh_len)?;
    let secret = fw.platform.identity()?.shared_secret(&peer);
    let keys = TransportKeys::generate(&mut fw.rng);
    let session = keys.wrap(&secret, policy.bits(), &mut fw.rng);
    fw.mem
        .write(fw.mem.spa(cmd.session_address.get()), &session)?;
    let policy_at = buffer.offset(offset_of!(SendStart, policy) as u64)?;
    fw.mem.write(policy_at, &U32::new(policy.bits()))?;
    fw.guests.get_mut(cmd.handle)?.phase = Phase::SendUpdate { keys };
    Ok(())
}

fn update(fw: &mut Firmware, buffer: Spa, cmd: &Packet, context: Context) -> Result {
    let guest = fw.guests.get(cmd.handle)?;
    let Phase::SendUpdate { keys } = &guest.phase else {
        return Err(Status::INVALID_GUEST_STATE);
    };
    let asid = guest.active()?;
    let rng = &mut fw.rng;
    packet::send(&fw.mem, buffer, cmd, asid, |data| {
        keys.seal(context, data, rng)
    })
}

/// SEND_UPDATE_DATA.
pub fn update_data(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Packet = fw.mem.read(buffer)?;
    update(fw, buffer, &cmd, Context::Data)
}

/// SEND_UPDATE_VMSA. unspecified: the status for a guest without ES.
pub fn update_vmsa(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Packet = fw.mem.read(buffer)?;
    if !fw.guests.get(cmd.handle)?.policy.es() {
        return Err(Status::POLICY_FAILURE);
    }
    packet::check_vmsa(&fw.mem, &cmd)?;
    update(fw, buffer, &cmd, Context::Vmsa)
}

fn leave(fw: &mut Firmware, buffer: Spa, next: Phase) -> Result {
    let cmd: wire::Handle = fw.mem.read(buffer)?;
    let guest = fw.guests.get_mut(cmd.handle)?;
    match guest.phase {
        Phase::SendUpdate { .. } => {
            guest.phase = next;
            Ok(())
        }
        _ => Err(Status::INVALID_GUEST_STATE),
    }
}

/// SEND_FINISH: the guest cannot run here any more.
pub fn finish(fw: &mut Firmware, buffer: Spa) -> Result {
    leave(fw, buffer, Phase::Sent)
}

/// SEND_CANCEL: the guest stays.
pub fn cancel(fw: &mut Firmware, buffer: Spa) -> Result {
    leave(fw, buffer, Phase::Running)
}
