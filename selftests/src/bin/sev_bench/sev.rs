// SPDX-License-Identifier: GPL-2.0-or-later
//! Operations on SEV and SEV-ES VMs.

use std::ops::Range;

use anyhow::{Result, bail, ensure};
use kvm_bindings::*;
use sev_vm::es;
use sev_vm::guest;
use sev_vm::host::{EncryptionLeaf, Host, VmType};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::tenant::{self, Owner, Verdict};
use sev_vm::transfer::{Certificates, Packet, sender};
use sev_vm::vcpu::Exit;
use sev_vm::vm::{Vm, addr_of};

use crate::Bench;

pub fn good(what: &str, answer: sev_vm::cmd::Answer) -> Result<()> {
    ensure!(answer.is_ok(), "{what}: {answer}");
    Ok(())
}

/// A VM and a buffer for what a command writes.
type WithBuffer = (Vm, Mapping);

fn with_buffer(vm: Vm) -> Result<WithBuffer> {
    Ok((vm, Mapping::anonymous(PAGE)?))
}

/// Of guest memory.
const TAKEN: Range<usize> = 0x1_0000..0x2_0000;
const SECRET: &[u8; 32] = b"something that only guests know\0";

/// A VM to be initialised, whose memory is there already.
fn touched(host: &Host) -> Result<Vm> {
    let mut vm = Vm::bare(host, VmType::Sev)?;
    vm.c_mask = EncryptionLeaf::read().c_mask();
    vm.load(guest::idle());
    Ok(vm)
}

/// A VM whose guest has run, so that a CPU may have lines of its memory in its cache.
fn ran(host: &Host) -> Result<Vm> {
    let mut vm = Vm::launched(host, 0, guest::idle())?;
    vm.add_vcpu(host, [0; 4])?;
    vm.vcpus[0].run_to_halt()?;
    Ok(vm)
}

fn launching(bench: &mut Bench) -> Result<()> {
    bench.row(
        "KVM_SEV_INIT2",
        |host| Vm::bare(host, VmType::Sev),
        |_, vm| good("INIT2", vm.init2(&mut kvm_sev_init::default())),
    )?;
    bench.row("KVM_SEV_INIT2, recycling ASIDs", recycling, |_, vm| {
        good("INIT2", vm.init2(&mut kvm_sev_init::default()))
    })?;
    bench.row("LAUNCH_START", Vm::sev, |_, vm| {
        good("LAUNCH_START", vm.launch_start(&mut kvm_sev_launch_start::default()))
    })?;
    for (name, pages) in [("LAUNCH_UPDATE_DATA 4 KiB", 1), ("LAUNCH_UPDATE_DATA 64 KiB", 16)] {
        bench.row(
            name,
            |host| {
                let vm = Vm::started(host, 0)?;
                // Pages that are there already.
                (0..pages).for_each(|page| vm.memory.write(0x1_0000 + page * PAGE, &[1]));
                Ok(vm)
            },
            |_, vm| vm.encrypt(0x1_0000..0x1_0000 + pages * PAGE),
        )?;
    }
    bench.row("LAUNCH_MEASURE", |host| Vm::started(host, 0), |_, vm| vm.measurement().map(drop))?;
    bench.row(
        "LAUNCH_FINISH",
        |host| {
            let vm = Vm::started(host, 0)?;
            vm.measurement()?;
            Ok(vm)
        },
        |_, vm| good("LAUNCH_FINISH", vm.launch_finish()),
    )?;
    bench.row(
        "LAUNCH_SECRET",
        |host| {
            let owner = Owner::prepare(0)?;
            let vm = Vm::sev(host)?;
            good("LAUNCH_START", owner.launch_start(&vm, 0))?;
            vm.load(guest::idle());
            let launched = vm.memory.read(0, guest::LAUNCHED.end);
            vm.encrypt(guest::LAUNCHED)?;
            match owner.verify(tenant::build()?, &[&launched], &vm.measurement()?)? {
                Verdict::Genuine(session) => Ok((vm, tenant::Packet::new(&session, SECRET)?)),
                Verdict::Tampered => bail!("the measurement is not the expected one"),
            }
        },
        |_, (vm, packet)| {
            let mut argument = packet.argument(vm.memory.addr() + guest::SECRET);
            good("LAUNCH_SECRET", vm.launch_secret(&mut argument))
        },
    )?;
    bench.row(
        "LAUNCH_UPDATE_VMSA",
        |host| {
            let mut vm = es::Setup::version(2).start(host)?;
            es::prepare(&mut vm, host, guest::idle().into(), &[[0; 4]])?;
            Ok(vm)
        },
        |_, vm| good("LAUNCH_UPDATE_VMSA", es::update_vmsa(vm)),
    )?;
    bench.row("KVM_SEV_INIT2 to LAUNCH_FINISH", touched, |_, vm| {
        good("INIT2", vm.init2(&mut kvm_sev_init::default()))?;
        good("LAUNCH_START", vm.launch_start(&mut kvm_sev_launch_start::default()))?;
        vm.launch(guest::idle())
    })?;
    bench.row(
        "close of a launched VM",
        |host| Ok(Some(Vm::started(host, 0)?)),
        |_, vm| {
            drop(vm.take());
            Ok(())
        },
    )
}

