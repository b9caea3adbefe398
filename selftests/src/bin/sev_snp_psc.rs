// SPDX-License-Identifier: GPL-2.0-or-later
//! Page state changes that SNP guests ask for by a GHCB: good and bad requests, userspace that
//! fails, and requests that change while they are worked on.
//!
//! A case line shows the answer, `cur_entry/end_entry` and the pages done of each entry
//! afterwards, and the exits to userspace.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use nix::libc;
use sev_vm::es::kept_vm;
use sev_vm::ghcb::{self, BUFFER, Field, Ghcb, exit};
use sev_vm::host::Host;
use sev_vm::hostile::Hostile;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::PAGE;
use sev_vm::snp_guest::{
    AREA, Actor, BUFFERS, Exception, LARGE, MEMORY, PRIVATE, Reply, SHARED_VIEW, Setup, SnpGuest,
    Vmm, answer, ghcb_of, set_private,
};
use sev_vm::snp_guest_program::Command;
use sev_vm::snp_guest_psc::{Done, Entry, MOST, Psc, error};
use sev_vm::snp_guest_rmp::no_page_of_guests;

const PAGE_LEN: u64 = PAGE as u64;

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("single", single),
            ("batches", batches),
            ("combined", combined),
            ("large", large),
            ("large_validation", large_validation),
            ("partly_done", partly_done),
            ("header", header),
            ("scratch", scratch),
            ("entries", entries),
            ("nothing_there", nothing_there),
            ("userspace_fails", userspace_fails),
            ("not_forwarded", not_forwarded),
            ("changed_meanwhile", changed_meanwhile),
            ("race", race),
            ("storm", storm),
            ("storm_on_same_pages", storm_on_same_pages),
            ("no_page_of_guests", no_page_of_guests),
        ],
    )
}

fn launched(host: &Host) -> Result<SnpGuest> {
    let mut guest = Setup::default().launch(host)?;
    guest.actor(0).register()?;
    Ok(guest)
}

/// Page `n` of the private ones.
const fn page(n: u64) -> u64 {
    PRIVATE.start + n * PAGE_LEN
}

/// Requires that everything was done with these exits.
fn all_done(t: &mut Test, case: &str, done: &Done, exits: &str) {
    t.observe(case, done);
    let what = format!("{:?} {}", done.answer, done.outcome.exits());
    t.value(&format!("{case}.done"), what, format!("(0, 0) {exits}"));
}

/// Requires an answer; the exits are for the comparison.
fn failed(t: &mut Test, case: &str, done: &Done, reason: u64) {
    t.observe(case, done);
    t.value(
        &format!("{case}.reason"),
        format!("{:x?}", done.answer),
        format!("{:x?}", (0, reason)),
    );
}

/// One page to shared and back, used in both states.
fn single(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host)?;
    let mut vcpu = guest.actor(0);
    for round in 0..3 {
        vcpu.validate(page(0))?;
        t.check("private_store", vcpu.store(page(0), round)?.quiet());
        vcpu.pvalidate(page(0), false)?;
        let done = vcpu.psc(&Psc::new(&[Entry::shared(page(0))]))?;
        all_done(t, "to_shared", &done, &format!("map:{:x}+1:0", page(0)));
        t.value("to_shared.progress", done.after.progress(), "1/0 [1]".into());
        t.check("shared_store", vcpu.store(SHARED_VIEW + page(0), !round)?.quiet());
        t.value("host_reads", vcpu.memory.read_u64(page(0) as usize), !round);
        let done = vcpu.psc(&Psc::new(&[Entry::private(page(0))]))?;
        all_done(t, "to_private", &done, &format!("map:{:x}+1:10", page(0)));
        let load = vcpu.load(page(0))?;
        t.check("not_validated", load.exception == Some(Exception::NOT_VALIDATED));
    }
    Ok(())
}

