// SPDX-License-Identifier: GPL-2.0-or-later
//! However the ASIDs are divided between SEV and SEV-ES, down to none for one of them: what is
//! offered, what is shown, and that exactly those ASIDs can be had.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno::{EBUSY, EINVAL, ENOTTY};
use sev_vm::cgroup::ROOT;
use sev_vm::cmd::Answer;
use sev_vm::context::{Kind, empty};
use sev_vm::guest;
use sev_vm::host::{EncryptionLeaf, Host, VmType, parameter};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::GuestMemory;
use sev_vm::vm::Vm;

const SHARED: u64 = guest::SHARED.start;
const VALUE: u64 = 0x1122_3344_5566_7788;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("offered", offered),
            ("capacity", capacity),
            ("kernel_log", kernel_log),
            ("initialised", initialised),
            ("all_of_them", all_of_them),
            ("guests", guests),
        ],
    )
}

/// Number of ASIDs for guests of this kind.
fn asids(kind: Kind) -> u32 {
    let leaf = EncryptionLeaf::read();
    match kind {
        Kind::Sev => leaf.sev_asids(),
        Kind::Es if leaf.es => leaf.es_asids(),
        Kind::Es => 0,
    }
}

fn small(host: &Host, vm_type: VmType) -> Result<Vm> {
    empty(host, vm_type, GuestMemory::new(guest::MEMORY)?)
}

/// VM types need an ASID. The parameter `sev` says that SEV is on even without one: SEV-ES, which
/// is built upon it, may have some.
fn offered(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        let some = asids(kind) > 0;
        t.value(&format!("{name}_offered"), host.offers(kind.vm_type()), some);
        let created = Answer::from_result(host.create_vm(kind.vm_type()));
        let expected = if some { Answer::OK_KEPT } else { Answer::refused(EINVAL) };
        t.case(&format!("{name}_create"), created, expected);
    }
    t.value("sev", parameter("sev")?.as_str(), "Y");
    let es = if asids(Kind::Es) > 0 { "Y" } else { "N" };
    t.value("sev_es", parameter("sev_es")?.as_str(), es);
    if asids(Kind::Es) == 0 {
        t.value("vmsa_features", host.sev_attr(0)?, 0);
    }
    Ok(())
}

/// A resource of which there is nothing is not shown.
fn capacity(t: &mut Test) -> Result<()> {
    let capacity = fs::read_to_string(format!("{ROOT}/misc.capacity"))?;
    for (name, kind) in [("sev", Kind::Sev), ("sev_es", Kind::Es)] {
        let line = capacity.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let shown = line.map(str::parse::<u32>).transpose()?.unwrap_or(0);
        t.value(name, shown, asids(kind));
        t.value(&format!("{name}_shown"), line.is_some(), asids(kind) > 0);
    }
    Ok(())
}

/// What is served is in the log with its range. The stock module also has lines about ranges that
/// end before they start.
fn kernel_log(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let leaf = EncryptionLeaf::read();
    let log = String::from_utf8_lossy(&read_log()?).into_owned();
    let ranges = [
        ("sev", "SEV", Kind::Sev, leaf.min_sev_asid, leaf.max_asid),
        ("es", "SEV-ES", Kind::Es, 1, leaf.min_sev_asid.saturating_sub(1)),
    ];
    for (name, long, kind, first, last) in ranges {
        let line = format!("kvm_amd: {long} enabled (ASIDs {first} - {last})");
        t.value(&format!("{name}_enabled"), log.contains(&line), asids(kind) > 0);
        if host.is_ours() && asids(kind) == 0 && (leaf.es || kind == Kind::Sev) {
            let line = format!("kvm_amd: {long} disabled (no ASIDs)");
            ensure!(log.contains(&line), "not in the log: {line}");
        }
    }
    Ok(())
}

/// The kernel log since boot.
fn read_log() -> Result<Vec<u8>> {
    /// `SYSLOG_ACTION_READ_ALL`
    const READ_ALL: i32 = 3;
    let mut log = vec![0u8; 1 << 20];
    // SAFETY: the kernel writes no more than the length that it is told.
    let read = unsafe { nix::libc::klogctl(READ_ALL, log.as_mut_ptr().cast(), log.len() as i32) };
    nix::errno::Errno::result(read)?;
    log.truncate(read as usize);
    Ok(log)
}

/// Without an ASID there is ENOTTY, whether or not others have one.
fn initialised(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        let expected = if asids(kind) > 0 { Answer::OK_KEPT } else { Answer::refused(ENOTTY) };
        let old = small(&host, VmType::Default)?;
        t.case(&format!("{name}_old"), kind.init(&old, VmType::Default), expected);
        if !expected.is_ok() {
            // Nothing stays of it: the other kind can be had by the same VM.
            let other = if kind == Kind::Sev { Kind::Es } else { Kind::Sev };
            let expected = if asids(other) > 0 { Answer::OK_KEPT } else { expected };
            t.case(&format!("{name}_then_other"), other.init(&old, VmType::Default), expected);
        }
        drop(old);
        if host.offers(kind.vm_type()) {
            let typed = small(&host, kind.vm_type())?;
            t.case(&format!("{name}_typed"), kind.init(&typed, kind.vm_type()), Answer::OK_KEPT);
        }
    }
    Ok(())
}

/// Each kind gets its own ASIDs, all of them, and none of the others; twice, so that each was
/// flushed once.
fn all_of_them(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for round in 0..2 {
        let mut all = vec![];
        for (name, kind) in Kind::ALL {
            let mut got = 0;
            let refusal = loop {
                let vm = small(&host, VmType::Default)?;
                let answer = kind.init(&vm, VmType::Default);
                if !answer.is_ok() {
                    break answer;
                }
                let mut start = kvm_bindings::kvm_sev_launch_start {
                    policy: kind.policy(),
                    ..Default::default()
                };
                let answer = vm.launch_start(&mut start);
                ensure!(answer.is_ok(), "LAUNCH_START of {name} {got}: {answer}");
                got += 1;
                all.push(vm);
            };
            t.value(&format!("{round}_{name}"), got, asids(kind));
            let errno = if asids(kind) > 0 { EBUSY } else { ENOTTY };
            t.case(&format!("{round}_{name}_then"), refusal, Answer::refused(errno));
        }
        t.contexts(u64::from(asids(Kind::Sev) + asids(Kind::Es)))?;
        drop(all);
        t.contexts(0)?;
    }
    Ok(())
}

/// Guests run with whatever ASIDs there are: the processor looks at the split as well.
fn guests(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        for number in 0..asids(kind).min(3) {
            let arguments = [guest::PRIVATE, SHARED, VALUE, 0];
            let program = guest::store_and_watch();
            let mut vm = kind
                .launched(&host, kind.vm_type(), program, &[arguments])
                .with_context(|| format!("{name} {number}"))?;
            vm.vcpus[0].run_to_halt()?;
            let seen = vm.memory.read_u64(SHARED as usize) == VALUE;
            t.check(&format!("{name}_{number}_runs"), seen);
        }
    }
    Ok(())
}
