// SPDX-License-Identifier: GPL-2.0-or-later
//! Requests that change while they are worked on, and many at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use sev_vm::ghcb::{BUFFER, Ghcb, exit};
use sev_vm::host::Host;
use sev_vm::hostile::Hostile;
use sev_vm::ktap::Test;
use sev_vm::snp_guest::{
    AREA, Actor, PRIVATE, Reply, SHARED_VIEW, Setup, SnpGuest, Vmm, answer, ghcb_of, set_private,
};
use sev_vm::snp_guest_psc::{Entry, Psc};

use crate::{PAGE_LEN, launched, page};

/// The guest changes its request while userspace works on it.
pub fn changed_meanwhile(t: &mut Test) -> Result<()> {
    type Change = fn(&mut Psc);
    let host = Host::open()?;
    let mut guest = launched(&host)?;
    let request = Psc::new(&[
        Entry::shared(page(0)),
        Entry::shared(page(1)),
        Entry::private(page(3)),
        Entry::shared(page(6)),
    ]);
    let changes: [(&str, Change); 9] = [
        ("nothing", |_| ()),
        ("later_page", |psc| psc.entries[2] = Entry::private(page(9))),
        ("later_operation", |psc| psc.entries[2] = Entry::new(page(3), 7)),
        ("later_bad", |psc| psc.entries[3] = Entry::shared(page(6)).current(9)),
        ("this_becomes_large", |psc| psc.entries[0] = Entry::shared(AREA).large()),
        ("this_becomes_bad", |psc| psc.entries[1] = Entry(u64::MAX)),
        ("end", |psc| psc.end = 1),
        ("end_far", |psc| psc.end = u16::MAX),
        ("current", |psc| psc.current = 100),
    ];
    for (name, change) in changes {
        let mut vcpu = guest.actor(0);
        vcpu.vmm = Vmm { hypercalls: Reply::Stop, ..Vmm::default() };
        let begun = vcpu.psc(&request)?;
        t.observe(name, &begun);
        ensure!(!begun.outcome.done, "{begun}");
        let mut changed = request.clone();
        change(&mut changed);
        let with_header = changed.ghcb(ghcb_of(0));
        let bytes = BUFFER..BUFFER + 8 * (1 + changed.entries.len());
        vcpu.memory.write(ghcb_of(0) as usize + BUFFER, &with_header.0[bytes]);
        vcpu.vmm = Vmm::default();
        t.observe(&format!("{name}.then"), vcpu.resume_psc(&request)?);
        let (_, ghcb) = vcpu.vmgexit(&Ghcb::request(exit::HV_FEATURES, 0, 0))?;
        t.value("alive", format!("{:?}", answer(&ghcb)), "(0, 3)".into());
    }
    // The GHCB goes away: to private, and out of guest_memfd's sight.
    let mut vcpu = guest.actor(0);
    vcpu.vmm = Vmm { hypercalls: Reply::Stop, ..Vmm::default() };
    vcpu.psc(&request)?;
    set_private(vcpu.vm, ghcb_of(0)..ghcb_of(0) + PAGE_LEN, true)?;
    let gone = vcpu.resume()?;
    t.observe("ghcb_private", gone.exits());
    set_private(vcpu.vm, ghcb_of(0)..ghcb_of(0) + PAGE_LEN, false)?;
    Ok(())
}

/// Another thread writes over the request.
pub fn race(t: &mut Test) -> Result<()> {
    const ROUNDS: u64 = 300;
    let host = Host::open()?;
    let mut guest = launched(&host)?;
    let view = guest.vm.memory.second_view()?;
    let done = AtomicBool::new(false);
    let mut vcpu = guest.actor(0);
    let (mut finished, mut refused) = (0, 0);
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            let mut source = Hostile::new(1);
            while !done.load(Ordering::Relaxed) {
                let at = BUFFER + 8 * source.below(10);
                let value = match source.below(4) {
                    0 => source.word(),
                    1 => Entry::private(page(source.below(32) as u64)).0,
                    2 => Entry::shared(AREA).large().current(source.below(600) as u64).0,
                    _ => source.below(12) as u64 | ((source.below(12) as u64) << 16),
                };
                view.write_u64(ghcb_of(0) as usize + at, value);
            }
        });
        let work = || -> Result<()> {
            for round in 0..ROUNDS {
                let entries: Vec<_> =
                    (0..8).map(|i| Entry::new(page(2 * i), 1 + round % 2)).collect();
                let outcome = vcpu.psc(&Psc::new(&entries))?;
                // A request has an answer of its own kind, or a scratch area that is none.
                if outcome.outcome.done && outcome.answer.0 == 0 {
                    finished += 1;
                } else {
                    refused += 1;
                }
            }
            Ok(())
        };
        let result = { work }();
        done.store(true, Ordering::Relaxed);
        result
    })?;
    t.value("finished", finished, ROUNDS);
    t.value("refused", refused, 0);
    let after = vcpu.psc(&Psc::new(&[Entry::private(page(0))]))?;
    t.value("alive", format!("{:?}", after.answer), "(0, 0)".into());
    Ok(())
}

