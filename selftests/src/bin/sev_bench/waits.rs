// SPDX-License-Identifier: GPL-2.0-or-later
//! Who waits for whom: while one VM's firmware command takes long, operations on other VMs begin.
//! Each either ends before the command does, or it waited. No time is measured: whether the other
//! thread is still in the same sleep is what counts.

use std::any::Any;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use kvm_bindings::*;
use nix::unistd::gettid;
use sev_vm::cmd::Answer;
use sev_vm::cpu::OnCpu;
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::mem::PAGE;
use sev_vm::vm::Vm;

use crate::Bench;
use crate::sev::{good, pair, recycling};

/// Microseconds of the machine's own time, by far more than any operation takes.
const DELAY: u32 = 5_000_000;
/// Where a task is while its command is executed, on its kernel stack.
const EXECUTING: &str = "__sev_do_cmd_locked";

/// A command that others may wait for.
struct Busy {
    command: &'static str,
    /// A VM about to cause it.
    prepare: fn(&Host) -> Result<Vm>,
    cause: fn(Vm) -> Answer,
}

const FLUSH: Busy = Busy {
    command: "DF_FLUSH",
    prepare: recycling,
    cause: |vm| vm.init2(&mut kvm_sev_init::default()),
};
const DEACTIVATE: Busy = Busy {
    command: "DEACTIVATE",
    prepare: |host| Vm::started(host, 0),
    cause: |vm| {
        drop(vm);
        Answer::OK
    },
};

/// Something to do at once. What it returns is closed when it is known whether it waited.
type Operation = Box<dyn FnOnce() -> Result<Box<dyn Any>>>;

fn operation<T: 'static>(action: impl FnOnce() -> Result<T> + 'static) -> Result<Operation> {
    Ok(Box::new(|| Ok(Box::new(action()?))))
}

type Prepare = fn(&Host) -> Result<Operation>;

/// Names of operations on VMs that have nothing to do with the one whose command is executed, whether
/// they need the firmware themselves, and what to prepare.
const OPERATIONS: [(&str, bool, Prepare); 9] = [
    ("GUEST_STATUS", true, |host| {
        let vm = Vm::started(host, 0)?;
        operation(|| Ok((vm.state()?, vm)))
    }),
    // The driver is asked whether the firmware was initialised.
    ("KVM_SEV_INIT2", true, |host| {
        let vm = Vm::bare(host, VmType::Sev)?;
        operation(|| Ok((good("INIT2", vm.init2(&mut kvm_sev_init::default()))?, vm)))
    }),
    ("close of a VM before LAUNCH_START", false, |host| {
        let vm = Vm::sev(host)?;
        operation(|| {
            drop(vm);
            Ok(())
        })
    }),
    ("COPY_ENC_CONTEXT_FROM", false, |host| {
        let (source, destination) = pair(host)?;
        operation(|| Ok((copy(&source, &destination)?, source, destination)))
    }),
    ("MOVE_ENC_CONTEXT_FROM", false, |host| {
        let (source, destination) = pair(host)?;
        operation(|| Ok((good("move", destination.move_from(&source))?, source, destination)))
    }),
    ("close of a mirror", false, |host| {
        let (source, destination) = pair(host)?;
        copy(&source, &destination)?;
        operation(|| Ok((drop(destination), source)))
    }),
    ("REG_REGION 4 KiB", false, |host| {
        let vm = Vm::sev(host)?;
        operation(|| Ok((good("REG_REGION", vm.register(&region(&vm)))?, vm)))
    }),
    ("UNREG_REGION 4 KiB", false, |host| {
        let vm = Vm::sev(host)?;
        good("REG_REGION", vm.register(&region(&vm)))?;
        operation(|| Ok((good("UNREG_REGION", vm.unregister(&region(&vm)))?, vm)))
    }),
    ("KVM_RUN, halt", false, |host| {
        let mut vm = Vm::launched(host, 0, guest::idle())?;
        vm.add_vcpu(host, [0; 4])?;
        operation(|| Ok((vm.vcpus[0].run_to_halt()?, vm)))
    }),
];

fn copy(source: &Vm, destination: &Vm) -> Result<()> {
    good("copy", destination.copy_from(source))
}

fn region(vm: &Vm) -> kvm_enc_region {
    kvm_enc_region { addr: vm.memory.addr(), size: PAGE as u64 }
}

/// Whether an operation waits while the firmware is busy.
fn waits(bench: &mut Bench, busy: &Busy, operation: Operation) -> Result<bool> {
    let command = busy.command;
    let vm = (busy.prepare)(&bench.host)?;
    bench.psp.request(&format!("fault cmd={command} n=1 delay={DELAY}"))?;
    let (task, ended) = (AtomicI32::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let other = scope.spawn(|| -> Result<()> {
            let _there = OnCpu::new(1)?;
            task.store(gettid().as_raw(), SeqCst);
            let answer = (busy.cause)(vm);
            ended.store(true, SeqCst);
            good(command, answer)
        });
        let _here = OnCpu::new(0)?;
        let asleep = loop {
            if let Some(asleep) = executing(task.load(SeqCst)) {
                break asleep;
            }
            ensure!(!ended.load(SeqCst), "{command} was not seen");
        };
        let kept = operation();
        let waited = executing(task.load(SeqCst)) != Some(asleep);
        other.join().map_err(|_| anyhow!("{command}: panic"))??;
        kept.map(|_| waited)
    })
}

pub fn rows(bench: &mut Bench) -> Result<()> {
    for busy in [FLUSH, DEACTIVATE] {
        for (name, needs, prepare) in OPERATIONS {
            let operation = prepare(&bench.host)?;
            let waited = waits(bench, &busy, operation).with_context(|| name.to_owned())?;
            let (needs, waited, command) = (u8::from(needs), u8::from(waited), busy.command);
            println!("waits {name} needs={needs} behind {command}={waited}");
        }
    }
    Ok(())
}

/// If thread `task` sleeps until the firmware has executed its command, which sleep of its life
/// this is.
fn executing(task: i32) -> Option<String> {
    // A thread that has not started yet, or has ended, has no such files.
    let read = |file| fs::read_to_string(format!("/proc/self/task/{task}/{file}")).ok();
    let status = read("status")?;
    let field = |name| status.lines().find_map(|line: &str| line.strip_prefix(name));
    let asleep = field("State:")?.trim_start().starts_with('D');
    let number = field("voluntary_ctxt_switches:")?.trim();
    (asleep && read("stack")?.contains(EXECUTING)).then(|| number.to_owned())
}
