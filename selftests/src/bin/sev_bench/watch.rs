// SPDX-License-Identifier: GPL-2.0-or-later
//! What an operation does to others, as the kernel's own events tell: inter-processor interrupts,
//! and the locks that are held while the firmware works or caches are written back.
//!
//! Probes report each acquisition and release of a mutex or semaphore, each command to the firmware,
//! and each function that is called on a set of CPUs, of which WBINVD and WBNOINVD count if the set
//! is not empty. Only what the operation's own task does is seen. The mutex of the driver of the
//! secure processor is held for every command, and does not count. What is taken by trylock is not
//! seen, nor are spinlocks, with which nobody may sleep.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write;

use anyhow::{Context, Result};
use sev_vm::tracefs;

const TRACEFS: &str = "/sys/kernel/tracing";
const EVENTS: [&str; 2] = ["sev_bench", "ipi"];
const LOCK: [&str; 8] = [
    "mutex_lock",
    "mutex_lock_killable",
    "mutex_lock_interruptible",
    "down_read",
    "down_read_killable",
    "down_read_interruptible",
    "down_write",
    "down_write_killable",
];
const UNLOCK: [&str; 3] = ["mutex_unlock", "up_read", "up_write"];
/// drivers/crypto/ccp/sev-dev.c
const COMMAND: &str = "p:sev_bench/command __sev_do_cmd_locked command=%di:u32";
/// kernel/smp.c: arguments are a condition, the function, its argument, whether to wait, and the CPUs.
const BROADCAST: &str =
    "p:sev_bench/broadcast on_each_cpu_cond_mask function=%si:symbol cpus=+0(%r8):x64";
/// The driver's own mutex.
const DRIVER: &str = "sev_cmd_mutex";
/// Who interrupts CPUs, its own too, for a task to be woken or for work after an interrupt.
const SCHEDULER: [&str; 4] =
    ["ttwu_queue_wakelist", "wakeup_preempt", "resched_curr", "irq_work_queue"];

const WRITE_BACK: [&str; 2] = ["__wbinvd", "__wbnoinvd"];
/// What every CPU does when the kernel changes its own code or page tables, or a process's: that is
/// due to what happened before, and to the first and last VM.
const CHORES: [&str; 5] = [
    "do_sync_core",
    "flush_tlb_func",
    "do_flush_tlb_all",
    "do_kernel_range_flush",
    "__cpa_flush_tlb",
];

/// What one operation did. Less is less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watched {
    /// Interrupts of other CPUs, save for the scheduler and for chores.
    pub ipis: u64,
    /// Commands to the firmware and write-backs of caches while locks were held.
    pub locked: u64,
    /// All those commands and write-backs.
    pub issued: u64,
    /// The most locks that were held by one of them.
    pub locks: u64,
}

impl Watched {
    /// For each of `n` exits, by which this run is longer than the other.
    pub fn more_than(self, other: Self, n: u64) -> Self {
        Self {
            ipis: self.ipis.saturating_sub(other.ipis) / n,
            locked: self.locked.saturating_sub(other.locked) / n,
            issued: self.issued.saturating_sub(other.issued) / n,
            locks: self.locks,
        }
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ipis={} locked={}/{} locks={}", self.ipis, self.locked, self.issued, self.locks)
    }
}

/// The probes are there.
pub struct Watch(());

impl Watch {
    pub fn new() -> Result<Self> {
        let lock = LOCK.map(|function| format!("p:sev_bench/lock {function} at=%di:symbol"));
        let unlock = UNLOCK.map(|function| format!("p:sev_bench/unlock {function} at=%di:symbol"));
        let others = [COMMAND.to_owned(), BROADCAST.to_owned()];
        let mut file = OpenOptions::new().append(true).open(format!("{TRACEFS}/kprobe_events"))?;
        for probe in lock.iter().chain(&unlock).chain(&others) {
            file.write_all(format!("{probe}\n").as_bytes()).with_context(|| probe.clone())?;
        }
        // Once: it means to change code of the kernel, for each function.
        fs::write(format!("{TRACEFS}/tracing_on"), "0")?;
        for group in EVENTS {
            fs::write(format!("{TRACEFS}/events/{group}/enable"), "1")?;
        }
        Ok(Self(()))
    }

    /// Watches the current thread in `action`.
    pub fn during(&self, action: impl FnOnce() -> Result<()>) -> Result<Watched> {
        let ((), trace) = tracefs::record(&[], Some(std::process::id()), action)?;
        count(&trace)
    }
}

/// One line of a trace: `TASK-PID [CPU] FLAGS TIME: NAME: FIELDS`.
struct Event<'a> {
    /// In an interrupt, which is not the task's doing.
    interrupt: bool,
    name: &'a str,
    fields: &'a str,
}

impl<'a> Event<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (_, rest) = line.split_once("] ")?;
        let (flags, rest) = rest.trim_start().split_once(' ')?;
        let (_, rest) = rest.split_once(": ")?;
        let (name, fields) = rest.split_once(": ")?;
        Some(Self { interrupt: flags.as_bytes().get(2) != Some(&b'.'), name, fields })
    }

    fn field(&self, name: &str) -> Result<&'a str> {
        let mut words = self.fields.split_whitespace();
        words
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .with_context(|| format!("no {name} in {}", self.fields))
    }
}

