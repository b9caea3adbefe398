// SPDX-License-Identifier: GPL-2.0-or-later
//! Ioctls on SEV-ES VMs, where KVM does something else than on SEV VMs.

use anyhow::{Result, ensure};
use kvm_bindings::*;
use sev_vm::cmd::Answer;
use sev_vm::context::Kind;
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::vm::{Vm, policy};

use crate::calls::{self, Call, Subject, call};

const ONE_VCPU: [[u64; 4]; 1] = [[0; 4]];

const fn es(
    prepare: fn(&Host) -> Result<Subject>,
    act: fn(&Host, &mut Subject) -> Answer,
    commands: u32,
) -> Call {
    Call { kind: VmType::SevEs, ..call(prepare, act, commands) }
}

// Preparations.

fn bare(host: &Host) -> Result<Subject> {
    Subject::new(Vm::bare(host, VmType::SevEs)?)
}

fn initialised(host: &Host) -> Result<Subject> {
    Subject::new(Kind::Es.initialised(host, VmType::SevEs)?)
}

/// With a vCPU whose registers are not encrypted yet.
fn started(host: &Host) -> Result<Subject> {
    let mut vm = Kind::Es.started(host, VmType::SevEs)?;
    vm.add_vcpu(host, [0; 4])?;
    Subject::new(vm)
}

pub fn launched_vm(host: &Host) -> Result<Vm> {
    Kind::Es.launched(host, VmType::SevEs, guest::idle(), &ONE_VCPU)
}

fn launched(host: &Host) -> Result<Subject> {
    Subject::new(launched_vm(host)?)
}

fn touched(host: &Host) -> Result<Subject> {
    calls::touch(initialised(host)?)
}

fn registered(host: &Host) -> Result<Subject> {
    calls::with_region(touched(host)?)
}

/// A VM that is nothing yet, beside a launched one.
fn beside(host: &Host) -> Result<Subject> {
    let mut subject = bare(host)?;
    subject.others.push(launched_vm(host)?);
    Ok(subject)
}

/// A VM with a vCPU, which is nothing yet, beside a launched one with as many.
fn heir(host: &Host) -> Result<Subject> {
    let mut subject = beside(host)?;
    subject.vm.add_bare_vcpu()?;
    Ok(subject)
}

/// A mirror beside its owner.
fn mirror(host: &Host) -> Result<Subject> {
    let mut subject = beside(host)?;
    let answer = copy(host, &mut subject);
    ensure!(answer.is_ok(), "a mirror: {answer}");
    Ok(subject)
}

/// A mirror with a vCPU whose registers are not encrypted yet, beside its owner in launch.
fn mirror_with_vcpu(host: &Host) -> Result<Subject> {
    let mut subject = bare(host)?;
    subject.others.push(Kind::Es.started(host, VmType::SevEs)?);
    let answer = copy(host, &mut subject);
    ensure!(answer.is_ok(), "a mirror: {answer}");
    subject.vm.add_vcpu(host, [0; 4])?;
    Ok(subject)
}

/// A VM with a vCPU, which is nothing yet, beside a mirror with as many, and its owner.
fn heir_of_mirror(host: &Host) -> Result<Subject> {
    let Subject { vm: mirror, mut others, .. } = mirror_with_vcpu(host)?;
    let answer = mirror.launch_update_vmsa();
    ensure!(answer.is_ok(), "LAUNCH_UPDATE_VMSA of a mirror: {answer}");
    others.insert(0, mirror);
    let mut subject = Subject { others, ..bare(host)? };
    subject.vm.add_bare_vcpu()?;
    Ok(subject)
}

fn to_send(host: &Host) -> Result<Subject> {
    calls::with_parcel(launched(host)?)
}

fn sending(host: &Host) -> Result<Subject> {
    calls::begin_to_send(to_send(host)?)
}

fn to_receive(host: &Host) -> Result<Subject> {
    calls::send_to(initialised(host)?, sending(host)?)
}

fn receiving(host: &Host) -> Result<Subject> {
    calls::begin_to_receive(to_receive(host)?)
}

fn received(host: &Host) -> Result<Subject> {
    calls::receive_data(receiving(host)?)
}

// Ioctls.

fn launch_start(_: &Host, subject: &mut Subject) -> Answer {
    calls::start(subject, policy::ES)
}

fn update_vmsa(_: &Host, subject: &mut Subject) -> Answer {
    subject.vm.launch_update_vmsa()
}

fn copy(_: &Host, subject: &mut Subject) -> Answer {
    subject.vm.copy_from(&subject.others[0])
}

fn take(_: &Host, subject: &mut Subject) -> Answer {
    subject.vm.move_from(&subject.others[0])
}

pub const INIT_ES: Call = es(calls::old, |_, s| s.vm.command(sev_cmd_id_KVM_SEV_ES_INIT, 0), 0);
pub const INIT2_ES: Call = es(bare, calls::init2, 0);
pub const CREATE_VCPU_ES: Call = es(initialised, calls::create_vcpu, 0);
pub const LAUNCH_START_ES: Call = es(initialised, launch_start, 2);
pub const LAUNCH_UPDATE_DATA_ES: Call = es(started, calls::update_data, 1);
pub const LAUNCH_UPDATE_VMSA: Call = es(started, update_vmsa, 1);
pub const REGISTER_ES: Call = es(touched, calls::register, 0);
pub const UNREGISTER_ES: Call = es(registered, calls::unregister, 0);
pub const MIRROR_ES: Call = es(beside, copy, 0);
pub const CREATE_VCPU_MIRROR: Call = es(mirror, calls::create_vcpu, 0);
pub const LAUNCH_UPDATE_VMSA_MIRROR: Call = es(mirror_with_vcpu, update_vmsa, 1);
pub const MOVE_ES: Call = es(heir, take, 0);
pub const MOVE_MIRROR_ES: Call = Call { stock_keeps: 1, ..es(heir_of_mirror, take, 0) };
pub const SEND_START_ES: Call = es(to_send, calls::send_start, 1);
pub const SEND_UPDATE_DATA_ES: Call = es(sending, calls::send_update, 1);
pub const SEND_FINISH_ES: Call = es(sending, calls::send_finish, 1);
pub const SEND_CANCEL_ES: Call = es(sending, calls::send_cancel, 1);
pub const RECEIVE_START_ES: Call = es(to_receive, calls::receive_start, 2);
pub const RECEIVE_UPDATE_DATA_ES: Call = es(receiving, calls::receive_update, 1);
pub const RECEIVE_FINISH_ES: Call = es(received, calls::receive_finish, 1);
