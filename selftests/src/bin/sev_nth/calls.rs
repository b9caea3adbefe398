// SPDX-License-Identifier: GPL-2.0-or-later
//! Every ioctl of KVM's SEV interface, with a VM prepared for it to succeed. KVM_CREATE_VM is not
//! among them: the part that SEV has in it allocates nothing and asks nobody.

use anyhow::{Result, bail, ensure};
use kvm_bindings::*;
use nix::errno::Errno::ENOTTY;
use sev_vm::cmd::{Answer, status};
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::tenant::{self, Owner, Packet, Verdict};
use sev_vm::vcpu;
use sev_vm::vm::Vm;

use crate::call;
use crate::transfer::{self, Parcel};

const AREA: usize = guest::PRIVATE as usize;

/// What an ioctl is issued on. Fields are dropped in their order.
pub struct Subject {
    /// The VM in question.
    pub vm: Vm,
    /// Others that have to be there.
    pub others: Vec<Vm>,
    /// Memory of ours for the kernel to read and write.
    pub buffer: Mapping,
    /// A secret for the guest.
    pub packet: Option<Packet>,
    /// The guest owner, before LAUNCH_START.
    pub owner: Option<Owner>,
    /// A guest on its way.
    pub parcel: Option<Parcel>,
    /// The guest was left in the midst of an exit.
    pub in_exit: bool,
}

impl Subject {
    pub fn new(vm: Vm) -> Result<Self> {
        let buffer = Mapping::anonymous(4 * PAGE)?;
        // Its pages are there: if the kernel had to allocate them, to write to them after the
        // firmware's answer, a failure would be EFAULT, and the answer would be lost.
        buffer.fill(0);
        Ok(Self {
            vm,
            others: Vec::new(),
            buffer,
            packet: None,
            owner: None,
            parcel: None,
            in_exit: false,
        })
    }

    fn area(&self) -> u64 {
        self.vm.memory.addr() + AREA as u64
    }

    fn parcel(&self) -> &Parcel {
        self.parcel.as_ref().expect("the preparation packed it")
    }
}

impl call::Subject for Subject {
    fn in_exit(&self) -> bool {
        self.in_exit
    }
}

pub type Call = call::Call<Subject>;

pub const fn call(
    prepare: fn(&Host) -> Result<Subject>,
    act: fn(&Host, &mut Subject) -> Answer,
    commands: u32,
) -> Call {
    Call::new(VmType::Sev, prepare, act, commands)
}

/// The answer to a question for a length.
const LENGTH: Answer = Answer::firmware(status::INVALID_LEN);

// Preparations.

fn bare(host: &Host) -> Result<Subject> {
    Subject::new(Vm::bare(host, VmType::Sev)?)
}

pub fn old(host: &Host) -> Result<Subject> {
    Subject::new(Vm::bare(host, VmType::Default)?)
}

fn initialised(host: &Host) -> Result<Subject> {
    Subject::new(Vm::sev(host)?)
}

fn owned(host: &Host) -> Result<Subject> {
    let subject = initialised(host)?;
    Ok(Subject { owner: Some(Owner::prepare(0)?), ..subject })
}

fn started(host: &Host) -> Result<Subject> {
    Subject::new(Vm::started(host, 0)?)
}

fn updated(host: &Host) -> Result<Subject> {
    let subject = started(host)?;
    subject.vm.encrypt(AREA..AREA + PAGE)?;
    Ok(subject)
}

fn measured(host: &Host) -> Result<Subject> {
    let subject = updated(host)?;
    subject.vm.measurement()?;
    Ok(subject)
}

fn verified(host: &Host) -> Result<Subject> {
    let owner = Owner::prepare(0)?;
    let subject = initialised(host)?;
    let answer = owner.launch_start(&subject.vm, 0);
    ensure!(answer.is_ok(), "LAUNCH_START with a session: {answer}");
    let plain = subject.vm.memory.read(AREA, PAGE);
    subject.vm.encrypt(AREA..AREA + PAGE)?;
    match owner.verify(tenant::build()?, &[&plain], &subject.vm.measurement()?)? {
        Verdict::Genuine(session) => {
            Ok(Subject { packet: Some(Packet::new(&session, &[7; 32])?), ..subject })
        }
        Verdict::Tampered => bail!("the owner rejects the measurement"),
    }
}

