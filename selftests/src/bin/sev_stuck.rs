// SPDX-License-Identifier: GPL-2.0-or-later
//! Firmware refuses to let a guest go. What it holds cannot be had back before the platform is
//! shut down, which unloading kvm_amd does: afterwards the module is loaded anew, from where
//! the host VM has it.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use kvm_bindings::*;
use sev_vm::cmd::{Answer, issue, status};
use sev_vm::host::{EncryptionLeaf, Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::vm::{Vm, addr_of};

fn main() -> ExitCode {
    ktap::run_leaking(
        env!("CARGO_BIN_NAME"),
        &[
            ("decommission_fails", decommission_fails),
            ("deactivate_fails", deactivate_fails),
            ("reload", reload),
        ],
    )
}

/// Unloading the module shuts the platform down: everything is free again.
fn reload(t: &mut Test) -> Result<()> {
    let module = if Host::open()?.is_ours() { "rust" } else { "stock" };
    for (case, program, argument) in [
        ("rmmod", "rmmod", "kvm_amd".to_owned()),
        ("insmod", "insmod", format!("/lib/modules/kvm-amd-{module}.ko")),
    ] {
        let status = Command::new(program).arg(argument).status().context(program)?;
        t.check(case, status.success());
    }
    t.contexts(0)?;
    let (guests, _) = start_all(&Host::open()?)?;
    t.value("guests", guests, EncryptionLeaf::read().sev_asids());
    Ok(())
}

/// Starts as many guests as possible: how many, and what the next ones were answered.
fn start_all(host: &Host) -> Result<(u32, Vec<Answer>)> {
    let (mut guests, mut vms, mut refusals) = (0, Vec::new(), Vec::new());
    for _ in 0..EncryptionLeaf::read().sev_asids() {
        let vm = host.create_vm(VmType::Sev)?;
        let mut init = kvm_sev_init::default();
        let mut answer = issue(&vm, sev_cmd_id_KVM_SEV_INIT2, addr_of(&mut init), host.sev_fd());
        if answer.is_ok() {
            let mut start = kvm_sev_launch_start::default();
            let id = sev_cmd_id_KVM_SEV_LAUNCH_START;
            answer = issue(&vm, id, addr_of(&mut start), host.sev_fd());
        }
        if answer.is_ok() {
            guests += 1;
        } else {
            refusals.push(answer);
        }
        vms.push(vm);
    }
    Ok((guests, refusals))
}

/// Closes a started guest while the next `command` fails.
fn close_failing(t: &mut Test, host: &Host, command: &str) -> Result<String> {
    let vm = Vm::started(host, 0)?;
    t.psp.fail(command, 1, status::HWERROR_PLATFORM)?;
    let ((), log) = t.psp.logged(|| {
        drop(vm);
        Ok(())
    })?;
    ensure!(log.iter().any(|entry| entry.cmd == command), "{command} was not issued: {log:?}");
    Ok(log
        .iter()
        .map(|entry| format!("{}={}", entry.cmd, entry.status))
        .collect::<Vec<_>>()
        .join(","))
}

/// The guest's ASID is free, its context is not.
fn decommission_fails(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let commands = close_failing(t, &host, "DECOMMISSION")?;
    t.note(commands);
    let held = t.psp.counters()?;
    t.value("contexts", held.contexts, 1);
    t.value("asids_bound", held.asids_bound, 0);
    Ok(())
}

/// The ASID is still bound: nobody must get it. What happens to the guests that want one is a
/// matter of the module; that every other ASID works is not.
fn deactivate_fails(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let before = t.psp.counters()?.asids_bound;
    let commands = close_failing(t, &host, "DEACTIVATE")?;
    t.note(commands);
    let after = t.psp.counters()?.asids_bound;
    t.value("bound", after - before, 1);
    let asids = EncryptionLeaf::read().sev_asids();
    let (guests, refusals) = start_all(&host)?;
    t.value("others", guests, asids - 1);
    t.value("refused", refusals.len(), 1);
    for refusal in refusals {
        t.record("refusal", refusal);
    }
    Ok(())
}
