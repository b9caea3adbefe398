// SPDX-License-Identifier: GPL-2.0-or-later
//! Lives of SEV-ES vCPUs: two at a time, starting the second one, control and debug registers,
//! and an end in the midst of a VMGEXIT.

use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::libc;
use sev_vm::es::{self, Setup, kept_vm};
use sev_vm::es_guest::{self as program, FATAL, with_handler};
use sev_vm::ghcb::{BUFFER, Field, Ghcb, exit, ioio};
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::PAGE;
use sev_vm::state::pinned_pages;
use sev_vm::step::{GHCB, OUTSIDE, Stepper, one_exit, stay_on_cpu};
use sev_vm::vcpu::{Exit, Vcpu};
use sev_vm::vm::Vm;

const RESULTS: u64 = guest::SHARED.start;
/// GHCBs of the two vCPUs.
const GHCBS: [u64; 2] = [GHCB, OUTSIDE];
/// Device attribute of the group `KVM_X86_GRP_SEV`: features that VMSAs may have.
const VMSA_FEATURES: u64 = 0;
/// The bit of DebugSwap among them (APM volume 2, SEV_FEATURES).
const DEBUG_SWAP: u64 = 1 << 5;

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("two_at_a_time", two_at_a_time),
            ("start", start),
            ("start_too_early", start_too_early),
            ("control_registers", control_registers),
            ("debug_swap", debug_swap),
            ("fault_of_vc", fault_of_vc),
            ("closed_in_exit", closed_in_exit),
        ],
    )
}

/// Word `i` of the results' page.
fn word(vm: &Vm, i: usize) -> u64 {
    vm.memory.read_u64(RESULTS as usize + 8 * i)
}

/// Runs a vCPU to its first exit. `KVM_RUN` returns EAGAIN when a vCPU that waited for INIT has
/// got it.
fn run(vcpu: &mut Vcpu) -> Result<Exit> {
    loop {
        match vcpu.run() {
            Err(error) if error.downcast_ref() == Some(&kvm_ioctls::Error::new(libc::EAGAIN)) => {}
            result => return result,
        }
    }
}

/// Runs every vCPU in a thread of its own to its first exit.
fn run_all(vm: &mut Vm) -> Result<Vec<Exit>> {
    thread::scope(|scope| {
        let threads: Vec<_> = vm.vcpus.iter_mut().map(|vcpu| scope.spawn(|| run(vcpu))).collect();
        let exits = threads.into_iter();
        exits.map(|t| t.join().map_err(|_| anyhow!("a vCPU thread panicked"))?).collect()
    })
}

fn two_at_a_time(t: &mut Test) -> Result<()> {
    const ROUNDS: u64 = 2000;
    let host = Host::open()?;
    let arguments = [0, 1].map(|cpu| [RESULTS, RESULTS + 128 + 8 * cpu, ROUNDS, cpu]);
    let mut vm = Setup::default().launch(&host, guest::turns(), &arguments)?;
    for exit in run_all(&mut vm)? {
        t.check("halted", exit == Exit::Halt);
    }
    t.value("word", word(&vm, 0), 2 * ROUNDS);
    t.value("turns_0", word(&vm, 16), ROUNDS);
    t.value("turns_1", word(&vm, 17), ROUNDS);
    Ok(())
}

/// vCPU 0 starts vCPU 1 by INIT and SIPI: the first time with the registers that the VMSA has,
/// then twice out of AP reset hold. vCPU 1 enters that after `early` SIPIs.
fn start_with(t: &mut Test, early: u64) -> Result<()> {
    let host = Host::open()?;
    let setup = Setup { irqchip: true, ..Default::default() };
    let mut vm = setup.start(&host)?;
    let arguments = [[RESULTS, GHCBS[0], 3, 0], [RESULTS, GHCBS[1], exit::AP_RESET_HOLD, early]];
    es::prepare(&mut vm, &host, with_handler(program::es_starter()), &arguments)?;
    let entry = guest::CODE + PAGE as u64;
    vm.memory.write(entry as usize, program::es_started().code());
    vm.vcpus[1].enter_at(entry, 1, arguments[1])?;
    es::seal(&vm)?;
    for exit in run_all(&mut vm)? {
        t.check("came_to_its_end", matches!(exit, Exit::Out(0x3f8, _)));
    }
    t.value("runs", word(&vm, 0), 3);
    t.value("nae_answer", word(&vm, 1), 1);
    t.value("msr_answer", word(&vm, 2), (1 << 12) | 7);
    t.check("sipis", word(&vm, 4) >= 3.max(early));
    t.value("fatal_exception", word(&vm, FATAL / 8), 0);
    Ok(())
}

fn start(t: &mut Test) -> Result<()> {
    start_with(t, 0)
}

