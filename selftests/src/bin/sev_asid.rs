// SPDX-License-Identifier: GPL-2.0-or-later
//! ASIDs: exhaustion, recycling, fragmentation, limits of the misc cgroup.

use std::fs;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use kvm_bindings::*;
use kvm_ioctls::VmFd;
use nix::errno::Errno::EBUSY;
use sev_vm::cgroup::{self, Cgroup, ROOT};
use sev_vm::cmd::{Answer, issue};
use sev_vm::host::{EncryptionLeaf, Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::state::charged;
use sev_vm::vm::addr_of;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("exhaustion", exhaustion),
            ("contexts", contexts),
            ("recycling", recycling),
            ("clean_before_dirty", clean_before_dirty),
            ("fragmentation", fragmentation),
            ("two_at_once", two_at_once),
            ("cgroup_limit", cgroup_limit),
            ("cgroup_capacity", cgroup_capacity),
        ],
    )
}

/// A SEV VM of nothing but an ASID.
fn init(host: &Host) -> Result<(VmFd, Answer)> {
    let fd = host.create_vm(VmType::Sev)?;
    let answer =
        issue(&fd, sev_cmd_id_KVM_SEV_INIT2, addr_of(&mut kvm_sev_init::default()), host.sev_fd());
    Ok((fd, answer))
}

fn start(host: &Host, vm: &VmFd) -> Answer {
    let mut argument = kvm_sev_launch_start::default();
    issue(vm, sev_cmd_id_KVM_SEV_LAUNCH_START, addr_of(&mut argument), host.sev_fd())
}

/// VMs until the first refusal, and that refusal.
fn fill(host: &Host) -> Result<(Vec<VmFd>, Answer)> {
    let mut vms = Vec::new();
    loop {
        let (fd, answer) = init(host)?;
        if !answer.is_ok() {
            return Ok((vms, answer));
        }
        vms.push(fd);
    }
}

fn exhaustion(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let asids = EncryptionLeaf::read().sev_asids() as usize;
    let (mut vms, refusal) = fill(&host)?;
    t.value("vms", vms.len(), asids);
    t.case("one_too_many", refusal, Answer::refused(EBUSY));
    // The VM that got none can try again, and gets one as soon as another VM is gone.
    let (late, answer) = init(&host)?;
    t.case("again", answer, Answer::refused(EBUSY));
    let mut argument = kvm_sev_init::default();
    let mut retry =
        || issue(&late, sev_cmd_id_KVM_SEV_INIT2, addr_of(&mut argument), host.sev_fd());
    t.case("retry", retry(), Answer::refused(EBUSY));
    vms.pop();
    t.case("retry_after_close", retry(), Answer::OK_KEPT);
    let (_none, answer) = init(&host)?;
    t.case("full_again", answer, Answer::refused(EBUSY));
    Ok(())
}

/// Every ASID can be bound to a guest at the same time.
fn contexts(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let asids = u64::from(EncryptionLeaf::read().sev_asids());
    let (vms, _) = fill(&host)?;
    let answers: Vec<_> = vms.iter().map(|vm| start(&host, vm)).collect();
    let started = answers.iter().filter(|answer| **answer == Answer::OK).count() as u64;
    t.value("started", started, asids);
    t.contexts(asids)?;
    drop(vms);
    t.contexts(0)
}

/// 600 guests in a row, more than there are ASIDs: used ones are flushed on every CPU, then
/// by firmware, before they are used again.
fn recycling(t: &mut Test) -> Result<()> {
    const GUESTS: u64 = 600;
    let host = Host::open()?;
    let asids = u64::from(EncryptionLeaf::read().sev_asids());
    let cpus = thread::available_parallelism()?.get() as u64;
    let (before, machine) = (t.psp.counters()?, t.psp.machine()?);
    for guest in 0..GUESTS {
        let (vm, answer) = init(&host)?;
        ensure!(answer.is_ok(), "KVM_SEV_INIT2 of guest {guest}: {answer}");
        let answer = start(&host, &vm);
        ensure!(answer.is_ok(), "KVM_SEV_LAUNCH_START of guest {guest}: {answer}");
    }
    let (after, machine_after) = (t.psp.counters()?, t.psp.machine()?);
    let more = |name: &str| after.count(name) - before.count(name);
    for name in ["LAUNCH_START", "ACTIVATE", "DEACTIVATE", "DECOMMISSION"] {
        t.value(name, more(name), GUESTS);
    }
    // Recycling when all ASIDs are used up, not earlier, whatever was used before this test.
    let flushes = after.flushes() - before.flushes();
    t.check("flushed", flushes >= GUESTS / asids && flushes <= GUESTS / asids + 1);
    let wbinvd = machine_after.wbinvd - machine.wbinvd;
    t.check("wbinvd_on_every_cpu", wbinvd >= flushes * cpus);
    t.check("no_failure", after.failures == before.failures);
    t.note(format!("{flushes} flushes, {wbinvd} WBINVD on {cpus} CPUs"));
    Ok(())
}

