// SPDX-License-Identifier: GPL-2.0-or-later
//! SEV-SNP VMs come into being: device attributes, INIT2, which commands they take, and which
//! other VMs take theirs.

use std::process::ExitCode;

use anyhow::{Context, Result};
use kvm_bindings::*;
use nix::errno::Errno::{EFAULT, EINVAL, ENOTTY, EPERM};
use sev_vm::bad::Addresses;
use sev_vm::cmd::{Answer, issue};
use sev_vm::context::{self, Kind};
use sev_vm::host::{EncryptionLeaf, Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::snp::{
    self, KVM_SEV_SNP_ENABLE_REQ_CERTS, KVM_X86_SEV_SNP_REQ_CERTS, KVM_X86_SNP_POLICY_BITS,
    PageType, Snp, features, policy,
};
use sev_vm::vm::{Vm, addr_of};

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("attributes", attributes),
            ("versions", versions),
            ("flags", flags),
            ("vmsa_features", vmsa_features),
            ("pointers", pointers),
            ("order", order),
            ("other_commands", other_commands),
            ("before_init", before_init),
            ("on_other_vms", on_other_vms),
            ("regions", regions),
            ("copy_and_move", copy_and_move),
            ("certificates", certificates),
        ],
    )
}

fn attributes(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    t.check("in_cpuid", EncryptionLeaf::read().snp);
    t.check("type_offered", host.offers(VmType::Snp));
    t.value("parameter", sev_vm::host::parameter("sev_snp")?, "Y".into());
    for (name, attr) in [
        ("policy_bits", KVM_X86_SNP_POLICY_BITS),
        ("vmsa_features", u64::from(KVM_X86_SEV_VMSA_FEATURES)),
        ("req_certs", KVM_X86_SEV_SNP_REQ_CERTS),
    ] {
        t.case(
            name,
            Answer::from_result(host.has_device_attr(KVM_X86_GRP_SEV, attr)),
            Answer::OK_KEPT,
        );
        t.observe(&format!("{name}_value"), format!("value={:#x}", host.sev_attr(attr)?));
        let elsewhere = host.has_device_attr(KVM_X86_GRP_SEV + 1, attr);
        t.check(&format!("{name}_in_another_group"), elsewhere.is_err());
    }
    let bits = host.sev_attr(KVM_X86_SNP_POLICY_BITS)?;
    t.check("policy_default", bits & policy::DEFAULT == policy::DEFAULT);
    // KVM does not serve migration agents.
    t.value("policy_migrate_ma", bits & policy::MIGRATE_MA, 0);
    t.value("policy_from_bit_26", bits >> 26, 0);
    let features = host.sev_attr(u64::from(KVM_X86_SEV_VMSA_FEATURES))?;
    t.value("snp_active_is_not_chosen", features & features::SNP_ACTIVE, 0);
    t.value("req_certs_served", host.sev_attr(KVM_X86_SEV_SNP_REQ_CERTS)?, 1);
    let next = host.sev_attr(KVM_X86_SEV_SNP_REQ_CERTS + 1);
    t.check("no_more", next.is_err());
    Ok(())
}

/// INIT2 of a VM made for it.
fn init(t: &mut Test, case: &str, init: kvm_sev_init, ok: bool) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::bare(&host)?;
    let expected = if ok { Answer::OK_KEPT } else { Answer::refused(EINVAL) };
    t.case(case, vm.init2(&mut init.clone()), expected);
    if !ok {
        // A refusal leaves nothing behind.
        t.case(&format!("{case}_then"), vm.init2(&mut kvm_sev_init::default()), Answer::OK_KEPT);
    }
    Ok(())
}

fn versions(t: &mut Test) -> Result<()> {
    // 0 leaves it to KVM; version 1 has nothing of what SNP guests need.
    for (version, ok) in [(0, true), (1, false), (2, true), (3, false), (0xffff, false)] {
        let argument = kvm_sev_init { ghcb_version: version, ..Default::default() };
        init(t, &format!("{version}"), argument, ok)?;
    }
    Ok(())
}

fn flags(t: &mut Test) -> Result<()> {
    for bit in 0..32 {
        init(t, &format!("{bit}"), kvm_sev_init { flags: 1 << bit, ..Default::default() }, false)?;
    }
    let pads = kvm_sev_init { pad1: 1, pad2: [u32::MAX; 8], ..Default::default() };
    init(t, "padding", pads, true)
}

