// SPDX-License-Identifier: GPL-2.0-or-later
//! `KVM_CAP_VM_COPY_ENC_CONTEXT_FROM`: VMs that share the context of their owner.

use std::os::fd::AsRawFd;
use std::process::ExitCode;

use anyhow::Result;
use kvm_bindings::*;
use nix::errno::Errno::{EBADF, EINVAL, EIO, ENOTTY};
use sev_vm::bad::Descriptors;
use sev_vm::cmd::{Answer, issue};
use sev_vm::context::{Kind, beside, empty};
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{GuestMemory, Mapping};
use sev_vm::vm::{Vm, guest_state};

const SHARED: usize = guest::SHARED.start as usize;
const PRIVATE: u64 = guest::PRIVATE;
const VALUE: u64 = 0x1122_3344_5566_7788;
const COPY: u32 = KVM_CAP_VM_COPY_ENC_CONTEXT_FROM;
/// Commands that a mirror may issue.
const ALLOWED: [u32; 4] = [
    sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA,
    sev_cmd_id_KVM_SEV_GUEST_STATUS,
    sev_cmd_id_KVM_SEV_DBG_DECRYPT,
    sev_cmd_id_KVM_SEV_DBG_ENCRYPT,
];

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("descriptors", descriptors),
            ("arguments", arguments),
            ("commands", commands),
            ("before_launch", before_launch),
            ("common_memory", common_memory),
            ("es_vmsa", es_vmsa),
        ],
    )
}

/// A VM without memory of its own.
fn small(host: &Host, vm_type: VmType) -> Result<Vm> {
    empty(host, vm_type, GuestMemory::new(guest::MEMORY)?)
}

fn descriptors(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let wrong = Descriptors::new(&host)?;
    let mirror = small(&host, VmType::Default)?;
    for (name, fd) in wrong.wrong() {
        t.case(name, mirror.copy_from_fd(fd), Answer::refused(EBADF));
    }
    t.case("dev_sev", mirror.copy_from_fd(host.sev_fd()), Answer::refused(EBADF));
    let source = Kind::Sev.started(&host, VmType::Sev)?;
    let vcpu = source.fd.create_vcpu(0)?;
    t.case("vcpu", mirror.copy_from_fd(vcpu.as_raw_fd()), Answer::refused(EBADF));
    let number = source.fd.as_raw_fd() as u64;
    t.case("flags", mirror.context_from(COPY, 1, number), Answer::refused(EINVAL));
    // The kernel takes the number as an unsigned int.
    t.case("high_bits_ignored", mirror.context_from(COPY, 0, number | (1 << 32)), Answer::OK_KEPT);
    Ok(())
}

fn arguments(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        let source = kind.started(&host, kind.vm_type())?;
        let refused = |t: &mut Test, case: &str, mirror: &Vm, source: &Vm| {
            t.case(&format!("{name}_{case}"), mirror.copy_from(source), Answer::refused(EINVAL));
        };
        refused(t, "itself", &source, &source);
        refused(
            t,
            "source_plain",
            &small(&host, VmType::Default)?,
            &small(&host, VmType::Default)?,
        );
        let typed = small(&host, kind.vm_type())?;
        refused(t, "source_not_initialised", &small(&host, VmType::Default)?, &typed);
        for (other, kind) in Kind::ALL {
            let destination = kind.initialised(&host, kind.vm_type())?;
            refused(t, &format!("destination_{other}"), &destination, &source);
        }
        let with_vcpu = small(&host, VmType::Default)?;
        let vcpu = with_vcpu.fd.create_vcpu(0)?;
        refused(t, "destination_with_vcpu", &with_vcpu, &source);
        drop(vcpu);
        refused(t, "destination_had_vcpu", &with_vcpu, &source);
        let mirror = small(&host, VmType::Default)?;
        t.case(&format!("{name}_mirror"), mirror.copy_from(&source), Answer::OK_KEPT);
        refused(t, "again", &mirror, &source);
        refused(t, "mirror_of_mirror", &small(&host, VmType::Default)?, &mirror);
        refused(t, "owner_of_mirror", &source, &mirror);
        let second = small(&host, VmType::Default)?;
        t.case(&format!("{name}_second"), second.copy_from(&source), Answer::OK_KEPT);
        // A type that was chosen for KVM_SEV_INIT2 does not stand in the way.
        for (other, kind) in Kind::ALL {
            let typed = small(&host, kind.vm_type())?;
            let case = format!("{name}_typed_{other}");
            t.case(&case, typed.copy_from(&source), Answer::OK_KEPT);
        }
        // A VM whose context was moved away is dead, and no source.
        let moved = small(&host, kind.vm_type())?;
        let taker = kind.started(&host, kind.vm_type())?;
        t.case(&format!("{name}_moved"), moved.move_from(&taker), Answer::OK_KEPT);
        refused(t, "source_moved_away", &small(&host, VmType::Default)?, &taker);
        t.case(&format!("{name}_dead"), taker.copy_from(&source), Answer::refused(EIO));
    }
    Ok(())
}

