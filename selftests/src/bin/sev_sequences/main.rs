// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs sequences of operations and prints every answer, for comparison with another module's.
//!
//! `sev_sequences SCRIPT`: `selftests/sequences` makes scripts and compares. The output:
//!
//! ```text
//! physical FRAME...             where the VMs' memory is
//! sequence NAME
//! N ANSWER... [psp=COMMANDS]    of operation N, with the commands that firmware saw
//! kernel TEXT                   what the kernel complained about meanwhile
//! held FIGURES                  what is not back at its baseline
//! end NAME
//! done
//! ```

mod commands;
mod cpus;
mod places;
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
        run_one(sequence, places, &mut baseline, &mut out)?;
        writeln!(out, "end {}", sequence.name)?;
    }
    writeln!(out, "done")?;
    Ok(())
}

fn run_one(
    sequence: &Sequence<'_>,
    places: &'static Places,
    baseline: &mut Baseline,
    out: &mut impl Write,
) -> Result<()> {
    baseline.announce(sequence.name)?;
    let mut world = World::new(places)?;
    let mut log = baseline.log()?;
    for (n, op) in sequence.ops.iter().enumerate() {
        let answer = world.perform(*op, &mut baseline.psp)?;
        // Asking takes longer than most operations. What happened unexpectedly is seen later.
        let commands =
            if asked(&answer) { log.news(&mut baseline.psp)? } else { String::new() };
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

/// Whether an operation with this answer is likely to have asked the firmware.
fn asked(answer: &str) -> bool {
    answer.contains("fw=0x") || ["closed", "prepared"].contains(&answer)
}
