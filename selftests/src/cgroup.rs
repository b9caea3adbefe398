// SPDX-License-Identifier: GPL-2.0-or-later
//! Control groups with limits of the misc controller (kernel:
//! Documentation/admin-guide/cgroup-v2.rst).

use std::fs;

use anyhow::{Context, Result};

/// The group that every process starts in.
pub const ROOT: &str = "/sys/fs/cgroup";

/// A group made for a test. At the end this process leaves it, and it goes.
pub struct Cgroup(String);

impl Cgroup {
    /// Makes group `name` with `limit` as misc.max takes it (`sev 3`).
    pub fn new(name: &str, limit: &str) -> Result<Self> {
        fs::write(format!("{ROOT}/cgroup.subtree_control"), "+misc").context("enable misc")?;
        let group = Self(format!("{ROOT}/{name}"));
        fs::create_dir(&group.0)?;
        group.limit(limit)?;
        Ok(group)
    }

    /// Its directory.
    pub fn path(&self) -> &str {
        &self.0
    }

    /// Sets another limit.
    pub fn limit(&self, limit: &str) -> Result<()> {
        let file = format!("{}/misc.max", self.0);
        fs::write(file, limit).with_context(|| format!("limit {limit:?}"))
    }

    /// Puts this process into the group.
    pub fn enter(&self) -> Result<()> {
        join(&self.0)
    }

    /// What is charged at present: SEV and SEV-ES.
    pub fn charges(&self) -> Result<(u64, u64)> {
        let current = fs::read_to_string(format!("{}/misc.current", self.0))?;
        let of = |name: &str| -> Result<u64> {
            let value = current.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            Ok(value.with_context(|| format!("no {name} in misc.current"))?.parse()?)
        };
        Ok((of("sev")?, of("sev_es")?))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let left = leave().and_then(|()| Ok(fs::remove_dir(&self.0)?));
        left.expect("the cgroup of the test can be removed");
    }
}

/// Puts this process back into [`ROOT`].
pub fn leave() -> Result<()> {
    join(ROOT)
}

fn join(cgroup: &str) -> Result<()> {
    Ok(fs::write(format!("{cgroup}/cgroup.procs"), "0")?)
}