/// A mirror may issue LAUNCH_UPDATE_VMSA, GUEST_STATUS, DBG_DECRYPT and DBG_ENCRYPT; memory is
/// registered by the owner.
fn commands(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        let source = kind.started(&host, kind.vm_type())?;
        source.load(guest::idle());
        let mirror = beside(&host, VmType::Default, &source)?;
        t.case(&format!("{name}_copy"), mirror.copy_from(&source), Answer::OK_KEPT);
        for id in (0..sev_cmd_id_KVM_SEV_NR_MAX).chain([sev_cmd_id_KVM_SEV_NR_MAX, u32::MAX]) {
            if ALLOWED.contains(&id) {
                continue;
            }
            let answer = issue(&mirror.fd, id, 0, host.sev_fd());
            t.case(&format!("{name}_command_{id}"), answer, Answer::refused(EINVAL));
        }
        let mut status = kvm_sev_guest_status::default();
        t.case(&format!("{name}_status"), mirror.guest_status(&mut status), Answer::OK);
        t.value(&format!("{name}_state"), status.state, guest_state::LAUNCHING);
        t.value(&format!("{name}_policy"), status.policy, kind.policy());
        // No vCPU, nothing to encrypt.
        let expected = match kind {
            Kind::Sev => Answer::refused(ENOTTY),
            Kind::Es => Answer::OK_KEPT,
        };
        t.case(&format!("{name}_update_vmsa"), mirror.launch_update_vmsa(), expected);
        // What the owner's key encrypts, the mirror's decrypts, and the other way round.
        source.encrypt(guest::LAUNCHED)?;
        let clear = Mapping::anonymous(4096)?;
        let at = mirror.memory.addr() + guest::CODE;
        let code = guest::idle().code();
        t.case(&format!("{name}_decrypt"), mirror.dbg_decrypt(at, clear.addr(), 4096), Answer::OK);
        t.check(&format!("{name}_decrypted"), clear.read(0, code.len()) == code);
        clear.fill(0x33);
        t.case(&format!("{name}_encrypt"), mirror.dbg_encrypt(clear.addr(), at, 4096), Answer::OK);
        clear.fill(0);
        let at = source.memory.addr() + guest::CODE;
        t.case(
            &format!("{name}_owner_decrypts"),
            source.dbg_decrypt(at, clear.addr(), 4096),
            Answer::OK,
        );
        t.check(&format!("{name}_owner_sees"), clear.read(0, 4096) == [0x33; 4096]);
        let region = kvm_enc_region { addr: mirror.memory.addr(), size: 4096 };
        t.case(&format!("{name}_register"), mirror.register(&region), Answer::refused(EINVAL));
        t.case(&format!("{name}_unregister"), mirror.unregister(&region), Answer::refused(EINVAL));
    }
    Ok(())
}

