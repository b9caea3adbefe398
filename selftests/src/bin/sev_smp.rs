// SPDX-License-Identifier: GPL-2.0-or-later
//! Two vCPUs, and a host that looks on: encryption must hold whatever runs at the same time.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, anyhow};
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::PAGE;
use sev_vm::vcpu::Vcpu;
use sev_vm::vm::Vm;

const SHARED: usize = guest::SHARED.start as usize;
const PRIVATE: usize = guest::PRIVATE as usize;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("turns_on_encrypted_memory", turns_on_encrypted_memory),
            ("turns_on_shared_memory", turns_on_shared_memory),
            ("locked_counter", locked_counter),
            ("host_reads_while_guest_writes", host_reads_while_guest_writes),
            ("two_vms", two_vms),
        ],
    )
}

/// Runs every vCPU in a thread of its own until it halts.
fn run_all(vcpus: &mut [Vcpu]) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> =
            vcpus.iter_mut().map(|vcpu| scope.spawn(|| vcpu.run_to_halt())).collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a vCPU thread panicked"))??;
        }
        Ok(())
    })
}

/// What the guest itself reads at `from`, by way of a shared page.
fn guest_word(vm: &mut Vm, from: usize) -> Result<u64> {
    // The program `copy` is loaded behind the one under test.
    let entry = guest::CODE + PAGE as u64;
    vm.vcpus[0].enter_at(entry, 0, [(SHARED + 64) as u64, from as u64, 8, 0])?;
    vm.vcpus[0].run_to_halt()?;
    Ok(vm.memory.read_u64(SHARED + 64))
}

/// A launched VM with `program`, and `copy` one page behind it.
fn with_copy(host: &Host, program: guest::Program) -> Result<Vm> {
    let vm = Vm::started(host, 0)?;
    vm.memory.write(guest::CODE as usize + PAGE, guest::copy().code());
    vm.launch(program)?;
    Ok(vm)
}

fn turns(t: &mut Test, word: usize) -> Result<()> {
    const ROUNDS: u64 = 2000;
    let host = Host::open()?;
    let mut vm = Vm::started(&host, 0)?;
    vm.memory.write(guest::CODE as usize + PAGE, guest::copy().code());
    // The word has to start as a zero that the guest understands.
    if word == PRIVATE {
        vm.encrypt(PRIVATE..PRIVATE + PAGE)?;
    }
    vm.launch(guest::turns())?;
    for cpu in 0..2 {
        let own = SHARED as u64 + 128 + 8 * cpu;
        vm.add_vcpu(&host, [word as u64, own, ROUNDS, cpu])?;
    }
    run_all(&mut vm.vcpus)?;
    for cpu in 0..2 {
        t.value(&format!("turns_{cpu}"), vm.memory.read_u64(SHARED + 128 + 8 * cpu), ROUNDS);
    }
    t.value("word", guest_word(&mut vm, word)?, 2 * ROUNDS);
    t.value("host_sees_word", vm.memory.read_u64(word) == 2 * ROUNDS, word != PRIVATE);
    Ok(())
}

fn turns_on_encrypted_memory(t: &mut Test) -> Result<()> {
    turns(t, PRIVATE)
}

fn turns_on_shared_memory(t: &mut Test) -> Result<()> {
    turns(t, SHARED)
}

fn locked_counter(t: &mut Test) -> Result<()> {
    const ROUNDS: u64 = 100_000;
    let host = Host::open()?;
    for (name, word) in [("encrypted", PRIVATE), ("shared", SHARED)] {
        let mut vm = with_copy(&host, guest::count_locked())?;
        // Whatever the word starts as: only the difference counts.
        vm.add_vcpu(&host, [0; 4])?;
        let start = guest_word(&mut vm, word)?;
        vm.vcpus[0].enter(0, [word as u64, 0, ROUNDS, 0])?;
        vm.add_vcpu(&host, [word as u64, 0, ROUNDS, 0])?;
        run_all(&mut vm.vcpus)?;
        let counted = guest_word(&mut vm, word)?.wrapping_sub(start);
        t.value(name, counted, 2 * ROUNDS);
    }
    Ok(())
}

/// The guest writes and checks a private page while the host maps, reads and unmaps it.
fn host_reads_while_guest_writes(t: &mut Test) -> Result<()> {
    const ROUNDS: u64 = 500_000;
    let host = Host::open()?;
    let mut vm = Vm::launched(&host, 0, guest::write_and_check())?;
    vm.add_vcpu(&host, [PRIVATE as u64, SHARED as u64, ROUNDS, 0])?;
    let done = AtomicBool::new(false);
    let (vcpu, memory) = (&mut vm.vcpus[0], &vm.memory);
    let plaintext_seen = thread::scope(|scope| -> Result<u64> {
        let reader = scope.spawn(|| -> Result<u64> {
            let mut plaintext = 0;
            while !done.load(Ordering::Acquire) {
                let word = memory.second_view()?.read_u64(PRIVATE);
                plaintext += u64::from((1..=ROUNDS).contains(&word));
            }
            Ok(plaintext)
        });
        let ran = vcpu.run_to_halt();
        done.store(true, Ordering::Release);
        ran?;
        reader.join().map_err(|_| anyhow!("the reader panicked"))?
    })?;
    t.value("wrong_reads_by_guest", vm.memory.read_u64(SHARED), 0);
    t.value("finished", vm.memory.read_u64(SHARED + 8), 0x600d);
    t.value("plaintext_seen_by_host", plaintext_seen, 0);
    Ok(())
}

/// Two VMs at the same time, each with its own key.
fn two_vms(t: &mut Test) -> Result<()> {
    const ROUNDS: u64 = 200_000;
    let host = Host::open()?;
    let mut vms = Vec::new();
    for _ in 0..2 {
        let mut vm = Vm::launched(&host, 0, guest::write_and_check())?;
        vm.add_vcpu(&host, [PRIVATE as u64, SHARED as u64, ROUNDS, 0])?;
        vms.push(vm);
    }
    thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> =
            vms.iter_mut().map(|vm| scope.spawn(|| vm.vcpus[0].run_to_halt())).collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a vCPU thread panicked"))??;
        }
        Ok(())
    })?;
    for (i, vm) in vms.iter().enumerate() {
        t.value(&format!("vm_{i}_wrong_reads"), vm.memory.read_u64(SHARED), 0);
        t.value(&format!("vm_{i}_finished"), vm.memory.read_u64(SHARED + 8), 0x600d);
    }
    Ok(())
}
