// SPDX-License-Identifier: GPL-2.0-or-later
//! The events of our module tell what the firmware saw, what became of ASIDs and contexts, and which
//! pages changed hands. The stock module has none.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use kvm_bindings::*;
use sev_vm::cmd::status;
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::snp::{PageType, Snp, policy};
use sev_vm::tracefs;
use sev_vm::vm::Vm;

const EVENTS: &str = "/sys/kernel/tracing/events/kvm_sev";

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("commands", commands),
            ("failures", failures),
            ("rejections", rejections),
            ("life", life),
            ("rmp", rmp),
            ("refused_page", refused_page),
        ],
    )
}

/// What happened during `action`: name of the event, and its fields.
fn traced(action: impl FnOnce() -> Result<()>) -> Result<Vec<(String, String)>> {
    let ((), trace) = tracefs::record(&["kvm_sev"], None, action)?;
    let event = |line: &str| {
        let (_, event) = line.split_once(": ")?;
        let (name, fields) = event.split_once(": ")?;
        Some((name.to_owned(), fields.to_owned()))
    };
    Ok(trace.lines().filter(|line| !line.starts_with('#')).filter_map(event).collect())
}

/// The fields of those events.
fn of<'a>(events: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    events.iter().filter(|event| event.0 == name).map(|event| event.1.as_str()).collect()
}

/// Whether it is our module; the stock one has no events.
fn ours(host: &Host) -> Result<bool> {
    ensure!(Path::new(EVENTS).exists() == host.is_ours(), "{EVENTS} is the other module's");
    Ok(host.is_ours())
}

fn launch(host: &Host) -> Result<()> {
    let vm = Vm::started(host, 0)?;
    vm.register_memory()?;
    vm.encrypt(0..1 << 14)?;
    vm.measurement()?;
    ensure!(vm.launch_finish().is_ok(), "LAUNCH_FINISH");
    Ok(())
}

/// The commands are those that the firmware got, in that order, with its answers.
fn commands(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    if !ours(&host)? {
        return Ok(());
    }
    // If ASIDs have to be flushed, that happens now.
    drop(Vm::sev(&host)?);
    let (events, log) = t.psp.logged(|| traced(|| launch(&host)))?;
    // With SNP, the driver takes the pages back that it lends the firmware for other commands.
    let seen: Vec<String> = log
        .iter()
        .filter(|entry| entry.cmd != "SNP_PAGE_RECLAIM")
        .map(|entry| format!("{} {}", entry.cmd, entry.status))
        .collect();
    ensure!(seen.len() > 5, "a launch is more than {seen:?}");
    let mut handle = None;
    let mut told = Vec::new();
    for line in of(&events, "psp_command") {
        let words: Vec<_> = line.split(' ').collect();
        let [name, guest, status, code, result, ns] = words[..] else {
            anyhow::bail!("fields of {line:?}");
        };
        let status = status.strip_prefix("status=").context("no status")?;
        told.push(format!("{name} {status}"));
        ensure!((code, result) == ("(0x0)", "result=0"), "{line}");
        ensure!(*handle.get_or_insert(guest) == guest && guest != "guest=0x0", "{line}");
        let ns: u64 = ns.strip_prefix("ns=").context("no time")?.parse()?;
        ensure!(ns > 0, "{line}");
    }
    ensure!(told == seen, "told {told:?}, seen {seen:?}");
    Ok(())
}

/// What the firmware refuses is told with its status, and not as a rejection of the module's.
fn failures(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    if !ours(&host)? {
        return Ok(());
    }
    let vm = Vm::sev(&host)?;
    t.psp.fail("LAUNCH_START", 1, status::RESOURCE_LIMIT)?;
    let events = traced(|| {
        let answer = vm.launch_start(&mut kvm_sev_launch_start::default());
        ensure!(!answer.is_ok(), "LAUNCH_START did not fail");
        Ok(())
    })?;
    let [line] = of(&events, "psp_command")[..] else { anyhow::bail!("{events:?}") };
    let expected = "LAUNCH_START guest=0x0 status=RESOURCE_LIMIT (0x17) result=-5 ns=";
    ensure!(line.starts_with(expected), "{line}");
    ensure!(of(&events, "rejected").is_empty(), "{events:?}");
    Ok(())
}

