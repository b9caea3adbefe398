// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs sequences of operations and prints every answer, for comparison with another module's.
//!
//! `sev_sequences SCRIPT [each]`: `selftests/sequences` makes scripts and compares. The output:
//!
//! ```text
//! physical FRAME...             where the VMs' memory is
//! sequence NAME
//! N ANSWER... [psp=COMMANDS]    of operation N; with `each`, the commands that firmware saw
//! close [psp=COMMANDS]          everything was closed; all commands, or those of closing
//! kernel TEXT                   what the kernel complained about meanwhile
//! held FIGURES                  what is not back at its baseline
//! end NAME
//! done
//! ```

mod commands;
mod cpus;
mod places;
mod private;
mod reset;
mod script;
mod table;
mod world;

use std::io::{BufWriter, Write, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::places::Places;
use crate::reset::Baseline;
use crate::script::Sequence;
use crate::world::World;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("stopped: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let path = std::env::args().nth(1).context("usage: sev_sequences SCRIPT")?;
    // Asking for commands takes longer than most operations.
    let each = std::env::args().nth(2).is_some_and(|word| word == "each");
    let text = std::fs::read_to_string(&path).context(path)?;
    let sequences = script::parse(&text)?;
    let mut out = BufWriter::new(stdout().lock());
    let mut baseline = Baseline::new()?;
    // For the life of the process.
    let places: &'static Places = Box::leak(Box::new(Places::new()?));
    writeln!(out, "physical {}", places.physical()?)?;
    for sequence in &sequences {
        writeln!(out, "sequence {}", sequence.name)?;
        out.flush()?;
        run_one(sequence, places, each, &mut baseline, &mut out)?;
        writeln!(out, "end {}", sequence.name)?;
    }
    writeln!(out, "done")?;
    Ok(())
}

fn run_one(
    sequence: &Sequence<'_>,
    places: &'static Places,
    each: bool,
    baseline: &mut Baseline,
    out: &mut impl Write,
) -> Result<()> {
    if sequence.ops.iter().any(|op| op.word(0).is_ok_and(|word| word == "exhaust")) {
        // How many ASIDs have to be flushed first is what earlier sequences left.
        baseline.reload()?;
    }
    baseline.announce(sequence.name)?;
    let mut world = World::new(places)?;
    let mut log = baseline.log()?;
    for (n, op) in sequence.ops.iter().enumerate() {
        let answer = world.perform(*op, &mut baseline.psp)?;
        let commands = if each { log.news(&mut baseline.psp)? } else { String::new() };
        writeln!(out, "{n} {answer}{commands}")?;
    }
    let (leased, faulty) = (world.leased, world.faulty);
    drop(world);
    writeln!(out, "close{}", log.news(&mut baseline.psp)?)?;
    for complaint in baseline.complaints()? {
        writeln!(out, "kernel {complaint}")?;
    }
    if let Some(held) = baseline.settle(leased, faulty)? {
        writeln!(out, "held {held}")?;
    }
    Ok(())
}
