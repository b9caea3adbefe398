// SPDX-License-Identifier: GPL-2.0-or-later
//! Requests that are served: one page and many, small and large, all at once and the rest of it.

use anyhow::Result;
use sev_vm::host::Host;
use sev_vm::ktap::Test;
use sev_vm::snp_guest::{AREA, Exception, LARGE, SHARED_VIEW};
use sev_vm::snp_guest_program::Command;
use sev_vm::snp_guest_psc::{Entry, MOST, Psc, error};

use crate::{PAGE_LEN, all_done, failed, launched, page};

/// One page to shared and back, used in both states.
pub fn single(t: &mut Test) -> Result<()> {
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
pub fn batches(t: &mut Test) -> Result<()> {
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
pub fn combined(t: &mut Test) -> Result<()> {
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
pub fn large(t: &mut Test) -> Result<()> {
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
pub fn large_validation(t: &mut Test) -> Result<()> {
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
pub fn partly_done(t: &mut Test) -> Result<()> {
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
