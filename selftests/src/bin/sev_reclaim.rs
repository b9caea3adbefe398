// SPDX-License-Identifier: GPL-2.0-or-later
//! Caches are written back before memory that a guest may have dirtied goes to somebody else:
//! on the CPUs where the guest ran, and for SEV guests only.

use std::process::ExitCode;

use anyhow::Result;
use kvm_bindings::kvm_enc_region;
use sev_vm::cmd::Answer;
use sev_vm::context::beside;
use sev_vm::cpu::OnCpu;
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::PAGE;
use sev_vm::vm::Vm;

const PRIVATE: usize = guest::PRIVATE as usize;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("zapped_pages", zapped_pages),
            ("freed_pages", freed_pages),
            ("only_where_it_ran", only_where_it_ran),
            ("never_ran", never_ran),
            ("not_sev", not_sev),
            ("unregistered_region", unregistered_region),
            ("closed_vm", closed_vm),
            ("moved_vm", moved_vm),
        ],
    )
}

/// WBINVD instructions that `action` causes.
fn wbinvd(t: &mut Test, action: impl FnOnce() -> Result<()>) -> Result<u64> {
    let before = t.psp.machine()?.wbinvd;
    action()?;
    Ok(t.psp.machine()?.wbinvd - before)
}

/// Records how many WBINVD taking a page of guest memory from the VM causes.
fn zap(t: &mut Test, case: &str, vm: &Vm, expected: u64) -> Result<()> {
    let caused = wbinvd(t, || vm.memory.forget(PRIVATE, PAGE))?;
    t.value(case, caused, expected);
    Ok(())
}

/// A SEV VM that has run on CPU `cpu` alone, and written a page at [`PRIVATE`].
fn ran_on(host: &Host, cpu: usize) -> Result<Vm> {
    let mut vm = Vm::launched(host, 0, guest::fill())?;
    vm.add_vcpu(host, [PRIVATE as u64, 0, 512, 1])?;
    let _there = OnCpu::new(cpu)?;
    vm.vcpus[0].run_to_halt()?;
    Ok(vm)
}

fn zapped_pages(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = ran_on(&host, 0)?;
    zap(t, "one_page", &vm, 1)?;
    let again = wbinvd(t, || vm.memory.forget(PRIVATE, 16 * PAGE))?;
    t.value("sixteen_pages", again, 1);
    let outside = sev_vm::mem::Mapping::anonymous(PAGE)?;
    outside.fill(1);
    let elsewhere = wbinvd(t, || outside.forget(0, PAGE))?;
    t.value("not_guest_memory", elsewhere, 0);
    Ok(())
}

fn freed_pages(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = ran_on(&host, 0)?;
    let freed = wbinvd(t, || vm.memory.remove(PRIVATE, PAGE))?;
    t.check("flushed", freed >= 1);
    t.check("page_is_zero", vm.memory.read(PRIVATE, PAGE) == [0; PAGE]);
    Ok(())
}

/// The CPUs that count are those where a vCPU of this VM has run.
fn only_where_it_ran(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (first, second) = (ran_on(&host, 0)?, ran_on(&host, 1)?);
    zap(t, "first", &first, 1)?;
    zap(t, "second", &second, 1)?;
    let mut both = first;
    {
        let _there = OnCpu::new(1)?;
        both.vcpus[0].enter(0, [PRIVATE as u64, 0, 512, 1])?;
        both.vcpus[0].run_to_halt()?;
    }
    zap(t, "both", &both, 2)
}

fn never_ran(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::launched(&host, 0, guest::fill())?;
    zap(t, "zapped", &vm, 0)?;
    let caused = wbinvd(t, || {
        drop(vm);
        Ok(())
    })?;
    t.value("closed", caused, 0);
    Ok(())
}

fn not_sev(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Vm::bare(&host, VmType::Default)?;
    vm.load(guest::fill());
    vm.add_vcpu(&host, [PRIVATE as u64, 0, 512, 1])?;
    vm.vcpus[0].run_to_halt()?;
    zap(t, "zapped", &vm, 0)
}

fn unregistered_region(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = ran_on(&host, 1)?;
    let region = kvm_enc_region { addr: vm.memory.addr(), size: PAGE as u64 };
    let mut answers = [Answer::OK; 2];
    let registered = wbinvd(t, || {
        answers[0] = vm.register(&region);
        Ok(())
    })?;
    t.value("registered", registered, 0);
    let unregistered = wbinvd(t, || {
        answers[1] = vm.unregister(&region);
        Ok(())
    })?;
    t.value("unregistered", unregistered, 1);
    for (name, answer) in ["register", "unregister"].into_iter().zip(answers) {
        t.case(name, answer, Answer::OK_KEPT);
    }
    Ok(())
}

fn closed_vm(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = ran_on(&host, 0)?;
    vm.register_memory()?;
    let caused = wbinvd(t, || {
        drop(vm);
        Ok(())
    })?;
    t.check("flushed", caused >= 1);
    Ok(())
}

/// A move leaves nothing in the caches of CPUs of which the destination does not know.
fn moved_vm(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let source = ran_on(&host, 1)?;
    let taker = beside(&host, VmType::Sev, &source)?;
    let mut answer = Answer::OK;
    let caused = wbinvd(t, || {
        answer = taker.move_from(&source);
        Ok(())
    })?;
    t.case("move", answer, Answer::OK_KEPT);
    t.value("moved", caused, 1);
    zap(t, "taker", &taker, 0)
}
