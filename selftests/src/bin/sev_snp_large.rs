// SPDX-License-Identifier: GPL-2.0-or-later
//! Private memory of SNP guests in pages of 2 MiB, which become the guest's as a whole, and are
//! split when the guest, userspace, or the end of the file asks for less.
//!
//! What a fault of the reverse map table was about, and what KVM did then, is what the kernel's event
//! `kvm_rmp_fault` says of it.

use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, ensure};
use kvm_bindings::kvm_pre_fault_memory;
use sev_vm::es::kept_vm;
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::large_gmem::{self, Blocks};
use sev_vm::mem::PAGE;
use sev_vm::psp::MachineCounters;
use sev_vm::snp::{PageType, Snp, policy, pre_fault};
use sev_vm::snp_guest::{
    AREA, Actor, Exception, LARGE, MEMORY, SHARED_VIEW, Setup, SnpGuest, punch, set_private,
};
use sev_vm::snp_guest_program::Command;
use sev_vm::snp_guest_psc::{Entry, Psc};
use sev_vm::snp_guest_rmp::{Rmp, no_page_of_guests};
use sev_vm::tracefs;

const PAGE_LEN: u64 = PAGE as u64;
/// PVALIDATE: success, and that the sizes of page and entry differ. CF: nothing changed.
const DONE: [u64; 2] = [0, 0];
const NO_CHANGE: [u64; 2] = [0, 1];
const SIZE_MISMATCH: u64 = 6;
/// Where tests look in a large page: its ends, and amid.
const PLACES: [u64; 4] = [0, 8 * PAGE_LEN, LARGE / 2 + 8, LARGE - 8];
/// The page that tests treat in a way of its own; none of [`PLACES`] is there.
const AMID: u64 = 100 * PAGE_LEN;

fn main() -> ExitCode {
    if let Err(error) = large_gmem::load_module() {
        println!("# {error:#}\n0 passed, 1 failed");
        return ExitCode::FAILURE;
    }
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("whole", whole),
            ("pre_fault", pre_faulted),
            ("partly_launched", partly_launched),
            ("validated_in_parts", validated_in_parts),
            ("adjusted_in_parts", adjusted_in_parts),
            ("converted_amid", converted_amid),
            ("converted_whole", converted_whole),
            ("punched_amid", punched_amid),
            ("punched_whole", punched_whole),
            ("freed_whole", freed_whole),
            ("race", race),
            ("storm", storm),
            ("no_page_of_guests", no_page_of_guests),
        ],
    )
}

/// A guest whose areas are large pages. Field order is drop order.
struct Large {
    guest: SnpGuest,
    blocks: Blocks,
}

impl Large {
    fn launch(host: &Host) -> Result<Self> {
        let mut guest = Setup::vcpus(2).launch(host)?;
        let blocks = Blocks::fill(&guest.private, AREA..MEMORY)?;
        for vcpu in 0..2 {
            guest.actor(vcpu).register()?;
        }
        Ok(Self { guest, blocks })
    }

    /// One whose first area is the guest's as a whole, with words at [`PLACES`].
    fn with_data(host: &Host) -> Result<Self> {
        let mut this = Self::launch(host)?;
        let mut vcpu = this.guest.actor(0);
        let outcome = validate_large(&mut vcpu, AREA, true)?;
        ensure!(outcome == DONE, "PVALIDATE of 2 MiB: {outcome:x?}");
        for place in PLACES {
            ensure!(vcpu.store(AREA + place, place | 1)?.quiet(), "no access to {place:#x}");
        }
        Ok(this)
    }

    /// Nested page table entries of 2 MiB.
    fn mapped_large(&self) -> Result<u64> {
        large_gmem::statistic(&self.guest.vm.fd, "pages_2m")
    }

    fn close(self) -> Result<()> {
        drop(self.guest);
        self.blocks.give_back()
    }
}

/// PVALIDATE of 2 MiB: EAX and CF.
fn validate_large(vcpu: &mut Actor, gpa: u64, validate: bool) -> Result<[u64; 2]> {
    let outcome = vcpu.command(Command::Pvalidate, [gpa, 1, validate.into()])?;
    ensure!(outcome.quiet(), "PVALIDATE of 2 MiB at {gpa:#x}: {outcome}");
    Ok(outcome.results)
}

