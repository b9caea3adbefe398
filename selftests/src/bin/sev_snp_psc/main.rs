// SPDX-License-Identifier: GPL-2.0-or-later
//! Page state changes that SNP guests ask for by a GHCB: good and bad requests, userspace that
//! fails, and requests that change while they are worked on.
//!
//! A case line shows the answer, `cur_entry/end_entry` and the pages done of each entry
//! afterwards, and the exits to userspace.

mod conversions;
mod meanwhile;
mod refused;

use std::process::ExitCode;

use anyhow::Result;
use sev_vm::es::kept_vm;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::PAGE;
use sev_vm::snp_guest::{PRIVATE, Setup, SnpGuest};
use sev_vm::snp_guest_psc::Done;
use sev_vm::snp_guest_rmp::no_page_of_guests;

const PAGE_LEN: u64 = PAGE as u64;

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("single", conversions::single),
            ("batches", conversions::batches),
            ("combined", conversions::combined),
            ("large", conversions::large),
            ("large_validation", conversions::large_validation),
            ("partly_done", conversions::partly_done),
            ("header", refused::header),
            ("scratch", refused::scratch),
            ("entries", refused::entries),
            ("nothing_there", refused::nothing_there),
            ("userspace_fails", refused::userspace_fails),
            ("not_forwarded", refused::not_forwarded),
            ("changed_meanwhile", meanwhile::changed_meanwhile),
            ("race", meanwhile::race),
            ("storm", meanwhile::storm),
            ("storm_on_same_pages", meanwhile::storm_on_same_pages),
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