/// Whether `symbol`, `NAME+OFFSET/LENGTH`, is in one of these functions.
fn is_one_of(symbol: &str, functions: &[&str]) -> bool {
    let name = symbol.split('+').next();
    name.is_some_and(|name| functions.contains(&name))
}

/// CPUs of a mask in hexadecimal digits.
fn cpus(mask: &str) -> u64 {
    mask.chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|bits| u64::from(bits.count_ones()))
        .sum()
}

fn count(trace: &str) -> Result<Watched> {
    let mut seen = Watched::default();
    let mut held: Vec<&str> = Vec::new();
    let mut chore = false;
    let lines = trace.lines().filter(|line| !line.starts_with('#'));
    for event in lines.filter_map(Event::parse).filter(|event| !event.interrupt) {
        let at_work = match event.name {
            "lock" => {
                held.push(event.field("at")?);
                false
            }
            "unlock" => {
                let at = event.field("at")?;
                if let Some(last) = held.iter().rposition(|lock| *lock == at) {
                    held.remove(last);
                }
                false
            }
            "command" => true,
            "broadcast" => {
                let function = event.field("function")?;
                chore = is_one_of(function, &CHORES);
                is_one_of(function, &WRITE_BACK) && event.field("cpus")? != "0x0"
            }
            "ipi_send_cpu" | "ipi_send_cpumask" => {
                let from = event.field("callsite")?;
                let of_chore = chore && from.starts_with("on_each_cpu_cond_mask");
                if !of_chore && !is_one_of(from, &SCHEDULER) {
                    seen.ipis += match event.field("cpumask") {
                        Ok(mask) => cpus(mask),
                        Err(_) => 1,
                    };
                }
                false
            }
            _ => false,
        };
        let others = held.iter().filter(|lock| !lock.starts_with(DRIVER)).count() as u64;
        seen.issued += u64::from(at_work);
        if at_work && others > 0 {
            seen.locked += 1;
            seen.locks = seen.locks.max(others);
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "# tracer: nop
 b-1 [000] .....    1.0: lock: (mutex_lock+0x4/0x30) at=0xffff8c30c123a600
 b-1 [000] .....    1.1: lock: (mutex_lock+0x4/0x30) at=sev_cmd_mutex+0x0/0x20 [ccp]
 b-1 [000] .....    1.2: command: (__sev_do_cmd_locked+0x4/0x400 [ccp]) command=5
 b-1 [000] .....    1.3: unlock: (mutex_unlock+0x4/0x30) at=sev_cmd_mutex+0x0/0x20 [ccp]
 b-1 [000] .....    1.4: lock: (down_write+0x4/0x30) at=sev_deactivate_lock+0x0/0x28 [kvm_amd]
 b-1 [000] .....    1.5: broadcast: (on_each_cpu_cond_mask+0x4/0x40) function=__wbinvd+0x0/0x20 cpus=0x3
 b-1 [000] ...1.    1.6: ipi_send_cpu: cpu=1 callsite=on_each_cpu_cond_mask+0x24/0x40 callback=generic_smp_call_function_single_interrupt+0x0/0x20
 b-1 [000] ...1.    1.6: ipi_send_cpumask: cpumask=0000000e callsite=smp_call_function_many_cond+0x24/0x40 callback=x+0x0/0x20
 b-1 [000] d.h2.    1.6: ipi_send_cpu: cpu=1 callsite=generic_exec_single+0x35/0x130 callback=x+0x0/0x20
 b-1 [000] d..3.    1.6: ipi_send_cpu: cpu=1 callsite=ttwu_queue_wakelist+0x133/0x1b0 callback=x+0x0/0x20
 b-1 [000] .....    1.7: broadcast: (on_each_cpu_cond_mask+0x4/0x40) function=__wbnoinvd+0x0/0x20 cpus=0x0
 b-1 [000] .....    1.7: broadcast: (on_each_cpu_cond_mask+0x4/0x40) function=do_sync_core+0x0/0x20 cpus=0x3
 b-1 [000] ...1.    1.7: ipi_send_cpu: cpu=1 callsite=on_each_cpu_cond_mask+0x24/0x40 callback=generic_smp_call_function_single_interrupt+0x0/0x20
 b-1 [000] .....    1.8: unlock: (up_write+0x4/0x30) at=sev_deactivate_lock+0x0/0x28 [kvm_amd]
 b-1 [000] .....    1.9: unlock: (mutex_unlock+0x4/0x30) at=0xffff8c30c123a600
 b-1 [000] .....    2.0: command: (__sev_do_cmd_locked+0x4/0x400 [ccp]) command=5
";

    #[test]
    fn locks_of_others_and_interrupts_are_counted() -> Result<()> {
        assert_eq!(count(TRACE)?, Watched { ipis: 4, locked: 2, issued: 3, locks: 2 });
        Ok(())
    }
}
