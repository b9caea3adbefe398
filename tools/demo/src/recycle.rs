// SPDX-License-Identifier: GPL-2.0-or-later
//! More guests than ASIDs, and what all of this asked of the firmware.

use std::fs;

use anyhow::{Result, ensure};
use kvm_bindings::kvm_sev_launch_start;
use sev_vm::host::{EncryptionLeaf, Host};
use sev_vm::psp::Psp;
use sev_vm::vm::Vm;

use crate::story::Story;

const GUESTS: u64 = 600;
const POOL: &str = "/sys/kernel/debug/kvm_amd_sev/pool";

/// Guests one after another, so that ASIDs have to be used again.
pub fn many(story: &mut Story, host: &Host, psp: &mut Psp) -> Result<()> {
    story.chapter(&format!("{GUESTS} guests in a row"));
    let asids = u64::from(EncryptionLeaf::read().sev_asids());
    let before = psp.counters()?;
    let flushed = psp.machine()?.wbinvd;
    pool(story, "before");
    for guest in 0..GUESTS {
        let vm = Vm::sev(host)?;
        let answer = vm.launch_start(&mut kvm_sev_launch_start::default());
        ensure!(answer.is_ok(), "LAUNCH_START of guest {guest}: {answer}");
    }
    pool(story, "after");
    let after = psp.counters()?;
    let more = |name: &str| after.count(name) - before.count(name);
    story.fact("ASIDs", asids);
    let flushes = after.flushes() - before.flushes();
    story.fact("flushes of all ASIDs", flushes);
    story.fact("WBINVD", psp.machine()?.wbinvd - flushed);
    story.check("every guest was activated and forgotten", {
        more("ACTIVATE") == GUESTS && more("DECOMMISSION") == GUESTS && after.contexts == 0
    });
    story
        .check("ASIDs were flushed only when used up", (1..=GUESTS / asids + 1).contains(&flushes));
    story.check("firmware refused nothing", after.failures == before.failures);
    Ok(())
}

/// The module's own figures, if it has any.
fn pool(story: &Story, when: &str) {
    match fs::read_to_string(POOL) {
        Ok(table) => {
            for line in table.lines() {
                story.fact(&format!("pool {when}"), line);
            }
        }
        Err(_) => story.fact(&format!("pool {when}"), "not shown by this module"),
    }
}

/// Firmware commands by name.
pub fn commands(story: &mut Story, psp: &mut Psp) -> Result<()> {
    story.chapter("What it asked of the firmware");
    let counters = psp.counters()?;
    for (name, count) in &counters.commands {
        story.fact(name, count);
    }
    let failures: u64 = counters.failures.values().sum();
    story.check("no command failed", failures == 0);
    story.check("nothing is held", counters.contexts == 0 && counters.asids_bound == 0);
    Ok(())
}
