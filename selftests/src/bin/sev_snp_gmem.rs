// SPDX-License-Identifier: GPL-2.0-or-later
//! Private memory of SNP guests under way: holes, conversions and faults in advance, also from
//! several threads during LAUNCH_UPDATE.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use kvm_bindings::*;
use sev_vm::cmd::Answer;
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::PAGE;
use sev_vm::snp::{PageType, Snp, policy, pre_fault};

const AREA: usize = guest::PRIVATE as usize;
/// Pages that threads work on.
const RACED: std::ops::Range<usize> = AREA..AREA + 16 * PAGE;
const ROUNDS: usize = 60;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("holes", holes),
            ("conversions", conversions),
            ("pre_fault_before_finish", pre_fault_before_finish),
            ("pre_fault_after_finish", pre_fault_after_finish),
            ("pre_fault_shared", pre_fault_shared),
            ("update_and_punch", update_and_punch),
            ("update_and_convert", update_and_convert),
            ("update_and_update", update_and_update),
            ("fault_and_punch", fault_and_punch),
        ],
    )
}

fn started(host: &Host) -> Result<Snp> {
    Snp::started(host, policy::DEFAULT)
}

/// A hole gives the page back to the host; what is loaded there afterwards is a new page.
fn holes(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = started(&host)?;
    let range = AREA..AREA + 4 * PAGE;
    vm.punch(range.clone())?;
    for round in 0..3 {
        let mut argument = vm.update_of(PageType::Normal, range.clone());
        t.case(&format!("{round}_load"), vm.snp_launch_update(&mut argument), Answer::OK_KEPT);
        t.value(&format!("{round}_len"), argument.len, 0);
        // One page of the four: only that can be loaded again.
        vm.punch(AREA + PAGE..AREA + 2 * PAGE)?;
        for page in 0..4 {
            let at = AREA + page * PAGE;
            let mut argument = vm.update_of(PageType::Zero, at..at + PAGE);
            let expected = if page == 1 { Answer::OK_KEPT } else { Answer::firmware(0) };
            let answer = vm.snp_launch_update(&mut argument);
            t.case(&format!("{round}_page_{page}"), answer, expected);
        }
        vm.punch(range.clone())?;
    }
    // After the launch, too, and beyond what was ever there.
    vm.update(PageType::Normal, range)?;
    vm.seal()?;
    vm.punch(0..guest::MEMORY)?;
    vm.punch(0..guest::MEMORY)?;
    t.check("whole_memory", true);
    Ok(())
}

/// Shared and back: the private page is the guest's as before.
fn conversions(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = started(&host)?;
    let range = AREA..AREA + PAGE;
    vm.update(PageType::Normal, range.clone())?;
    vm.memory.write(AREA, &[0x77; PAGE]);
    for round in 0..3 {
        t.case(
            &format!("{round}_shared"),
            vm.vm.set_private(range.clone(), false),
            Answer::OK_KEPT,
        );
        let mut argument = vm.update_of(PageType::Normal, range.clone());
        let answer = vm.snp_launch_update(&mut argument);
        t.case(&format!("{round}_shared_update"), answer, Answer::firmware(0));
        t.case(
            &format!("{round}_private"),
            vm.vm.set_private(range.clone(), true),
            Answer::OK_KEPT,
        );
        let mut argument = vm.update_of(PageType::Normal, range.clone());
        let answer = vm.snp_launch_update(&mut argument);
        t.case(&format!("{round}_private_update"), answer, Answer::firmware(0));
    }
    t.check("shared_half_is_kept", vm.memory.read(AREA, PAGE) == [0x77; PAGE]);
    Ok(())
}

/// KVM_PRE_FAULT_MEMORY of `range`; the answer and the bytes that are left.
fn fault(vm: &mut Snp, range: std::ops::Range<usize>) -> (Answer, u64) {
    let (gpa, size) = (range.start as u64, range.len() as u64);
    let mut argument = kvm_pre_fault_memory { gpa, size, ..Default::default() };
    let answer = pre_fault(vm.vm.vcpus[0].fd(), &mut argument);
    (answer, argument.size)
}

