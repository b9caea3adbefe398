// SPDX-License-Identifier: GPL-2.0-or-later
//! `KVM_CAP_VM_COPY_ENC_CONTEXT_FROM`: VMs that share the context of their owner.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow, ensure};
use kvm_bindings::*;
use nix::errno::Errno::{EBADF, EINVAL, EIO, ENOTTY};
use sev_vm::bad::Descriptors;
use sev_vm::cmd::{Answer, issue};
use sev_vm::context::{Kind, beside, count_until_told, empty};
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{GuestMemory, Mapping};
use sev_vm::other::{self, Other};
use sev_vm::state::pinned_pages;
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
/// Where the other process has its /dev/sev, and this one nothing.
const FAR_FD: i32 = 777;

fn main() -> ExitCode {
    if let Some((_, arguments)) = other::role() {
        return other::exit_code(owner_process(&arguments));
    }
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("descriptors", descriptors),
            ("arguments", arguments),
            ("commands", commands),
            ("before_launch", before_launch),
            ("common_memory", common_memory),
            ("es_vmsa", es_vmsa),
            ("every_order_sev", |t| every_order(t, Kind::Sev)),
            ("every_order_es", |t| every_order(t, Kind::Es)),
            ("pinned", pinned),
            ("other_process", other_process),
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
    t.case("high_bits_ignored", mirror.context_from(COPY, 0, number | 1 << 32), Answer::OK_KEPT);
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

/// An owner and two mirrors whose guests run all the time, closed in all six orders.
fn every_order(t: &mut Test, kind: Kind) -> Result<()> {
    let host = Host::open()?;
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let case = order.map(|i| ["o", "m", "n"][i]).concat();
        let argument = |i: usize| [PRIVATE + 64 * i as u64, (SHARED + 64 * i) as u64, 0, 0];
        let mut owner = kind.started(&host, kind.vm_type())?;
        let view = owner.memory.share()?;
        owner.load(count_until_told());
        owner.encrypt(guest::LAUNCHED)?;
        kind.add_vcpus(&mut owner, &host, &[argument(0)])?;
        let mut vms = vec![];
        for i in [1, 2] {
            let mut mirror = beside(&host, kind.vm_type(), &owner)?;
            let answer = mirror.copy_from(&owner);
            ensure!(answer.is_ok(), "copy to mirror {i}: {answer}");
            kind.add_vcpus(&mut mirror, &host, &[argument(i)])?;
            vms.push(mirror);
        }
        owner.measurement()?;
        let answer = owner.launch_finish();
        ensure!(answer.is_ok(), "LAUNCH_FINISH: {answer}");
        vms.insert(0, owner);
        let before = t.psp.counters()?;
        let mut running: Vec<_> =
            vms.into_iter().map(|vm| Some(thread::spawn(move || run(vm)))).collect();
        for (closed, i) in order.into_iter().enumerate() {
            for (other, thread) in running.iter().enumerate() {
                if let Some(thread) = thread {
                    counts_on(&view, SHARED + 64 * other, thread)?;
                }
            }
            t.contexts(1)?;
            t.released(&format!("{case}_{closed}"), &before, 0)?;
            view.write_u64(SHARED + 64 * i + 8, 1);
            let thread = running[i].take().ok_or_else(|| anyhow!("closed twice"))?;
            thread.join().map_err(|_| anyhow!("a vCPU thread panicked"))??;
        }
        t.released(&format!("{case}_end"), &before, 1)?;
        t.contexts(0)?;
    }
    Ok(())
}

/// Runs until the guest halts, then closes the VM.
fn run(mut vm: Vm) -> Result<()> {
    vm.vcpus[0].run_to_halt()
}

/// Waits until the guest of `thread` has counted on.
fn counts_on(memory: &Mapping, at: usize, thread: &JoinHandle<Result<()>>) -> Result<()> {
    let now = memory.read_u64(at);
    while memory.read_u64(at) == now {
        ensure!(!thread.is_finished(), "the guest has stopped");
        thread::yield_now();
    }
    Ok(())
}

/// What the owner registered stays pinned as long as the context lives.
fn pinned(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let owner = Kind::Sev.started(&host, VmType::Sev)?;
    let mirror = small(&host, VmType::Default)?;
    t.case("copy", mirror.copy_from(&owner), Answer::OK_KEPT);
    let before = pinned_pages()?;
    owner.register_memory()?;
    let pages = (guest::MEMORY / 4096) as i64;
    t.value("registered", pinned_pages()? - before, pages);
    drop(owner);
    t.value("owner_closed", pinned_pages()? - before, pages);
    drop(mirror);
    t.value("both_closed", pinned_pages()? - before, 0);
    Ok(())
}

/// A process that launches a VM of the named kind, says the numbers of its file and of its
/// memory's, and keeps both until it is told to end.
fn owner_process(arguments: &[String]) -> Result<()> {
    let host = Host::open()?;
    // SAFETY: the number is not in use in this process.
    let far = unsafe { nix::libc::dup2(host.sev_fd(), FAR_FD) };
    ensure!(far == FAR_FD, "dup2");
    let kind = if arguments[0] == "es" { Kind::Es } else { Kind::Sev };
    let mut vm = kind.initialised(&host, kind.vm_type())?;
    vm.sev_fd = FAR_FD;
    let policy = kind.policy();
    let answer = vm.launch_start(&mut kvm_sev_launch_start { policy, ..Default::default() });
    ensure!(answer.is_ok(), "LAUNCH_START: {answer}");
    vm.load(guest::store_and_watch());
    vm.encrypt(guest::LAUNCHED)?;
    println!("{} {}", vm.fd.as_raw_fd(), vm.memory.fd_number());
    other::until_told()
}

/// A mirror in another process, which outlives the owner's.
fn other_process(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let arguments = [PRIVATE, SHARED as u64, VALUE, 0];
    for (name, kind) in Kind::ALL {
        let mut owner = Other::start("owner", &[name.to_owned()])?;
        let numbers = owner.numbers()?;
        ensure!(numbers.len() == 2, "{numbers:?}");
        let source = File::from(owner.take(numbers[0])?);
        let memory = GuestMemory::from_fd(owner.take(numbers[1])?, guest::MEMORY)?;
        let mut mirror = empty(&host, kind.vm_type(), memory)?;
        let answer = mirror.copy_from_fd(source.as_raw_fd());
        t.case(&format!("{name}_copy"), answer, Answer::OK_KEPT);
        drop(source);
        t.contexts(1)?;
        mirror.add_vcpu(&host, arguments)?;
        if kind == Kind::Sev {
            mirror.vcpus[0].run_to_halt()?;
            t.check(&format!("{name}_runs"), mirror.memory.read_u64(SHARED) == VALUE);
        }
        t.check(&format!("{name}_killed"), !owner.kill()?.success());
        t.contexts(1)?;
        let clear = Mapping::anonymous(4096)?;
        let at = mirror.memory.addr() + guest::CODE;
        let answer = mirror.dbg_decrypt(at, clear.addr(), 4096);
        let stock = Answer::refused(EBADF);
        let expected = if host.is_ours() { Answer::OK } else { stock };
        t.case(&format!("{name}_decrypt"), answer, expected);
        if kind == Kind::Sev {
            mirror.memory.write_u64(SHARED, 0);
            mirror.vcpus[0].run_to_halt()?;
            t.check(&format!("{name}_runs_on"), mirror.memory.read_u64(SHARED) == VALUE);
        }
        drop(mirror);
        t.contexts(0)?;
    }
    Ok(())
}
