// SPDX-License-Identifier: GPL-2.0-or-later
//! CPUs of the host that go offline and come back while there are guests.

use std::process::ExitCode;
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Result, anyhow, ensure};
use sev_vm::cmd::Answer;
use sev_vm::context::{Kind, beside, count_until_told};
use sev_vm::cpu::{Offline, OnCpu};
use sev_vm::guest;
use sev_vm::host::{EncryptionLeaf, Host};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::vm::Vm;

const SHARED: usize = guest::SHARED.start as usize;
const PRIVATE: u64 = guest::PRIVATE;
/// Tells the guest to halt, if it is not 0.
const STOP: usize = SHARED + 8;
const VALUE: u64 = 0x1122_3344_5566_7788;
/// The CPU that goes; CPU 0 stays.
const CPU: usize = 1;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("running", running),
            ("started_later", started_later),
            ("two_vms", two_vms),
            ("reclaim", reclaim),
            ("recycling", recycling),
            ("launched_meanwhile", launched_meanwhile),
            ("moved", moved),
        ],
    )
}

fn counting(host: &Host, kind: Kind) -> Result<Vm> {
    kind.launched(host, kind.vm_type(), count_until_told(), &[[PRIVATE, SHARED as u64, 0, 0]])
}

fn storing(host: &Host, kind: Kind) -> Result<Vm> {
    let arguments = [PRIVATE, SHARED as u64, VALUE, 0];
    kind.launched(host, kind.vm_type(), guest::store_and_watch(), &[arguments])
}

/// Waits until the guest has counted on.
fn counts_on(memory: &Mapping, thread: &ScopedJoinHandle<Result<()>>) -> Result<()> {
    let now = memory.read_u64(SHARED);
    while memory.read_u64(SHARED) == now {
        ensure!(!thread.is_finished(), "the guest has stopped");
        thread::yield_now();
    }
    Ok(())
}

/// Runs the guest once more on CPU `cpu`: it copies the private word to the shared one.
fn watch(t: &mut Test, case: &str, vm: &mut Vm, cpu: usize) -> Result<()> {
    let _there = OnCpu::new(cpu)?;
    vm.memory.write_u64(SHARED, 0);
    vm.vcpus[0].run_to_halt()?;
    t.check(case, vm.memory.read_u64(SHARED) == VALUE);
    Ok(())
}

/// A vCPU runs on the CPU that goes, goes on elsewhere, and does not mind that it is back.
fn running(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        let mut vm = counting(&host, kind)?;
        let view = vm.memory.share()?;
        let vcpu = &mut vm.vcpus[0];
        thread::scope(|scope| -> Result<()> {
            let guest = scope.spawn(move || {
                let _there = OnCpu::new(CPU)?;
                vcpu.run_to_halt()
            });
            let watched = || -> Result<()> {
                for _ in 0..3 {
                    counts_on(&view, &guest)?;
                    let _offline = Offline::new(CPU)?;
                    counts_on(&view, &guest)?;
                }
                counts_on(&view, &guest)
            };
            let watched = watched();
            view.write_u64(STOP, 1);
            guest.join().map_err(|_| anyhow!("a vCPU thread panicked"))??;
            watched
        })?;
        t.check(&format!("{name}_halted"), view.read_u64(SHARED) > 0);
    }
    Ok(())
}

/// A guest runs first where a CPU was offline before, then there while it is back.
fn started_later(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        let mut vm = storing(&host, kind)?;
        {
            let _offline = Offline::new(CPU)?;
            vm.vcpus[0].run_to_halt()?;
            watch(t, &format!("{name}_elsewhere"), &mut vm, 0)?;
        }
        watch(t, &format!("{name}_back"), &mut vm, CPU)?;
        watch(t, &format!("{name}_elsewhere_again"), &mut vm, 0)?;
    }
    Ok(())
}

/// The vCPUs of two VMs with one ASID take turns on a CPU that was away: what its TLB holds of
/// one is not taken for the other's.
fn two_vms(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut owner = storing(&host, Kind::Sev)?;
    let mut mirror = beside(&host, Kind::Sev.vm_type(), &owner)?;
    t.case("copy", mirror.copy_from(&owner), Answer::OK_KEPT);
    mirror.add_vcpu(&host, [PRIVATE, SHARED as u64, VALUE, 0])?;
    for round in 0..3 {
        watch(t, &format!("{round}_owner"), &mut owner, CPU)?;
        drop(Offline::new(CPU)?);
        watch(t, &format!("{round}_mirror"), &mut mirror, CPU)?;
        watch(t, &format!("{round}_owner_again"), &mut owner, CPU)?;
    }
    Ok(())
}