/// Until the launch is finished private pages come from LAUNCH_UPDATE only.
fn pre_fault_before_finish(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Snp::initialised(&host)?;
    vm.vm.add_vcpu(&host, [0; 4])?;
    let (answer, left) = fault(&mut vm, AREA..AREA + PAGE);
    t.check("initialised_refused", !answer.is_ok());
    t.record("initialised", answer);
    t.value("initialised_left", left, PAGE as u64);
    let mut vm = vm.start(policy::DEFAULT)?;
    let (answer, left) = fault(&mut vm, AREA..AREA + PAGE);
    t.check("started_refused", !answer.is_ok());
    t.record("started", answer);
    t.value("started_left", left, PAGE as u64);
    vm.update(PageType::Normal, AREA..AREA + PAGE)?;
    let (answer, _) = fault(&mut vm, AREA..AREA + PAGE);
    t.check("loaded_refused", !answer.is_ok());
    t.record("loaded", answer);
    // It did not become the guest's by that.
    vm.update(PageType::Normal, AREA + PAGE..AREA + 2 * PAGE)?;
    t.check("then_update", true);
    Ok(())
}

fn pre_fault_after_finish(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = started(&host)?;
    vm.vm.add_vcpu(&host, [0; 4])?;
    vm.update(PageType::Normal, AREA..AREA + PAGE)?;
    vm.seal()?;
    for (name, range) in [
        ("loaded", AREA..AREA + PAGE),
        ("not_loaded", AREA + PAGE..AREA + 2 * PAGE),
        ("again", AREA + PAGE..AREA + 2 * PAGE),
        ("many", AREA..AREA + 16 * PAGE),
        ("mixed", guest::SHARED.end as usize - PAGE..guest::SHARED.end as usize + PAGE),
        ("all", 0..guest::MEMORY),
    ] {
        let (answer, left) = fault(&mut vm, range);
        t.case(name, answer, Answer::OK_KEPT);
        t.value(&format!("{name}_left"), left, 0);
    }
    let (answer, left) = fault(&mut vm, guest::MEMORY - PAGE..guest::MEMORY + PAGE);
    t.record("beyond", answer);
    t.observe("beyond_left", format!("left={left:#x}"));
    // Holes below what is mapped, and again.
    vm.punch(0..guest::MEMORY)?;
    let (answer, left) = fault(&mut vm, AREA..AREA + 2 * PAGE);
    t.case("punched", answer, Answer::OK_KEPT);
    t.value("punched_left", left, 0);
    vm.set_private(AREA..AREA + 2 * PAGE, false)?;
    let (answer, _) = fault(&mut vm, AREA..AREA + 2 * PAGE);
    t.case("shared", answer, Answer::OK_KEPT);
    vm.set_private(AREA..AREA + 2 * PAGE, true)?;
    let (answer, _) = fault(&mut vm, AREA..AREA + 2 * PAGE);
    t.case("private_again", answer, Answer::OK_KEPT);
    Ok(())
}

fn pre_fault_shared(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = started(&host)?;
    vm.vm.add_vcpu(&host, [0; 4])?;
    let shared = guest::SHARED.start as usize..guest::SHARED.end as usize;
    let (answer, left) = fault(&mut vm, shared.clone());
    t.record("before_finish", answer);
    t.observe("before_finish_left", format!("left={left:#x}"));
    vm.seal()?;
    let (answer, left) = fault(&mut vm, shared);
    t.case("after_finish", answer, Answer::OK_KEPT);
    t.value("after_finish_left", left, 0);
    Ok(())
}

/// Runs `disturb` in threads, again and again, as long as `work` takes.
fn meanwhile<T>(
    disturb: impl Fn(usize) -> Result<()> + Sync,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    const THREADS: usize = 2;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let disturbers: Vec<_> = (0..THREADS)
            .map(|number| {
                let (stop, disturb) = (&stop, &disturb);
                scope.spawn(move || -> Result<()> {
                    let mut round = number;
                    while !stop.load(Ordering::Relaxed) {
                        disturb(round)?;
                        round += THREADS;
                    }
                    Ok(())
                })
            })
            .collect();
        let result = work();
        stop.store(true, Ordering::Relaxed);
        for disturber in disturbers {
            disturber.join().expect("the thread ends")?;
        }
        result
    })
}

