// SPDX-License-Identifier: GPL-2.0-or-later
//! Closing a VM, which cannot fail, whatever does.

use anyhow::Result;
use sev_vm::cmd::Answer;
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::vm::Vm;

use crate::calls::{Call, Subject, call};
use crate::es;

/// A VM that is to be closed and has run, beside one that stays.
fn beside(host: &Host, mut vm: Vm) -> Result<Subject> {
    vm.vcpus[0].run_to_halt()?;
    let mut subject = Subject::new(Vm::bare(host, VmType::Sev)?)?;
    subject.others.push(vm);
    Ok(subject)
}

fn sev(host: &Host) -> Result<Subject> {
    let mut vm = Vm::launched(host, 0, guest::idle())?;
    vm.add_vcpu(host, [0; 4])?;
    beside(host, vm)
}

fn sev_es(host: &Host) -> Result<Subject> {
    beside(host, es::launched_vm(host)?)
}

fn close(_: &Host, subject: &mut Subject) -> Answer {
    subject.others.clear();
    Answer::OK_KEPT
}

pub const CLOSE: Call = call(sev, close, 0);
pub const CLOSE_ES: Call = Call { kind: VmType::SevEs, ..call(sev_es, close, 0) };
