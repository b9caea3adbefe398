// SPDX-License-Identifier: GPL-2.0-or-later
//! AP creation: vCPUs that run from save areas of the guest's own making, and what becomes of
//! those while vCPUs use them.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use sev_vm::es::kept_vm;
use sev_vm::ghcb::{self, Field, exit};
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::hostile::Hostile;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::PAGE;
use sev_vm::snp_guest::{
    AREA, Actor, BUFFERS, LARGE, MEMORY, OTHER_CODE, PRIVATE, Setup, SnpGuest, answer, punch,
    set_private,
};
use sev_vm::snp_guest_psc::{Entry, Psc};
use sev_vm::snp_guest_rmp::no_page_of_guests;
use sev_vm::snp_guest_vmsa::{Creation, SNP_ACTIVE, Vmsa, creation};

const PAGE_LEN: u64 = PAGE as u64;
/// Pages that become VMSAs.
const VMSAS: [u64; 2] = [PRIVATE.start, PRIVATE.start + PAGE_LEN];
/// A shared word that programs of other vCPUs count in.
const COUNTER: u64 = BUFFERS.start;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("requests", requests),
            ("arguments", arguments),
            ("create", create),
            ("create_on_init", create_on_init),
            ("replace", replace),
            ("destroy", destroy),
            ("not_a_vmsa", not_a_vmsa),
            ("in_use", in_use),
            ("punched_out", punched_out),
            ("punched_unmapped", punched_unmapped),
            ("made_shared", made_shared),
            ("itself", itself),
            ("storm", storm),
            ("no_page_of_guests", no_page_of_guests),
        ],
    )
}

/// A guest of `vcpus` vCPUs of which the first has its GHCB and two pages for VMSAs.
fn launched(host: &Host, vcpus: usize) -> Result<SnpGuest> {
    let mut guest = Setup::vcpus(vcpus).launch(host)?;
    let mut first = guest.actor(0);
    first.register()?;
    VMSAS.iter().try_for_each(|gpa| first.validate(*gpa))?;
    Ok(guest)
}

/// A VMSA with which a vCPU counts in [`COUNTER`].
fn counting(guest: &SnpGuest) -> Vmsa {
    Vmsa::new(&guest.boot, OTHER_CODE, COUNTER, guest::LAUNCHED.end as u64)
}

fn count(vcpu: &Actor) -> u64 {
    vcpu.memory.read_u64(COUNTER as usize)
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !holds() {
        ensure!(start.elapsed() < PATIENCE, "{what}: nothing happens");
        thread::yield_now();
    }
    Ok(())
}

/// Waits until the second vCPU has counted on from `before`.
fn counts(first: &Actor, before: u64) -> Result<End> {
    until("counting", || count(first) > before + 100)?;
    Ok(End::Told)
}

extern "C" fn nothing(_: libc::c_int) {}

/// Makes SIGUSR1 interrupt KVM_RUN and do nothing else.
fn interruptible() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action)? };
    Ok(())
}

/// How the second vCPU is to come to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// By a signal.
    Told,
    /// By what the first one did.
    ByItself,
}

/// Runs `work` with the first vCPU while the second one runs; the second one's exits.
fn beside(guest: &mut SnpGuest, work: impl FnOnce(&mut Actor) -> Result<End>) -> Result<String> {
    both(guest, false, work)
}