fn launched(host: &Host) -> Result<Subject> {
    Subject::new(Vm::launched(host, 0, guest::idle())?)
}

fn ready_to_run(host: &Host) -> Result<Subject> {
    let mut subject = launched(host)?;
    subject.vm.add_vcpu(host, [0; 4])?;
    Ok(subject)
}

/// Its memory has pages.
pub fn touch(subject: Subject) -> Result<Subject> {
    subject.vm.memory.write(AREA, &[1; 2 * PAGE]);
    Ok(subject)
}

fn touched(host: &Host) -> Result<Subject> {
    touch(initialised(host)?)
}

/// Part of its memory is registered.
pub fn with_region(subject: Subject) -> Result<Subject> {
    let answer = subject.vm.register(&region(&subject));
    ensure!(answer.is_ok(), "KVM_MEMORY_ENCRYPT_REG_REGION: {answer}");
    Ok(subject)
}

fn registered(host: &Host) -> Result<Subject> {
    with_region(touched(host)?)
}

/// A VM that is nothing yet, beside a launched one.
fn beside(host: &Host) -> Result<Subject> {
    let mut subject = bare(host)?;
    subject.others.push(Vm::launched(host, 0, guest::idle())?);
    Ok(subject)
}

/// A VM that is nothing yet, beside a mirror and its owner.
fn beside_mirror(host: &Host) -> Result<Subject> {
    let mut subject = beside(host)?;
    let mirror = Vm::bare(host, VmType::Sev)?;
    let answer = mirror.copy_from(&subject.others[0]);
    ensure!(answer.is_ok(), "a mirror: {answer}");
    subject.others.insert(0, mirror);
    Ok(subject)
}

/// A guest that is about to go.
pub fn with_parcel(subject: Subject) -> Result<Subject> {
    Ok(Subject { parcel: Some(Parcel::new()?), ..subject })
}

/// After SEND_START.
pub fn begin_to_send(mut subject: Subject) -> Result<Subject> {
    let parcel = subject.parcel.as_mut().expect("the preparation packed it");
    let answer = parcel.send_start(&subject.vm);
    ensure!(answer.is_ok(), "SEND_START: {answer}");
    Ok(subject)
}

/// The recipient of a guest whose sender is done.
pub fn send_to(recipient: Subject, mut sender: Subject) -> Result<Subject> {
    let answers = [
        sender.parcel().send_update(&sender.vm, AREA),
        sender.vm.command(sev_cmd_id_KVM_SEV_SEND_FINISH, 0),
    ];
    ensure!(answers.iter().all(Answer::is_ok), "SEND_UPDATE_DATA, SEND_FINISH: {answers:?}");
    Ok(Subject { parcel: sender.parcel.take(), ..recipient })
}

/// After RECEIVE_START.
pub fn begin_to_receive(subject: Subject) -> Result<Subject> {
    let answer = subject.parcel().receive_start(&subject.vm);
    ensure!(answer.is_ok(), "RECEIVE_START: {answer}");
    Ok(subject)
}

/// After RECEIVE_UPDATE_DATA.
pub fn receive_data(subject: Subject) -> Result<Subject> {
    let answer = subject.parcel().receive_update(&subject.vm, AREA);
    ensure!(answer.is_ok(), "RECEIVE_UPDATE_DATA: {answer}");
    Ok(subject)
}

fn to_send(host: &Host) -> Result<Subject> {
    with_parcel(launched(host)?)
}

fn sending(host: &Host) -> Result<Subject> {
    begin_to_send(to_send(host)?)
}

fn to_receive(host: &Host) -> Result<Subject> {
    send_to(initialised(host)?, sending(host)?)
}

fn receiving(host: &Host) -> Result<Subject> {
    begin_to_receive(to_receive(host)?)
}

fn received(host: &Host) -> Result<Subject> {
    receive_data(receiving(host)?)
}

// Ioctls.

pub fn create_vcpu(_: &Host, subject: &mut Subject) -> Answer {
    vcpu::create(&subject.vm.fd)
}

pub fn init2(_: &Host, subject: &mut Subject) -> Answer {
    subject.vm.init2(&mut kvm_sev_init::default())
}