/// As many entries as fit, apart from each other and side by side.
fn batches(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host)?;
    let mut vcpu = guest.actor(0);
    for count in [2, 3, 64, MOST as u64] {
        let apart: Vec<_> =
            (0..count).map(|i| Entry::shared(page(if count > 200 { i } else { 2 * i }))).collect();
        let done = vcpu.psc(&Psc::new(&apart))?;
        t.observe(&format!("to_shared_{count}"), &done);
        t.value("answer", format!("{:?}", done.answer), "(0, 0)".into());
        let exits = if count > 200 { 1 } else { count as usize };
        t.value("exits", done.outcome.exits.len(), exits);
        let all = done.after.entries.iter().all(|entry| entry.done() == 1);
        t.check("all", all && u64::from(done.after.current) == count);
        let beside: Vec<_> = (0..count).map(|i| Entry::private(page(i))).collect();
        let done = vcpu.psc(&Psc::new(&beside))?;
        let exits = format!("map:{:x}+{count:x}:10", page(0));
        all_done(t, &format!("to_private_{count}"), &done, &exits);
    }
    Ok(())
}

/// Which entries are combined into one exit.
fn combined(t: &mut Test) -> Result<()> {
    use Entry as E;
    let host = Host::open()?;
    let mut guest = launched(&host)?;
    let mut vcpu = guest.actor(0);
    let (s, p) = (E::shared, E::private);
    let far = E(p(page(0)).0 | (1 << 63));
    let cases: [(&str, Vec<E>, &str); 9] = [
        (
            "gap",
            vec![s(page(0)), s(page(1)), s(page(3)), s(page(4))],
            "map:50000+2:0,map:53000+2:0",
        ),
        (
            "operations",
            vec![p(page(0)), p(page(1)), s(page(2)), s(page(3)), p(page(4))],
            "map:50000+2:10,map:52000+2:0,map:54000+1:10",
        ),
        (
            "backwards",
            vec![s(page(2)), s(page(1)), s(page(0))],
            "map:52000+1:0,map:51000+1:0,map:50000+1:0",
        ),
        (
            "twice",
            vec![s(page(0)), s(page(0)), p(page(0)), s(page(0))],
            "map:50000+1:0,map:50000+1:0,map:50000+1:10,map:50000+1:0",
        ),
        (
            "partly",
            vec![s(page(0)), s(page(1)).current(1), s(page(2)), s(page(3))],
            "map:50000+1:0,map:52000+2:0",
        ),
        ("large", vec![s(AREA).large(), s(AREA + LARGE).large()], "map:200000+400:1"),
        (
            "large_then_small",
            vec![p(AREA).large(), p(AREA + LARGE), p(AREA + LARGE + PAGE_LEN)],
            "map:200000+200:11,map:400000+2:10",
        ),
        (
            "small_then_large",
            vec![s(AREA - PAGE_LEN), s(AREA).large()],
            "map:1ff000+1:0,map:200000+200:1",
        ),
        ("reserved", vec![far, p(page(1))], "map:50000+2:10"),
    ];
    for (name, entries, exits) in cases {
        let done = vcpu.psc(&Psc::new(&entries))?;
        all_done(t, name, &done, exits);
    }
    Ok(())
}

/// 2 MiB at once; guest_memfd has small pages.
fn large(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host)?;
    let mut vcpu = guest.actor(0);
    let last = AREA + LARGE - PAGE_LEN;
    for gpa in [AREA, last] {
        vcpu.validate(gpa)?;
        vcpu.store(gpa, gpa)?;
    }
    let done = vcpu.psc(&Psc::new(&[Entry::shared(AREA).large()]))?;
    all_done(t, "to_shared", &done, &format!("map:{AREA:x}+200:1"));
    t.value("to_shared.progress", done.after.progress(), "1/0 [512]".into());
    for gpa in [AREA, last] {
        t.check("shared_store", vcpu.store(SHARED_VIEW + gpa, !gpa)?.quiet());
        t.value("host_reads", vcpu.memory.read_u64(gpa as usize), !gpa);
    }
    // A page amid goes its own way, then all of them.
    let amid = AREA + 100 * PAGE_LEN;
    let done = vcpu.psc(&Psc::new(&[Entry::private(amid)]))?;
    all_done(t, "amid", &done, &format!("map:{amid:x}+1:10"));
    vcpu.validate(amid)?;
    let done = vcpu.psc(&Psc::new(&[Entry::private(AREA).large()]))?;
    all_done(t, "to_private", &done, &format!("map:{AREA:x}+200:11"));
    // Nobody has freed the private pages: they are as they were.
    for gpa in [AREA, last] {
        t.value("kept", vcpu.load(gpa)?.results[0], gpa);
    }
    t.check("amid_kept", vcpu.load(amid)?.quiet());
    Ok(())
}