/// As [`beside`]; the second one runs `again` after every exit until told to stop.
fn both(
    guest: &mut SnpGuest,
    again: bool,
    work: impl FnOnce(&mut Actor) -> Result<End>,
) -> Result<String> {
    interruptible()?;
    let stop = AtomicBool::new(!again);
    let mut actors = guest.actors();
    let mut second = actors.remove(1);
    let mut first = actors.remove(0);
    let (send, id) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let stop = &stop;
        let runner = scope.spawn(move || -> Result<String> {
            // SAFETY: always successful.
            send.send(unsafe { libc::pthread_self() })?;
            loop {
                let ended = second.resume()?.exits();
                if stop.load(Ordering::Relaxed) {
                    return Ok(ended);
                }
            }
        });
        let id = id.recv()?;
        let result = work(&mut first);
        stop.store(true, Ordering::Relaxed);
        let start = Instant::now();
        while !runner.is_finished() {
            // Again and again: it may not have entered KVM_RUN yet.
            if !matches!(result, Ok(End::ByItself)) {
                // SAFETY: the thread is joined below.
                unsafe { libc::pthread_kill(id, libc::SIGUSR1) };
            }
            thread::yield_now();
            if start.elapsed() > PATIENCE {
                println!("# WRONG the second vCPU does not stop");
                std::process::exit(1);
            }
        }
        let ended = runner.join().map_err(|_| anyhow!("the vCPU's thread panicked"))??;
        result.with_context(|| format!("the second vCPU: {ended}"))?;
        Ok(ended)
    })
}

fn refused(
    t: &mut Test,
    vcpu: &mut Actor,
    name: &str,
    request: &ghcb::Ghcb,
    reason: u64,
) -> Result<()> {
    let created = vcpu.create_raw(request)?;
    let expected = format!("{:?}", (ghcb::answer::MALFORMED, reason));
    t.value(name, format!("{:?}", created.answer), expected);
    t.check(&format!("{name}.quiet"), created.outcome.quiet());
    Ok(())
}

/// Every request, and numbers that are none.
fn requests(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host, 2)?;
    let boot = guest.boot;
    let mut vcpu = guest.actor(0);
    vcpu.make_vmsa(VMSAS[0], &Vmsa::puppet(&boot, 1))?;
    let bad = ghcb::answer::INVALID_INPUT;
    for what in [3, 4, 0x10, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
        let request = creation(what, 1, VMSAS[0], SNP_ACTIVE);
        refused(t, &mut vcpu, &format!("unknown_{what:x}"), &request, bad)?;
    }
    for (name, what) in [
        ("on_init", Creation::OnInit),
        ("create", Creation::Create),
        ("destroy", Creation::Destroy),
    ] {
        let created = vcpu.create(what, 1, VMSAS[0])?;
        t.value(name, created.to_string(), "0:0 -".into());
    }
    Ok(())
}

/// APIC ids, features, and addresses.
fn arguments(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host, 2)?;
    let mut vcpu = guest.actor(0);
    let bad = ghcb::answer::INVALID_INPUT;
    for (way, what) in [("create", 1), ("on_init", 0), ("destroy", 2)] {
        for id in [2, 3, 255, 0x7fff_ffff, 0xffff_ffff] {
            let request = creation(what, id, VMSAS[0], SNP_ACTIVE);
            refused(t, &mut vcpu, &format!("{way}.apic_id_{id:x}"), &request, bad)?;
        }
    }
    for (way, what) in [("create", 1), ("on_init", 0)] {
        for features in [0, 2, 3, (1 << 5) | 1, (1 << 32) | 1, (1 << 63) | 1, u64::MAX] {
            let request = creation(what, 1, VMSAS[0], features);
            refused(t, &mut vcpu, &format!("{way}.features_{features:x}"), &request, bad)?;
        }
        let request = creation(what, 1, VMSAS[0], SNP_ACTIVE).without(Field::Rax);
        let missing = ghcb::answer::MISSING_INPUT;
        refused(t, &mut vcpu, &format!("{way}.no_features"), &request, missing)?;
        for (name, gpa) in [
            ("unaligned", VMSAS[0] + 1),
            ("half", VMSAS[0] + 0x800),
            ("large_aligned", AREA),
            ("zero", 0),
            ("large_aligned_nowhere", 8 * LARGE),
            ("wide", (1 << 49) + PAGE_LEN),
            ("wider", (1 << 52) + PAGE_LEN),
            ("highest", !0xfff),
        ] {
            let request = creation(what, 1, gpa, SNP_ACTIVE);
            refused(t, &mut vcpu, &format!("{way}.{name}"), &request, bad)?;
        }
    }
    // Destruction needs neither.
    let request = creation(2, 1, u64::MAX, 0).without(Field::Rax);
    let created = vcpu.create_raw(&request)?;
    t.value("destroy.bare", created.to_string(), "0:0 -".into());
    Ok(())
}

