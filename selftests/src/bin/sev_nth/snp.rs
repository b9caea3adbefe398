// SPDX-License-Identifier: GPL-2.0-or-later
//! Ioctls on SEV-SNP VMs, and closing them.

use std::ops::Range;
use std::os::fd::OwnedFd;

use anyhow::Result;
use kvm_bindings::*;
use nix::errno::Errno::{self, EINPROGRESS, EIO, ENOMEM, ENOTTY};
use sev_vm::cmd::Answer;
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::mem::{GuestMemory, PAGE};
use sev_vm::snp::{self, PageType, Snp, policy, pre_fault};
use sev_vm::snp_guest::{self, SnpGuest};
use sev_vm::snp_guest_message::Channel;
use sev_vm::snp_identity::{Identity, Owner};
use sev_vm::snp_image::{self, Imaged};
use sev_vm::vcpu;

use crate::call;

/// Pages that calls are about.
const AREA: usize = guest::PRIVATE as usize;
const ONE_PAGE: Range<usize> = AREA..AREA + PAGE;
/// More than one, so that a call can be done in part.
const MANY: Range<usize> = AREA..AREA + 3 * PAGE;
/// LAUNCH_UPDATE succeeded, but there is more to do: what no ioctl answers.
pub const IN_PART: Answer = Answer::refused(EINPROGRESS);

/// What a call is made on. Fields are dropped in their order.
pub struct Subject {
    /// The VM with its private memory; `None` once it is closed.
    pub guest: Option<SnpGuest>,
    /// What its owner says it is.
    identity: Option<Identity>,
    /// What is left of a LAUNCH_UPDATE.
    left: kvm_sev_snp_launch_update,
    /// The guest's way to the firmware.
    pub channel: Option<Channel>,
    /// The guest was left in the midst of an exit.
    pub in_exit: bool,
    /// More memory of the VM's.
    _more: Option<(GuestMemory, OwnedFd)>,
}

impl call::Subject for Subject {
    fn in_exit(&self) -> bool {
        self.in_exit
    }
}

pub type Call = call::Call<Subject>;

impl Subject {
    pub fn new(guest: SnpGuest) -> Self {
        Self {
            guest: Some(guest),
            identity: None,
            left: kvm_sev_snp_launch_update::default(),
            channel: None,
            in_exit: false,
            _more: None,
        }
    }

    fn of(snp: Snp) -> Self {
        let Snp { vm, private } = snp;
        Self::new(SnpGuest { vm, private, boot: kvm_sregs::default() })
    }

    /// The VM, which is not closed.
    pub fn guest(&mut self) -> &mut SnpGuest {
        self.guest.as_mut().expect("nobody closes a VM and goes on")
    }
}

pub const fn call(
    prepare: fn(&Host) -> Result<Subject>,
    act: fn(&Host, &mut Subject) -> Answer,
    commands: u32,
) -> Call {
    Call::new(VmType::Snp, prepare, act, commands)
}

/// Firmware is asked, but success leaves the error field alone.
const fn silent(
    prepare: fn(&Host) -> Result<Subject>,
    act: fn(&Host, &mut Subject) -> Answer,
    commands: u32,
) -> Call {
    Call { expected: Answer::OK_KEPT, ..call(prepare, act, commands) }
}

/// One that says otherwise that there is no memory.
const fn vague(out_of_memory: &'static [Errno], call: Call) -> Call {
    Call { out_of_memory, ..call }
}

/// LAUNCH_UPDATE, which tells nothing but that not even the first page was loaded.
const fn load(prepare: fn(&Host) -> Result<Subject>, commands: u32) -> Call {
    vague(&[EIO], silent(prepare, update, commands))
}

// Preparations.

fn bare(host: &Host) -> Result<Subject> {
    Ok(Subject::of(Snp::bare(host)?))
}

fn initialised(host: &Host) -> Result<Subject> {
    Ok(Subject::of(Snp::initialised(host)?))
}

fn begun(host: &Host) -> Result<Snp> {
    let snp = Snp::started(host, policy::DEFAULT)?;
    // Its pages are there: a page that the kernel cannot get is another failure.
    snp.memory.write(AREA, &[0; 3 * PAGE]);
    Ok(snp)
}

fn started(host: &Host) -> Result<Subject> {
    Ok(Subject::of(begun(host)?))
}

fn to_load(host: &Host, kind: PageType, range: Range<usize>) -> Result<Subject> {
    let snp = begun(host)?;
    let left = snp.update_of(kind, range);
    Ok(Subject { left, ..Subject::of(snp) })
}

fn ready(host: &Host, vcpus: &[[u64; 4]]) -> Result<Snp> {
    let mut snp = begun(host)?;
    snp.prepare(host, guest::idle(), vcpus)?;
    Ok(snp)
}

fn launched(host: &Host) -> Result<Subject> {
    let snp = ready(host, &[[0; 4]])?;
    snp.seal()?;
    Ok(Subject::of(snp))
}

fn ran(host: &Host) -> Result<Subject> {
    let mut subject = launched(host)?;
    subject.guest().vm.vcpus[0].run_to_halt()?;
    Ok(subject)
}

