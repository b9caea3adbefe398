// SPDX-License-Identifier: GPL-2.0-or-later
//! The host's CPUs: where a thread runs, and CPUs that come and go.

use std::fs;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Binds the calling thread to one CPU while it lives.
pub struct OnCpu(CpuSet);

impl OnCpu {
    /// To CPU `cpu`, which must be online.
    pub fn new(cpu: usize) -> Result<Self> {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this)?;
        let mut only = CpuSet::new();
        only.set(cpu)?;
        sched_setaffinity(this, &only)?;
        Ok(Self(before))
    }
}

impl Drop for OnCpu {
    fn drop(&mut self) {
        sched_setaffinity(Pid::from_raw(0), &self.0).expect("the earlier CPUs are still there");
    }
}

/// A CPU that is offline while it lives.
pub struct Offline(usize);

impl Offline {
    /// Takes CPU `cpu` offline. Threads that were bound to it go elsewhere.
    pub fn new(cpu: usize) -> Result<Self> {
        switch(cpu, "0")?;
        Ok(Self(cpu))
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        switch(self.0, "1").expect("the CPU comes back");
    }
}

fn switch(cpu: usize, online: &str) -> Result<()> {
    let file = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    fs::write(&file, online).with_context(|| format!("{online} to {file}"))
}
