// SPDX-License-Identifier: GPL-2.0-or-later
//! Fuzzing from inside SNP guests.
//!
//! `exact` makes seeded hostile requests whose outcomes can be compared between modules: a digest
//! for every 16 of them. `race` writes over the GHCB while KVM works on it, with a second vCPU
//! at work: there the host has to survive, and to serve the next honest guest.
//!
//! Options: `--steps=N` for each seed, `--seeds=N`, `--seed=N` (the first), `--show` prints every
//! step of `exact`.

use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use sev_vm::es::kept_vm;
use sev_vm::ghcb::{BUFFER, BUFFER_LEN, FIELDS, Ghcb, VALID, exit};
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::snp_guest::{Actor, PRIVATE, Setup, SnpGuest, answer, ghcb_of};
use sev_vm::snp_guest_fuzz::{Fuzz, REQUEST, Request};
use sev_vm::snp_guest_psc::{Entry, Psc};
use sev_vm::snp_guest_rmp::no_page_of_guests;
use sev_vm::step::{Digest, stay_on_cpu};

/// Steps that share a line.
const BLOCK: u64 = 16;
const PAGE_LEN: u64 = PAGE as u64;

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[("exact", exact), ("race", race), ("no_page_of_guests", no_page_of_guests)],
    )
}

/// The number after `--NAME=`.
fn option(name: &str, default: u64) -> Result<u64> {
    let prefix = format!("--{name}=");
    let given = std::env::args().find_map(|a| a.strip_prefix(&prefix).map(str::to_owned));
    given.map_or(Ok(default), |n| n.parse().with_context(|| format!("{prefix}{n}")))
}

/// A guest whose second vCPU is there to be created and destroyed. What it needs itself is not
/// to be converted.
fn launched(host: &Host) -> Result<SnpGuest> {
    let mut guest = Setup::vcpus(2).launch(host)?;
    let mut vcpu = guest.actor(0);
    vcpu.register()?;
    Ok(guest)
}

/// One hostile request; what became of it.
fn step(vcpu: &mut Actor, request: &Request) -> Result<String> {
    let Request { ghcb, msr, page } = request;
    if let Some(page) = page {
        vcpu.memory.write(REQUEST as usize, page);
    }
    vcpu.vmm.refused_below = PRIVATE.start;
    vcpu.put_ghcb(ghcb);
    let mut outcome = vcpu.msr(*msr)?;
    let mut text = format!("{outcome} {:x?}", answer(&vcpu.ghcb()));
    // KVM_RUN failed: the guest goes on when it is called again.
    for _ in 0..2 {
        if outcome.done {
            break;
        }
        outcome = vcpu.resume()?;
        text += &format!(" then {outcome}");
    }
    ensure!(outcome.done, "the guest is lost: {text}");
    let mut rest = Digest::default();
    rest.add(&vcpu.memory.read(ghcb_of(0) as usize + BUFFER, BUFFER_LEN));
    // A registration holds until the next one.
    if *msr & 0xfff == 0x12 {
        vcpu.register()?;
    }
    Ok(format!("{text} #{rest}"))
}

/// Whether the guest is served as if nothing had happened.
fn alive(vcpu: &mut Actor) -> Result<bool> {
    vcpu.vmm = Default::default();
    vcpu.register()?;
    let (_, ghcb) = vcpu.vmgexit(&Ghcb::request(exit::HV_FEATURES, 0, 0))?;
    let page = PRIVATE.start + 32 * PAGE_LEN;
    let shared = vcpu.psc(&Psc::new(&[Entry::shared(page)]))?;
    let private = vcpu.psc(&Psc::new(&[Entry::private(page)]))?;
    vcpu.validate(page)?;
    Ok(answer(&ghcb) == (0, 3) && shared.answer == (0, 0) && private.answer == (0, 0))
}

