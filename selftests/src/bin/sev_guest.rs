// SPDX-License-Identifier: GPL-2.0-or-later
//! Guests at work: encrypted and shared pages, ports, MMIO through the emulator.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use sev_vm::cmd::Answer;
use sev_vm::guest;
use sev_vm::host::{EncryptionLeaf, Host};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{GuestMemory, PAGE};
use sev_vm::vcpu::Exit;
use sev_vm::vm::Vm;

const SHARED: usize = guest::SHARED.start as usize;
const PRIVATE: usize = guest::PRIVATE as usize;
const VALUE: u64 = 0x1122_3344_5566_7788;

/// Argument by which this program runs itself, to be killed.
const SPIN: &str = "--spin";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(SPIN) {
        println!("{:?}", spin());
        return ExitCode::FAILURE;
    }
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("identity", identity),
            ("private_and_shared", private_and_shared),
            ("two_views", two_views),
            ("host_writes_ciphertext", host_writes_ciphertext),
            ("ports", ports),
            ("mmio", mmio),
            ("key_of_each_vm", key_of_each_vm),
            ("memory_of_a_dead_vm", memory_of_a_dead_vm),
            ("moves_between_cpus", moves_between_cpus),
            ("old_interface", old_interface),
            ("plain_vm", plain_vm),
            ("killed", killed),
        ],
    )
}

/// What the guest learns of SEV: the MSR SEV_STATUS, the C-bit in CR3, CPUID.
fn identity(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Vm::launched(&host, 0, guest::identify())?;
    vm.add_vcpu(&host, [SHARED as u64, 0, 0, 0])?;
    vm.vcpus[0].run_to_halt()?;
    let word = |i: usize| vm.memory.read_u64(SHARED + 8 * i);
    t.value("sev_status", word(0), 1);
    t.check("cr3_has_c_bit", word(1) == guest::TABLES | vm.c_mask);
    let (eax, ebx) = (word(2) as u32, (word(2) >> 32) as u32);
    t.check("cpuid_sev", eax & (1 << 1) != 0);
    t.value("cpuid_c_bit", ebx & 0x3f, EncryptionLeaf::read().c_bit);
    Ok(())
}

fn private_and_shared(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Vm::launched(&host, 0, guest::store_and_watch())?;
    vm.register_memory()?;
    vm.add_vcpu(&host, [PRIVATE as u64, SHARED as u64, VALUE, 0])?;
    vm.vcpus[0].run_to_halt()?;
    t.check("host_sees_shared", vm.memory.read_u64(SHARED) == VALUE);
    let ciphertext = vm.memory.read_u64(PRIVATE);
    t.check("host_sees_ciphertext", ciphertext != VALUE && ciphertext != 0);
    t.check("program_is_ciphertext", {
        let code = guest::store_and_watch().code();
        vm.memory.read(guest::CODE as usize, code.len()) != code
    });
    // That the host looked changes nothing, for the host or the guest.
    t.check("same_at_second_look", vm.memory.read_u64(PRIVATE) == ciphertext);
    vm.memory.write_u64(SHARED, 0);
    vm.vcpus[0].run_to_halt()?;
    t.check("guest_sees_plaintext", vm.memory.read_u64(SHARED) == VALUE);
    t.check("still_ciphertext", vm.memory.read_u64(PRIVATE) == ciphertext);
    Ok(())
}

/// Every mapping of the host shows the same ciphertext, also one made later.
fn two_views(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Vm::launched(&host, 0, guest::store_and_watch())?;
    let early = vm.memory.second_view()?;
    vm.add_vcpu(&host, [PRIVATE as u64, SHARED as u64, VALUE, 0])?;
    vm.vcpus[0].run_to_halt()?;
    let late = vm.memory.second_view()?;
    let first = vm.memory.read(PRIVATE, PAGE);
    t.check("early_view", early.read(PRIVATE, PAGE) == first);
    t.check("late_view", late.read(PRIVATE, PAGE) == first);
    t.check("ciphertext", first[..8] != VALUE.to_le_bytes());
    t.check("shared_in_all", early.read_u64(SHARED) == VALUE && late.read_u64(SHARED) == VALUE);
    Ok(())
}

