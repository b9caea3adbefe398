// SPDX-License-Identifier: GPL-2.0-or-later
//! `KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM`: guests that run on, other processes, races, signals.

use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno::{EBADF, EBUSY, EINVAL, EIO};
use sev_vm::cmd::Answer;
use sev_vm::context::{Kind, beside, empty};
use sev_vm::far::{self, Far};
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{GuestMemory, Mapping};
use sev_vm::other::{self, Other};
use sev_vm::state::context_rows;
use sev_vm::vm::Vm;

const SHARED: usize = guest::SHARED.start as usize;
const PRIVATE: u64 = guest::PRIVATE;
const VALUE: u64 = 0x1122_3344_5566_7788;
const ARGUMENTS: [u64; 4] = [PRIVATE, SHARED as u64, VALUE, 0];

fn main() -> ExitCode {
    match other::role() {
        Some((role, arguments)) if role == "source" => other::exit_code(source_process(&arguments)),
        Some((_, arguments)) => other::exit_code(moving_process(&arguments)),
        None => ktap::run(
            env!("CARGO_BIN_NAME"),
            &[
                ("runs_on", runs_on),
                ("runs_on_typed", runs_on_typed),
                ("chain", chain),
                ("mirrors_of_owner", mirrors_of_owner),
                ("other_process", other_process),
                ("same_source", same_source),
                ("crossing", crossing),
                ("killed_while_waiting", killed_while_waiting),
            ],
        ),
    }
}

/// A VM beside `source` that takes over its context, with a vCPU where the source's is.
fn moved(host: &Host, kind: Kind, vm_type: VmType, source: &mut Vm) -> Result<Vm> {
    let mut vm = beside(host, vm_type, source)?;
    if kind == Kind::Es {
        vm.add_bare_vcpu()?;
    }
    // The registers of a plain SEV guest are the VMM's business.
    let from = source.vcpus[0].fd();
    let registers = (from.get_sregs(), from.get_regs());
    let answer = vm.move_from(source);
    ensure!(answer.is_ok(), "move: {answer}");
    if kind == Kind::Sev {
        vm.add_vcpu(host, ARGUMENTS)?;
        vm.vcpus[0].fd().set_sregs(&registers.0?)?;
        vm.vcpus[0].fd().set_regs(&registers.1?)?;
    }
    Ok(vm)
}

/// Runs the guest once more: it copies the private word to the shared one.
fn watch(t: &mut Test, case: &str, vm: &mut Vm) -> Result<()> {
    vm.memory.write_u64(SHARED, 0);
    vm.vcpus[0].run_to_halt()?;
    t.check(case, vm.memory.read_u64(SHARED) == VALUE);
    Ok(())
}

/// The guest goes on in the destination with its memory and, if encrypted, its registers.
fn runs_on(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        let old = VmType::Default;
        let mut source = kind.launched(&host, old, guest::store_and_watch(), &[ARGUMENTS])?;
        source.vcpus[0].run_to_halt()?;
        let mut vm = moved(&host, kind, old, &mut source)?;
        watch(t, &format!("{name}_both_open"), &mut vm)?;
        let run = Answer::from_result(source.vcpus[0].fd().run());
        t.case(&format!("{name}_source_runs"), run, Answer::refused(EIO));
        drop(source);
        watch(t, &format!("{name}_source_closed"), &mut vm)?;
        t.contexts(1)?;
    }
    Ok(())
}

/// As [`runs_on`] for VMs with a type. The stock module still waits for KVM_SEV_INIT2.
fn runs_on_typed(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        let typed = kind.vm_type();
        let mut source = kind.launched(&host, typed, guest::store_and_watch(), &[ARGUMENTS])?;
        source.vcpus[0].run_to_halt()?;
        let mut vm = moved(&host, kind, typed, &mut source)?;
        let run = Answer::from_result(vm.vcpus[0].fd().run());
        let expected = if host.is_ours() { Answer::OK_KEPT } else { Answer::refused(EINVAL) };
        t.case(&format!("{name}_run"), run, expected);
        if run.is_ok() {
            watch(t, &format!("{name}_memory"), &mut vm)?;
        }
    }
    Ok(())
}