/// One vCPU of a storm: its own pages go there and back, and keep what they hold.
fn own_pages(vcpu: &mut Actor, rounds: u64) -> Result<()> {
    vcpu.register()?;
    let first = PRIVATE.start + vcpu.index as u64 * 16 * PAGE_LEN;
    let pages: Vec<u64> = (0..8).map(|i| first + i * PAGE_LEN).collect();
    for round in 0..rounds {
        for gpa in &pages {
            vcpu.validate(*gpa)?;
            vcpu.store(*gpa, *gpa ^ round)?;
        }
        for gpa in &pages {
            let value = vcpu.load(*gpa)?.results[0];
            ensure!(value == *gpa ^ round, "{gpa:x} holds {value:x} in round {round}");
            vcpu.pvalidate(*gpa, false)?;
        }
        for operation in [2, 1] {
            let entries: Vec<_> = pages.iter().map(|gpa| Entry::new(*gpa, operation)).collect();
            let done = vcpu.psc(&Psc::new(&entries))?;
            ensure!(done.answer == (0, 0), "page state change: {done}");
            if operation == 2 {
                let outcome = vcpu.store(SHARED_VIEW + pages[0], round)?;
                ensure!(outcome.quiet(), "shared store: {outcome}");
            }
        }
    }
    Ok(())
}

fn in_threads(guest: &mut SnpGuest, work: fn(&mut Actor) -> Result<()>) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = guest
            .actors()
            .into_iter()
            .map(|mut vcpu| scope.spawn(move || work(&mut vcpu)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a vCPU thread panicked"))?)
    })
}

/// Several vCPUs change the state of neighbouring pages.
pub fn storm(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup::vcpus(3).launch(&host)?;
    let result = in_threads(&mut guest, |vcpu| own_pages(vcpu, 12));
    t.check("own_pages", result.is_ok());
    result
}

/// One vCPU of a storm on pages that all of them use: nothing can be expected but to live.
fn common_pages(vcpu: &mut Actor) -> Result<()> {
    vcpu.register()?;
    let mut source = Hostile::new(vcpu.index as u64);
    vcpu.vmm.faults = Reply::Serve;
    for _ in 0..150 {
        let gpa = page(source.below(4) as u64);
        let outcome = match source.below(6) {
            0 => vcpu.psc(&Psc::new(&[Entry::shared(gpa)]))?.outcome,
            1 => vcpu.psc(&Psc::new(&[Entry::private(gpa)]))?.outcome,
            2 => vcpu.pvalidate(gpa, true)?,
            3 => vcpu.pvalidate(gpa, false)?,
            4 => vcpu.store(gpa, 1)?,
            _ => vcpu.store(SHARED_VIEW + gpa, 1)?,
        };
        ensure!(outcome.done, "vCPU {} stopped: {outcome}", vcpu.index);
    }
    Ok(())
}

pub fn storm_on_same_pages(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup::vcpus(3).launch(&host)?;
    let result = in_threads(&mut guest, common_pages);
    t.check("lived", result.is_ok());
    result?;
    let mut vcpu = guest.actor(0);
    for gpa in [page(0), page(3)] {
        vcpu.psc(&Psc::new(&[Entry::shared(gpa)]))?;
        vcpu.psc(&Psc::new(&[Entry::private(gpa)]))?;
        // It may have been validated in the end.
        vcpu.pvalidate(gpa, false)?;
        vcpu.validate(gpa)?;
        t.check("usable", vcpu.store(gpa, 1)?.quiet());
    }
    Ok(())
}
