// SPDX-License-Identifier: GPL-2.0-or-later
//! GHCB fuzzing from inside the guest.
//!
//! `exact` makes seeded hostile requests whose outcomes can be compared between modules: a digest
//! for every 16 of them. `race` rewrites GHCB and scratch areas while KVM works on them: there
//! the host has to survive, and to serve the next honest guest.
//!
//! Options: `--steps=N` for each seed, `--seeds=N`, `--seed=N` (the first), `--show` prints every
//! step of `exact`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};
use sev_vm::es::{Setup, kept_vm};
use sev_vm::ghcb::{BUFFER, BUFFER_LEN, FIELDS, Ghcb, VALID, answer, exit};
use sev_vm::host::Host;
use sev_vm::hostile::{Hostile, Request};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::Mapping;
use sev_vm::step::{Digest, GHCB, Stepper, stay_on_cpu};

/// Steps that share a line.
const BLOCK: u64 = 16;

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(env!("CARGO_BIN_NAME"), &[("exact", exact), ("race", race)])
}

/// The number after `--NAME=`.
fn option(name: &str, default: u64) -> Result<u64> {
    let prefix = format!("--{name}=");
    let given = std::env::args().find_map(|a| a.strip_prefix(&prefix).map(str::to_owned));
    given.map_or(Ok(default), |n| n.parse().with_context(|| format!("{prefix}{n}")))
}

fn exact(t: &mut Test) -> Result<()> {
    let (first, seeds, steps) = (option("seed", 1)?, option("seeds", 4)?, option("steps", 3000)?);
    let show = std::env::args().any(|argument| argument == "--show");
    let host = Host::open()?;
    stay_on_cpu(0)?;
    for seed in first..first + seeds {
        for version in [1, 2] {
            let name = format!("v{version}.seed_{seed}");
            let mut guest = Stepper::new(&host, Setup::version(version))?;
            let mut source = Hostile::new((seed << 8) | u64::from(version));
            let mut block = Digest::default();
            let mut ended = 0;
            for step in 0..steps {
                let Request { ghcb, msr } = source.request();
                let text = match guest.step_with(&ghcb, msr) {
                    Ok(outcome) => outcome.to_string(),
                    Err(error) => {
                        ended += 1;
                        guest = Stepper::new(&host, Setup::version(version))?;
                        format!("{error:#}")
                    }
                };
                if show {
                    let fields = FIELDS.map(|field| format!("{field:?}={:x}", ghcb.get(field)));
                    t.note(format!(
                        "{step} msr={msr:x} {} valid={:x?}",
                        fields.join(" "),
                        ghcb.valid()
                    ));
                    t.observe(&format!("{name}.step_{step}"), &text);
                }
                block.add(text.as_bytes());
                if step % BLOCK == BLOCK - 1 {
                    t.observe(&format!("{name}.{}", step + 1 - BLOCK), std::mem::take(&mut block));
                }
            }
            t.value(&format!("{name}.guests_lost"), ended, 0);
        }
    }
    Ok(())
}

/// Rewrites parts of the GHCB page until `done`.
fn disturb(view: &Mapping, seed: u64, done: &AtomicBool) {
    let mut source = Hostile::new(seed);
    while !done.load(Ordering::Relaxed) {
        let page = source.request().ghcb;
        for _ in 0..64 {
            let offset = match source.below(4) {
                0 => VALID + 8 * source.below(2),
                1 => BUFFER + 8 * source.below(BUFFER_LEN / 8),
                _ => source.pick(&FIELDS) as usize,
            };
            view.write_u64(GHCB as usize + offset, page.word(offset));
        }
    }
}

fn race(t: &mut Test) -> Result<()> {
    let (first, seeds, steps) = (option("seed", 1)?, option("seeds", 4)?, option("steps", 3000)?);
    let host = Host::open()?;
    stay_on_cpu(0)?;
    for seed in first..first + seeds {
        for version in [1, 2] {
            let mut guest = Stepper::new(&host, Setup::version(version))?;
            let mut source = Hostile::new((seed << 8) | 0x80 | u64::from(version));
            let mut left = steps;
            let mut ended = 0;
            while left > 0 {
                let view = guest.vm.memory.second_view()?;
                let done = AtomicBool::new(false);
                let disturber = seed ^ left;
                let lived = thread::scope(|scope| {
                    scope.spawn(|| {
                        // Where the other CPU is has no influence on what is tested.
                        let _ = stay_on_cpu(1);
                        disturb(&view, disturber, &done);
                    });
                    let mut lived = true;
                    while left > 0 && lived {
                        left -= 1;
                        let Request { ghcb, msr } = source.request();
                        lived = guest.step_with(&ghcb, msr).is_ok();
                    }
                    done.store(true, Ordering::Relaxed);
                    lived
                });
                if !lived {
                    ended += 1;
                    guest = Stepper::new(&host, Setup::version(version))?;
                }
            }
            t.note(format!("seed {seed} v{version}: {ended} guests lost"));
            // The last guest, which lived through it, and a new one.
            let features = Ghcb::request(exit::HV_FEATURES, 0, 0);
            let alive = guest.step(&features).is_ok_and(|o| o.answer().0 == answer::DONE);
            t.check(&format!("v{version}.seed_{seed}.alive"), alive);
            let mut guest = Stepper::new(&host, Setup::version(version))?;
            let served = guest.step(&features)?.answer().0;
            t.value(&format!("v{version}.seed_{seed}.next_guest"), served, answer::DONE);
        }
    }
    Ok(())
}
