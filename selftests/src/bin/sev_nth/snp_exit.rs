// SPDX-License-Identifier: GPL-2.0-or-later
//! Exits of SEV-SNP guests for which KVM asks the firmware or needs memory.
//!
//! What the firmware answers to a guest's request is told the guest, in the lower half of a word of
//! the GHCB: here it is the status of an [`Answer`], whose error is that of KVM_RUN.

use anyhow::{Result, ensure};
use nix::errno::Errno::{EFAULT, EIO, ENOMEM, ENOTTY};
use sev_vm::cmd::Answer;
use sev_vm::ghcb::{Field, Ghcb, exit};
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::mem::PAGE;
use sev_vm::snp_guest::{Actor, BUFFERS, Outcome, PRIVATE, SECRETS, Setup, answer};
use sev_vm::snp_guest_message::{Channel, key_request, kind, report_request};
use sev_vm::snp_guest_program::Command;
use sev_vm::snp_guest_vmsa::{Creation, SNP_ACTIVE, Vmsa, creation};

use crate::snp::{Call, Subject, call};

const PAGE_LEN: u64 = PAGE as u64;
const REQUEST: u64 = BUFFERS.start;
const RESPONSE: u64 = REQUEST + PAGE_LEN;
const CERTIFICATES: u64 = RESPONSE + PAGE_LEN;
const COPIED: u64 = CERTIFICATES + PAGE_LEN;
/// Where the second vCPU's registers are.
const VMSA: u64 = PRIVATE.start;

/// How KVM_RUN failed, if it did.
fn failure(outcome: &Outcome) -> Option<Answer> {
    if outcome.done && outcome.exception.is_none() {
        return None;
    }
    let last = outcome.exits.last().map(String::as_str);
    let known = [("error:ENOMEM", ENOMEM), ("error:EFAULT", EFAULT), ("error:EIO", EIO)];
    let errno = known.into_iter().find(|(text, _)| last == Some(*text));
    Some(Answer::refused(errno.map_or(ENOTTY, |(_, errno)| errno)))
}

/// A VMGEXIT; what the guest reads then.
fn make(subject: &mut Subject, ghcb: &Ghcb) -> Answer {
    let left = std::mem::take(&mut subject.in_exit);
    let mut vcpu = subject.guest().actor(0);
    // A KVM_RUN that failed has ended the exit: the guest goes on behind it.
    let resumed = if left { vcpu.resume().map(|_| ()) } else { Ok(()) };
    let result = resumed.and_then(|()| vcpu.vmgexit(ghcb));
    let Ok((outcome, after)) = result else { return Answer::refused(ENOTTY) };
    if let Some(refused) = failure(&outcome) {
        subject.in_exit = true;
        return refused;
    }
    match answer(&after) {
        (0, status) if status >> 32 == 0 => Answer { errno: 0, fw: status as u32 },
        // KVM did not like it.
        _ => Answer::refused(ENOTTY),
    }
}

/// A message, and the answer to it if there is one.
fn message(subject: &mut Subject, code: u64, kind: u8, payload: &[u8]) -> Answer {
    let mut channel = subject.channel.take().expect("the preparation made it");
    let Ok(page) = channel.seal(kind, payload) else { return Answer::refused(ENOTTY) };
    let memory = &subject.guest().vm.memory;
    memory.write(REQUEST as usize, &page);
    memory.write(RESPONSE as usize, &[0; PAGE]);
    let ghcb = Ghcb::request(code, REQUEST, RESPONSE);
    let answer = make(subject, &ghcb.with(Field::Rax, CERTIFICATES).with(Field::Rbx, 1));
    let page = subject.guest().vm.memory.read(RESPONSE as usize, PAGE);
    let opened = answer != Answer::OK || channel.open(kind, &page).is_ok();
    subject.channel = Some(channel);
    if opened { answer } else { Answer::refused(ENOTTY) }
}

fn key(_: &Host, subject: &mut Subject) -> Answer {
    message(subject, exit::GUEST_REQUEST, kind::KEY, &key_request(0, 1, 0))
}

fn report(_: &Host, subject: &mut Subject) -> Answer {
    message(subject, exit::EXT_GUEST_REQUEST, kind::REPORT, &report_request([1; 64], 0))
}

/// A guest that can send messages, and has made an exit: what the first one needs is there.
fn talking_with(host: &Host, certificates: bool) -> Result<Subject> {
    let setup = Setup { secrets: true, certificates, ..Setup::default() };
    let mut guest = setup.launch(host)?;
    let mut vcpu = guest.actor(0);
    vcpu.register()?;
    let copied = vcpu.command(Command::Copy, [SECRETS, COPIED, PAGE_LEN])?;
    ensure!(copied.quiet(), "secrets page: {copied}");
    let secrets = vcpu.memory.read(COPIED as usize, PAGE);
    let mut subject = Subject::new(guest);
    subject.channel = Some(Channel::new(&secrets, 0)?);
    let answer = key(host, &mut subject);
    ensure!(answer == Answer::OK, "a first message: {answer}");
    Ok(subject)
}

fn talking(host: &Host) -> Result<Subject> {
    talking_with(host, false)
}

/// A guest with registers for its second vCPU.
fn with_registers(host: &Host) -> Result<Subject> {
    let mut guest = Setup::vcpus(2).launch(host)?;
    let vmsa = Vmsa::puppet(&guest.boot, 1);
    let mut vcpu = guest.actor(0);
    vcpu.register()?;
    vcpu.validate(VMSA)?;
    vcpu.make_vmsa(VMSA, &vmsa)?;
    Ok(Subject::new(guest))
}

fn create(_: &Host, subject: &mut Subject) -> Answer {
    make(subject, &creation(Creation::Create as u64, 1, VMSA, SNP_ACTIVE))
}

/// The second vCPU gets its registers and does something.
fn run_created(_: &Host, subject: &mut Subject) -> Answer {
    let left = std::mem::take(&mut subject.in_exit);
    let mut vcpu: Actor = subject.guest().actor(1);
    let outcome = if left { vcpu.resume() } else { vcpu.load(guest::CODE) };
    match outcome {
        Err(_) => Answer::refused(ENOTTY),
        Ok(outcome) => {
            let failed = failure(&outcome);
            subject.in_exit = failed.is_some();
            failed.unwrap_or(Answer::OK_KEPT)
        }
    }
}

fn created(host: &Host) -> Result<Subject> {
    let mut subject = with_registers(host)?;
    let answer = create(host, &mut subject);
    ensure!(answer == Answer::OK, "AP creation: {answer}");
    Ok(subject)
}

pub const GUEST_REQUEST: Call = call(talking, key, 1);
/// KVM ends the empty list of certificates, in a page that nobody has touched yet: a failure to get
/// it is one to write, EIO in the stock module, too.
pub const EXT_GUEST_REQUEST: Call = Call { out_of_memory: &[EIO], ..call(talking, report, 1) };
pub const EXT_GUEST_REQUEST_CERTS: Call = call(|h| talking_with(h, true), report, 1);
pub const AP_CREATE: Call = Call { expected: Answer::OK, ..call(with_registers, create, 0) };
pub const AP_RUN: Call = call(created, run_created, 0);