/// There is no integrity in plain SEV: what the host writes decrypts to something else; the
/// old ciphertext decrypts to the old value.
fn host_writes_ciphertext(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Vm::launched(&host, 0, guest::store_and_watch())?;
    vm.register_memory()?;
    vm.add_vcpu(&host, [PRIVATE as u64, SHARED as u64, VALUE, 0])?;
    vm.vcpus[0].run_to_halt()?;
    let saved = vm.memory.read(PRIVATE, 16);
    vm.memory.write(PRIVATE, &[0; 16]);
    vm.vcpus[0].run_to_halt()?;
    let garbage = vm.memory.read_u64(SHARED);
    t.check("garbage", garbage != VALUE && garbage != 0);
    vm.memory.write(PRIVATE, &saved);
    vm.vcpus[0].run_to_halt()?;
    t.check("replayed", vm.memory.read_u64(SHARED) == VALUE);
    // The same block elsewhere is not the same value: the address is part of the cipher.
    vm.memory.write(PRIVATE + 16, &saved);
    vm.vcpus[0].enter(0, [PRIVATE as u64 + 24, SHARED as u64, VALUE, 0])?;
    vm.vcpus[0].run_to_halt()?;
    t.check("first_word_kept", vm.memory.read(PRIVATE, 16) == saved);
    Ok(())
}

fn ports(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Vm::launched(&host, 0, guest::ports())?;
    vm.add_vcpu(&host, [0; 4])?;
    let mut input = |port| if port == 0x80 { 0x1020_3040 } else { 0 };
    for (name, expected) in
        [("byte", vec![0x41]), ("word", vec![0x41, 0x30]), ("long", vec![0x41, 0x30, 0x20, 0x10])]
    {
        let exit = vm.vcpus[0].run_with(&mut input)?;
        t.check(name, exit == Exit::Out(0x3f8, expected));
    }
    t.check("halt", vm.vcpus[0].run()? == Exit::Halt);
    Ok(())
}

/// KVM cannot read the encrypted program: it emulates from the bytes that the CPU saved.
fn mmio(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Vm::launched(&host, 0, guest::mmio())?;
    vm.add_vcpu(&host, [guest::MMIO.start, 0, 0, 0])?;
    let mut asked = Vec::new();
    let mut input = |gpa: u64| {
        asked.push(gpa - guest::MMIO.start);
        0x1122_3344_5566_77ff
    };
    for (name, offset, expected) in [
        ("quad", 8, vec![0x00, 0x78, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]),
        ("long", 24, vec![0x00, 0x78, 0x66, 0x55]),
        ("word", 40, vec![0x00, 0x78]),
        ("byte", 56, vec![0x00]),
    ] {
        let exit = vm.vcpus[0].run_with(&mut input)?;
        t.check(name, exit == Exit::MmioWrite(guest::MMIO.start + offset, expected));
    }
    t.check("halt", vm.vcpus[0].run_with(&mut input)? == Exit::Halt);
    t.check("reads", asked == [0, 16, 32, 48]);
    Ok(())
}

/// The same page with the same content: the same ciphertext under one key, another under
/// another VM's.
fn key_of_each_vm(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let page = GuestMemory::new(PAGE)?;
    let text: Vec<u8> = (0..PAGE).map(|i| i as u8).collect();
    let encrypt = |vm: &Vm| -> Result<Vec<u8>> {
        page.write(0, &text);
        let mut argument = kvm_bindings::kvm_sev_launch_update_data {
            uaddr: page.addr(),
            len: PAGE as u32,
            ..Default::default()
        };
        let answer = vm.launch_update_data(&mut argument);
        ensure!(answer.is_ok(), "LAUNCH_UPDATE_DATA: {answer}");
        Ok(page.read(0, PAGE))
    };
    let (one, other) = (Vm::started(&host, 0)?, Vm::started(&host, 0)?);
    let first = encrypt(&one)?;
    t.check("ciphertext", first != text);
    t.check("same_vm_same_ciphertext", encrypt(&one)? == first);
    let foreign = encrypt(&other)?;
    t.check("other_vm_other_ciphertext", foreign != first && foreign != text);
    // Blocks of equal content differ by their address.
    page.fill(7);
    let mut argument = kvm_bindings::kvm_sev_launch_update_data {
        uaddr: page.addr(),
        len: PAGE as u32,
        ..Default::default()
    };
    t.case("equal_blocks", one.launch_update_data(&mut argument), Answer::OK);
    let mut blocks: Vec<_> = page.read(0, PAGE).chunks(16).map(<[u8]>::to_vec).collect();
    blocks.sort();
    blocks.dedup();
    t.value("different_blocks", blocks.len(), PAGE / 16);
    Ok(())
}