pub fn start(subject: &Subject, policy: u32) -> Answer {
    subject.vm.launch_start(&mut kvm_sev_launch_start { policy, ..Default::default() })
}

pub fn update_data(_: &Host, subject: &mut Subject) -> Answer {
    let (uaddr, len) = (subject.area(), PAGE as u32);
    subject.vm.launch_update_data(&mut kvm_sev_launch_update_data {
        uaddr,
        len,
        ..Default::default()
    })
}

fn measure(_: &Host, subject: &mut Subject) -> Answer {
    let uaddr = subject.buffer.addr();
    subject.vm.launch_measure(&mut kvm_sev_launch_measure { uaddr, len: 48, ..Default::default() })
}

fn secret(_: &Host, subject: &mut Subject) -> Answer {
    let packet = subject.packet.as_ref().expect("the preparation made it");
    subject.vm.launch_secret(&mut packet.argument(subject.area()))
}

fn attest(subject: &Subject, len: u32) -> Answer {
    transfer::issue(
        &subject.vm,
        sev_cmd_id_KVM_SEV_GET_ATTESTATION_REPORT,
        &mut kvm_sev_attestation_report { uaddr: subject.buffer.addr(), len, ..Default::default() },
    )
}

fn region(subject: &Subject) -> kvm_enc_region {
    kvm_enc_region { addr: subject.area(), size: 2 * PAGE as u64 }
}

pub fn register(_: &Host, subject: &mut Subject) -> Answer {
    subject.vm.register(&region(subject))
}

pub fn unregister(_: &Host, subject: &mut Subject) -> Answer {
    subject.vm.unregister(&region(subject))
}

fn take(_: &Host, subject: &mut Subject) -> Answer {
    subject.vm.move_from(&subject.others[0])
}

fn run(_: &Host, subject: &mut Subject) -> Answer {
    match subject.vm.vcpus[0].run_to_halt() {
        Ok(()) => Answer::OK_KEPT,
        Err(error) => match error.downcast_ref::<kvm_ioctls::Error>() {
            Some(error) => Answer::from_result::<()>(Err(*error)),
            // An exit that nobody asked for.
            None => Answer::refused(ENOTTY),
        },
    }
}

pub fn send_start(_: &Host, subject: &mut Subject) -> Answer {
    let parcel = subject.parcel.as_mut().expect("the preparation packed it");
    parcel.send_start(&subject.vm)
}

pub fn send_update(_: &Host, subject: &mut Subject) -> Answer {
    subject.parcel().send_update(&subject.vm, AREA)
}

pub fn send_finish(_: &Host, subject: &mut Subject) -> Answer {
    subject.vm.command(sev_cmd_id_KVM_SEV_SEND_FINISH, 0)
}

pub fn send_cancel(_: &Host, subject: &mut Subject) -> Answer {
    subject.vm.command(sev_cmd_id_KVM_SEV_SEND_CANCEL, 0)
}

pub fn receive_start(_: &Host, subject: &mut Subject) -> Answer {
    subject.parcel().receive_start(&subject.vm)
}

pub fn receive_update(_: &Host, subject: &mut Subject) -> Answer {
    subject.parcel().receive_update(&subject.vm, AREA)
}

pub fn receive_finish(_: &Host, subject: &mut Subject) -> Answer {
    subject.vm.command(sev_cmd_id_KVM_SEV_RECEIVE_FINISH, 0)
}

pub const CREATE_VCPU: Call = call(launched, create_vcpu, 0);
pub const INIT: Call = call(old, |_, s| s.vm.command(sev_cmd_id_KVM_SEV_INIT, 0), 0);
pub const INIT2: Call = call(bare, init2, 0);
pub const LAUNCH_START: Call = call(initialised, |_, s| start(s, 0), 2);
pub const LAUNCH_START_SESSION: Call = call(
    owned,
    |_, s| s.owner.as_ref().expect("the preparation made it").launch_start(&s.vm, 0),
    2,
);
pub const LAUNCH_UPDATE_DATA: Call = call(started, update_data, 1);
pub const LAUNCH_MEASURE: Call = call(updated, measure, 1);
pub const LAUNCH_SECRET: Call = call(verified, secret, 1);
pub const LAUNCH_FINISH: Call = call(measured, |_, s| s.vm.launch_finish(), 1);
pub const GUEST_STATUS: Call =
    call(started, |_, s| s.vm.guest_status(&mut kvm_sev_guest_status::default()), 1);
