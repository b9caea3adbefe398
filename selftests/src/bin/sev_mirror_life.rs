// SPDX-License-Identifier: GPL-2.0-or-later
//! `KVM_CAP_VM_COPY_ENC_CONTEXT_FROM`: how long a context lives, in whatever order its owner and
//! mirrors are closed.

use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow, ensure};
use nix::errno::Errno::EBADF;
use sev_vm::cmd::Answer;
use sev_vm::context::{Kind, beside, count_until_told, empty};
use sev_vm::far::{self, Far};
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{GuestMemory, Mapping};
use sev_vm::other;
use sev_vm::state::pinned_pages;
use sev_vm::vm::Vm;

const SHARED: usize = guest::SHARED.start as usize;
const PRIVATE: u64 = guest::PRIVATE;
const VALUE: u64 = 0x1122_3344_5566_7788;

fn main() -> ExitCode {
    if let Some((_, arguments)) = other::role() {
        return other::exit_code(owner_process(&arguments));
    }
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
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

/// A process that launches a VM of the named kind.
fn owner_process(arguments: &[String]) -> Result<()> {
    far::launch(&arguments[0], Kind::vm_type, guest::store_and_watch())?.keep()
}

/// A mirror in another process, which outlives the owner's.
fn other_process(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let arguments = [PRIVATE, SHARED as u64, VALUE, 0];
    for (name, kind) in Kind::ALL {
        let Far { process: owner, vm: source, memory } = Far::start("owner", name)?;
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
