// SPDX-License-Identifier: GPL-2.0-or-later
//! Counts what the operations of the SEV interface cost, for `make bench`.
//!
//! Runs on an emulated host whose clock counts instructions (`tools/vm/run --icount`). With one CPU
//! (`--smp 1`) the TSC advances by the same amount with every instruction, so a difference of two
//! readings is a number of instructions. Of several rounds the least counts, as interrupts and
//! other tasks only ever add to it. Each row of the output is
//! `bench NAME instructions=N allocations=N kept=BYTES commands=A,B,... wbinvd=N rmpupdate=N`.
//!
//! With two CPUs the same operations are watched for what they do to others ([`watch`]):
//! `bench NAME ipis=N locked=N/N locks=N`, and who waits for whom ([`waits`]):
//! `waits NAME needs=0|1 behind COMMAND=0|1`. What is prepared runs on CPU 1, the operation on CPU 0.
//!
//! On a host with SEV-SNP only rows about that are measured.

mod exits;
mod memory;
mod sev;
mod snp;
mod waits;
mod watch;

use std::arch::x86_64::_rdtsc;
use std::collections::BTreeMap;
use std::thread::available_parallelism;

use anyhow::{Result, ensure};
use sev_vm::cpu::OnCpu;
use sev_vm::host::{Host, VmType};
use sev_vm::psp::Psp;

use memory::{Allocations, allocations};
use watch::{Watch, Watched};

/// Rounds of each measurement.
const ROUNDS: usize = 12;
/// Rounds in which allocations are counted: in some of them the allocator itself needs pages.
const MEMORY_ROUNDS: usize = 4;
/// Rounds in which an operation is watched.
const WATCHED_ROUNDS: usize = 3;
/// Instructions of the loop that shows what an instruction is worth.
const CALIBRATION: u64 = 2_000_000;

fn tsc() -> u64 {
    // SAFETY: every x86-64 has a TSC.
    unsafe { _rdtsc() }
}

/// Ticks of the TSC for an instruction.
fn ticks_per_instruction() -> u64 {
    let least = (0..ROUNDS).map(|_| {
        let start = tsc();
        // SAFETY: the loop changes nothing but the register that it says.
        unsafe {
            std::arch::asm!("2: dec {0}", "jnz 2b", inout(reg) CALIBRATION / 2 => _, options(nomem, nostack));
        }
        tsc() - start
    });
    least.min().unwrap_or(0) / CALIBRATION
}

/// The open devices, and what has been measured.
struct Bench {
    host: Host,
    psp: Psp,
    /// Of the TSC, for an instruction.
    ticks: u64,
    /// If there is somebody to disturb.
    watch: Option<Watch>,
}

impl Bench {
    fn open() -> Result<Self> {
        let ticks = ticks_per_instruction();
        ensure!(ticks > 0, "the clock does not count instructions: run this with --icount");
        let watch = if available_parallelism()?.get() > 1 { Some(Watch::new()?) } else { None };
        Ok(Self { host: Host::open()?, psp: Psp::open()?, ticks, watch })
    }

    /// Measures `operation` on what `prepare` makes anew for each round.
    fn row<T>(
        &mut self,
        name: &str,
        prepare: impl FnMut(&Host) -> Result<T>,
        operation: impl FnMut(&Host, &mut T) -> Result<()>,
    ) -> Result<()> {
        match &self.watch {
            Some(watch) => watched(watch, &self.host, name, prepare, operation),
            None => self.counted(name, prepare, operation),
        }
    }

    fn counted<T>(
        &mut self,
        name: &str,
        mut prepare: impl FnMut(&Host) -> Result<T>,
        mut operation: impl FnMut(&Host, &mut T) -> Result<()>,
    ) -> Result<()> {
        let mut least = u64::MAX;
        for _ in 0..ROUNDS {
            let mut subject = prepare(&self.host)?;
            let start = tsc();
            let result = operation(&self.host, &mut subject);
            let end = tsc();
            result?;
            least = least.min(end - start);
        }
        // In rounds of their own: tracing and the port cost instructions, too.
        let mut memory = Allocations { count: u64::MAX, kept: u64::MAX };
        for _ in 0..MEMORY_ROUNDS {
            let mut subject = prepare(&self.host)?;
            let ((), counted) = allocations(|| operation(&self.host, &mut subject))?;
            memory = memory.min(counted);
        }
        let mut subject = prepare(&self.host)?;
        let before = self.psp.machine()?;
        let host = &self.host;
        let ((), log) = self.psp.logged(|| operation(host, &mut subject))?;
        let after = self.psp.machine()?;
        let (wbinvd, rmpupdate) =
            (after.wbinvd - before.wbinvd, after.rmpupdate - before.rmpupdate);

        let mut commands = BTreeMap::<String, u32>::new();
        for entry in log {
            *commands.entry(entry.cmd).or_default() += 1;
        }
        let commands: Vec<_> = commands.iter().map(|(name, n)| format!("{name}:{n}")).collect();
        let instructions = least / self.ticks;
        let commands = if commands.is_empty() { "-".into() } else { commands.join(",") };
        let Allocations { count, kept } = memory;
        println!(
            "bench {name} instructions={instructions} allocations={count} kept={kept} \
             commands={commands} wbinvd={wbinvd} rmpupdate={rmpupdate}"
        );
        Ok(())
    }
}

fn watched<T>(
    watch: &Watch,
    host: &Host,
    name: &str,
    mut prepare: impl FnMut(&Host) -> Result<T>,
    mut operation: impl FnMut(&Host, &mut T) -> Result<()>,
) -> Result<()> {
    let mut least: Option<Watched> = None;
    for _ in 0..WATCHED_ROUNDS {
        let mut subject = {
            let _there = OnCpu::new(1)?;
            prepare(host)?
        };
        let _here = OnCpu::new(0)?;
        let seen = watch.during(|| operation(host, &mut subject))?;
        least = Some(least.map_or(seen, |least| least.min(seen)));
    }
    println!("bench {name} {}", least.unwrap_or_default());
    Ok(())
}

fn main() -> Result<()> {
    let mut bench = Bench::open()?;

    if bench.host.offers(VmType::Snp) {
        return snp::rows(&mut bench);
    }
    sev::rows(&mut bench)?;
    exits::rows(&mut bench)?;
    if bench.watch.is_some() { waits::rows(&mut bench) } else { Ok(()) }
}
