// SPDX-License-Identifier: GPL-2.0-or-later
//! `KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM`: refusals, and what source and destination can do then.

use std::os::fd::AsRawFd;
use std::process::ExitCode;

use anyhow::Result;
use kvm_bindings::*;
use nix::errno::Errno::{EBADF, EINVAL, EIO};
use sev_vm::bad::Descriptors;
use sev_vm::cmd::{Answer, status};
use sev_vm::context::{Kind, beside, empty};
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{GuestMemory, Mapping};
use sev_vm::state::pinned_pages;
use sev_vm::vm::Vm;

const MOVE: u32 = KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("descriptors", descriptors),
            ("types", types),
            ("es_vcpus", es_vcpus),
            ("launch_goes_on", launch_goes_on),
            ("source_afterwards", source_afterwards),
            ("closing", closing),
            ("regions", regions),
        ],
    )
}

/// A VM that shares no memory.
fn small(host: &Host, vm_type: VmType) -> Result<Vm> {
    empty(host, vm_type, GuestMemory::new(guest::MEMORY)?)
}

/// An answer of a command that needs the file of LAUNCH_START: the stock module looks for the
/// descriptor's number, which it does not move.
fn by_file(host: &Host, answer: Answer) -> Answer {
    if host.is_ours() { answer } else { Answer::refused(EBADF) }
}

fn descriptors(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let wrong = Descriptors::new(&host)?;
    let taker = small(&host, VmType::Sev)?;
    for (name, fd) in wrong.wrong() {
        t.case(name, taker.move_from_fd(fd), Answer::refused(EBADF));
    }
    t.case("dev_sev", taker.move_from_fd(host.sev_fd()), Answer::refused(EBADF));
    let source = Kind::Sev.started(&host, VmType::Sev)?;
    let vcpu = source.fd.create_vcpu(0)?;
    t.case("vcpu", taker.move_from_fd(vcpu.as_raw_fd()), Answer::refused(EBADF));
    let number = source.fd.as_raw_fd() as u64;
    t.case("flags", taker.context_from(MOVE, 1, number), Answer::refused(EINVAL));
    t.case("source_is_left_alone", source.guest_status(&mut Default::default()), Answer::OK);
    t.case("high_bits_ignored", taker.context_from(MOVE, 0, number | (1 << 32)), Answer::OK_KEPT);
    Ok(())
}

/// The source has to be encrypted, the destination not yet, and both of one type.
fn types(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        let typed = kind.vm_type();
        let source = kind.started(&host, typed)?;
        let refused = |t: &mut Test, case: &str, to: &Vm, from: &Vm| {
            t.case(&format!("{name}_{case}"), to.move_from(from), Answer::refused(EINVAL));
        };
        refused(t, "itself", &source, &source);
        refused(
            t,
            "source_plain",
            &small(&host, VmType::Default)?,
            &small(&host, VmType::Default)?,
        );
        refused(t, "source_not_initialised", &small(&host, typed)?, &small(&host, typed)?);
        refused(t, "destination_plain", &small(&host, VmType::Default)?, &source);
        for (other, destination) in Kind::ALL {
            let to = destination.initialised(&host, destination.vm_type())?;
            refused(t, &format!("destination_{other}"), &to, &source);
            if destination != kind {
                refused(t, "other_type", &small(&host, destination.vm_type())?, &source);
            }
        }
        let mirror = small(&host, typed)?;
        t.case(&format!("{name}_mirror"), mirror.copy_from(&source), Answer::OK_KEPT);
        refused(t, "destination_mirror", &mirror, &source);
        let old = kind.started(&host, VmType::Default)?;
        refused(t, "typed_destination", &small(&host, typed)?, &old);
        let taker = small(&host, VmType::Default)?;
        t.case(&format!("{name}_old"), taker.move_from(&old), Answer::OK_KEPT);
        refused(t, "source_moved_away", &small(&host, VmType::Default)?, &old);
        t.case(&format!("{name}_dead"), old.move_from(&taker), Answer::refused(EIO));
    }
    Ok(())
}

