// SPDX-License-Identifier: GPL-2.0-or-later
//! ATTESTATION: a report of the launch digest, signed with PEK.

use core::mem::{offset_of, size_of};

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use crate::crypto::cert::{Algorithm, Usage, le_extend};
use crate::firmware::Firmware;
use crate::memory::Spa;
use crate::status::{Result, Status};
use crate::wire::{self, Attestation, Report};

/// ATTESTATION. With too short a buffer: the length.
///
/// unspecified: the guest states. Here: whenever a launch digest exists, which a guest that was
/// received does not have.
pub fn attestation(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Attestation = fw.mem.read(buffer)?;
    wire::must_be_zero(&[cmd.reserved])?;
    let guest = fw.guests.get(cmd.handle)?;
    guest.not_sent()?;
    let digest = guest.launch_digest.ok_or(Status::INVALID_GUEST_STATE)?;
    let size = size_of::<Report>();
    fw.mem
        .write_len(buffer, offset_of!(Attestation, len), size)?;
    if (cmd.len.get() as usize) < size {
        return Err(Status::INVALID_LENGTH);
    }
    let mut report = Report {
        mnonce: cmd.mnonce,
        launch_digest: digest,
        policy: U32::new(guest.policy.bits()),
        sig_usage: U32::new(Usage::Pek as u32),
        sig_algo: U32::new(Algorithm::EcdsaSha256 as u32),
        reserved: U32::ZERO,
        sig_r: [0; 72],
        sig_s: [0; 72],
    };
    let signed = report.as_bytes().get(..offset_of!(Report, sig_usage));
    let (r, s) = fw.platform.identity()?.endorse(signed.unwrap_or_default());
    (report.sig_r, report.sig_s) = (le_extend(&r), le_extend(&s));
    fw.mem.write(fw.mem.spa(cmd.address.get()), &report)
}
