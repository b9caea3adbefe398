// SPDX-License-Identifier: GPL-2.0-or-later
//! SEV-ES guests at work: encrypted registers, #VC and VMGEXIT, NMIs, starting processors.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs};
use sev_vm::cmd::Answer;
use sev_vm::es::{Setup, kept_vm};
use sev_vm::es_guest::{self as program, FATAL, INCOMPLETE, NMIS, with_handler};
use sev_vm::guest;
use sev_vm::host::{EncryptionLeaf, Host};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::PAGE;
use sev_vm::step::stay_on_cpu;
use sev_vm::vcpu::Exit;
use sev_vm::vm::Vm;

const RESULTS: usize = guest::SHARED.start as usize;
const GHCB: u64 = guest::SHARED.start + PAGE as u64;
const PRIVATE: usize = guest::PRIVATE as usize;
const VALUE: u64 = 0x1122_3344_5566_7788;

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("identity", identity),
            ("private_and_shared", private_and_shared),
            ("hidden_registers", hidden_registers),
            ("kept_registers", kept_registers),
            ("sse_state", sse_state),
            ("x87_state", x87_state),
            ("instructions", instructions),
            ("devices", devices),
            ("nmi", nmi),
        ],
    )
}

/// A VM with one vCPU whose program takes results' page, GHCB and `third`.
fn launch(host: &Host, code: guest::Program, third: u64) -> Result<Vm> {
    Setup::default().launch(host, with_handler(code), &[[RESULTS as u64, GHCB, third, 0]])
}

/// Words of the results' page.
fn words<const N: usize>(vm: &Vm) -> [u64; N] {
    std::array::from_fn(|i| vm.memory.read_u64(RESULTS + 8 * i))
}

fn identity(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = launch(&host, program::es_identify(), 0)?;
    vm.vcpus[0].run_to_halt()?;
    let [status, ghcb] = words(&vm);
    t.value("sev_status", status, 3);
    // Versions 1 to 2 and the C-bit: what the MSR protocol answers.
    let c_bit = u64::from(EncryptionLeaf::read().c_bit);
    t.check("ghcb_msr", ghcb == (2 << 48) | (1 << 32) | (c_bit << 24) | 1);
    Ok(())
}

fn private_and_shared(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let arguments = [PRIVATE as u64, RESULTS as u64, VALUE, 0];
    let mut vm = Setup::default().launch(&host, guest::store_and_watch(), &[arguments])?;
    vm.vcpus[0].run_to_halt()?;
    t.check("host_sees_shared", vm.memory.read_u64(RESULTS) == VALUE);
    let ciphertext = vm.memory.read_u64(PRIVATE);
    t.check("host_sees_ciphertext", ciphertext != VALUE && ciphertext != 0);
    vm.memory.write_u64(RESULTS, 0);
    vm.vcpus[0].run_to_halt()?;
    t.check("guest_sees_plaintext", vm.memory.read_u64(RESULTS) == VALUE);
    Ok(())
}

/// Once the VMSA is encrypted, userspace neither sees nor sets registers.
fn hidden_registers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = launch(&host, program::es_registers(), VALUE)?;
    for when in ["launched", "ran"] {
        let vcpu = vm.vcpus[0].fd();
        t.check(&format!("{when}.get_regs"), vcpu.get_regs().is_err());
        t.check(&format!("{when}.set_regs"), vcpu.set_regs(&kvm_regs::default()).is_err());
        let sregs = vcpu.get_sregs();
        t.record(&format!("{when}.get_sregs"), Answer::from_result(sregs.map(drop)));
        t.record(&format!("{when}.get_fpu"), Answer::from_result(vcpu.get_fpu().map(drop)));
        t.record(&format!("{when}.get_xsave"), Answer::from_result(vcpu.get_xsave().map(drop)));
        t.record(&format!("{when}.get_xcrs"), Answer::from_result(vcpu.get_xcrs().map(drop)));
        let debug = vcpu.get_debug_regs();
        t.record(&format!("{when}.get_debug_regs"), Answer::from_result(debug.map(drop)));
        let events = vcpu.get_vcpu_events();
        t.record(&format!("{when}.get_vcpu_events"), Answer::from_result(events.map(drop)));
        vm.vcpus[0].run_to_halt()?;
    }
    Ok(())
}

/// Every general register keeps its value over exits, wherever the vCPU runs next.
fn kept_registers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = launch(&host, program::es_registers(), VALUE)?;
    let mut wrong = 0;
    for round in 0..50u64 {
        stay_on_cpu(round as usize % 2)?;
        vm.vcpus[0].run_to_halt()?;
        let seen: [u64; 14] = words(&vm);
        let times = |n: u64| VALUE.wrapping_mul(n);
        let [two, three, four, five] = [2, 3, 4, 5].map(times);
        let [rbx, rcx, rdx, rsi, rdi, rbp] = [VALUE, two, VALUE, three, four, five];
        let [r8, r9, r10, r11, r12, r14] = [6, 7, 8, 9, 10, 11].map(times);
        let rsp = guest::STACK;
        let expected = [round, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r14];
        wrong += u32::from(round > 0 && seen != expected);
    }
    t.value("wrong_rounds", wrong, 0);
    Ok(())
}