/// SEV-ES VMs: as many vCPUs on both sides, and encrypted ones in the source.
fn es_vcpus(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let with_vcpus = |count: u64| -> Result<Vm> {
        let mut vm = small(&host, VmType::SevEs)?;
        for _ in 0..count {
            vm.add_bare_vcpu()?;
        }
        Ok(vm)
    };
    let mut source = Kind::Es.started(&host, VmType::SevEs)?;
    source.add_vcpu(&host, [0; 4])?;
    source.add_vcpu(&host, [0; 4])?;
    let refused = Answer::refused(EINVAL);
    t.case("not_encrypted", with_vcpus(2)?.move_from(&source), refused);
    t.case("update_vmsa", source.launch_update_vmsa(), Answer::OK);
    for count in [0, 1, 3] {
        t.case(&format!("{count}_for_2"), with_vcpus(count)?.move_from(&source), refused);
    }
    t.case("2_for_2", with_vcpus(2)?.move_from(&source), Answer::OK_KEPT);
    // One encrypted, one not.
    let mut source = Kind::Es.started(&host, VmType::SevEs)?;
    source.add_vcpu(&host, [0; 4])?;
    t.case("first_encrypted", source.launch_update_vmsa(), Answer::OK);
    source.add_vcpu(&host, [0; 4])?;
    t.case("second_not", with_vcpus(2)?.move_from(&source), refused);
    // Without any vCPU there is nothing to encrypt.
    let source = Kind::Es.started(&host, VmType::SevEs)?;
    t.case("0_for_0", with_vcpus(0)?.move_from(&source), Answer::OK_KEPT);
    // vCPUs of plain SEV VMs need not be as many.
    let source = Vm::started(&host, 0)?;
    let taker = small(&host, VmType::Sev)?;
    let vcpu = taker.fd.create_vcpu(0)?;
    t.case("sev_1_for_0", taker.move_from(&source), Answer::OK_KEPT);
    drop(vcpu);
    Ok(())
}

/// The destination goes on where the source was, at every step of the launch.
fn launch_goes_on(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        let typed = kind.vm_type();
        // Before LAUNCH_START there is no file to go with.
        let source = kind.initialised(&host, typed)?;
        let vm = small(&host, typed)?;
        t.case(&format!("{name}_initialised"), vm.move_from(&source), Answer::OK_KEPT);
        t.case(
            &format!("{name}_init2"),
            vm.init2(&mut Default::default()),
            Answer::refused(EINVAL),
        );
        let policy = kind.policy();
        let mut start = kvm_sev_launch_start { policy, ..Default::default() };
        t.case(&format!("{name}_start"), vm.launch_start(&mut start), Answer::OK);
        vm.load(guest::idle());
        let mut step = vm;
        let mut next = |t: &mut Test, case: &str| -> Result<()> {
            let to = beside(&host, typed, &step)?;
            t.case(&format!("{name}_{case}_moved"), to.move_from(&step), Answer::OK_KEPT);
            step = to;
            let mut status = kvm_sev_guest_status::default();
            let answer = step.guest_status(&mut status);
            t.case(&format!("{name}_{case}_status"), answer, by_file(&host, Answer::OK));
            let mut update = kvm_sev_launch_update_data {
                uaddr: step.memory.addr(),
                len: 4096,
                ..Default::default()
            };
            let launching = case == "started" || case == "updated";
            let wrong = Answer::firmware(status::INVALID_GUEST_STATE);
            let expected = if launching { Answer::OK } else { wrong };
            let answer = step.launch_update_data(&mut update);
            t.case(&format!("{name}_{case}_update"), answer, by_file(&host, expected));
            let expected = if case == "measured" { Answer::OK } else { wrong };
            t.case(
                &format!("{name}_{case}_finish"),
                step.launch_finish(),
                by_file(&host, expected),
            );
            let mut blob = [0u8; 48];
            let uaddr = sev_vm::vm::addr_of(&mut blob);
            let mut measure = kvm_sev_launch_measure { uaddr, len: 48, ..Default::default() };
            if case == "updated" {
                let answer = step.launch_measure(&mut measure);
                t.case(&format!("{name}_{case}_measure"), answer, by_file(&host, Answer::OK));
            }
            Ok(())
        };
        for case in ["started", "updated", "measured", "finished"] {
            next(t, case)?;
        }
        let clear = Mapping::anonymous(16)?;
        let answer = step.dbg_decrypt(step.memory.addr(), clear.addr(), 16);
        t.case(&format!("{name}_decrypt"), answer, by_file(&host, Answer::OK));
        t.contexts(1)?;
    }
    Ok(())
}