/// A guest whose owner knows what it is.
fn known(host: &Host) -> Result<Subject> {
    let digest = snp_image::digest(1, 0, 0)?;
    let identity = Owner::new()?.identify(digest, policy::DEFAULT)?;
    let (snp, more) = Imaged::load(host, policy::DEFAULT, 1, 0, 0)?.into_parts();
    Ok(Subject { identity: Some(identity), _more: Some(more), ..Subject::of(snp) })
}

// Calls.

fn start(_: &Host, subject: &mut Subject) -> Answer {
    subject.guest().vm.snp_launch_start(&mut snp::start(policy::DEFAULT))
}

fn update(_: &Host, subject: &mut Subject) -> Answer {
    let mut left = subject.left;
    let answer = subject.guest().vm.snp_launch_update(&mut left);
    subject.left = left;
    if answer.is_ok() && left.len != 0 { IN_PART } else { answer }
}

fn finish(_: &Host, subject: &mut Subject) -> Answer {
    subject.guest().vm.snp_launch_finish(&mut kvm_sev_snp_launch_finish::default())
}

fn finish_known(subject: &mut Subject, author: bool) -> Answer {
    let identity = subject.identity.as_ref().expect("the preparation made it");
    let mut argument = identity.finish(author);
    subject.guest().vm.snp_launch_finish(&mut argument)
}

fn attributes(_: &Host, subject: &mut Subject) -> Answer {
    subject.guest().vm.set_private(MANY, false)
}

fn fault_in(_: &Host, subject: &mut Subject) -> Answer {
    let mut argument =
        kvm_pre_fault_memory { gpa: AREA as u64, size: MANY.len() as u64, ..Default::default() };
    pre_fault(subject.guest().vm.vcpus[0].fd(), &mut argument)
}

fn punch(_: &Host, subject: &mut Subject) -> Answer {
    let range = MANY.start as u64..MANY.end as u64;
    match snp_guest::punch(&subject.guest().private, range) {
        Ok(()) => Answer::OK_KEPT,
        Err(errno) => Answer::refused(errno),
    }
}

fn run(_: &Host, subject: &mut Subject) -> Answer {
    match subject.guest().vm.vcpus[0].run_to_halt() {
        Ok(()) => Answer::OK_KEPT,
        Err(error) => match error.downcast_ref::<kvm_ioctls::Error>() {
            Some(error) => Answer::from_result::<()>(Err(*error)),
            // An exit that nobody asked for.
            None => Answer::refused(ENOTTY),
        },
    }
}

fn close(_: &Host, subject: &mut Subject) -> Answer {
    subject.guest = None;
    Answer::OK_KEPT
}

fn loaded(host: &Host) -> Result<Subject> {
    let snp = begun(host)?;
    snp.update(PageType::Normal, MANY)?;
    Ok(Subject::of(snp))
}

fn with_vcpus(host: &Host) -> Result<Subject> {
    Ok(Subject::of(ready(host, &[[0; 4]; 2])?))
}

pub const INIT2: Call =
    vague(&[ENOMEM, EIO], call(bare, |_, s| s.guest().vm.init2(&mut kvm_sev_init::default()), 0));
pub const REQ_CERTS: Call = call(initialised, |_, s| s.guest().vm.snp_enable_req_certs(), 0);
pub const CREATE_VCPU: Call = call(started, |_, s| vcpu::create(&s.guest().vm.fd), 0);
// The context's page comes from the PSP driver, which has no error for it.
pub const LAUNCH_START: Call = vague(&[ENOTTY], call(initialised, start, 3));
pub const UPDATE_NORMAL: Call = load(|h| to_load(h, PageType::Normal, ONE_PAGE), 1);
pub const UPDATE_ZERO: Call = load(|h| to_load(h, PageType::Zero, ONE_PAGE), 1);
pub const UPDATE_UNMEASURED: Call = load(|h| to_load(h, PageType::Unmeasured, ONE_PAGE), 1);
pub const UPDATE_SECRETS: Call = load(|h| to_load(h, PageType::Secrets, ONE_PAGE), 1);
pub const UPDATE_CPUID: Call = load(|h| to_load(h, PageType::Cpuid, ONE_PAGE), 1);
pub const UPDATE_MANY: Call =
    vague(&[EIO, EINPROGRESS], load(|h| to_load(h, PageType::Normal, MANY), 3));
pub const LAUNCH_FINISH: Call = call(started, finish, 1);
pub const LAUNCH_FINISH_VCPUS: Call = call(with_vcpus, finish, 3);
pub const LAUNCH_FINISH_ID: Call = call(known, |_, s| finish_known(s, false), 1);
pub const LAUNCH_FINISH_AUTHOR: Call = call(known, |_, s| finish_known(s, true), 1);
pub const ATTRIBUTES: Call = call(loaded, attributes, 0);
pub const PRE_FAULT: Call = call(launched, fault_in, 0);
pub const PUNCH: Call = call(loaded, punch, 0);
pub const RUN: Call = call(launched, run, 0);
// The page for guest requests; the guest; its context's page.
pub const CLOSE_INITIALISED: Call = silent(initialised, close, 1);
pub const CLOSE_STARTED: Call = silent(loaded, close, 3);
pub const CLOSE_RAN: Call = silent(ran, close, 3);