/// A mirror made before its owner's LAUNCH_START.
fn before_launch(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        let source = kind.initialised(&host, kind.vm_type())?;
        let mirror = small(&host, VmType::Default)?;
        t.case(&format!("{name}_copy"), mirror.copy_from(&source), Answer::OK_KEPT);
        let mut status = kvm_sev_guest_status::default();
        let answer = mirror.guest_status(&mut status);
        t.case(&format!("{name}_status"), answer, Answer::refused(EBADF));
        let policy = kind.policy();
        let mut argument = kvm_sev_launch_start { policy, ..Default::default() };
        t.case(&format!("{name}_owner_starts"), source.launch_start(&mut argument), Answer::OK);
        // The stock module has copied what the owner had then: no descriptor.
        let expected = if host.is_ours() { Answer::OK } else { Answer::refused(EBADF) };
        t.case(&format!("{name}_status_after"), mirror.guest_status(&mut status), expected);
        drop(source);
        t.contexts(1)?;
        drop(mirror);
        t.contexts(0)?;
    }
    Ok(())
}

/// Owner and mirror run in the same encrypted memory.
fn common_memory(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let arguments = [PRIVATE, SHARED as u64, VALUE, 0];
    let types = [("default", VmType::Default), ("typed", VmType::Sev)];
    for (name, vm_type) in types {
        let mut owner =
            Kind::Sev.launched(&host, vm_type, guest::store_and_watch(), &[arguments])?;
        let mut mirror = beside(&host, vm_type, &owner)?;
        t.case(&format!("{name}_copy"), mirror.copy_from(&owner), Answer::OK_KEPT);
        mirror.add_vcpu(&host, [PRIVATE, SHARED as u64 + 8, VALUE + 1, 0])?;
        owner.vcpus[0].run_to_halt()?;
        mirror.vcpus[0].run_to_halt()?;
        owner.vcpus[0].run_to_halt()?;
        let seen = [0, 8].map(|at| owner.memory.read_u64(SHARED + at));
        t.check(&format!("{name}_owner_sees_mirrors"), seen == [VALUE + 1; 2]);
        t.check(&format!("{name}_encrypted"), owner.memory.read_u64(PRIVATE as usize) != VALUE + 1);
        owner.vcpus[0].enter(0, [PRIVATE, SHARED as u64, VALUE + 2, 0])?;
        owner.vcpus[0].run_to_halt()?;
        mirror.vcpus[0].run_to_halt()?;
        t.check(&format!("{name}_mirror_sees"), mirror.memory.read_u64(SHARED + 8) == VALUE + 2);
    }
    Ok(())
}

/// The vCPUs of a SEV-ES mirror are measured with the owner's launch.
fn es_vmsa(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut owner = Kind::Es.started(&host, VmType::SevEs)?;
    owner.load(guest::store_and_watch());
    owner.encrypt(guest::LAUNCHED)?;
    owner.add_vcpu(&host, [PRIVATE, SHARED as u64, VALUE, 0])?;
    t.case("owner", owner.launch_update_vmsa(), Answer::OK);
    let mut mirror = beside(&host, VmType::SevEs, &owner)?;
    t.case("copy", mirror.copy_from(&owner), Answer::OK_KEPT);
    mirror.add_vcpu(&host, [PRIVATE, SHARED as u64 + 8, VALUE + 1, 0])?;
    t.case("mirror", mirror.launch_update_vmsa(), Answer::OK);
    t.case("mirror_again", mirror.launch_update_vmsa(), Answer::refused(EINVAL));
    owner.measurement()?;
    t.case("finish", owner.launch_finish(), Answer::OK);
    owner.vcpus[0].run_to_halt()?;
    mirror.vcpus[0].run_to_halt()?;
    owner.vcpus[0].run_to_halt()?;
    let seen = [0, 8].map(|at| owner.memory.read_u64(SHARED + at));
    t.check("owner_sees_mirrors", seen == [VALUE + 1; 2]);
    // Closed first, the owner leaves the mirror a context to run with.
    drop(owner);
    t.contexts(1)?;
    mirror.memory.write_u64(SHARED + 8, 0);
    mirror.vcpus[0].run_to_halt()?;
    t.check("mirror_runs_on", mirror.memory.read_u64(SHARED + 8) == VALUE + 1);
    Ok(())
}