/// Whoever was moved away is dead: every call on it and its vCPUs is EIO.
fn source_afterwards(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        let typed = kind.vm_type();
        let mut source = kind.launched(&host, typed, guest::idle(), &[[0; 4]])?;
        let mut taker = small(&host, typed)?;
        taker.add_bare_vcpu()?;
        t.case(&format!("{name}_move"), taker.move_from(&source), Answer::OK_KEPT);
        for id in (0..sev_cmd_id_KVM_SEV_NR_MAX).chain([u32::MAX]) {
            t.case(&format!("{name}_command_{id}"), source.command(id, 0), Answer::refused(EIO));
        }
        let region = kvm_enc_region { addr: source.memory.addr(), size: 4096 };
        t.case(&format!("{name}_register"), source.register(&region), Answer::refused(EIO));
        t.case(&format!("{name}_unregister"), source.unregister(&region), Answer::refused(EIO));
        let vcpu = Answer::from_result(source.fd.create_vcpu(1));
        t.case(&format!("{name}_create_vcpu"), vcpu, Answer::refused(EIO));
        let run = Answer::from_result(source.vcpus[0].fd().run());
        t.case(&format!("{name}_run"), run, Answer::refused(EIO));
        let regs = Answer::from_result(source.vcpus[0].fd().get_regs());
        t.case(&format!("{name}_get_regs"), regs, Answer::refused(EIO));
    }
    Ok(())
}

/// Either side may be closed first; the context goes with the destination.
fn closing(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        for first in ["source", "destination"] {
            let before = t.psp.counters()?;
            let source = kind.started(&host, kind.vm_type())?;
            let taker = small(&host, kind.vm_type())?;
            let answer = taker.move_from(&source);
            t.case(&format!("{name}_{first}_move"), answer, Answer::OK_KEPT);
            let (one, other) = if first == "source" { (source, taker) } else { (taker, source) };
            drop(one);
            let released = u64::from(first == "destination");
            t.released(&format!("{name}_{first}_closed"), &before, released)?;
            drop(other);
            t.released(&format!("{name}_{first}_both"), &before, 1)?;
        }
    }
    Ok(())
}

/// Registered memory belongs to the destination: it can be unregistered there, and is unpinned
/// with it.
fn regions(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let pages = (guest::MEMORY / 4096) as i64;
    for unregister in [true, false] {
        let name = if unregister { "unregister" } else { "close" };
        let before = pinned_pages()?;
        let source = Vm::started(&host, 0)?;
        source.register_memory()?;
        let taker = small(&host, VmType::Sev)?;
        t.case(&format!("{name}_move"), taker.move_from(&source), Answer::OK_KEPT);
        let size = source.memory.len() as u64;
        let region = kvm_enc_region { addr: source.memory.addr(), size };
        let own = kvm_enc_region { addr: taker.memory.addr(), size };
        t.case(&format!("{name}_other"), taker.unregister(&own), Answer::refused(EINVAL));
        drop(source);
        t.value(&format!("{name}_source_closed"), pinned_pages()? - before, pages);
        t.case(&format!("{name}_register_more"), taker.register(&own), Answer::OK_KEPT);
        t.value(&format!("{name}_more"), pinned_pages()? - before, 2 * pages);
        if unregister {
            t.case("unregister", taker.unregister(&region), Answer::OK_KEPT);
            t.value("unregistered", pinned_pages()? - before, pages);
            t.case("unregister_twice", taker.unregister(&region), Answer::refused(EINVAL));
        }
        drop(taker);
        t.value(&format!("{name}_both_closed"), pinned_pages()? - before, 0);
    }
    Ok(())
}