/// What a VM left in memory is unreadable for the VM that gets the memory next, by either way
/// of mapping it.
fn memory_of_a_dead_vm(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Vm::launched(&host, 0, guest::fill())?;
    vm.add_vcpu(&host, [PRIVATE as u64, 0, 512, VALUE])?;
    vm.vcpus[0].run_to_halt()?;
    let plain: Vec<u8> = (0..512).flat_map(|i| (VALUE + i).to_le_bytes()).collect();
    let left = vm.memory.read(PRIVATE, PAGE);
    t.check("left_as_ciphertext", left != plain);
    let memory = vm.into_memory();
    t.check("same_after_close", memory.read(PRIVATE, PAGE) == left);
    let next = Vm::sev_with_memory(&host, memory)?;
    t.case("next_start", next.launch_start(&mut Default::default()), Answer::OK);
    next.launch(guest::copy())?;
    let mut next = next;
    next.add_vcpu(&host, [SHARED as u64, PRIVATE as u64, PAGE as u64, 0])?;
    next.vcpus[0].run_to_halt()?;
    let seen = next.memory.read(SHARED, PAGE);
    t.check("next_guest_sees_garbage", seen != plain && seen != left);
    let equal = seen.iter().zip(&plain).filter(|(a, b)| a == b).count();
    t.check("no_word_survived", equal < PAGE / 64);
    Ok(())
}

/// A vCPU that runs on one CPU, then on another, sees its own memory.
fn moves_between_cpus(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let cpus = std::thread::available_parallelism()?.get();
    ensure!(cpus >= 2, "this test needs two CPUs");
    let mut vm = Vm::launched(&host, 0, guest::store_and_watch())?;
    vm.add_vcpu(&host, [PRIVATE as u64, SHARED as u64, VALUE, 0])?;
    let mut wrong = 0;
    for round in 0..200u64 {
        pin(round as usize % 2)?;
        vm.vcpus[0].enter(0, [PRIVATE as u64, SHARED as u64, round, 0])?;
        vm.vcpus[0].run_to_halt()?;
        pin((round as usize + 1) % 2)?;
        vm.memory.write_u64(SHARED, u64::MAX);
        vm.vcpus[0].run_to_halt()?;
        wrong += u64::from(vm.memory.read_u64(SHARED) != round);
    }
    t.value("wrong", wrong, 0);
    unpin(cpus)
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

fn unpin(cpus: usize) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in 0..cpus {
        set.set(cpu)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// A VM made with `KVM_SEV_INIT` runs like one made with `KVM_SEV_INIT2`.
fn old_interface(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Vm::bare(&host, sev_vm::host::VmType::Default)?;
    vm.c_mask = EncryptionLeaf::read().c_mask();
    t.case("init", vm.command(kvm_bindings::sev_cmd_id_KVM_SEV_INIT, 0), Answer::OK_KEPT);
    t.case("start", vm.launch_start(&mut Default::default()), Answer::OK);
    vm.launch(guest::store_and_watch())?;
    vm.add_vcpu(&host, [PRIVATE as u64, SHARED as u64, VALUE, 0])?;
    vm.vcpus[0].run_to_halt()?;
    t.check("host_sees_shared", vm.memory.read_u64(SHARED) == VALUE);
    t.check("host_sees_ciphertext", vm.memory.read_u64(PRIVATE) != VALUE);
    Ok(())
}

/// A VM without SEV next to SEV VMs: everything is in the clear.
fn plain_vm(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Vm::bare(&host, sev_vm::host::VmType::Default)?;
    vm.load(guest::store_and_watch());
    vm.add_vcpu(&host, [PRIVATE as u64, SHARED as u64, VALUE, 0])?;
    vm.vcpus[0].run_to_halt()?;
    t.check("host_sees_shared", vm.memory.read_u64(SHARED) == VALUE);
    t.check("host_sees_private", vm.memory.read_u64(PRIVATE) == VALUE);
    Ok(())
}

/// A VMM is killed in the midst of KVM_RUN: nothing of its VM stays (as checked after every
/// test).
fn killed(t: &mut Test) -> Result<()> {
    let mut child =
        Command::new(std::env::current_exe()?).arg(SPIN).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut line)?;
    t.value("child", line.trim(), "running");
    t.contexts(1)?;
    child.kill()?;
    t.check("killed", child.wait()?.signal() == Some(9));
    t.contexts(0)
}

/// Says so as soon as its guest runs, which never ends.
fn spin() -> Result<Exit> {
    let host = Host::open()?;
    let mut vm = Vm::launched(&host, 0, guest::spin())?;
    vm.register_memory()?;
    vm.add_vcpu(&host, [0; 4])?;
    ensure!(matches!(vm.vcpus[0].run()?, Exit::Out(..)), "the guest does not run");
    println!("running");
    vm.vcpus[0].run()
}