/// The second vCPU runs from a VMSA that the first one made.
fn create(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host, 2)?;
    let vmsa = counting(&guest);
    let mut first = guest.actor(0);
    first.make_vmsa(VMSAS[0], &vmsa)?;
    let created = first.create(Creation::Create, 1, VMSAS[0])?;
    t.value("create", created.to_string(), "0:0 -".into());
    let ended = beside(&mut guest, |first| {
        until("counting", || count(first) > 1000)?;
        t.check("first_runs", first.load(guest::CODE)?.quiet());
        Ok(End::Told)
    })?;
    t.value("ended", ended, "error:EINTR".into());
    // Again, where it was.
    let before = guest.vm.memory.read_u64(COUNTER as usize);
    let ended = beside(&mut guest, |first| counts(first, before))?;
    t.value("again", ended, "error:EINTR".into());
    Ok(())
}

/// A VMSA for the next INIT: nothing changes before that.
fn create_on_init(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host, 2)?;
    let vmsa = counting(&guest);
    let mut first = guest.actor(0);
    first.make_vmsa(VMSAS[0], &vmsa)?;
    let created = first.create(Creation::OnInit, 1, VMSAS[0])?;
    t.value("create", created.to_string(), "0:0 -".into());
    // The puppet of the launch is still there.
    let mut second = guest.actor(1);
    second.register()?;
    t.check("runs", second.load(guest::CODE)?.quiet());
    t.value("count", guest.vm.memory.read_u64(COUNTER as usize), 0);
    Ok(())
}

/// One VMSA after the other, for a vCPU that runs.
fn replace(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host, 2)?;
    let boot = guest.boot;
    let counting = counting(&guest);
    for round in 0..4 {
        let other = VMSAS[round % 2];
        let mut first = guest.actor(0);
        if round >= 2 {
            t.observe("unmake", first.unmake_vmsa(other)?.results[0]);
        }
        first.make_vmsa(other, &counting)?;
        let before = count(&first);
        t.value("create", first.create(Creation::Create, 1, other)?.to_string(), "0:0 -".into());
        let ended = beside(&mut guest, |first| counts(first, before))?;
        t.value("ended", ended, "error:EINTR".into());
    }
    // From counting to a puppet.
    let mut first = guest.actor(0);
    first.validate(PRIVATE.start + 4 * PAGE_LEN)?;
    first.make_vmsa(PRIVATE.start + 4 * PAGE_LEN, &Vmsa::puppet(&boot, 1))?;
    first.create(Creation::Create, 1, PRIVATE.start + 4 * PAGE_LEN)?;
    let mut second = guest.actor(1);
    second.register()?;
    t.check("puppet", second.load(guest::CODE)?.quiet());
    Ok(())
}

/// A vCPU that is destroyed sleeps until it is created again.
fn destroy(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host, 2)?;
    let vmsa = counting(&guest);
    guest.actor(0).make_vmsa(VMSAS[0], &vmsa)?;
    // It may run as the puppet of the launch first, and stop as one: it has to be run again.
    let ended = both(&mut guest, true, |first| {
        // It counts, sleeps, counts.
        for round in 0..3 {
            let before = count(first);
            first.create(Creation::Create, 1, VMSAS[0])?;
            counts(first, before)?;
            first.create(Creation::Destroy, 1, 0)?;
            // The kick comes before the answer; a count may be under way.
            let mut last = count(first);
            let mut same = 0;
            for _ in 0..1000 {
                first.load(guest::CODE)?;
                same = if count(first) == last { same + 1 } else { 0 };
                last = count(first);
                if same > 20 {
                    break;
                }
            }
            t.check(&format!("sleeps_{round}"), same > 20);
        }
        Ok(End::Told)
    })?;
    t.value("ended", ended, "error:EINTR".into());
    Ok(())
}