/// PVALIDATE of 2 MiB that the host has assigned in small pages.
fn large_validation(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host)?;
    let mut vcpu = guest.actor(0);
    const SIZE_MISMATCH: u64 = 6;
    for (name, gpa) in [("area", AREA), ("next", AREA + LARGE)] {
        let outcome = vcpu.command(Command::Pvalidate, [gpa, 1, 1])?;
        t.value(name, outcome.results[0], SIZE_MISMATCH);
        t.observe(&format!("{name}.outcome"), outcome);
        vcpu.validate(gpa)?;
        t.check(&format!("{name}.store"), vcpu.store(gpa, 1)?.quiet());
    }
    let unaligned = vcpu.command(Command::Pvalidate, [AREA + PAGE_LEN, 1, 1])?;
    t.value("unaligned", unaligned.results[0], 1);
    Ok(())
}

/// Entries of which a part is done already.
fn partly_done(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host)?;
    let mut vcpu = guest.actor(0);
    let small = |pages| Entry::shared(page(0)).current(pages);
    let large = |pages| Entry::shared(AREA).large().current(pages);
    for (name, entry, exits) in [
        ("small_1", small(1), "-".into()),
        ("large_1", large(1), format!("map:{:x}+1ff:1", AREA + PAGE_LEN)),
        ("large_200", large(200), format!("map:{:x}+138:1", AREA + 200 * PAGE_LEN)),
        ("large_511", large(511), format!("map:{:x}+1:1", AREA + 511 * PAGE_LEN)),
        ("large_512", large(512), "-".into()),
    ] {
        let done = vcpu.psc(&Psc::new(&[entry]))?;
        all_done(t, name, &done, &exits);
    }
    for (name, entry) in [
        ("small_2", small(2)),
        ("small_4095", small(4095)),
        ("large_513", large(513)),
        ("large_4095", large(4095)),
    ] {
        let done = vcpu.psc(&Psc::new(&[Entry::private(page(9)), entry]))?;
        failed(t, name, &done, error::ENTRY);
    }
    // Everything is done but the last entry; then everything.
    let most: Vec<_> = (0..20).map(|i| Entry::shared(page(i)).current(1)).collect();
    let done = vcpu.psc(&Psc::new(&most))?;
    t.observe("all", &done);
    let mut last = most;
    last[19] = Entry::shared(page(19));
    let done = vcpu.psc(&Psc::new(&last))?;
    t.observe("all_but_one", &done);
    // Entries behind a partly done large one are not combined with it.
    let done = vcpu.psc(&Psc::new(&[large(510), Entry::shared(AREA + LARGE)]))?;
    t.observe("followed", &done);
    let done = vcpu.psc(&Psc::new(&[large(510), Entry::shared(AREA + LARGE).large()]))?;
    t.observe("followed_by_large", &done);
    let done = vcpu.psc(&Psc::new(&[large(510), Entry::shared(AREA + 2 * PAGE_LEN)]))?;
    t.observe("followed_inside", &done);
    Ok(())
}

/// Indices in the header.
fn header(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host)?;
    let mut vcpu = guest.actor(0);
    let entries: Vec<_> = (0..MOST as u64).map(|i| Entry::shared(page(i))).collect();
    let most = MOST as u16;
    for (current, end) in [
        (0, 0),
        (1, 0),
        (0, 1),
        (2, 2),
        (most - 1, most - 1),
        (most, most - 1),
        (most + 1, most - 1),
        (u16::MAX, most - 1),
        (u16::MAX, 0),
    ] {
        let done = vcpu.psc(&Psc::new(&entries).header(current, end))?;
        let exits = match (current, end) {
            (0, 0) => format!("map:{:x}+1:0", page(0)),
            (0, 1) => format!("map:{:x}+2:0", page(0)),
            (a, b) if a == b => format!("map:{:x}+1:0", page(a.into())),
            _ => "-".into(),
        };
        all_done(t, &format!("{current}_{end}"), &done, &exits);
    }
    for (current, end) in [
        (0, most),
        (most, most),
        (0, most + 1),
        (0, 0x100),
        (0, 0x7fff),
        (0, 0x8000),
        (u16::MAX, u16::MAX),
    ] {
        let done = vcpu.psc(&Psc::new(&entries).header(current, end))?;
        failed(t, &format!("bad_{current}_{end}"), &done, error::HEADER);
        t.check("no_exit", done.outcome.exits.is_empty());
    }
    // Reserved bits mean nothing.
    let reserved = Psc { reserved: u32::MAX, ..Psc::new(&entries[..1]) };
    t.observe("reserved", vcpu.psc(&reserved)?);
    Ok(())
}

