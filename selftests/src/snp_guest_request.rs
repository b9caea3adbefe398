// SPDX-License-Identifier: GPL-2.0-or-later
//! Guest requests of an SNP guest: the test in the place of the guest's software writes and reads
//! the messages, the guest's vCPU hands them to KVM.
//!
//! The guest copies its secrets page into shared memory for that.

use anyhow::{Result, ensure};

use crate::ghcb::{Ghcb, exit};
use crate::host::Host;
use crate::mem::PAGE;
use crate::snp_guest::{Actor, BUFFERS, Outcome, SECRETS, Setup, SnpGuest, answer};
use crate::snp_guest_message::{Channel, Key, kind, report_request_for, status};
use crate::snp_guest_program::Command;

const PAGE_LEN: u64 = PAGE as u64;
/// Page of requests.
pub const REQUEST: u64 = BUFFERS.start;
/// Page of answers.
pub const RESPONSE: u64 = BUFFERS.start + PAGE_LEN;
/// Where the guest copies its secrets page.
pub const COPIED: u64 = BUFFERS.start + 8 * PAGE_LEN;

/// A guest with a secrets page, its GHCB registered, and its channel of VMPL 0.
pub fn launched(host: &Host, setup: Setup) -> Result<(SnpGuest, Channel)> {
    let mut guest = Setup { secrets: true, ..setup }.launch(host)?;
    let mut vcpu = guest.actor(0);
    vcpu.register()?;
    let copied = vcpu.command(Command::Copy, [SECRETS, COPIED, PAGE_LEN])?;
    ensure!(copied.quiet(), "secrets page: {copied}");
    let secrets = vcpu.memory.read(COPIED as usize, PAGE);
    Ok((guest, Channel::new(&secrets, 0)?))
}

/// A VMGEXIT with this page as the request.
pub fn carry(vcpu: &mut Actor, page: &[u8]) -> Result<(Outcome, (u64, u64))> {
    vcpu.memory.write(REQUEST as usize, page);
    vcpu.memory.write(RESPONSE as usize, &[0xcc; PAGE]);
    let (outcome, ghcb) = vcpu.vmgexit(&Ghcb::request(exit::GUEST_REQUEST, REQUEST, RESPONSE))?;
    Ok((outcome, answer(&ghcb)))
}

/// Sends a message and opens the answer.
pub fn ask(vcpu: &mut Actor, channel: &mut Channel, kind: u8, payload: &[u8]) -> Result<Vec<u8>> {
    let page = channel.seal(kind, payload)?;
    let (outcome, answer) = carry(vcpu, &page)?;
    ensure!(outcome.quiet() && answer == (0, 0), "message {kind}: {answer:x?} {outcome}");
    channel.open(kind, &vcpu.memory.read(RESPONSE as usize, PAGE))
}

/// An attestation report, signed with the key that is the platform's choice.
pub fn report(
    vcpu: &mut Actor,
    channel: &mut Channel,
    data: [u8; 64],
    vmpl: u32,
) -> Result<Vec<u8>> {
    report_by(vcpu, channel, data, vmpl, Key::Any)
}

/// An attestation report.
pub fn report_by(
    vcpu: &mut Actor,
    channel: &mut Channel,
    data: [u8; 64],
    vmpl: u32,
    key: Key,
) -> Result<Vec<u8>> {
    const AT: usize = 32;
    let answer = ask(vcpu, channel, kind::REPORT, &report_request_for(data, vmpl, key))?;
    ensure!(status(&answer)? == 0, "report: status {:#x}", status(&answer)?);
    let len = u32::from_le_bytes(answer[4..8].try_into()?) as usize;
    ensure!(answer.len() >= AT + len, "a report of {len} bytes in {}", answer.len());
    Ok(answer[AT..AT + len].to_vec())
}