/// Through five VMs, each closed before the next move or at the end.
fn chain(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        for keep in [true, false] {
            let case = format!("{name}_{}", if keep { "kept" } else { "closed" });
            let before = t.psp.counters()?;
            let old = VmType::Default;
            let mut vm = kind.launched(&host, old, guest::store_and_watch(), &[ARGUMENTS])?;
            vm.vcpus[0].run_to_halt()?;
            let mut left = vec![];
            for i in 0..5 {
                let next = moved(&host, kind, old, &mut vm)?;
                left.extend(Some(std::mem::replace(&mut vm, next)).filter(|_| keep));
                watch(t, &format!("{case}_{i}"), &mut vm)?;
            }
            t.contexts(1)?;
            drop(vm);
            drop(left);
            t.released(&case, &before, 1)?;
        }
    }
    Ok(())
}

/// Mirrors go with the context of a moved owner, whoever is closed first.
fn mirrors_of_owner(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let old = VmType::Default;
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let case = order.map(|i| ["source", "taker", "mirror"][i]).join("_");
        let before = t.psp.counters()?;
        let program = guest::store_and_watch();
        let mut source = Kind::Sev.launched(&host, old, program, &[ARGUMENTS])?;
        let mut mirror = beside(&host, old, &source)?;
        ensure!(mirror.copy_from(&source).is_ok(), "copy");
        mirror.add_vcpu(&host, ARGUMENTS)?;
        source.vcpus[0].run_to_halt()?;
        mirror.vcpus[0].run_to_halt()?;
        let taker = moved(&host, Kind::Sev, old, &mut source)?;
        let answer = mirror.guest_status(&mut Default::default());
        t.case(&format!("{case}_status"), answer, Answer::OK);
        let second = beside(&host, old, &taker)?;
        t.case(&format!("{case}_new_mirror"), second.copy_from(&taker), Answer::OK_KEPT);
        drop(second);
        let mut vms = [Some(source), Some(taker), Some(mirror)];
        for i in order {
            let gone = vms.iter().skip(1).all(Option::is_none);
            t.released(&format!("{case}_{i}"), &before, gone.into())?;
            for (who, vm) in vms.iter_mut().enumerate().skip(1) {
                if let Some(vm) = vm {
                    watch(t, &format!("{case}_{i}_{who}_runs"), vm)?;
                }
            }
            vms[i] = None;
        }
        t.released(&case, &before, 1)?;
    }
    Ok(())
}

/// A process that launches a VM of the named kind, which can run.
fn source_process(arguments: &[String]) -> Result<()> {
    let old = |_| VmType::Default;
    let mut far = far::launch(&arguments[0], old, guest::store_and_watch())?;
    far.kind.add_vcpus(&mut far.vm, &far.host, &[ARGUMENTS])?;
    far.vm.measurement()?;
    ensure!(far.vm.launch_finish().is_ok(), "LAUNCH_FINISH");
    if far.kind == Kind::Es {
        far.vm.vcpus[0].run_to_halt()?;
    }
    far.keep()
}

/// From another process: the first one lives on, closes its /dev/sev (by ending) or is killed
/// before or after the move; commands and the guest do not mind.
fn other_process(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in Kind::ALL {
        for when in ["never", "before", "after"] {
            let case = format!("{name}_killed_{when}");
            let Far { process: source, vm: fd, memory } = Far::start("source", name)?;
            let mut vm = empty(&host, VmType::Default, memory)?;
            let mut source = Some(source);
            if when == "before" {
                source.take().context("gone")?.kill()?;
            }
            if kind == Kind::Es {
                vm.add_bare_vcpu()?;
            }
            t.case(&format!("{case}_move"), vm.move_from_fd(fd.as_raw_fd()), Answer::OK_KEPT);
            drop(fd);
            if host.is_ours() {
                let holders: Vec<_> = context_rows()?.iter().map(|row| row.pid).collect();
                ensure!(holders == [std::process::id()], "{case}: held by {holders:?}");
            }
            if kind == Kind::Sev {
                vm.add_vcpu(&host, ARGUMENTS)?;
                vm.vcpus[0].run_to_halt()?;
            }
            if when == "after" {
                source.take().context("gone")?.kill()?;
            }
            t.contexts(1)?;
            let expected = if host.is_ours() { Answer::OK } else { Answer::refused(EBADF) };
            let answer = vm.guest_status(&mut Default::default());
            t.case(&format!("{case}_status"), answer, expected);
            let clear = Mapping::anonymous(64)?;
            let at = vm.memory.addr() + guest::CODE;
            let answer = vm.dbg_decrypt(at, clear.addr(), 64);
            t.case(&format!("{case}_decrypt"), answer, expected);
            watch(t, &format!("{case}_runs"), &mut vm)?;
            if let Some(source) = source {
                source.end()?;
            }
            drop(vm);
            t.contexts(0)?;
        }
    }
    Ok(())
}