/// Pages that are no VMSA: KVM_RUN fails, the host does not care.
fn not_a_vmsa(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, gpa) in [
        ("validated", VMSAS[0]),
        ("untouched", PRIVATE.start + 9 * PAGE_LEN),
        ("shared", BUFFERS.start),
        ("outside", MEMORY + PAGE_LEN),
        ("far", (1 << 45) + PAGE_LEN),
        ("code", guest::CODE),
    ] {
        let mut guest = launched(&host, 2)?;
        let created = guest.actor(0).create(Creation::Create, 1, gpa)?;
        t.observe(name, &created);
        let mut second = guest.actor(1);
        for turn in ["first", "second"] {
            t.observe(&format!("{name}.{turn}_run"), second.resume()?.exits());
        }
        t.check(&format!("{name}.other_vcpu"), guest.actor(0).load(guest::CODE)?.quiet());
    }
    Ok(())
}

/// A VMSA that a vCPU runs from is not for others: neither for a second vCPU nor for stores.
fn in_use(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host, 3)?;
    let vmsa = counting(&guest);
    let mut first = guest.actor(0);
    first.make_vmsa(VMSAS[0], &vmsa)?;
    first.create(Creation::Create, 1, VMSAS[0])?;
    first.create(Creation::Create, 2, VMSAS[0])?;
    let ended = beside(&mut guest, |first| {
        counts(first, 0)?;
        // FAIL_INUSE, unless the vCPU happens not to be in the guest.
        let unmade = first.unmake_vmsa(VMSAS[0])?;
        t.check("unmake", unmade.quiet() && [0, 3].contains(&unmade.results[0]));
        t.check("store", first.store(VMSAS[0], 0)?.done);
        t.check("rescind", first.pvalidate(VMSAS[0], false)?.done);
        Ok(End::ByItself)
    })?;
    t.observe("ended", ended);
    Ok(())
}

/// The host takes the page of a VMSA away while a vCPU runs from it.
fn punched_out(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, running) in [("between_runs", false), ("while_it_runs", true)] {
        let mut guest = launched(&host, 2)?;
        let vmsa = counting(&guest);
        let mut first = guest.actor(0);
        first.make_vmsa(VMSAS[0], &vmsa)?;
        first.create(Creation::Create, 1, VMSAS[0])?;
        let private = guest.private.try_clone()?;
        let range = VMSAS[0]..VMSAS[0] + PAGE_LEN;
        let punch = || punch(&private, range.clone());
        let ended = beside(&mut guest, |first| {
            let end = counts(first, count(first))?;
            if running {
                punch()?;
                return Ok(End::ByItself);
            }
            Ok(end)
        })?;
        t.observe(&format!("{name}.ended"), ended);
        if !running {
            punch()?;
        }
        t.observe(&format!("{name}.run"), guest.actor(1).resume()?.exits());
        let mut first = guest.actor(0);
        // The page is new; a VMSA again, and the vCPU runs again.
        first.validate(VMSAS[0])?;
        first.make_vmsa(VMSAS[0], &vmsa)?;
        let before = count(&first);
        first.create(Creation::Create, 1, VMSAS[0])?;
        beside(&mut guest, |first| counts(first, before))?;
        t.check(&format!("{name}.again"), true);
    }
    Ok(())
}

