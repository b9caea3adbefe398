// SPDX-License-Identifier: GPL-2.0-or-later
//! Malformed requests, and those that userspace does not serve.

use anyhow::{Result, ensure};
use nix::libc;
use sev_vm::ghcb::{self, BUFFER, Field};
use sev_vm::host::Host;
use sev_vm::ktap::Test;
use sev_vm::snp_guest::{
    AREA, BUFFERS, LARGE, MEMORY, PRIVATE, Reply, Setup, Vmm, answer, ghcb_of,
};
use sev_vm::snp_guest_psc::{Entry, MOST, Psc, error};

use crate::{PAGE_LEN, all_done, failed, launched, page};

/// Indices in the header.
pub fn header(t: &mut Test) -> Result<()> {
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
pub fn scratch(t: &mut Test) -> Result<()> {
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
pub fn entries(t: &mut Test) -> Result<()> {
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
pub fn nothing_there(t: &mut Test) -> Result<()> {
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
pub fn userspace_fails(t: &mut Test) -> Result<()> {
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
pub fn not_forwarded(t: &mut Test) -> Result<()> {
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
