// SPDX-License-Identifier: GPL-2.0-or-later
//! Everything that must be back after a call that failed, and after a VM was closed.

use std::fmt;
use std::fs;

use anyhow::{Context, Result};
use sev_vm::psp::Psp;
use sev_vm::state;

const DEBUGFS: &str = "/sys/kernel/debug/kvm_amd_sev";

/// What the kernel, the firmware and the module say.
#[derive(PartialEq, Eq)]
pub struct Held {
    common: state::Held,
    /// Charges of the root cgroup, by resource.
    charges: Vec<String>,
    /// Of the module's pool: ASIDs in use, and lost ones, by kind. Empty for the stock module.
    asids: Vec<String>,
    /// The module's encryption contexts. `None` for the stock module.
    contexts: Option<String>,
}

impl Held {
    /// Reads the present figures.
    pub fn now(psp: &mut Psp) -> Result<Self> {
        let pool = fs::read_to_string(format!("{DEBUGFS}/pool")).unwrap_or_default();
        let charges = fs::read_to_string("/sys/fs/cgroup/misc.current").context("misc.current")?;
        Ok(Self {
            common: state::Held::now(psp)?,
            charges: charges.lines().map(str::to_owned).collect(),
            asids: used(&pool)?,
            contexts: fs::read_to_string(format!("{DEBUGFS}/contexts")).ok(),
        })
    }
}

/// What is gone for good because the firmware does not give it back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Pages that are not the hypervisor's.
    pub pages: u64,
    /// Guest contexts, each with its page (counted above), and its ASID if it was bound to one.
    pub contexts: u64,
}

#[allow(dead_code, reason = "of SEV and SEV-ES guests nothing may be lost")]
impl Held {
    /// Whether nothing but `lost` is missing, compared with `before`. Pages that were loaded stay so
    /// as long as the guest lives.
    pub fn lacks(&self, before: &Self, lost: Lost, alive: bool) -> bool {
        let loaded = |state: &str| alive && state == "GuestValid";
        let pages = |held: &Self| -> u64 {
            held.common.rmp.iter().filter(|(state, _)| !loaded(state)).map(|(_, n)| n).sum()
        };
        let (now, then) = (&self.common, &before.common);
        let bound = then.asids_bound..=then.asids_bound + lost.contexts;
        pages(self) == pages(before) + lost.pages
            && now.contexts == then.contexts + lost.contexts
            && bound.contains(&now.asids_bound)
            && (now.module_refs, now.pinned_pages) == (then.module_refs, then.pinned_pages)
            && self.contexts == before.contexts
            // An ASID is lost with its charge.
            && (lost.contexts != 0
                || (&self.charges, &self.asids) == (&before.charges, &before.asids))
    }
}

/// `KIND LEASED LEAKED` of each line of the pool's table; which ASIDs are dirty is by chance.
fn used(table: &str) -> Result<Vec<String>> {
    let mut lines = table.lines();
    let Some(header) = lines.next() else { return Ok(Vec::new()) };
    let names: Vec<&str> = header.split_whitespace().collect();
    let column = |name| {
        let found = names.iter().position(|other| *other == name);
        found.with_context(|| format!("no column {name} in {header:?}"))
    };
    let columns = [column("kind")?, column("leased")?, column("leaked")?];
    Ok(lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        // A line of another length is about the whole pool.
        .filter(|cells| cells.len() == names.len())
        .map(|cells| columns.map(|column| cells[column]).join(" "))
        .collect())
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { common, charges, asids, contexts } = self;
        write!(f, "{common}, {charges:?}, ASIDs {asids:?}, contexts {contexts:?}")
    }
}
