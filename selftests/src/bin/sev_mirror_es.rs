// SPDX-License-Identifier: GPL-2.0-or-later
//! SEV-ES guests in a mirror: the protocol and the features are those that the owner has chosen.
//! The stock module takes 0 for both.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use kvm_bindings::{kvm_sev_init, kvm_sev_launch_start};
use openssl::sha::sha256;
use sev_vm::cmd::Answer;
use sev_vm::context::{Kind, beside, empty};
use sev_vm::es::{Setup, kept_vm};
use sev_vm::ghcb::{BUFFER, Field, Ghcb, answer, exit};
use sev_vm::guest;
use sev_vm::host::{EncryptionLeaf, Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::GuestMemory;
use sev_vm::save_area::{self, reset_by_qemu};
use sev_vm::step::{GHCB, OUTSIDE, Stepper};

/// GHCB MSR: the versions are asked for, and the answer.
const SEV_INFO_REQ: u64 = 2;
const SEV_INFO: u64 = 1;

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("version", version),
            ("second_version", second_version),
            ("features", features),
            ("jump_table", jump_table),
        ],
    )
}

/// What the guest is told when it asks for the versions.
fn version(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let c_bit = u64::from(EncryptionLeaf::read().c_bit);
    for version in [1, 2] {
        let (mut guest, _owner) = Stepper::mirror(&host, Setup::version(version))?;
        let msr = guest.msr(SEV_INFO_REQ)?.msr;
        let expected = if host.is_ours() { u64::from(version) } else { 0 };
        t.value(&format!("v{version}_highest"), msr >> 48, expected);
        t.value(&format!("v{version}_lowest"), (msr >> 32) & 0xffff, 1);
        t.check(&format!("v{version}_rest"), msr as u32 as u64 == (c_bit << 24) | SEV_INFO);
    }
    Ok(())
}

/// What the second version demands: at most 8 bytes at a time, and data within the GHCB.
fn second_version(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for version in [1, 2] {
        let (mut guest, _owner) = Stepper::mirror(&host, Setup::version(version))?;
        for (name, len, scratch, reason) in [
            ("inside_8", 8, GHCB + BUFFER as u64, None),
            ("inside_16", 16, GHCB + BUFFER as u64, Some(answer::INVALID_INPUT)),
            ("outside_8", 8, OUTSIDE, Some(answer::INVALID_SCRATCH)),
        ] {
            let request = Ghcb::request(exit::MMIO_READ, guest::MMIO.start, len);
            let outcome = guest.step(&request.with(Field::Scratch, scratch))?;
            let refused = reason.filter(|_| version == 2 && host.is_ours());
            let expected = match refused {
                Some(reason) => (answer::MALFORMED, reason),
                None => (answer::DONE, 0),
            };
            let case = format!("v{version}_{name}");
            t.value(&case, format!("{:?}", outcome.answer()), format!("{expected:?}"));
        }
    }
    Ok(())
}

/// The save area of a mirror's vCPU, as the sev crate computes it for the digest of the launch.
fn features(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let supported = host.sev_attr(0)?;
    for (name, vmsa_features) in [("none", 0), ("all", supported)] {
        let owner = empty(&host, VmType::SevEs, GuestMemory::new(guest::MEMORY)?)?;
        let mut init = kvm_sev_init { vmsa_features, ..Default::default() };
        ensure!(owner.init2(&mut init).is_ok(), "KVM_SEV_INIT2");
        let mut start = kvm_sev_launch_start { policy: Kind::Es.policy(), ..Default::default() };
        ensure!(owner.launch_start(&mut start).is_ok(), "LAUNCH_START");
        let mirror = beside(&host, VmType::SevEs, &owner)?;
        t.case(&format!("{name}_copy"), mirror.copy_from(&owner), Answer::OK_KEPT);
        let _vcpu = reset_by_qemu(&mirror, 0)?;
        t.case(&format!("{name}_encrypt"), mirror.launch_update_vmsa(), Answer::OK);
        owner.measurement()?;
        let digest = owner.launch_digest()?;
        for (whose, features) in [("owners", vmsa_features), ("no", 0)] {
            let equal = digest == sha256(&save_area::pages(1, features)?);
            let ours = host.is_ours() || vmsa_features == 0;
            let expected = equal == (ours == (whose == "owners") || vmsa_features == 0);
            t.observe(&format!("{name}_{whose}_features"), format!("value={equal}"));
            ensure!(expected, "{name}: {whose} features: {equal}");
        }
    }
    Ok(())
}

/// A mirror sees other memory than its owner: each has an AP jump table of its own.
fn jump_table(t: &mut Test) -> Result<()> {
    const SET: u64 = 0;
    const GET: u64 = 1;
    let host = Host::open()?;
    let (mut guest, owner) = Stepper::mirror(&host, Setup::version(2))?;
    let request = |info_1, info_2| Ghcb::request(exit::AP_JUMP_TABLE, info_1, info_2);
    t.value("at_first", guest.step(&request(GET, 0))?.answer().1, 0);
    guest.step(&request(SET, 0x1234_5000))?;
    t.value("set", guest.step(&request(GET, 0))?.answer().1, 0x1234_5000);
    drop(owner);
    t.value("without_owner", guest.step(&request(GET, 0))?.answer().1, 0x1234_5000);
    Ok(())
}