/// A page that the guest does not map is freed while a vCPU runs from it: nobody waits for a flush of
/// TLBs then, but for the vCPU to leave the guest.
fn punched_unmapped(t: &mut Test) -> Result<()> {
    const ROUNDS: usize = 20;
    let host = Host::open()?;
    let mut guest = launched(&host, 2)?;
    let vmsa = counting(&guest);
    let private = guest.private.try_clone()?;
    let range = VMSAS[0]..VMSAS[0] + PAGE_LEN;
    for _ in 0..ROUNDS {
        let mut first = guest.actor(0);
        first.make_vmsa(VMSAS[0], &vmsa)?;
        first.create(Creation::Create, 1, VMSAS[0])?;
        beside(&mut guest, |first| {
            let end = counts(first, count(first))?;
            for private in [false, true] {
                set_private(first.vm, range.clone(), private)?;
            }
            punch(&private, range.clone())?;
            Ok(end)
        })?;
        guest.actor(0).validate(VMSAS[0])?;
    }
    t.check("rounds", true);
    Ok(())
}

/// The page of a VMSA gets the attribute "shared" while a vCPU runs from it.
fn made_shared(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host, 2)?;
    let vmsa = counting(&guest);
    let mut first = guest.actor(0);
    first.make_vmsa(VMSAS[0], &vmsa)?;
    first.create(Creation::Create, 1, VMSAS[0])?;
    let ended = beside(&mut guest, |first| {
        counts(first, 0)?;
        let done = first.psc(&Psc::new(&[Entry::shared(VMSAS[0])]))?;
        t.observe("to_shared", &done);
        first.load(guest::CODE)?;
        let done = first.psc(&Psc::new(&[Entry::private(VMSAS[0])]))?;
        t.observe("to_private", &done);
        counts(first, count(first))
    })?;
    t.observe("ended", ended);
    let range = VMSAS[0]..VMSAS[0] + PAGE_LEN;
    set_private(&guest.vm.fd, range.clone(), false)?;
    // guest_memfd has the page still.
    let ended = beside(&mut guest, |first| counts(first, count(first)))?;
    t.observe("shared.ended", ended);
    set_private(&guest.vm.fd, range, true)?;
    t.check("first_runs", guest.actor(0).load(guest::CODE)?.quiet());
    Ok(())
}

/// A vCPU replaces itself: it goes on with the new VMSA.
fn itself(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host, 2)?;
    let boot = guest.boot;
    let mut first = guest.actor(0);
    first.make_vmsa(VMSAS[0], &Vmsa::puppet(&boot, 0))?;
    // The new state begins with the same command, whose GHCB has been answered meanwhile.
    let created = first.create(Creation::Create, 0, VMSAS[0])?;
    t.observe("create", created);
    t.check("runs", first.load(guest::CODE)?.quiet());
    let (_, page) = first.vmgexit(&ghcb::Ghcb::request(exit::HV_FEATURES, 0, 0))?;
    t.value("features", format!("{:?}", answer(&page)), "(0, 3)".into());
    Ok(())
}

/// Create and destroy by one vCPU while the other one runs, with pages punched out at times.
fn storm(t: &mut Test) -> Result<()> {
    const ROUNDS: u32 = 300;
    let host = Host::open()?;
    let mut guest = launched(&host, 2)?;
    let vmsa = counting(&guest);
    let mut first = guest.actor(0);
    for gpa in VMSAS {
        first.make_vmsa(gpa, &vmsa)?;
    }
    let mut source = Hostile::new(4);
    // A vCPU whose creation and destruction come at the same time may have no VMSA for a
    // moment; KVM_RUN says so then.
    let ended = both(&mut guest, true, |first| {
        for _ in 0..ROUNDS {
            let gpa = VMSAS[source.below(2)];
            let what = match source.below(4) {
                0 => Creation::Destroy,
                1 => Creation::OnInit,
                _ => Creation::Create,
            };
            let created = first.create(what, 1, gpa)?;
            ensure!(created.answer == (0, 0), "{created}");
        }
        let before = count(first);
        first.create(Creation::Create, 1, VMSAS[0])?;
        counts(first, before)
    })?;
    t.value("ended", ended, "error:EINTR".into());
    Ok(())
}