/// An FXSAVE area with values that depend on `seed`.
fn fpu_image(seed: u8) -> Vec<u8> {
    let mut image = vec![0; 512];
    image[..2].copy_from_slice(&0x037fu16.to_le_bytes()); // FCW, all masked
    image[4] = 0xff; // FTW, all valid
    image[24..28].copy_from_slice(&0x1fa0u32.to_le_bytes()); // MXCSR
    for register in 0..8 {
        let st = &mut image[32 + 16 * register..][..10];
        st.fill(seed.wrapping_add(register as u8));
        st[7] |= 0x80; // normal: the integer bit is set
    }
    for (i, byte) in image[160..416].iter_mut().enumerate() {
        *byte = seed.wrapping_mul(i as u8 | 1);
    }
    image
}

/// Two VMs with other values in the registers take turns; what each has afterwards in bytes
/// `range` of its FXSAVE area is what it loaded.
fn fpu_state(t: &mut Test, range: std::ops::Range<usize>) -> Result<()> {
    let host = Host::open()?;
    let (from, to) = (RESULTS as u64, RESULTS as u64 + 0x400);
    let mut vms = Vec::new();
    for seed in [0x31, 0x57] {
        let vm = Setup::default().launch(&host, program::es_fpu(), &[[from, to, 0, 0]])?;
        vm.memory.write(RESULTS, &fpu_image(seed));
        vms.push((seed, vm));
    }
    let mut wrong = 0;
    for round in 0..20 {
        for (seed, vm) in &mut vms {
            vm.vcpus[0].run_to_halt()?;
            let seen = vm.memory.read(to as usize, 512);
            wrong += u32::from(round > 0 && seen[range.clone()] != fpu_image(*seed)[range.clone()]);
        }
    }
    t.value("wrong_rounds", wrong, 0);
    Ok(())
}

fn sse_state(t: &mut Test) -> Result<()> {
    fpu_state(t, 160..416)?;
    // MXCSR
    fpu_state(t, 24..28)
}

fn x87_state(t: &mut Test) -> Result<()> {
    // FCW, FSW, FTW
    fpu_state(t, 0..5)?;
    fpu_state(t, 32..160)
}

/// Instructions that become #VC, and what the guest's handler makes of the hypervisor's
/// answers.
fn instructions(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    stay_on_cpu(0)?;
    let table = host.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    const LEAF: u32 = 1;
    let leaf = table.as_slice().iter().find(|entry| entry.function == LEAF).context("no leaf")?;
    let mut vm = launch(&host, program::es_instructions(), LEAF.into())?;
    vm.vcpus[0].run_to_halt()?;
    let [eax, ebx, ecx, edx, adjust, read_fault, write_fault, call] = words(&vm);
    t.check("cpuid.eax", eax == u64::from(leaf.eax));
    t.check("cpuid.ebx", ebx == u64::from(leaf.ebx));
    // OSXSAVE mirrors CR4, which has it clear.
    t.check("cpuid.ecx", ecx == u64::from(leaf.ecx & !(1 << 27)));
    t.check("cpuid.edx", edx == u64::from(leaf.edx));
    t.value("tsc_adjust", adjust, LEAF.into());
    for (name, fault) in [("rdmsr", read_fault), ("wrmsr", write_fault)] {
        // Valid, an exception, #GP.
        t.check(&format!("{name}.fault"), fault as u32 == (1 << 31) | (3 << 8) | 13);
    }
    // KVM_HC_VAPIC_POLL_IRQ
    t.value("vmmcall", call, 0);
    t.value("fatal_exception", vm.memory.read_u64(RESULTS + FATAL), 0);
    Ok(())
}

fn devices(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = launch(&host, program::es_devices(), guest::MMIO.start)?;
    let mut input = |address: u64| {
        if address == 0x80 { 0x1020_3040 } else { 0x1122_3344_5566_77fe }
    };
    for (name, bytes) in
        [("byte", vec![0x41]), ("word", vec![0x41, 0x30]), ("long", vec![0x41, 0x30, 0x20, 0x10])]
    {
        let exit = vm.vcpus[0].run_with(&mut input)?;
        t.check(&format!("port.{name}"), exit == Exit::Out(0x3f8, bytes));
    }
    let written = 0x1122_3344_5566_77ffu64.to_le_bytes();
    for (name, len) in [("byte", 1), ("word", 2), ("long", 4), ("quad", 8)] {
        let exit = vm.vcpus[0].run_with(&mut input)?;
        let expected = Exit::MmioWrite(guest::MMIO.start + 8, written[..len].to_vec());
        t.check(&format!("mmio.{name}"), exit == expected);
    }
    t.check("halt", vm.vcpus[0].run_with(&mut input)? == Exit::Halt);
    t.value("fatal_exception", vm.memory.read_u64(RESULTS + FATAL), 0);
    Ok(())
}

/// An NMI blocks the next one until the guest says NMI complete.
fn nmi(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = launch(&host, program::es_rounds(), 0)?;
    vm.vcpus[0].run_to_halt()?;
    let nmi = |vm: &mut Vm| -> Result<u64> {
        vm.vcpus[0].fd().nmi()?;
        vm.vcpus[0].run_to_halt()?;
        ensure!(vm.memory.read_u64(RESULTS + FATAL) == 0, "an exception");
        Ok(vm.memory.read_u64(RESULTS + NMIS))
    };
    for count in 1..=3 {
        t.value(&format!("handled_{count}"), nmi(&mut vm)?, count);
    }
    vm.memory.write_u64(RESULTS + INCOMPLETE, 1);
    t.value("without_complete", nmi(&mut vm)?, 4);
    t.value("blocked", nmi(&mut vm)?, 4);
    t.value("rounds", vm.memory.read_u64(RESULTS), 5);
    Ok(())
}
