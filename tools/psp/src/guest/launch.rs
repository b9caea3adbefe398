// SPDX-License-Identifier: GPL-2.0-or-later
//! LAUNCH_START, LAUNCH_UPDATE_DATA, LAUNCH_UPDATE_VMSA, LAUNCH_MEASURE, LAUNCH_SECRET,
//! LAUNCH_FINISH.

use core::mem::offset_of;

use sha2::{Digest, Sha256};
use zerocopy::little_endian::U32;

use super::policy::Policy;
use super::{Guest, Guests, Phase, packet};
use crate::crypto::cert::{Algorithm, Certificate, Usage};
use crate::crypto::session::{Context, TransportKeys};
use crate::crypto::{Rng, random};
use crate::firmware::{API, BUILD, Firmware};
use crate::memory::{self, PAGE, Spa};
use crate::status::{Result, Status};
use crate::wire::{self, Measurement, Region, Session, Start};

/// Granule of memory encryption: addresses and lengths of guest memory are multiples of it.
pub(super) const BLOCK: u32 = 16;

/// The memory key of a new guest: its own, or that of the guest `handle` names.
pub(super) fn memory_key(
    guests: &Guests,
    handle: U32,
    policy: Policy,
    rng: &mut Rng,
) -> Result<[u8; 16]> {
    if handle.get() == 0 {
        return Ok(random(rng));
    }
    let other = guests.get(handle)?;
    other.policy.allows_key_sharing()?;
    if other.policy != policy {
        return Err(Status::POLICY_FAILURE);
    }
    Ok(other.vek)
}

/// A Diffie-Hellman certificate. Its signature is not the firmware's concern: the holder of the
/// key proves himself with the session's MACs.
pub(super) fn read_dh(fw: &Firmware, address: u64, len: U32) -> Result<p384::PublicKey> {
    wire::exact_len::<Certificate>(len)?;
    let cert: Certificate = fw.mem.read(fw.mem.spa(address))?;
    cert.expect(Usage::Pdh)?;
    match Algorithm::from_id(cert.algorithm) {
        Algorithm::EcdhSha256 | Algorithm::EcdhSha384 => cert.ec_key(),
        _ => Err(Status::INVALID_CERTIFICATE),
    }
}

/// The transport keys that the other side put into the session blob.
pub(super) fn session_keys(fw: &Firmware, cmd: &Start, policy: Policy) -> Result<TransportKeys> {
    let peer = read_dh(fw, cmd.cert_address.get(), cmd.cert_len)?;
    wire::exact_len::<Session>(cmd.session_len)?;
    let session: Session = fw.mem.read(fw.mem.spa(cmd.session_address.get()))?;
    let secret = fw.platform.identity()?.shared_secret(&peer);
    TransportKeys::unwrap(&secret, &session, policy.bits())
}

/// Adds a guest and returns its handle in the command buffer.
pub(super) fn enter(fw: &mut Firmware, buffer: Spa, guest: Guest) -> Result {
    let handle = fw.guests.insert(guest)?;
    let written = fw.mem.write(buffer, &U32::new(handle));
    if written.is_err() {
        fw.guests.remove(handle);
    }
    written
}

/// LAUNCH_START. Without a certificate the launch is unattended: nobody outside knows the
/// transport keys.
pub fn start(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Start = fw.mem.read(buffer)?;
    wire::must_be_zero(&[cmd.reserved])?;
    let policy = Policy::accept(cmd.policy.get(), fw.platform.es_enabled())?;
    let vek = memory_key(&fw.guests, cmd.handle, policy, &mut fw.rng)?;
    let keys = if cmd.cert_address.get() == 0 && cmd.cert_len.get() == 0 {
        TransportKeys::generate(&mut fw.rng)
    } else {
        session_keys(fw, &cmd, policy)?
    };
    let guest = Guest {
        policy,
        phase: Phase::LaunchUpdate {
            keys,
            digest: Sha256::new(),
        },
        vek,
        asid: None,
        launch_digest: None,
    };
    enter(fw, buffer, guest)
}