fn running(bench: &mut Bench) -> Result<()> {
    let launched = |host: &Host| Vm::launched(host, 0, guest::idle());

    bench.row("GUEST_STATUS", launched, |_, vm| vm.state().map(drop))?;
    for (name, len) in [("DBG_DECRYPT 4 KiB", 4096), ("DBG_DECRYPT 20 bytes", 20)] {
        bench.row(
            name,
            |host| with_buffer(launched(host)?),
            |_, (vm, buffer)| {
                let source = vm.memory.addr() + guest::PRIVATE;
                good("DBG_DECRYPT", vm.dbg_decrypt(source, buffer.addr(), len))
            },
        )?;
    }
    bench.row(
        "DBG_ENCRYPT 4 KiB",
        |host| with_buffer(launched(host)?),
        |_, (vm, buffer)| {
            let target = vm.memory.addr() + guest::PRIVATE;
            good("DBG_ENCRYPT", vm.dbg_encrypt(buffer.addr(), target, 4096))
        },
    )?;
    bench.row("GET_ATTESTATION_REPORT", launched, |_, vm| {
        let mut blob = [0u8; 0xd0];
        let mut report = kvm_sev_attestation_report {
            uaddr: addr_of(&mut blob),
            len: 0xd0,
            ..Default::default()
        };
        let id = sev_cmd_id_KVM_SEV_GET_ATTESTATION_REPORT;
        good("GET_ATTESTATION_REPORT", vm.command(id, addr_of(&mut report)))
    })?;
    bench.row(
        "KVM_RUN, halt",
        // The first run maps the pages.
        ran,
        |_, vm| vm.vcpus[0].run_to_halt(),
    )?;
    bench.row(
        "KVM_RUN, port output",
        |host| {
            let mut vm = Vm::launched(host, 0, guest::ports())?;
            vm.add_vcpu(host, [0; 4])?;
            ensure!(vm.vcpus[0].run()? == Exit::Out(0x3f8, vec![1]), "not the first output");
            Ok(vm)
        },
        |_, vm| {
            ensure!(vm.vcpus[0].run()? == Exit::Out(0x3f8, vec![1, 0]), "not the second output");
            Ok(())
        },
    )
}

fn memory(bench: &mut Bench) -> Result<()> {
    for (name, pages) in [("REG_REGION 4 KiB", 1), ("REG_REGION 1 MiB", 256)] {
        bench.row(name, Vm::sev, |_, vm| {
            let region = kvm_enc_region { addr: vm.memory.addr(), size: (pages * PAGE) as u64 };
            good("REG_REGION", vm.register(&region))
        })?;
    }
    let registered = |vm: Vm| {
        let region = kvm_enc_region { addr: vm.memory.addr(), size: 1 << 20 };
        good("REG_REGION", vm.register(&region))?;
        Ok((vm, region))
    };
    let unregister = |_: &Host, (vm, region): &mut (Vm, kvm_enc_region)| {
        good("UNREG_REGION", vm.unregister(region))
    };
    bench.row("UNREG_REGION 1 MiB", |host| registered(Vm::sev(host)?), unregister)?;
    bench.row("UNREG_REGION 1 MiB, guest ran", |host| registered(ran(host)?), unregister)?;
    // By way of an MMU notifier.
    bench.row(
        "64 KiB taken away, guest ran",
        |host| {
            let vm = ran(host)?;
            TAKEN.step_by(PAGE).for_each(|page| vm.memory.write(page, &[1]));
            Ok(vm)
        },
        |_, vm| vm.memory.forget(TAKEN.start, TAKEN.len()),
    )
}