/// Whether the words at [`PLACES`] are as they were written.
fn is_kept(vcpu: &mut Actor) -> Result<bool> {
    for place in PLACES {
        let load = vcpu.load(AREA + place)?;
        if !load.quiet() || load.results[0] != place | 1 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What an action did to the table: instructions that changed it, and the faults on the way.
fn changes<T>(
    t: &mut Test,
    case: &str,
    action: impl FnOnce(&mut Test) -> Result<T>,
) -> Result<(T, Changes)> {
    let before = t.psp.machine()?;
    let (value, events) = tracefs::record(&["kvm/kvm_rmp_fault"], None, || action(t))?;
    let changes = Changes::new(&before, &t.psp.machine()?, &events)?;
    t.observe(&format!("{case}.changes"), format!("{changes:?}"));
    Ok((value, changes))
}

#[derive(Debug)]
struct Changes {
    updates: u64,
    splits: u64,
    /// Error code, level of the entry, result of the split.
    faults: Vec<(u64, u64, u64)>,
}

impl Changes {
    fn new(before: &MachineCounters, after: &MachineCounters, events: &str) -> Result<Self> {
        let number = |line: &str, name: &str| -> Result<u64> {
            let words = line.split_whitespace();
            let word = words.skip_while(|word| *word != name).nth(1).context(name.to_owned())?;
            let digits = word.strip_prefix("0x");
            Ok(u64::from_str_radix(digits.unwrap_or(word), if digits.is_some() { 16 } else { 10 })?)
        };
        let faults = events
            .lines()
            .filter(|line| line.contains(" kvm_rmp_fault: "))
            .map(|line| {
                let code = number(line, "error_code")?;
                Ok((code, number(line, "rmp_level")?, number(line, "psmash_ret")?))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            updates: after.rmpupdate - before.rmpupdate,
            splits: after.psmash - before.psmash,
            faults,
        })
    }

    /// Nothing but `updates` RMPUPDATEs and `splits` PSMASHes, one for each fault.
    fn are(&self, updates: u64, splits: u64) -> bool {
        let successes = self.faults.iter().all(|(_, level, result)| (*level, *result) == (2, 0));
        (self.updates, self.splits) == (updates, splits)
            && self.faults.len() as u64 == splits
            && successes
    }
}

/// One RMPUPDATE and one mapping for 2 MiB, which the guest validates at once.
fn whole(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut large = Large::launch(&host)?;
    let ((), done) = changes(t, "use", |t| {
        let mut vcpu = large.guest.actor(0);
        for (name, gpa) in [("first", AREA), ("second", AREA + LARGE)] {
            let untouched = vcpu.load(gpa + AMID)?;
            t.check("not_validated", untouched.exception == Some(Exception::NOT_VALIDATED));
            let validated = validate_large(&mut vcpu, gpa, true)?;
            t.value(name, format!("{validated:?}"), format!("{DONE:?}"));
            let again = validate_large(&mut vcpu, gpa, true)?;
            t.value("again", format!("{again:?}"), format!("{NO_CHANGE:?}"));
            for place in PLACES {
                t.check("store", vcpu.store(gpa + place, gpa | place)?.quiet());
            }
            for place in PLACES {
                t.value("load", vcpu.load(gpa + place)?.results[0], gpa | place);
            }
        }
        Ok(())
    })?;
    t.check("two_updates", done.are(2, 0));
    t.value("mapped_large", large.mapped_large()?, 2);
    // The file's pages are small, so that the first one that is freed splits all.
    let (closed, done) = changes(t, "close", |_| large.close())?;
    t.check("split_at_the_end", done.splits == 2 && done.faults.is_empty());
    Ok(closed)
}

/// Faults in advance.
fn pre_faulted(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut large = Large::launch(&host)?;
    let (gpa, size) = (AREA, MEMORY - AREA);
    let mut argument = kvm_pre_fault_memory { gpa, size, ..Default::default() };
    let (answer, done) =
        changes(t, "fault", |_| Ok(pre_fault(large.guest.vm.vcpus[0].fd(), &mut argument)))?;
    t.record("answer", answer);
    t.value("left", argument.size, 0);
    t.check("two_updates", done.are(2, 0));
    t.value("mapped_large", large.mapped_large()?, 2);
    let ((), done) = changes(t, "validate", |t| {
        for gpa in [AREA, AREA + LARGE] {
            let validated = validate_large(&mut large.guest.actor(0), gpa, true)?;
            t.value("validated", format!("{validated:?}"), format!("{DONE:?}"));
        }
        Ok(())
    })?;
    t.check("nothing_more", done.are(0, 0));
    large.close()
}

/// What was loaded is in small pages, and so is the rest then.
fn partly_launched(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Snp::started(&host, policy::DEFAULT)?;
    let blocks = Blocks::fill(&vm.private, 0..guest::MEMORY as u64)?;
    vm.vm.add_vcpu(&host, [0; 4])?;
    vm.update(PageType::Normal, guest::LAUNCHED)?;
    vm.seal()?;
    let (gpa, size) = (guest::PRIVATE, guest::MEMORY as u64 - guest::PRIVATE);
    let mut argument = kvm_pre_fault_memory { gpa, size, ..Default::default() };
    let (answer, done) =
        changes(t, "fault", |_| Ok(pre_fault(vm.vm.vcpus[0].fd(), &mut argument)))?;
    t.record("answer", answer);
    t.value("left", argument.size, 0);
    t.check("one_by_one", done.are(size / PAGE_LEN, 0));
    t.value("mapped_large", large_gmem::statistic(&vm.vm.fd, "pages_2m")?, 0);
    drop(vm);
    blocks.give_back()
}

/// PVALIDATE of less than the entry is about splits it, once.
fn validated_in_parts(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut large = Large::launch(&host)?;
    let ((), done) = changes(t, "first", |t| {
        let outcome = large.guest.actor(0).pvalidate(AREA + AMID, true)?;
        t.observe("first", &outcome);
        t.check("first_done", outcome.quiet() && outcome.results == DONE);
        Ok(())
    })?;
    t.check("one_split", done.are(1, 1));
    t.value("mapped_large", large.mapped_large()?, 0);
    let ((), done) = changes(t, "others", |t| {
        let mut vcpu = large.guest.actor(0);
        for place in PLACES {
            let gpa = AREA + place / PAGE_LEN * PAGE_LEN;
            vcpu.validate(gpa)?;
            t.check("store", vcpu.store(gpa, gpa)?.quiet());
        }
        t.check("amid", vcpu.load(AREA + AMID)?.quiet());
        let neighbour = vcpu.load(AREA + AMID + PAGE_LEN)?;
        t.check("not_validated", neighbour.exception == Some(Exception::NOT_VALIDATED));
        t.value("all", validate_large(&mut vcpu, AREA, true)?[0], SIZE_MISMATCH);
        Ok(())
    })?;
    t.check("no_split", done.are(0, 0));
    // Rescinding a part of what was validated as a whole.
    let mut large_again = {
        large.close()?;
        Large::with_data(&host)?
    };
    let ((), done) = changes(t, "rescind", |t| {
        let mut vcpu = large_again.guest.actor(0);
        let outcome = vcpu.pvalidate(AREA + AMID, false)?;
        t.check("rescinded", outcome.quiet() && outcome.results == DONE);
        t.check("kept", is_kept(&mut vcpu)?);
        let amid = vcpu.load(AREA + AMID)?;
        t.check("amid_gone", amid.exception == Some(Exception::NOT_VALIDATED));
        Ok(())
    })?;
    t.check("rescind_splits", done.are(0, 1));
    large_again.close()
}

/// RMPADJUST of less than the entry is about.
fn adjusted_in_parts(t: &mut Test) -> Result<()> {
    /// Read and write, for VMPL 1.
    const PERMISSIONS: u64 = (3 << 8) | 1;
    let host = Host::open()?;
    let mut large = Large::with_data(&host)?;
    let ((), done) = changes(t, "adjust", |t| {
        let mut vcpu = large.guest.actor(0);
        for offset in [AMID, AMID + PAGE_LEN] {
            let outcome = vcpu.rmpadjust(AREA + offset, PERMISSIONS)?;
            t.check("adjusted", outcome.quiet() && outcome.results[0] == 0);
        }
        t.check("kept", is_kept(&mut vcpu)?);
        Ok(())
    })?;
    t.check("one_split", done.are(0, 1));
    large.close()
}

/// One page becomes shared: the others stay what they are, but are mapped one by one.
fn converted_amid(t: &mut Test) -> Result<()> {
    const WORD: u64 = 0x600d;
    let host = Host::open()?;
    let mut large = Large::with_data(&host)?;
    large.guest.actor(0).store(AREA + AMID, WORD)?;
    let ((), done) = changes(t, "to_shared", |t| {
        let mut vcpu = large.guest.actor(0);
        let psc = vcpu.psc(&Psc::new(&[Entry::shared(AREA + AMID)]))?;
        t.value("to_shared.answer", format!("{:?}", psc.answer), "(0, 0)".into());
        t.check("shared_store", vcpu.store(SHARED_VIEW + AREA + AMID, 7)?.quiet());
        t.value("host_reads", vcpu.memory.read_u64((AREA + AMID) as usize), 7);
        t.check("kept", is_kept(&mut vcpu)?);
        Ok(())
    })?;
    t.check("one_split", done.are(0, 1));
    t.value("mapped_large", large.mapped_large()?, 0);
    let ((), done) = changes(t, "to_private", |t| {
        let mut vcpu = large.guest.actor(0);
        let psc = vcpu.psc(&Psc::new(&[Entry::private(AREA + AMID)]))?;
        t.value("to_private.answer", format!("{:?}", psc.answer), "(0, 0)".into());
        // Nobody has freed the private page, nor rescinded it.
        t.value("amid", vcpu.load(AREA + AMID)?.results[0], WORD);
        t.check("kept_again", is_kept(&mut vcpu)?);
        Ok(())
    })?;
    t.check("nothing_more", done.are(0, 0));
    large.close()
}

/// All of it becomes shared and private again: it is one page still.
fn converted_whole(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut large = Large::with_data(&host)?;
    let ((), done) = changes(t, "convert", |t| {
        let mut vcpu = large.guest.actor(0);
        for round in 0..2 {
            let rescinded = validate_large(&mut vcpu, AREA, false)?;
            t.value("rescinded", format!("{rescinded:?}"), format!("{DONE:?}"));
            let psc = vcpu.psc(&Psc::new(&[Entry::shared(AREA).large()]))?;
            t.value("to_shared", psc.outcome.exits(), format!("map:{AREA:x}+200:1"));
            t.check("shared_store", vcpu.store(SHARED_VIEW + AREA, round)?.quiet());
            t.value("host_reads", vcpu.memory.read_u64(AREA as usize), round);
            let psc = vcpu.psc(&Psc::new(&[Entry::private(AREA).large()]))?;
            t.value("to_private", psc.outcome.exits(), format!("map:{AREA:x}+200:11"));
            let validated = validate_large(&mut vcpu, AREA, true)?;
            t.value("validated", format!("{validated:?}"), format!("{DONE:?}"));
            t.check("kept", is_kept(&mut vcpu)?);
        }
        Ok(())
    })?;
    t.check("no_change", done.are(0, 0));
    t.value("mapped_large", large.mapped_large()?, 1);
    large.close()
}

/// A hole of 4 KiB: that page is the host's again, the others are the guest's.
fn punched_amid(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut large = Large::with_data(&host)?;
    let before = Rmp::walk()?;
    let amid = AREA + AMID..AREA + AMID + PAGE_LEN;
    let ((), done) = changes(t, "punch", |_| Ok(punch(&large.guest.private, amid)?))?;
    t.check("split_and_shared", (done.updates, done.splits) == (1, 1));
    t.check("no_fault", done.faults.is_empty());
    // The large page was one entry.
    t.value("pages", Rmp::walk()?.guests - before.guests, LARGE / PAGE_LEN - 2);
    let ((), done) = changes(t, "use", |t| {
        let mut vcpu = large.guest.actor(0);
        t.check("kept", is_kept(&mut vcpu)?);
        let new = vcpu.load(AREA + AMID)?;
        t.check("not_validated", new.exception == Some(Exception::NOT_VALIDATED));
        vcpu.validate(AREA + AMID)?;
        t.check("store", vcpu.store(AREA + AMID, 1)?.quiet());
        Ok(())
    })?;
    t.check("one_page_more", done.are(1, 0));
    large.close()
}

/// A hole of 2 MiB.
fn punched_whole(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut large = Large::with_data(&host)?;
    let before = Rmp::walk()?;
    punch(&large.guest.private, AREA..AREA + LARGE)?;
    t.value("entries", before.guests - Rmp::walk()?.guests, 1);
    t.value("mapped_large", large.mapped_large()?, 0);
    let mut vcpu = large.guest.actor(0);
    let new = vcpu.load(AREA)?;
    t.check("not_validated", new.exception == Some(Exception::NOT_VALIDATED));
    large.close()
}

/// The file frees large pages as such: one RMPUPDATE for one that is large still, and one for each of
/// its pages if it was split.
fn freed_whole(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut large = Large::with_data(&host)?;
    let split = large.guest.actor(0).pvalidate(AREA + LARGE, true)?;
    t.check("second_split", split.quiet() && split.results == DONE);
    t.value("mapped_large", large.mapped_large()?, 1);
    large.blocks.free_whole()?;
    for (name, gpa, updates) in [("large", AREA, 1), ("split", AREA + LARGE, LARGE / PAGE_LEN)] {
        let hole = gpa..gpa + LARGE;
        let ((), done) = changes(t, name, |_| Ok(punch(&large.guest.private, hole)?))?;
        t.check(name, done.are(updates, 0));
    }
    t.value("left", large.mapped_large()?, 0);
    let ((), done) = changes(t, "close", |_| large.close())?;
    // What was loaded is in small pages, which are not of the blocks.
    t.check("no_split", done.splits == 0);
    Ok(())
}

/// Two vCPUs validate pages of the same large one: both see it split, whoever did it.
fn race(t: &mut Test) -> Result<()> {
    const ROUNDS: usize = 10;
    let host = Host::open()?;
    let mut splits = 0;
    for _ in 0..ROUNDS {
        let mut large = Large::launch(&host)?;
        // Large files lock large pages: only one of the vCPUs could make a page the guest's.
        for gpa in [AREA, AREA + LARGE] {
            large.guest.actor(0).load(gpa)?;
        }
        let before = t.psp.machine()?;
        thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = large
                .guest
                .actors()
                .into_iter()
                .map(|mut vcpu| {
                    scope.spawn(move || -> Result<()> {
                        for gpa in [AREA, AREA + LARGE] {
                            for page in 0..8 {
                                vcpu.validate(gpa + (2 * page + vcpu.index as u64) * PAGE_LEN)?;
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            for thread in threads {
                thread.join().expect("the thread ends")?;
            }
            Ok(())
        })?;
        let after = t.psp.machine()?;
        ensure!(after.rmpupdate == before.rmpupdate, "the pages were the guest's before");
        splits += after.psmash - before.psmash;
        large.close()?;
    }
    t.note(format!("{splits} PSMASHes of {} large pages", 2 * ROUNDS));
    t.check("split", splits >= 2 * ROUNDS as u64);
    Ok(())
}

/// A page is converted there and back, again and again, while the guest uses its neighbours.
fn storm(t: &mut Test) -> Result<()> {
    const ROUNDS: u64 = 100;
    let host = Host::open()?;
    let mut large = Large::with_data(&host)?;
    let mut actors = large.guest.actors();
    let vcpu = &mut actors[0];
    let vm = vcpu.vm;
    thread::scope(|scope| -> Result<()> {
        let converter = scope.spawn(|| -> Result<()> {
            for round in 0..ROUNDS {
                let page = AREA + AMID + round % 5 * PAGE_LEN;
                for private in [false, true] {
                    set_private(vm, page..page + PAGE_LEN, private)?;
                }
            }
            Ok(())
        });
        let mut kept = true;
        while !converter.is_finished() {
            kept &= is_kept(vcpu)?;
        }
        t.check("kept", kept);
        converter.join().expect("the thread ends")
    })?;
    t.check("kept_afterwards", is_kept(&mut large.guest.actor(0))?);
    large.close()
}