/// The page that a disturbance of this number is about.
fn page(number: usize) -> std::ops::Range<usize> {
    let at = RACED.start + (number * 7 % 16) * PAGE;
    at..at + PAGE
}

/// Loads pages until each round is through; only what the race explains may be refused.
fn load_again_and_again(vm: &Snp) -> Result<()> {
    for _ in 0..ROUNDS {
        let mut argument = vm.update_of(PageType::Normal, RACED);
        while argument.len > 0 {
            let answer = vm.snp_launch_update(&mut argument);
            ensure!(answer.is_ok() || answer == Answer::firmware(0), "LAUNCH_UPDATE: {answer}");
            if !answer.is_ok() {
                // Loaded already, or not private at the moment: the next one.
                argument.gfn_start += 1;
                argument.uaddr += PAGE as u64;
                argument.len -= PAGE as u64;
            }
        }
    }
    Ok(())
}

/// Afterwards every page can be loaded, once.
fn is_sound(t: &mut Test, vm: &Snp) -> Result<()> {
    vm.set_private(RACED, true)?;
    vm.punch(RACED)?;
    let mut argument = vm.update_of(PageType::Normal, RACED);
    t.case("load", vm.snp_launch_update(&mut argument), Answer::OK_KEPT);
    t.value("load_len", argument.len, 0);
    let mut argument = vm.update_of(PageType::Normal, RACED);
    t.case("load_again", vm.snp_launch_update(&mut argument), Answer::firmware(0));
    vm.seal()
}

fn update_and_punch(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = started(&host)?;
    meanwhile(|number| vm.punch(page(number)), || load_again_and_again(&vm))?;
    is_sound(t, &vm)
}

fn update_and_convert(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = started(&host)?;
    let disturb = |number: usize| {
        vm.set_private(page(number), number & 2 != 0)?;
        if number % 5 == 0 {
            vm.punch(page(number))?;
        }
        Ok(())
    };
    meanwhile(disturb, || load_again_and_again(&vm))?;
    is_sound(t, &vm)
}

/// Two threads load the same pages: each is loaded by one of them.
fn update_and_update(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = started(&host)?;
    for _ in 0..ROUNDS / 4 {
        let before = t.psp.counters()?;
        thread::scope(|scope| {
            let other = scope.spawn(|| load_once(&vm));
            load_once(&vm)?;
            other.join().expect("the thread ends")
        })?;
        let after = t.psp.counters()?;
        let loaded = after.count("SNP_LAUNCH_UPDATE") - before.count("SNP_LAUNCH_UPDATE");
        ensure!(loaded == 16, "{loaded} of 16 pages were loaded");
        vm.punch(RACED)?;
    }
    is_sound(t, &vm)
}

/// Each of the pages, whoever was first.
fn load_once(vm: &Snp) -> Result<()> {
    for at in RACED.step_by(PAGE) {
        let answer = vm.snp_launch_update(&mut vm.update_of(PageType::Normal, at..at + PAGE));
        ensure!(answer.is_ok() || answer == Answer::firmware(0), "LAUNCH_UPDATE: {answer}");
    }
    Ok(())
}

/// Faults in advance and holes, after the launch.
fn fault_and_punch(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = started(&host)?;
    vm.vm.add_vcpu(&host, [0; 4])?;
    vm.seal()?;
    let Snp { vm, private } = &mut vm;
    let vcpu = vm.vcpus[0].fd();
    let punch = |number: usize| {
        use nix::fcntl::{FallocateFlags, fallocate};
        let range = page(number);
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(fallocate(&*private, flags, range.start as i64, PAGE as i64)?)
    };
    meanwhile(punch, || {
        for round in 0..ROUNDS * 4 {
            let (gpa, size) = (RACED.start as u64, RACED.len() as u64);
            let mut argument = kvm_pre_fault_memory { gpa, size, ..Default::default() };
            let answer = pre_fault(vcpu, &mut argument);
            ensure!(answer.is_ok(), "KVM_PRE_FAULT_MEMORY, round {round}: {answer}");
        }
        Ok(())
    })?;
    t.check("survived", true);
    Ok(())
}