/// A launched VM, and another one that is still to be initialised.
pub fn pair(host: &Host) -> Result<(Vm, Vm)> {
    Ok((Vm::launched(host, 0, guest::idle())?, Vm::bare(host, VmType::Sev)?))
}

/// A SEV-ES VM whose initialisation recycles ASIDs: all of them were in use and then given back.
pub fn recycling(host: &Host) -> Result<Vm> {
    let mut all = Vec::new();
    loop {
        let vm = Vm::bare(host, VmType::SevEs)?;
        if !vm.init2(&mut kvm_sev_init::default()).is_ok() {
            return Ok(vm);
        }
        all.push(vm);
    }
}

fn transfers(bench: &mut Bench) -> Result<()> {
    bench.row("COPY_ENC_CONTEXT_FROM", pair, |_, (source, destination)| {
        good("COPY_ENC_CONTEXT_FROM", destination.copy_from(source))
    })?;
    bench.row("MOVE_ENC_CONTEXT_FROM", pair, |_, (source, destination)| {
        good("MOVE_ENC_CONTEXT_FROM", destination.move_from(source))
    })?;
    bench.row(
        "close of a mirror",
        |host| {
            let (source, destination) = pair(host)?;
            good("COPY_ENC_CONTEXT_FROM", destination.copy_from(&source))?;
            Ok((source, Some(destination)))
        },
        |_, (_, destination)| {
            drop(destination.take());
            Ok(())
        },
    )
}

/// A VM whose guest is on its way to this same machine, and what its platform shows.
fn sending(host: &Host) -> Result<(Vm, Vec<u8>, u32, Vec<u8>)> {
    let (vm, own) = (sender(host)?, Certificates::own()?);
    let (policy, session) = vm.send_to(&own)?;
    Ok((vm, own.pdh, policy, session))
}

/// A VM that receives a guest, and a page for it; the guest that was sent.
fn receiving(host: &Host) -> Result<(Vm, Packet, Vm)> {
    let (from, pdh, policy, session) = sending(host)?;
    let packet = from.send_page(PAGE)?;
    let to = Vm::sev(host)?;
    to.memory.write(PAGE, &[1]);
    good("RECEIVE_START", to.receive_from(&pdh, &session, policy))?;
    Ok((to, packet, from))
}

fn journeys(bench: &mut Bench) -> Result<()> {
    bench.row(
        "SEND_START",
        |host| Ok((sender(host)?, Certificates::own()?)),
        |_, (vm, own)| vm.send_to(own).map(drop),
    )?;
    bench.row("SEND_UPDATE_DATA 4 KiB", sending, |_, (vm, ..)| vm.send_page(PAGE).map(drop))?;
    bench.row("SEND_FINISH", sending, |_, (vm, ..)| good("SEND_FINISH", vm.send_finish()))?;
    bench.row("SEND_CANCEL", sending, |_, (vm, ..)| good("SEND_CANCEL", vm.send_cancel()))?;
    bench.row(
        "RECEIVE_START",
        |host| Ok((Vm::sev(host)?, sending(host)?)),
        |_, (to, (_, pdh, policy, session))| {
            good("RECEIVE_START", to.receive_from(pdh, session, *policy))
        },
    )?;
    bench.row("RECEIVE_UPDATE_DATA 4 KiB", receiving, |_, (to, packet, _)| {
        good("RECEIVE_UPDATE_DATA", to.receive_page(PAGE, packet))
    })?;
    bench
        .row("RECEIVE_FINISH", receiving, |_, (to, ..)| good("RECEIVE_FINISH", to.receive_finish()))
}

pub fn rows(bench: &mut Bench) -> Result<()> {
    launching(bench)?;
    running(bench)?;
    memory(bench)?;
    transfers(bench)?;
    journeys(bench)
}