/// Where the request may be.
fn scratch(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host)?;
    let mut vcpu = guest.actor(0);
    let own = ghcb_of(0);
    for (name, offset, end, ok) in [
        ("start", BUFFER, 0, true),
        ("odd", BUFFER + 1, 0, true),
        ("last", 0xff0 - 16, 0, true),
        ("last_and_more", 0xff0 - 16, 1, false),
        ("header_alone", 0xff0 - 8, 0, false),
    ] {
        let entries = vec![Entry::shared(page(0)); if name == "header_alone" { 0 } else { 1 }];
        let request = Psc { offset, ..Psc::new(&entries).header(0, end) };
        let (outcome, ghcb) = vcpu.vmgexit(&request.ghcb(own))?;
        let expected = if ok { (0, 0) } else { (0, error::HEADER) };
        t.value(name, format!("{:x?}", answer(&ghcb)), format!("{expected:x?}"));
        t.observe(&format!("{name}.exits"), outcome.exits());
    }
    let request = Psc::new(&[Entry::shared(page(0))]).ghcb(own);
    for (name, gpa) in [
        ("none", 0),
        ("before_buffer", own + BUFFER as u64 - 1),
        ("no_room", own + 0xff0 - 7),
        ("behind", own + 0xff8),
        ("shared_page", BUFFERS.start),
        ("private_page", PRIVATE.start),
        ("beyond_memory", MEMORY),
        ("wraps", u64::MAX - 3),
    ] {
        let (outcome, ghcb) = vcpu.vmgexit(&request.clone().with(Field::Scratch, gpa))?;
        let expected = (ghcb::answer::MALFORMED, ghcb::answer::INVALID_SCRATCH);
        t.value(name, format!("{:x?}", answer(&ghcb)), format!("{expected:x?}"));
        t.check(&format!("{name}.quiet"), outcome.quiet());
    }
    let (_, ghcb) = vcpu.vmgexit(&request.without(Field::Scratch))?;
    let expected = (ghcb::answer::MALFORMED, ghcb::answer::MISSING_INPUT);
    t.value("missing", format!("{:x?}", answer(&ghcb)), format!("{expected:x?}"));
    Ok(())
}

/// Entries with operations that do not exist, unaligned ones, reserved bits.
fn entries(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host)?;
    let mut vcpu = guest.actor(0);
    for operation in 0..16 {
        let done = vcpu.psc(&Psc::new(&[Entry::new(page(0), operation)]))?;
        t.observe(&format!("operation_{operation}"), &done);
        let known = operation == 1 || operation == 2;
        t.check("exits_if_known", done.outcome.exits.is_empty() != known);
        let done = vcpu.psc(&Psc::new(&[
            Entry::shared(page(0)),
            Entry::new(page(1), operation),
            Entry::new(page(2), operation),
            Entry::new(AREA, operation).large(),
            Entry::private(page(0)),
        ]))?;
        t.observe(&format!("operation_{operation}.amid"), &done);
    }
    for (name, gpa) in [
        ("unaligned_1", AREA + PAGE_LEN),
        ("unaligned_256", AREA + 256 * PAGE_LEN),
        ("unaligned_511", AREA + 511 * PAGE_LEN),
    ] {
        let done = vcpu.psc(&Psc::new(&[Entry::shared(page(0)), Entry::shared(gpa).large()]))?;
        failed(t, name, &done, error::ENTRY);
    }
    for bit in 57..64 {
        let entry = Entry(Entry::private(page(0)).0 | (1 << bit));
        t.observe(&format!("reserved_{bit}"), vcpu.psc(&Psc::new(&[entry]))?);
    }
    Ok(())
}