/// Two threads that move the same source: one gets it, the other one is refused.
fn same_source(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut wins, mut wrong) = (0, 0);
    for _ in 0..100 {
        let source = Vm::started(&host, 0)?;
        let takers = [beside(&host, VmType::Sev, &source)?, beside(&host, VmType::Sev, &source)?];
        let answers = thread::scope(|scope| {
            let threads = takers.each_ref().map(|taker| scope.spawn(|| taker.move_from(&source)));
            threads.map(|thread| thread.join())
        });
        for answer in answers {
            let answer = answer.map_err(|_| anyhow!("a thread panicked"))?;
            let losing = [EBUSY, EINVAL].map(Answer::refused);
            wins += u32::from(answer.is_ok());
            wrong += u32::from(!answer.is_ok() && !losing.contains(&answer));
        }
        wrong += u32::from(t.psp.counters()?.contexts != 1);
    }
    t.value("wins", wins, 100);
    t.value("wrong", wrong, 0);
    Ok(())
}

/// Threads that move contexts between the same two VMs in both directions, and make mirrors of
/// them at that: no deadlock, and no context is lost or doubled.
fn crossing(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut wrong = 0;
    for round in 0..50 {
        let one = Vm::started(&host, 0)?;
        let other = beside(&host, VmType::Sev, &one)?;
        let mirror = beside(&host, VmType::Sev, &one)?;
        let both = round % 2 == 1;
        if both {
            let answer = other.launch_start(&mut Default::default());
            wrong += u32::from(answer.is_ok());
        }
        let answers = thread::scope(|scope| {
            let threads = [
                scope.spawn(|| other.move_from(&one)),
                scope.spawn(|| one.move_from(&other)),
                scope.spawn(|| mirror.copy_from(&one)),
            ];
            threads.map(|thread| thread.join())
        });
        for answer in answers {
            let answer = answer.map_err(|_| anyhow!("a thread panicked"))?;
            let losing = [EBUSY, EINVAL, EIO].map(Answer::refused);
            wrong += u32::from(!answer.is_ok() && !losing.contains(&answer));
        }
        wrong += u32::from(t.psp.counters()?.contexts != 1);
        drop((one, other, mirror));
        wrong += u32::from(t.psp.counters()?.contexts != 0);
    }
    t.value("wrong", wrong, 0);
    Ok(())
}

/// A process that says so, then moves the VM of another process.
fn moving_process(arguments: &[String]) -> Result<()> {
    let host = Host::open()?;
    let vm = empty(&host, VmType::Sev, GuestMemory::new(guest::MEMORY)?)?;
    println!("ready");
    let answer = vm.move_from_fd(arguments[0].parse()?);
    println!("{answer}");
    Ok(())
}

/// Whoever waits for a VM that is busy with a command of firmware can be killed meanwhile.
fn killed_while_waiting(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let source = Vm::started(&host, 0)?;
    // SAFETY: the number is free; the descriptor is closed below.
    let inherited = unsafe { nix::libc::dup(source.fd.as_raw_fd()) };
    ensure!(inherited >= 0, "dup");
    t.psp.request("fault cmd=LAUNCH_UPDATE_DATA n=1 delay=10000000")?;
    let signal = thread::scope(|scope| -> Result<_> {
        let command = scope.spawn(|| source.encrypt(0..4096));
        // The firmware has the command once it counts it.
        while t.psp.counters()?.count("LAUNCH_UPDATE_DATA") == 0 {
            ensure!(!command.is_finished(), "the command was not delayed");
        }
        let mut mover = Other::start("mover", &[inherited.to_string()])?;
        t.value("mover", mover.line()?.as_str(), "ready");
        while !mover.waits()? {
            ensure!(!command.is_finished(), "the mover did not wait");
        }
        let status = mover.kill()?;
        t.check("command_still_waits", !command.is_finished());
        command.join().map_err(|_| anyhow!("a thread panicked"))??;
        Ok(status.signal())
    })?;
    // SAFETY: opened above, and used by nobody else.
    unsafe { nix::libc::close(inherited) };
    t.value("killed", signal.unwrap_or(0), 9);
    t.case("source_goes_on", source.guest_status(&mut Default::default()), Answer::OK);
    let taker = beside(&host, VmType::Sev, &source)?;
    t.case("move", taker.move_from(&source), Answer::OK_KEPT);
    Ok(())
}