fn vmsa_features(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let offered = host.sev_attr(u64::from(KVM_X86_SEV_VMSA_FEATURES))?;
    for bit in 0..64 {
        let argument = kvm_sev_init { vmsa_features: 1 << bit, ..Default::default() };
        init(t, &format!("{bit}"), argument, offered & (1 << bit) != 0)?;
    }
    let all = |vmsa_features| kvm_sev_init { vmsa_features, ..Default::default() };
    init(t, "all_offered", all(offered), true)?;
    init(t, "all", all(u64::MAX), false)?;
    // Only SNP guests can have a TSC of their own.
    let vm = context::empty(&host, VmType::SevEs, sev_vm::mem::GuestMemory::new(1 << 21)?)?;
    let answer = vm.init2(&mut all(features::SECURE_TSC));
    t.case("secure_tsc_of_es", answer, Answer::refused(EINVAL));
    Ok(())
}

fn pointers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::bare(&host)?;
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_init>()) {
        t.case(name, vm.command(sev_cmd_id_KVM_SEV_INIT2, address), Answer::refused(EFAULT));
    }
    t.case("then", vm.init2(&mut kvm_sev_init::default()), Answer::OK_KEPT);
    // Nothing of INIT2 needs the device.
    let other = Snp::bare(&host)?;
    let answer =
        issue(&other.fd, sev_cmd_id_KVM_SEV_INIT2, addr_of(&mut kvm_sev_init::default()), -1);
    t.case("without_device", answer, Answer::OK_KEPT);
    Ok(())
}

fn order(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::initialised(&host)?;
    t.case("twice", vm.init2(&mut kvm_sev_init::default()), Answer::refused(EPERM));
    for (name, id) in [("init", sev_cmd_id_KVM_SEV_INIT), ("es_init", sev_cmd_id_KVM_SEV_ES_INIT)] {
        let vm = Snp::bare(&host)?;
        t.case(name, vm.command(id, 0), Answer::refused(EINVAL));
        t.case(&format!("{name}_then"), vm.init2(&mut kvm_sev_init::default()), Answer::OK_KEPT);
    }
    let vm = Snp::bare(&host)?;
    let created = vm.fd.create_vcpu(0);
    t.record("vcpu_before", Answer::from_result(created.map(drop)));
    t.record("after_that", vm.init2(&mut kvm_sev_init::default()));
    Ok(())
}

/// An SNP VM takes none of the commands for others.
fn other_commands(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let buffer = [0u8; 4096];
    for (state, vm) in [
        ("initialised", Snp::initialised(&host)?),
        ("started", Snp::started(&host, policy::DEFAULT)?),
    ] {
        let before = t.psp.counters()?.commands;
        for id in 0..sev_cmd_id_KVM_SEV_SNP_LAUNCH_START {
            let answer = vm.command(id, buffer.as_ptr() as u64);
            t.case(&format!("{state}_{id}"), answer, Answer::refused(EPERM));
        }
        for id in [KVM_SEV_SNP_ENABLE_REQ_CERTS + 1, 1 << 16, u32::MAX] {
            t.case(&format!("{state}_{id}"), vm.command(id, 0), Answer::refused(EINVAL));
        }
        let asked = t.psp.counters()?.commands != before;
        t.value(&format!("{state}_firmware_asked"), asked, false);
    }
    Ok(())
}

/// The commands of SNP guests, none of which `vm` serves.
fn refuses_snp(t: &mut Test, name: &str, vm: &Vm) {
    t.case(
        &format!("{name}_start"),
        vm.snp_launch_start(&mut snp::start(policy::DEFAULT)),
        Answer::refused(ENOTTY),
    );
    let mut update = kvm_sev_snp_launch_update {
        uaddr: vm.memory.addr(),
        len: 4096,
        type_: PageType::Normal as u8,
        ..Default::default()
    };
    t.case(&format!("{name}_update"), vm.snp_launch_update(&mut update), Answer::refused(EINVAL));
    let mut finish = kvm_sev_snp_launch_finish::default();
    t.case(&format!("{name}_finish"), vm.snp_launch_finish(&mut finish), Answer::refused(ENOTTY));
    t.case(&format!("{name}_certs"), vm.snp_enable_req_certs(), Answer::refused(EINVAL));
}