/// A used ASID is not flushed as long as a clean one is left.
fn clean_before_dirty(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let asids = EncryptionLeaf::read().sev_asids();
    // Leaves all of them dirty, so that the next one flushes.
    drop(fill(&host)?);
    let (one, answer) = init(&host)?;
    t.case("first", answer, Answer::OK_KEPT);
    drop(one);
    let before = t.psp.counters()?.flushes();
    for _ in 1..asids {
        let (vm, answer) = init(&host)?;
        ensure!(answer.is_ok(), "KVM_SEV_INIT2: {answer}");
        drop(vm);
    }
    let used_up = t.psp.counters()?.flushes() - before;
    t.value("flushes_until_used_up", used_up, 0);
    let (_vm, answer) = init(&host)?;
    t.case("next", answer, Answer::OK_KEPT);
    let flushes = t.psp.counters()?.flushes() - before;
    t.value("flushes", flushes, 1);
    Ok(())
}

/// Whatever pattern of ASIDs is given back, exactly as many can be had again.
fn fragmentation(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut vms, _) = fill(&host)?;
    let all = vms.len();
    for (name, keep) in [
        ("every_second", (|i| i % 2 == 0) as fn(usize) -> bool),
        ("every_seventh", |i| i % 7 != 0),
        ("first_half", |i| i >= 200),
        ("last", |i| i < 409),
        ("all", |_| false),
    ] {
        let mut index = 0;
        vms.retain(|_| {
            index += 1;
            keep(index - 1)
        });
        let freed = all - vms.len();
        let (more, refusal) = fill(&host)?;
        t.value(&format!("{name}_refilled"), more.len(), freed);
        t.case(&format!("{name}_then"), refusal, Answer::refused(EBUSY));
        vms.extend(more);
    }
    Ok(())
}

/// Two threads that create and destroy guests at the same time.
fn two_at_once(t: &mut Test) -> Result<()> {
    let before = t.psp.counters()?;
    let worker = || -> Result<()> {
        let host = Host::open()?;
        for _ in 0..300 {
            let (vm, answer) = init(&host)?;
            ensure!(answer.is_ok(), "KVM_SEV_INIT2: {answer}");
            let answer = start(&host, &vm);
            ensure!(answer.is_ok(), "KVM_SEV_LAUNCH_START: {answer}");
        }
        Ok(())
    };
    thread::scope(|scope| -> Result<()> {
        let both = [scope.spawn(worker), scope.spawn(worker)];
        for thread in both {
            thread.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        Ok(())
    })?;
    let after = t.psp.counters()?;
    t.value("guests", after.count("ACTIVATE") - before.count("ACTIVATE"), 600);
    t.check("no_failure", after.failures == before.failures);
    Ok(())
}

/// Each ASID is charged to the cgroup of the process that initialised the VM, until the VM goes.
fn cgroup_limit(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let group = Cgroup::new("sev-limit", "sev 3")?;
    group.enter()?;
    let (mut vms, refusal) = fill(&host)?;
    t.value("vms", vms.len(), 3);
    t.case("beyond_limit", refusal, Answer::refused(EBUSY));
    t.check("charged", charged(group.path())? == Some(3));
    let events = fs::read_to_string(format!("{}/misc.events", group.path()))?;
    t.check("event_counted", events.lines().any(|line| line == "sev.max 1"));
    // Started guests and their firmware commands cost nothing more.
    t.case("start", start(&host, &vms[0]), Answer::OK);
    t.check("still_charged", charged(group.path())? == Some(3));
    cgroup::leave()?;
    let (outside, answer) = init(&host)?;
    t.case("outside", answer, Answer::OK_KEPT);
    t.check("outside_not_charged_there", charged(group.path())? == Some(3));
    vms.pop();
    t.check("uncharged_where_charged", charged(group.path())? == Some(2));
    drop((vms, outside));
    t.check("nothing_left", charged(group.path())? == Some(0));
    Ok(())
}

fn cgroup_capacity(t: &mut Test) -> Result<()> {
    let capacity = fs::read_to_string(format!("{ROOT}/misc.capacity"))?;
    let sev = capacity.lines().find_map(|line| line.strip_prefix("sev "));
    let asids = EncryptionLeaf::read().sev_asids();
    t.value("sev", sev.context("no sev in misc.capacity")?.parse()?, asids);
    Ok(())
}