/// SIPIs that come before AP reset hold are lost, and harm nobody.
fn start_too_early(t: &mut Test) -> Result<()> {
    start_with(t, 20)
}

/// KVM learns of the guest's control registers by traps: CPUID shows CR4.OSXSAVE.
fn control_registers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let arguments = [RESULTS, GHCB, 0, 0];
    let mut vm =
        Setup::default().launch(&host, with_handler(program::es_control()), &[arguments])?;
    vm.vcpus[0].run_to_halt()?;
    t.value("cpuid_with_osxsave", (word(&vm, 0) >> 27) & 1, 1);
    t.value("cpuid_without_osxsave", (word(&vm, 1) >> 27) & 1, 0);
    t.value("cr8", word(&vm, 2), 5);
    // The VMSA has SVME set, too.
    t.value("efer", word(&vm, 3) & !0x1000, 0xd00);
    t.value("fatal_exception", word(&vm, FATAL / 8), 0);
    Ok(())
}

/// With DebugSwap the guest's breakpoints are its own, whoever else uses debug registers.
fn debug_swap(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let offered = host.sev_attr(VMSA_FEATURES).context("KVM_X86_SEV_VMSA_FEATURES")?;
    if offered & DEBUG_SWAP == 0 {
        t.note("DebugSwap is not offered");
        return Ok(());
    }
    let setup = Setup { vmsa_features: DEBUG_SWAP, ..Default::default() };
    let bases = [0x1111_0000, 0x2222_0000];
    let mut vms = Vec::new();
    for base in bases {
        let arguments = [RESULTS, GHCB, base, 0];
        vms.push(setup.launch(&host, with_handler(program::es_debug()), &[arguments])?);
    }
    let mut wrong = 0;
    for round in 0..20 {
        for (base, vm) in bases.iter().zip(&mut vms) {
            stay_on_cpu(round / 2 % 2)?;
            vm.vcpus[0].run_to_halt()?;
            let seen: [u64; 5] = std::array::from_fn(|i| word(vm, i));
            let expected = [*base, base + 8, base + 16, base + 24, 0x455];
            wrong += u32::from(round > 0 && seen != expected);
        }
    }
    t.value("wrong_rounds", wrong, 0);
    Ok(())
}

/// The IDT is where no memory is, so that delivering #VC causes a nested page fault: an exit to
/// userspace rather than an endless loop.
fn fault_of_vc(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let arguments = [0, 0, guest::MMIO.start, 0];
    let mut vm =
        Setup::default().launch(&host, with_handler(program::es_idt_elsewhere()), &[arguments])?;
    // KVM_INTERNAL_ERROR_DELIVERY_EV
    let exit = one_exit(&mut vm, 0)?;
    t.check("exit", exit.starts_with("internal_error:3:"));
    Ok(())
}

/// The VM is closed while userspace was to answer a VMGEXIT: nothing of the GHCB or of a
/// scratch area stays (as checked after every test).
fn closed_in_exit(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let ports = |flags| ioio::info(0x3f8, 1, flags);
    let strings = ioio::STRING | ioio::REP;
    let mmio = |code| Ghcb::request(code, guest::MMIO.start, 8);
    let inside = GHCB + BUFFER as u64;
    for (name, ghcb, scratch) in [
        ("in", Ghcb::request(exit::IOIO, ports(ioio::IN), 0), inside),
        ("out", Ghcb::request(exit::IOIO, ports(0), 0).with(Field::Rax, 0), inside),
        ("ins", Ghcb::request(exit::IOIO, ports(strings | ioio::IN), 9), inside),
        ("mmio_read", mmio(exit::MMIO_READ), inside),
        ("reset_hold", Ghcb::request(exit::AP_RESET_HOLD, 0, 0), inside),
        ("terminate", Ghcb::request(exit::TERMINATE, 0, 0), inside),
        ("mmio_read_outside", mmio(exit::MMIO_READ), OUTSIDE),
        ("outs_outside", Ghcb::request(exit::IOIO, ports(strings), 9), OUTSIDE),
        ("ins_outside", Ghcb::request(exit::IOIO, ports(strings | ioio::IN), 0x8000), OUTSIDE),
    ] {
        let before = pinned_pages()?;
        for round in 0..8 {
            let mut guest = Stepper::new(&host, Setup::version(1))?;
            let exit = guest.begin(&ghcb.clone().with(Field::Scratch, scratch))?;
            if round == 0 {
                t.observe(name, exit);
                t.check(&format!("{name}.ghcb_is_pinned"), pinned_pages()? > before);
            }
        }
        t.value(&format!("{name}.pinned"), pinned_pages()? - before, 0);
    }
    Ok(())
}