fn before_init(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::bare(&host)?;
    refuses_snp(t, "bare", &vm);
    // Those for other VMs have no context yet either.
    for id in sev_cmd_id_KVM_SEV_LAUNCH_START..sev_cmd_id_KVM_SEV_INIT2 {
        t.record(&format!("{id}"), vm.command(id, 0));
    }
    t.case("then", vm.init2(&mut kvm_sev_init::default()), Answer::OK_KEPT);
    Ok(())
}

fn on_other_vms(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    refuses_snp(t, "plain", &Vm::bare(&host, VmType::Default)?);
    for (name, kind) in Kind::ALL {
        let bare = context::empty(&host, kind.vm_type(), sev_vm::mem::GuestMemory::new(1 << 21)?)?;
        refuses_snp(t, &format!("{name}_bare"), &bare);
        refuses_snp(t, &format!("{name}_old"), &kind.started(&host, VmType::Default)?);
        refuses_snp(t, name, &kind.started(&host, kind.vm_type())?);
    }
    Ok(())
}

/// Registering memory pins it, also of SNP guests.
fn regions(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let bare = Snp::bare(&host)?;
    let region = |vm: &Vm| kvm_enc_region { addr: vm.memory.addr(), size: 2 * 4096 };
    t.case("bare", bare.register(&region(&bare)), Answer::refused(ENOTTY));
    let vm = Snp::initialised(&host)?;
    let region = region(&vm);
    t.record("initialised", vm.register(&region));
    t.record("unregister", vm.unregister(&region));
    t.record("again", vm.unregister(&region));
    // What is registered at the end is released with the VM.
    t.record("left", vm.register(&region));
    Ok(())
}

fn copy_and_move(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (state, source) in [
        ("bare", Snp::bare(&host)?),
        ("initialised", Snp::initialised(&host)?),
        ("started", Snp::started(&host, policy::DEFAULT)?),
        ("launched", Snp::launched(&host, policy::DEFAULT, sev_vm::guest::idle(), &[[0; 4]])?),
    ] {
        for (name, kind) in [
            ("plain", VmType::Default),
            ("sev", VmType::Sev),
            ("es", VmType::SevEs),
            ("snp", VmType::Snp),
        ] {
            let copy = context::beside(&host, kind, &source)?;
            t.case(
                &format!("{state}_copy_to_{name}"),
                copy.copy_from(&source),
                Answer::refused(EINVAL),
            );
            t.case(
                &format!("{state}_move_to_{name}"),
                copy.move_from(&source),
                Answer::refused(EINVAL),
            );
        }
    }
    // Nor can an SNP VM take over anybody else's context; it works afterwards.
    for (name, kind) in Kind::ALL {
        let source = kind.started(&host, kind.vm_type())?;
        let initialised = Snp::initialised(&host)?;
        for (state, vm) in [("initialised", &initialised), ("bare", &Snp::bare(&host)?)] {
            let moved = vm.move_from(&source);
            t.case(&format!("{name}_to_{state}_move"), moved, Answer::refused(EINVAL));
        }
        t.case(
            &format!("{name}_to_initialised_copy"),
            initialised.copy_from(&source),
            Answer::refused(EINVAL),
        );
        let answer = initialised.snp_launch_start(&mut snp::start(policy::DEFAULT));
        t.case(&format!("{name}_then_start"), answer, Answer::OK);
    }
    t.contexts(0).context("every VM is closed")
}

/// KVM_SEV_SNP_ENABLE_REQ_CERTS: before there are vCPUs, any number of times.
fn certificates(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Snp::initialised(&host)?;
    t.case("initialised", vm.snp_enable_req_certs(), Answer::OK_KEPT);
    t.case("twice", vm.snp_enable_req_certs(), Answer::OK_KEPT);
    t.case(
        "argument_is_ignored",
        vm.command(KVM_SEV_SNP_ENABLE_REQ_CERTS, u64::MAX),
        Answer::OK_KEPT,
    );
    t.case(
        "device_is_ignored",
        issue(&vm.fd, KVM_SEV_SNP_ENABLE_REQ_CERTS, 0, -1),
        Answer::OK_KEPT,
    );
    vm.add_vcpu(&host, [0; 4])?;
    t.case("with_vcpu", vm.snp_enable_req_certs(), Answer::refused(EINVAL));
    let started = Snp::started(&host, policy::DEFAULT)?;
    t.case("started", started.snp_enable_req_certs(), Answer::OK_KEPT);
    started.seal()?;
    t.case("finished", started.snp_enable_req_certs(), Answer::OK_KEPT);
    Ok(())
}
