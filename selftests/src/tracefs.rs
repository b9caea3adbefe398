// SPDX-License-Identifier: GPL-2.0-or-later
//! Recording events of the kernel.

use std::fs::{self, OpenOptions};
use std::io::Write;

use anyhow::{Context, Result};

const TRACEFS: &str = "/sys/kernel/tracing";

fn write(file: &str, text: &str) -> Result<()> {
    fs::write(format!("{TRACEFS}/{file}"), text).with_context(|| format!("{TRACEFS}/{file}"))
}

/// What happened during `action`, a line for each event, those of process `pid` alone if it is
/// given. `events` are directories below `events`.
pub fn record<T>(
    events: &[&str],
    pid: Option<u32>,
    action: impl FnOnce() -> Result<T>,
) -> Result<(T, String)> {
    // Opened before anything is recorded: that allocates, too.
    let mut switch = OpenOptions::new().write(true).open(format!("{TRACEFS}/tracing_on"))?;
    switch.write_all(b"0")?;
    for event in events {
        write(&format!("events/{event}/enable"), "1")?;
    }
    write("set_event_pid", &pid.map_or(String::new(), |pid| pid.to_string()))?;
    write("trace", "")?;
    switch.write_all(b"1")?;
    let value = action();
    switch.write_all(b"0")?;
    let trace = fs::read_to_string(format!("{TRACEFS}/trace"))?;
    for event in events {
        write(&format!("events/{event}/enable"), "0")?;
    }
    Ok((value?, trace))
}
