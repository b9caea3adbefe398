// SPDX-License-Identifier: GPL-2.0-or-later
//! `KVM_SEV_INIT`, `KVM_SEV_ES_INIT`, `KVM_SEV_INIT2`: check order as in `__sev_guest_init()`.

use std::process::ExitCode;

use anyhow::Result;
use kvm_bindings::*;
use nix::errno::Errno::{EFAULT, EINVAL, ENOTTY};
use sev_vm::bad::{self, Addresses, KERNEL};
use sev_vm::cmd::{Answer, issue};
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::vm::{Vm, addr_of};

const INIT: u32 = sev_cmd_id_KVM_SEV_INIT;
const ES_INIT: u32 = sev_cmd_id_KVM_SEV_ES_INIT;
const INIT2: u32 = sev_cmd_id_KVM_SEV_INIT2;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("old_init", old_init),
            ("old_es_init", old_es_init),
            ("init2", init2),
            ("init2_arguments", init2_arguments),
            ("init2_pointers", init2_pointers),
            ("vcpus_first", vcpus_first),
            ("vm_types", vm_types),
        ],
    )
}

/// The interface before VM types: a plain VM becomes a SEV VM.
fn old_init(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::bare(&host, VmType::Default)?;
    t.case("plain_vm", vm.command(INIT, 0), Answer::OK_KEPT);
    t.case("second", vm.command(INIT, 0), Answer::refused(EINVAL));
    t.case("then_init2", vm.init2(&mut kvm_sev_init::default()), Answer::refused(EINVAL));
    let vm = Vm::bare(&host, VmType::Default)?;
    t.case("argument_ignored", vm.command(INIT, KERNEL), Answer::OK_KEPT);
    let vm = Vm::bare(&host, VmType::Default)?;
    t.case("descriptor_ignored", issue(&vm.fd, INIT, 0, -1), Answer::OK_KEPT);
    let vm = Vm::bare(&host, VmType::Sev)?;
    t.case("sev_typed_vm", vm.command(INIT, 0), Answer::refused(EINVAL));
    t.case("sev_typed_vm_then_init2", vm.init2(&mut kvm_sev_init::default()), Answer::OK_KEPT);
    Ok(())
}

fn old_es_init(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let plain = Vm::bare(&host, VmType::Default)?;
    let typed = Vm::bare(&host, VmType::Sev)?;
    if host.offers(VmType::SevEs) {
        t.note("ES guests are served");
        t.case("typed_vm", typed.command(ES_INIT, 0), Answer::refused(EINVAL));
    } else {
        t.case("not_served", plain.command(ES_INIT, 0), Answer::refused(ENOTTY));
        t.case("not_served_typed_vm", typed.command(ES_INIT, 0), Answer::refused(ENOTTY));
        t.case("then_init", plain.command(INIT, 0), Answer::OK_KEPT);
    }
    Ok(())
}

fn init2(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::bare(&host, VmType::Sev)?;
    t.case("sev_typed_vm", vm.init2(&mut kvm_sev_init::default()), Answer::OK_KEPT);
    t.case("second", vm.init2(&mut kvm_sev_init::default()), Answer::refused(EINVAL));
    t.case("then_old_init", vm.command(INIT, 0), Answer::refused(EINVAL));
    let vm = Vm::bare(&host, VmType::Default)?;
    t.case("plain_vm", vm.init2(&mut kvm_sev_init::default()), Answer::refused(EINVAL));
    t.case("plain_vm_before_argument", vm.command(INIT2, 0), Answer::refused(EINVAL));
    t.case("plain_vm_then_old_init", vm.command(INIT, 0), Answer::OK_KEPT);
    let vm = Vm::bare(&host, VmType::Sev)?;
    let answer = issue(&vm.fd, INIT2, addr_of(&mut kvm_sev_init::default()), -1);
    t.case("descriptor_ignored", answer, Answer::OK_KEPT);
    Ok(())
}

/// Every field that a plain SEV VM must leave zero, and that a refusal leaves the VM usable.
fn init2_arguments(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::bare(&host, VmType::Sev)?;
    let zero = kvm_sev_init::default();
    for flags in [1, 2, 1 << 31, u32::MAX] {
        let answer = vm.init2(&mut kvm_sev_init { flags, ..zero });
        t.case(&format!("flags_{flags:x}"), answer, Answer::refused(EINVAL));
    }
    for bit in 0..64 {
        let answer = vm.init2(&mut kvm_sev_init { vmsa_features: 1 << bit, ..zero });
        t.case(&format!("vmsa_feature_{bit}"), answer, Answer::refused(EINVAL));
    }
    for ghcb_version in [1, 2, 3, u16::MAX] {
        let answer = vm.init2(&mut kvm_sev_init { ghcb_version, ..zero });
        t.case(&format!("ghcb_version_{ghcb_version}"), answer, Answer::refused(EINVAL));
    }
    t.case("then_good", vm.init2(&mut kvm_sev_init { ..zero }), Answer::OK_KEPT);
    let vm = Vm::bare(&host, VmType::Sev)?;
    let padded = &mut kvm_sev_init { pad1: 1, pad2: [u32::MAX; 8], ..zero };
    t.case("padding_ignored", vm.init2(padded), Answer::OK_KEPT);
    Ok(())
}

fn init2_pointers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::bare(&host, VmType::Sev)?;
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_init>()) {
        t.case(name, vm.command(INIT2, address), Answer::refused(EFAULT));
    }
    let zeroes = bad::read_only(&[0; size_of::<kvm_sev_init>()])?;
    t.case("read_only", vm.command(INIT2, zeroes.addr()), Answer::OK_KEPT);
    Ok(())
}

/// SEV has to be chosen before the first vCPU exists.
fn vcpus_first(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::bare(&host, VmType::Default)?;
    let vcpu = vm.fd.create_vcpu(0)?;
    t.case("old_init", vm.command(INIT, 0), Answer::refused(EINVAL));
    drop(vcpu);
    t.case("old_init_vcpu_closed", vm.command(INIT, 0), Answer::refused(EINVAL));
    let vm = Vm::bare(&host, VmType::Sev)?;
    let mut vcpu = vm.fd.create_vcpu(0)?;
    t.case("init2", vm.init2(&mut kvm_sev_init::default()), Answer::refused(EINVAL));
    t.case("run_uninitialised", Answer::from_result(vcpu.run()), Answer::refused(EINVAL));
    Ok(())
}

/// `KVM_CAP_VM_TYPES` says what `KVM_CREATE_VM` accepts.
fn vm_types(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    t.check("sev_offered", host.offers(VmType::Sev));
    t.check("default_offered", host.offers(VmType::Default));
    for (name, kind) in [("default", VmType::Default), ("sev", VmType::Sev)] {
        let answer = Answer::from_result(host.create_vm(kind));
        t.case(&format!("create_{name}"), answer, Answer::OK_KEPT);
    }
    for (name, kind) in [("sev_es", VmType::SevEs), ("snp", VmType::Snp)] {
        if !host.offers(kind) {
            let answer = Answer::from_result(host.create_vm(kind));
            t.case(&format!("create_{name}"), answer, Answer::refused(EINVAL));
        }
    }
    for kind in [5u64, 31, 32, 64, u64::MAX] {
        let answer = Answer::from_result(host.kvm.create_vm_with_type(kind));
        t.case(&format!("create_{kind:x}"), answer, Answer::refused(EINVAL));
    }
    Ok(())
}