/// What the module itself rejects is told with its reason.
fn rejections(_: &mut Test) -> Result<()> {
    let host = Host::open()?;
    if !ours(&host)? {
        return Ok(());
    }
    let vm = Vm::sev(&host)?;
    let events = traced(|| {
        ensure!(!vm.launch_finish().is_ok(), "LAUNCH_FINISH did not fail");
        Ok(())
    })?;
    let told = of(&events, "rejected");
    ensure!(told == ["LAUNCH_FINISH reason=not_launched result=-9"], "{told:?}");
    Ok(())
}

/// Pages that the firmware refuses are the host's again, from the launch.
fn refused_page(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    if !ours(&host)? || !host.offers(VmType::Snp) {
        return Ok(());
    }
    let vm = Snp::started(&host, policy::DEFAULT)?;
    vm.set_private(0..1 << 21, true)?;
    t.psp.fail("SNP_LAUNCH_UPDATE", 1, status::RESOURCE_LIMIT)?;
    let events = traced(|| {
        ensure!(vm.update(PageType::Normal, 0..4096).is_err(), "the page was loaded");
        Ok(())
    })?;
    let changes: Vec<_> = of(&events, "rmp")
        .iter()
        .filter_map(|line| line.split_once(" asid=").and_then(|(_, rest)| rest.split_once(' ')))
        .map(|(_, change)| change)
        .collect();
    let expected = ["shared -> launch result=0", "launch -> shared result=0"];
    ensure!(changes == expected, "{changes:?}");
    Ok(())
}

/// An ASID is leased and retired, and the context's states are those of the launch.
fn life(_: &mut Test) -> Result<()> {
    let host = Host::open()?;
    if !ours(&host)? {
        return Ok(());
    }
    drop(Vm::sev(&host)?);
    let events = traced(|| launch(&host))?;
    let asids = of(&events, "asid");
    let [leased, retired] = asids[..] else { anyhow::bail!("{asids:?}") };
    let asid = leased.strip_suffix(" leased").context("not leased")?;
    ensure!(retired == format!("{asid} retired"), "{asids:?}");
    let states = ["initialised", "launching", "secret", "running", "gone"];
    let expected: Vec<_> = states.iter().map(|state| format!("{asid} sev {state}")).collect();
    ensure!(of(&events, "context") == expected, "{:?}", of(&events, "context"));
    Ok(())
}

/// Pages that are loaded become the launch's, and the host's when the VM is gone; none else.
fn rmp(t: &mut Test) -> Result<()> {
    const PAGES: usize = 5;
    let host = Host::open()?;
    if !ours(&host)? || !host.offers(VmType::Snp) {
        return Ok(());
    }
    let vm = Snp::started(&host, policy::DEFAULT)?;
    vm.set_private(0..1 << 21, true)?;
    let events = traced(|| vm.update(PageType::Normal, 0..PAGES * 4096))?;
    let loaded = of(&events, "rmp");
    ensure!(loaded.len() == PAGES, "{loaded:?}");
    for (page, line) in loaded.iter().enumerate() {
        let place = format!(" gpa={:#x} ", page * 4096);
        ensure!(line.contains(&place) || page == 0 && line.contains(" gpa=0x0 "), "{line}");
        ensure!(line.ends_with(" shared -> launch result=0"), "{line}");
    }
    let pfn = |line: &str| line.split(' ').next().map(str::to_owned);
    let events = traced(|| {
        drop(vm);
        Ok(())
    })?;
    let freed = of(&events, "rmp");
    let mut pfns: [Vec<_>; 2] =
        [&loaded, &freed].map(|lines| lines.iter().map(|l| pfn(l)).collect());
    pfns.iter_mut().for_each(|pfns| pfns.sort());
    ensure!(pfns[0] == pfns[1], "loaded {loaded:?}, freed {freed:?}");
    ensure!(freed.iter().all(|line| line.ends_with("private -> shared result=0")), "{freed:?}");
    // Not a case: the stock module has none to compare with.
    ensure!(t.psp.counters()?.contexts == 0, "a context is left");
    Ok(())
}