/// Pages outside memory, and the highest number.
fn nothing_there(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host)?;
    let mut vcpu = guest.actor(0);
    let highest = ((1 << 52) - 1) & !(LARGE - 1);
    for (name, gpa) in
        [("end", MEMORY), ("above", 1 << 32), ("width", 1 << 48), ("highest", highest)]
    {
        for (way, entry) in [("private", Entry::private(gpa)), ("shared", Entry::shared(gpa))] {
            let done = vcpu.psc(&Psc::new(&[entry, Entry::shared(page(0))]))?;
            t.observe(&format!("{name}.{way}"), done);
            let done = vcpu.psc(&Psc::new(&[entry.large(), Entry::shared(page(0))]))?;
            t.observe(&format!("{name}.{way}_large"), done);
        }
    }
    // Over the end of memory, and over the end of numbers.
    let over = [Entry::private(MEMORY - PAGE_LEN), Entry::private(MEMORY)];
    t.observe("over_the_end", vcpu.psc(&Psc::new(&over))?);
    let wraps = [Entry::private((1 << 52) - PAGE_LEN), Entry::private(0)];
    t.observe("wraps", vcpu.psc(&Psc::new(&wraps))?);
    Ok(())
}

/// Userspace returns an error for the first or a later exit.
fn userspace_fails(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = launched(&host)?;
    let request = Psc::new(&[
        Entry::shared(page(0)),
        Entry::shared(page(1)),
        Entry::private(page(2)),
        Entry::shared(AREA).large(),
        Entry::shared(page(5)),
    ]);
    let numbers = [libc::EINVAL, libc::EAGAIN, 1, libc::ENOSPC].map(|number| number as u64);
    for number in numbers.into_iter().chain([1 << 32, u64::MAX]) {
        for from in 0..4 {
            let name = format!("{number:x}.exit_{from}");
            let mut vcpu = guest.actor(0);
            vcpu.vmm =
                Vmm { hypercalls: Reply::Return(number), hypercalls_from: from, ..Vmm::default() };
            let done = vcpu.psc(&request)?;
            t.observe(&name, &done);
            vcpu.vmm = Vmm::default();
            if !done.outcome.done {
                // KVM_RUN failed; the guest sees nothing of it, whatever comes next.
                let again = vcpu.resume_psc(&request)?;
                t.observe(&format!("{name}.again"), &again);
                if host.is_ours() {
                    // The stock module would warn of the entries that it believes under way.
                    let next = vcpu.psc(&again.after)?;
                    ensure!(next.answer == (0, 0), "{name}: the next request: {next}");
                }
                guest = launched(&host)?;
                continue;
            }
            t.value(&format!("{name}.answer"), done.answer.1, error::GENERIC);
            // What was left over, by the indices that the guest finds.
            let rest = done.after.clone();
            t.observe(&format!("{name}.rest"), vcpu.psc(&rest)?);
            let back = [Entry::private(page(0)), Entry::private(AREA).large()];
            vcpu.psc(&Psc::new(&back))?;
        }
    }
    Ok(())
}

/// Without KVM_CAP_EXIT_HYPERCALL nothing can be done.
fn not_forwarded(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup { hypercalls: false, ..Setup::default() }.launch(&host)?;
    let mut vcpu = guest.actor(0);
    vcpu.register()?;
    let request = Psc::new(&[Entry::shared(page(0))]);
    let bad = Psc::new(&[Entry::shared(AREA + PAGE_LEN).large()]);
    for (name, request) in [
        ("good", request.clone()),
        ("bad_entry", bad),
        ("bad_header", request.clone().header(0, u16::MAX)),
        ("done", request.header(1, 0)),
    ] {
        let done = vcpu.psc(&request)?;
        failed(t, name, &done, error::GENERIC);
        t.check("no_exit", done.outcome.exits.is_empty());
    }
    Ok(())
}

/// The guest changes its request while userspace works on it.
fn changed_meanwhile(t: &mut Test) -> Result<()> {
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
fn race(t: &mut Test) -> Result<()> {
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
fn storm(t: &mut Test) -> Result<()> {
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

fn storm_on_same_pages(t: &mut Test) -> Result<()> {
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