/// Hashes and encrypts a region in place.
fn import(fw: &mut Firmware, handle: U32, spa: Spa, len: u32) -> Result {
    let guest = fw.guests.get_mut(handle)?;
    let asid = guest.active()?;
    let Phase::LaunchUpdate { digest, .. } = &mut guest.phase else {
        return Err(Status::INVALID_GUEST_STATE);
    };
    let mut extended = digest.clone();
    let mut page = [0; PAGE];
    for (spa, size) in memory::pages(spa, len) {
        let bytes = page.get_mut(..size).ok_or(Status::HWERROR_PLATFORM)?;
        fw.mem.read_bytes(spa, bytes)?;
        extended.update(&*bytes);
        fw.mem.write_guest(spa, asid, bytes)?;
    }
    // A failed update leaves the digest, though pages may be encrypted already. unspecified.
    *digest = extended;
    Ok(())
}

/// LAUNCH_UPDATE_DATA.
pub fn update_data(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Region = fw.mem.read(buffer)?;
    wire::must_be_zero(&[cmd.reserved])?;
    let guest = fw.guests.get(cmd.handle)?;
    if !matches!(guest.phase, Phase::LaunchUpdate { .. }) {
        return Err(Status::INVALID_GUEST_STATE);
    }
    guest.active()?;
    let len = packet::block_len(cmd.len)?;
    let spa = fw.mem.spa(cmd.address.get()).aligned(BLOCK.into())?;
    import(fw, cmd.handle, spa, len)
}

/// LAUNCH_UPDATE_VMSA: a page with the state of a virtual CPU. unspecified: the status for a
/// guest without ES.
pub fn update_vmsa(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Region = fw.mem.read(buffer)?;
    wire::must_be_zero(&[cmd.reserved])?;
    let guest = fw.guests.get(cmd.handle)?;
    if !matches!(guest.phase, Phase::LaunchUpdate { .. }) {
        return Err(Status::INVALID_GUEST_STATE);
    }
    if !guest.policy.es() {
        return Err(Status::POLICY_FAILURE);
    }
    let asid = guest.active()?;
    if cmd.len.get() as usize != PAGE {
        return Err(Status::INVALID_LENGTH);
    }
    let spa = fw.mem.spa(cmd.address.get()).aligned(PAGE as u64)?;
    import(fw, cmd.handle, spa, cmd.len.get())?;
    fw.mem.seal_vmsa(spa, asid)
}

/// LAUNCH_MEASURE. With too short a buffer: the length, and the guest stays as it is.
pub fn measure(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Region = fw.mem.read(buffer)?;
    wire::must_be_zero(&[cmd.reserved])?;
    let guest = fw.guests.get_mut(cmd.handle)?;
    let Phase::LaunchUpdate { keys, digest } = &guest.phase else {
        return Err(Status::INVALID_GUEST_STATE);
    };
    let size = size_of::<Measurement>();
    fw.mem.write_len(buffer, offset_of!(Region, len), size)?;
    if (cmd.len.get() as usize) < size {
        return Err(Status::INVALID_LENGTH);
    }
    let digest: [u8; 32] = digest.clone().finalize().into();
    let mnonce = random(&mut fw.rng);
    let [major, minor] = API;
    let version = [major, minor, BUILD];
    let measure = keys.measure(version, guest.policy.bits(), &digest, &mnonce);
    fw.mem.write(
        fw.mem.spa(cmd.address.get()),
        &Measurement { measure, mnonce },
    )?;
    guest.launch_digest = Some(digest);
    guest.phase = Phase::LaunchSecret {
        keys: keys.clone(),
        measure,
    };
    Ok(())
}

/// LAUNCH_SECRET: a packet of the guest owner is decrypted into guest memory.
pub fn secret(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: wire::Packet = fw.mem.read(buffer)?;
    let guest = fw.guests.get(cmd.handle)?;
    let Phase::LaunchSecret { keys, measure } = &guest.phase else {
        return Err(Status::INVALID_GUEST_STATE);
    };
    let asid = guest.active()?;
    packet::receive(&fw.mem, &cmd, asid, |header, data| {
        keys.open(Context::Secret, header, data, measure)
    })
}

/// LAUNCH_FINISH.
pub fn finish(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: wire::Handle = fw.mem.read(buffer)?;
    let guest = fw.guests.get_mut(cmd.handle)?;
    match guest.phase {
        Phase::LaunchSecret { .. } => {
            guest.phase = Phase::Running;
            Ok(())
        }
        _ => Err(Status::INVALID_GUEST_STATE),
    }
}