fn exact(t: &mut Test) -> Result<()> {
    let (first, seeds, steps) = (option("seed", 1)?, option("seeds", 3)?, option("steps", 1500)?);
    let show = std::env::args().any(|argument| argument == "--show");
    let host = Host::open()?;
    stay_on_cpu(0)?;
    for seed in first..first + seeds {
        let name = format!("seed_{seed}");
        let mut guest = launched(&host)?;
        let mut source = Fuzz::new(seed, 1);
        let mut block = Digest::default();
        let mut lost = 0;
        for number in 0..steps {
            let request = source.request();
            let text = match step(&mut guest.actor(0), &request) {
                Ok(text) => text,
                Err(error) => {
                    lost += 1;
                    guest = launched(&host)?;
                    format!("{error:#}")
                }
            };
            if show {
                let fields = FIELDS.map(|field| format!("{field:?}={:x}", request.ghcb.get(field)));
                t.note(format!("{number} msr={:x} {}", request.msr, fields.join(" ")));
                t.observe(&format!("{name}.step_{number}"), &text);
            }
            block.add(text.as_bytes());
            if number % BLOCK == BLOCK - 1 {
                t.observe(&format!("{name}.{}", number + 1 - BLOCK), std::mem::take(&mut block));
            }
        }
        t.value(&format!("{name}.guests_lost"), lost, 0);
        t.check(&format!("{name}.alive"), alive(&mut guest.actor(0))?);
    }
    Ok(())
}

/// Rewrites parts of the GHCB page until `done`.
fn disturb(view: &Mapping, seed: u64, done: &AtomicBool) {
    let mut source = Fuzz::new(seed, 1);
    while !done.load(Ordering::Relaxed) {
        let page = source.request().ghcb;
        for _ in 0..64 {
            let offset = match source.below(4) {
                0 => VALID + 8 * source.below(2) as usize,
                1 => FIELDS[source.below(FIELDS.len()) as usize] as usize,
                _ => BUFFER + 8 * source.below(BUFFER_LEN / 8) as usize,
            };
            view.write_u64(ghcb_of(0) as usize + offset, page.word(offset));
        }
    }
}

extern "C" fn nothing(_: libc::c_int) {}

/// Interrupts KVM_RUN every so many seconds, or no more: a guest may, by chance, have destroyed
/// its only vCPU that runs, which then sleeps for ever.
fn wake_up_every(seconds: libc::time_t) -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGALRM, &action)? };
    let time = libc::timeval { tv_sec: seconds, tv_usec: 0 };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: `timer` is only read.
    let ret = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) };
    ensure!(ret == 0, "setitimer: {}", Errno::last());
    Ok(())
}

fn race(t: &mut Test) -> Result<()> {
    let (first, seeds, steps) = (option("seed", 1)?, option("seeds", 3)?, option("steps", 1500)?);
    let host = Host::open()?;
    stay_on_cpu(0)?;
    for seed in first..first + seeds {
        let mut guest = launched(&host)?;
        let mut source = Fuzz::new(seed | 0x80, 1);
        let (mut left, mut lost) = (steps / 2, 0);
        while left > 0 {
            let view = guest.vm.memory.second_view()?;
            let done = AtomicBool::new(false);
            let disturber = seed ^ left;
            wake_up_every(5)?;
            let lived = thread::scope(|scope| {
                scope.spawn(|| {
                    // Where the other CPU is has no influence on what is tested.
                    let _ = stay_on_cpu(1);
                    // The signal is for the vCPU.
                    let _ = SigSet::all().thread_block();
                    disturb(&view, disturber, &done);
                });
                let mut lived = true;
                while left > 0 && lived {
                    left -= 1;
                    lived = step(&mut guest.actor(0), &source.request()).is_ok();
                }
                done.store(true, Ordering::Relaxed);
                lived
            });
            wake_up_every(0)?;
            if !lived {
                lost += 1;
                guest = launched(&host)?;
            }
        }
        t.note(format!("seed {seed}: {lost} guests lost"));
        // Another one, which nobody has disturbed.
        let mut guest = launched(&host)?;
        t.check(&format!("seed_{seed}.next_guest"), alive(&mut guest.actor(0))?);
    }
    Ok(())
}
