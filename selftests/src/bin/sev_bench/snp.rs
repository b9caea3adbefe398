// SPDX-License-Identifier: GPL-2.0-or-later
//! Operations on SEV-SNP VMs, and exits of their guests.

use anyhow::{Result, ensure};
use kvm_bindings::*;
use sev_vm::ghcb::{Field, Ghcb, exit};
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::mem::PAGE;
use sev_vm::snp::{PageType, Snp, policy, pre_fault, start};
use sev_vm::snp_guest::{PRIVATE, Setup, SnpGuest, Vmm};
use sev_vm::snp_guest_psc::{Entry, Psc};
use sev_vm::snp_guest_vmsa::{Creation, Vmsa};

use crate::Bench;
use crate::exits::{GHCB, VALUES, answered, vmgexits};
use crate::sev::good;

const AREA: usize = guest::PRIVATE as usize;
/// Registration of a GHCB at this address, by the MSR protocol.
const REGISTER: u64 = 0x12;

/// A launch before LAUNCH_UPDATE, whose source has pages.
fn begun(host: &Host) -> Result<Snp> {
    let snp = Snp::started(host, policy::DEFAULT)?;
    snp.memory.write(AREA, &[1; 16 * PAGE]);
    Ok(snp)
}

fn launched(host: &Host) -> Result<Snp> {
    Snp::launched(host, policy::DEFAULT, guest::idle(), &[[0; 4]])
}

fn launching(bench: &mut Bench) -> Result<()> {
    bench.row("SNP: INIT2", Snp::bare, |_, vm| {
        good("INIT2", vm.init2(&mut kvm_sev_init::default()))
    })?;
    bench.row("SNP: LAUNCH_START", Snp::initialised, |_, vm| {
        good("LAUNCH_START", vm.snp_launch_start(&mut start(policy::DEFAULT)))
    })?;
    for (name, pages) in [("SNP: LAUNCH_UPDATE 4 KiB", 1), ("SNP: LAUNCH_UPDATE 64 KiB", 16)] {
        bench.row(name, begun, |_, vm| vm.update(PageType::Normal, AREA..AREA + pages * PAGE))?;
    }
    bench.row(
        "SNP: LAUNCH_FINISH, a vCPU",
        |host| {
            let mut vm = begun(host)?;
            vm.vm.add_vcpu(host, [0; 4])?;
            Ok(vm)
        },
        |_, vm| vm.seal(),
    )?;
    bench.row(
        "SNP: close of a launched VM",
        |host| {
            let vm = begun(host)?;
            vm.update(PageType::Normal, AREA..AREA + 16 * PAGE)?;
            Ok(Some(vm))
        },
        |_, vm| {
            drop(vm.take());
            Ok(())
        },
    )
}

fn fault_in(vm: &mut Snp, at: usize, pages: usize) -> Result<()> {
    let (gpa, size) = (at as u64, (pages * PAGE) as u64);
    let mut range = kvm_pre_fault_memory { gpa, size, ..Default::default() };
    good("PRE_FAULT", pre_fault(vm.vm.vcpus[0].fd(), &mut range))
}

fn memory(bench: &mut Bench) -> Result<()> {
    let fresh = |host: &Host| {
        let mut vm = begun(host)?;
        vm.vm.add_vcpu(host, [0; 4])?;
        vm.seal()?;
        // The first fault allocates tables.
        fault_in(&mut vm, AREA + 32 * PAGE, 1)?;
        Ok(vm)
    };
    for (name, pages) in [("SNP: PRE_FAULT 4 KiB", 1), ("SNP: PRE_FAULT 64 KiB", 16)] {
        bench.row(name, fresh, |_, vm| fault_in(vm, AREA, pages))?;
    }
    bench.row(
        "SNP: hole of 64 KiB",
        |host| {
            let vm = begun(host)?;
            vm.update(PageType::Normal, AREA..AREA + 16 * PAGE)?;
            Ok(vm)
        },
        |_, vm| vm.punch(AREA..AREA + 16 * PAGE),
    )?;
    bench.row(
        "SNP: KVM_RUN, halt",
        |host| {
            let mut vm = launched(host)?;
            vm.vm.vcpus[0].run_to_halt()?;
            Ok(vm)
        },
        |_, vm| vm.vm.vcpus[0].run_to_halt(),
    )
}

/// Exits with userspace or memory in them: from the host's side, with the guest's part of it.
fn exits(bench: &mut Bench) -> Result<()> {
    let prepare = |host: &Host| -> Result<SnpGuest> {
        let mut guest = Setup::vcpus(2).launch(host)?;
        let vmsa = Vmsa::puppet(&guest.boot, 1);
        let mut vcpu = guest.actor(0);
        vcpu.register()?;
        vcpu.validate(PRIVATE.start)?;
        vcpu.make_vmsa(PRIVATE.start, &vmsa)?;
        Ok(guest)
    };
    bench.row("SNP: KVM_RUN, page touched first", prepare, |_, guest| {
        guest.actor(0).validate(PRIVATE.start + PAGE as u64)
    })?;
    for (name, count) in
        [("SNP: page state change, 1 page", 1_u64), ("SNP: page state change, 32 pages", 32)]
    {
        bench.row(name, prepare, |_, guest| {
            let page = |i| PRIVATE.start + (0x10 + i) * PAGE as u64;
            let entries: Vec<_> = (0..count).map(|i| Entry::shared(page(i))).collect();
            let mut vcpu = guest.actor(0);
            vcpu.vmm = Vmm::default();
            let done = vcpu.psc(&Psc::new(&entries))?;
            ensure!(done.answer == (0, 0), "page state change: {done}");
            Ok(())
        })?;
    }
    bench.row("SNP: AP creation", prepare, |_, guest| {
        let created = guest.actor(0).create(Creation::Create, 1, PRIVATE.start)?;
        ensure!(created.answer == (0, 0), "AP creation: {created}");
        Ok(())
    })
}

/// As those of SEV-ES guests.
fn answered_vmgexits(bench: &mut Bench) -> Result<()> {
    let cpuid = Ghcb::request(exit::CPUID, 0, 0).with(Field::Rax, 0).with(Field::Rcx, 0);
    for (name, ghcb, msr) in [
        ("CPUID", Some(cpuid), GHCB),
        ("hypervisor features", Some(Ghcb::request(exit::HV_FEATURES, 0, 0)), GHCB),
        // Firmware refuses an empty message.
        (
            "guest request",
            Some(Ghcb::request(exit::GUEST_REQUEST, VALUES, VALUES + PAGE as u64)),
            GHCB,
        ),
        ("malformed", Some(Ghcb::request(exit::CPUID, 0, 0)), GHCB),
        ("MSR protocol, CPUID", None, (1 << 30) | 4),
    ] {
        let launch = |host: &Host, exits| -> Result<Snp> {
            let arguments = [[0, GHCB | REGISTER, exits, msr]];
            Snp::launched(host, policy::DEFAULT, vmgexits(), &arguments)
        };
        answered(bench, &format!("SNP: VMGEXIT, {name}"), ghcb.as_ref(), launch)?;
    }
    Ok(())
}

pub fn rows(bench: &mut Bench) -> Result<()> {
    launching(bench)?;
    memory(bench)?;
    exits(bench)?;
    answered_vmgexits(bench)
}
