// SPDX-License-Identifier: GPL-2.0-or-later
//! Ciphertext hiding: the first of the ASIDs for guests with encrypted registers are for SEV-SNP
//! guests, the others, if there are any, for SEV-ES guests. For hosts whose `kvm_amd` was loaded with
//! the parameter `ciphertext_hiding_asids`.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use nix::errno::Errno::{EBUSY, EINVAL, ENOTTY};
use sev_vm::cmd::Answer;
use sev_vm::context::{Kind, empty};
use sev_vm::es::kept_vm;
use sev_vm::guest;
use sev_vm::host::{EncryptionLeaf, Host, VmType, parameter};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::GuestMemory;
use sev_vm::snp::{Snp, policy, start};
use sev_vm::snp_guest::Setup;
use sev_vm::vm::Vm;

/// Policy bit: ciphertext is hidden.
const CIPHERTEXT_HIDING: u64 = 1 << 24;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("offered", offered),
            ("old_type", old_type),
            ("all_of_them", all_of_them),
            ("policies", policies),
            ("guests", guests),
        ],
    )
}

/// ASIDs of SEV-SNP guests, and of SEV-ES guests.
fn asids() -> Result<(u32, u32)> {
    let all = EncryptionLeaf::read().es_asids();
    let hidden: u32 = parameter("ciphertext_hiding_asids")?.parse()?;
    ensure!((1..=all).contains(&hidden), "{hidden} of {all} ASIDs are hidden");
    Ok((hidden, all - hidden))
}

/// SEV-ES is on even without an ASID, as SEV-SNP is built upon it.
fn offered(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (snp, es) = asids()?;
    t.observe("asids", format!("snp={snp} es={es}"));
    for name in ["sev", "sev_es", "sev_snp"] {
        t.value(name, parameter(name)?.as_str(), "Y");
    }
    t.check("snp_offered", host.offers(VmType::Snp));
    t.value("es_offered", host.offers(VmType::SevEs), es > 0);
    let created = Answer::from_result(host.create_vm(VmType::SevEs));
    let expected = if es > 0 { Answer::OK_KEPT } else { Answer::refused(EINVAL) };
    t.case("es_create", created, expected);
    t.observe("vmsa_features", format!("{:#x}", host.sev_attr(0)?));
    Ok(())
}

fn old(host: &Host) -> Result<Vm> {
    empty(host, VmType::Default, GuestMemory::new(guest::MEMORY)?)
}

/// KVM_SEV_ES_INIT of VMs without a type.
fn old_type(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let expected = if asids()?.1 > 0 { Answer::OK_KEPT } else { Answer::refused(ENOTTY) };
    t.case("es", Kind::Es.init(&old(&host)?, VmType::Default), expected);
    t.case("sev", Kind::Sev.init(&old(&host)?, VmType::Default), Answer::OK_KEPT);
    let typed = empty(&host, VmType::Sev, GuestMemory::new(guest::MEMORY)?)?;
    t.case("typed", Kind::Es.init(&typed, VmType::Default), Answer::refused(EINVAL));
    Ok(())
}

/// Each kind gets its own ASIDs, all of them, and none of the others; twice, so that each was
/// flushed once.
fn all_of_them(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (snp, es) = asids()?;
    for round in 0..2 {
        let mut snp_vms = vec![];
        let refusal = loop {
            let vm = Snp::bare(&host)?;
            let answer = vm.init2(&mut Default::default());
            if !answer.is_ok() {
                break answer;
            }
            let answer = vm.snp_launch_start(&mut start(policy::DEFAULT));
            ensure!(answer.is_ok(), "LAUNCH_START of SEV-SNP {}: {answer}", snp_vms.len());
            snp_vms.push(vm);
        };
        t.value(&format!("{round}_snp"), snp_vms.len(), snp as usize);
        t.case(&format!("{round}_snp_then"), refusal, Answer::refused(EBUSY));

        let mut es_vms = vec![];
        let refusal = loop {
            let vm = old(&host)?;
            let answer = Kind::Es.init(&vm, VmType::Default);
            if !answer.is_ok() {
                break answer;
            }
            let policy = Kind::Es.policy();
            let answer = vm.launch_start(&mut kvm_bindings::kvm_sev_launch_start {
                policy,
                ..Default::default()
            });
            ensure!(answer.is_ok(), "LAUNCH_START of SEV-ES {}: {answer}", es_vms.len());
            es_vms.push(vm);
        };
        t.value(&format!("{round}_es"), es_vms.len(), es as usize);
        let errno = if es > 0 { EBUSY } else { ENOTTY };
        t.case(&format!("{round}_es_then"), refusal, Answer::refused(errno));
        t.contexts(u64::from(snp + es))?;
        drop((snp_vms, es_vms));
        t.contexts(0)?;
    }
    Ok(())
}

/// A guest can insist on it.
fn policies(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    t.check("bit", host.sev_attr(1)? & CIPHERTEXT_HIDING != 0);
    let vm = Snp::initialised(&host)?;
    let answer = vm.snp_launch_start(&mut start(policy::DEFAULT | CIPHERTEXT_HIDING));
    t.case("start", answer, Answer::OK);
    Ok(())
}

fn guests(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (snp, es) = asids()?;
    let _kept = kept_vm();
    for number in 0..snp.min(3) {
        let mut vm = Setup::default().launch(&host)?;
        let runs = vm.actor(0).load(guest::CODE)?.quiet();
        t.check(&format!("snp_{number}_runs"), runs);
    }
    if es > 0 {
        let mut vm = Kind::Es.launched(&host, VmType::SevEs, guest::idle(), &[[0; 4]])?;
        vm.vcpus[0].run_to_halt()?;
        t.check("es_runs", true);
    }
    Ok(())
}