pub const DBG_DECRYPT: Call =
    call(updated, |_, s| s.vm.dbg_decrypt(s.area(), s.buffer.addr(), PAGE as u32), 1);
pub const DBG_DECRYPT_UNALIGNED: Call =
    call(updated, |_, s| s.vm.dbg_decrypt(s.area() + 1, s.buffer.addr(), 5), 1);
pub const DBG_ENCRYPT: Call =
    call(updated, |_, s| s.vm.dbg_encrypt(s.buffer.addr(), s.area(), PAGE as u32), 1);
pub const DBG_ENCRYPT_UNALIGNED: Call =
    call(updated, |_, s| s.vm.dbg_encrypt(s.buffer.addr(), s.area() + 1, 5), 2);
pub const ATTESTATION: Call = call(launched, |_, s| attest(s, PAGE as u32), 1);
pub const ATTESTATION_LENGTH: Call =
    Call { expected: LENGTH, ..call(launched, |_, s| attest(s, 0), 1) };
pub const REGISTER: Call = call(touched, register, 0);
pub const UNREGISTER: Call = call(registered, unregister, 0);
pub const MIRROR: Call = call(beside, |_, s| s.vm.copy_from(&s.others[0]), 0);
pub const MOVE: Call = call(beside, take, 0);
pub const MOVE_MIRROR: Call = Call { stock_keeps: 1, ..call(beside_mirror, take, 0) };
pub const SEND_START: Call = call(to_send, send_start, 1);
pub const SEND_UPDATE_DATA: Call = call(sending, send_update, 1);
pub const SEND_FINISH: Call = call(sending, send_finish, 1);
pub const SEND_CANCEL: Call = call(sending, send_cancel, 1);
pub const RECEIVE_START: Call = call(to_receive, receive_start, 2);
pub const RECEIVE_UPDATE_DATA: Call = call(receiving, receive_update, 1);
pub const RECEIVE_FINISH: Call = call(received, receive_finish, 1);
pub const RUN: Call = call(ready_to_run, run, 0);

/// `(name, test function)` of every call; `$each` takes the running test and the call.
#[macro_export]
macro_rules! tests {
    ($each:path: $($module:ident: $($name:ident)*;)*) => {{
        const TESTS: &[(&str, sev_vm::ktap::Function)] =
            &[$($((stringify!($name), |t| $each(t, &$crate::$module::$name))),*),*];
        TESTS
    }};
    ($each:path) => {
        $crate::tests!($each:
            calls:
                CREATE_VCPU INIT INIT2 LAUNCH_START LAUNCH_START_SESSION LAUNCH_UPDATE_DATA
                LAUNCH_MEASURE LAUNCH_SECRET LAUNCH_FINISH GUEST_STATUS DBG_DECRYPT
                DBG_DECRYPT_UNALIGNED DBG_ENCRYPT DBG_ENCRYPT_UNALIGNED ATTESTATION
                ATTESTATION_LENGTH REGISTER UNREGISTER MIRROR MOVE MOVE_MIRROR SEND_START
                SEND_UPDATE_DATA SEND_FINISH SEND_CANCEL RECEIVE_START RECEIVE_UPDATE_DATA
                RECEIVE_FINISH RUN;
            es:
                INIT_ES INIT2_ES CREATE_VCPU_ES LAUNCH_START_ES LAUNCH_UPDATE_DATA_ES
                LAUNCH_UPDATE_VMSA REGISTER_ES UNREGISTER_ES MIRROR_ES CREATE_VCPU_MIRROR
                LAUNCH_UPDATE_VMSA_MIRROR MOVE_ES MOVE_MIRROR_ES SEND_START_ES
                SEND_UPDATE_DATA_ES SEND_FINISH_ES SEND_CANCEL_ES RECEIVE_START_ES
                RECEIVE_UPDATE_DATA_ES RECEIVE_FINISH_ES;
            vmgexit:
                RUN_ES EXIT MMIO_READ MMIO_WRITE INS OUTS;
        )
    };
}
