// SPDX-License-Identifier: GPL-2.0-or-later
//! What has to be back where it was once every VM of a test is closed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::psp::Psp;

/// Resources that a VM holds, system-wide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// References to the module kvm_amd (one per VM).
    pub module_refs: u64,
    /// Pages pinned by `pin_user_pages()`.
    pub pinned_pages: i64,
    /// Guest contexts in firmware.
    pub contexts: u64,
    /// ASIDs bound in firmware.
    pub asids_bound: u64,
    /// SEV charges in the root of the misc cgroup, if it is mounted.
    pub charged: Option<u64>,
    /// Pages by state in the RMP, of all that are not the hypervisor's.
    pub rmp: BTreeMap<String, u64>,
}

impl Held {
    /// Reads the present figures.
    pub fn now(psp: &mut Psp) -> Result<Self> {
        let counters = psp.counters()?;
        Ok(Self {
            module_refs: read("/sys/module/kvm_amd/refcnt")?.trim().parse()?,
            pinned_pages: pinned_pages()?,
            contexts: counters.contexts,
            asids_bound: counters.asids_bound,
            charged: charged("/sys/fs/cgroup")?,
            rmp: psp.rmp()?,
        })
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "module references {}, pinned pages {}, firmware contexts {}, bound ASIDs {}, charges {:?}, RMP {:?}",
            self.module_refs,
            self.pinned_pages,
            self.contexts,
            self.asids_bound,
            self.charged,
            self.rmp
        )
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.to_owned())
}

/// Pages pinned at present: the two counters of `pin_user_pages()` in /proc/vmstat, after the
/// CPUs' own shares were added up.
pub fn pinned_pages() -> Result<i64> {
    read("/proc/sys/vm/stat_refresh")?;
    let vmstat = read("/proc/vmstat")?;
    let counter = |name: &str| -> Result<i64> {
        let value = vmstat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no {name} in /proc/vmstat"))?.parse()?)
    };
    Ok(counter("nr_foll_pin_acquired")? - counter("nr_foll_pin_released")?)
}

/// `sev` in `misc.current` of a cgroup; `None` without the misc controller.
pub fn charged(cgroup: &str) -> Result<Option<u64>> {
    let Ok(current) = fs::read_to_string(format!("{cgroup}/misc.current")) else {
        return Ok(None);
    };
    let sev = current.lines().find_map(|line| line.strip_prefix("sev "));
    Ok(sev.map(str::parse).transpose()?)
}

/// A line of the table of encryption contexts in debugfs, which only our module has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextRow {
    /// How far the guest is.
    pub state: String,
    /// `owner` or `mirror`.
    pub role: String,
    /// The process that made the VM, or took the context over.
    pub pid: u32,
}

/// All encryption contexts with their users.
pub fn context_rows() -> Result<Vec<ContextRow>> {
    let table = read("/sys/kernel/debug/kvm_amd_sev/contexts")?;
    let row = |line: &str| -> Result<ContextRow> {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_asid, _kind, _handle, state, _pinned, role, pid, ..] = words[..] else {
            bail!("a row of another form: {line:?}");
        };
        Ok(ContextRow { state: state.into(), role: role.into(), pid: pid.parse()? })
    };
    table.lines().skip(1).map(row).collect()
}

/// Pages that the machine has (`MemTotal`).
pub fn total_pages() -> Result<u64> {
    let meminfo = read("/proc/meminfo")?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).context("no MemTotal")?;
    Ok(kib.parse::<u64>()? / 4)
}