/// Caches of a CPU that is offline are not there to be written back.
fn reclaim(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let wbinvd = |t: &mut Test, vm: &Vm| -> Result<u64> {
        let before = t.psp.machine()?.wbinvd;
        vm.memory.forget(PRIVATE as usize, PAGE)?;
        Ok(t.psp.machine()?.wbinvd - before)
    };
    for (name, kind) in Kind::ALL {
        let mut vm = storing(&host, kind)?;
        {
            let _there = OnCpu::new(CPU)?;
            vm.vcpus[0].run_to_halt()?;
        }
        let caused = wbinvd(t, &vm)?;
        t.value(&format!("{name}_online"), caused, 1);
        {
            let _offline = Offline::new(CPU)?;
            let caused = wbinvd(t, &vm)?;
            t.value(&format!("{name}_offline"), caused, 0);
        }
        let caused = wbinvd(t, &vm)?;
        t.value(&format!("{name}_back"), caused, 1);
    }
    Ok(())
}

/// All ASIDs are used up, and flushed, while a CPU is offline; the firmware is content with the
/// CPUs that there are. It would not be if one of those were left out.
fn recycling(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let leaf = EncryptionLeaf::read();
    for (name, kind, asids) in
        [("sev", Kind::Sev, leaf.sev_asids()), ("es", Kind::Es, leaf.es_asids())]
    {
        // On both CPUs, so that both have something to flush.
        for cpu in [0, CPU] {
            let mut vm = storing(&host, kind)?;
            let _there = OnCpu::new(cpu)?;
            vm.vcpus[0].run_to_halt()?;
        }
        let offline = Offline::new(CPU)?;
        let before = t.psp.counters()?;
        for guest in 0..=asids {
            kind.started(&host, kind.vm_type())
                .map_err(|error| error.context(format!("{name} guest {guest}")))?;
        }
        let flushes = t.psp.counters()?.flushes() - before.flushes();
        t.check(&format!("{name}_flushed"), (1..=2).contains(&flushes));
        drop(offline);
        // Now with the CPU that has come back.
        let (before, machine) = (t.psp.counters()?, t.psp.machine()?);
        for guest in 0..=asids {
            kind.started(&host, kind.vm_type())
                .map_err(|error| error.context(format!("{name} guest {guest}")))?;
        }
        let after = t.psp.counters()?;
        let flushes = after.flushes() - before.flushes();
        t.check(&format!("{name}_flushed_by_all"), (1..=2).contains(&flushes));
        let cpus = thread::available_parallelism()?.get() as u64;
        let wbinvd = t.psp.machine()?.wbinvd - machine.wbinvd;
        t.check(&format!("{name}_on_every_cpu"), wbinvd >= flushes * cpus);
        t.check(&format!("{name}_no_failure"), after.failures == before.failures);
    }
    Ok(())
}

/// A VM that is made while a CPU is offline runs on that CPU afterwards.
fn launched_meanwhile(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        let offline = Offline::new(CPU)?;
        let mut vm = storing(&host, kind)?;
        drop(offline);
        {
            let _there = OnCpu::new(CPU)?;
            vm.vcpus[0].run_to_halt()?;
        }
        t.check(&format!("{name}_ran"), vm.memory.read_u64(SHARED) == VALUE);
        watch(t, &format!("{name}_elsewhere"), &mut vm, 0)?;
    }
    Ok(())
}

/// A move while the CPU is offline on which the source has run last.
fn moved(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        let old = sev_vm::host::VmType::Default;
        let arguments = [PRIVATE, SHARED as u64, VALUE, 0];
        let mut source = kind.launched(&host, old, guest::store_and_watch(), &[arguments])?;
        {
            let _there = OnCpu::new(CPU)?;
            source.vcpus[0].run_to_halt()?;
        }
        let offline = Offline::new(CPU)?;
        let mut vm = beside(&host, old, &source)?;
        if kind == Kind::Es {
            vm.add_bare_vcpu()?;
        }
        t.case(&format!("{name}_move"), vm.move_from(&source), Answer::OK_KEPT);
        if kind == Kind::Sev {
            vm.add_vcpu(&host, arguments)?;
            vm.vcpus[0].run_to_halt()?;
        }
        watch(t, &format!("{name}_elsewhere"), &mut vm, 0)?;
        drop((offline, source));
        watch(t, &format!("{name}_back"), &mut vm, CPU)?;
    }
    Ok(())
}
