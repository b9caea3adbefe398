// SPDX-License-Identifier: GPL-2.0-or-later
//! The host between two sequences: what they left, and back to how it was.
//!
//! A sequence depends on no other: before ASIDs run out, and if something is still held, kvm_amd
//! is loaded anew. Unloading it shuts the platform down, which frees everything in firmware.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::libc::O_NONBLOCK;
use sev_vm::host::Host;
use sev_vm::psp::{LogEntry, Psp};
use sev_vm::state::Held;

/// ASIDs of SEV and of SEV-ES guests that may be leased before the module is loaded anew: fewer
/// than there are, by what one sequence may lease.
const LEASES: [u64; 2] = [300, 70];
/// Time after which what is still held counts as a leak.
const PATIENCE: Duration = Duration::from_millis(500);
/// Which cgroup the sequences run in. A charge that is lost is the cgroup's for ever.
static CGROUP: AtomicU32 = AtomicU32::new(0);
const COMPLAINTS: [&str; 6] = ["WARNING:", "BUG:", "Oops", "UBSAN", "KASAN", "refcount_t"];

/// The host as it has to be after each sequence.
pub struct Baseline {
    /// The emulated PSP's control port.
    pub psp: Psp,
    held: Held,
    charges: String,
    module: &'static str,
    leased: [u64; 2],
    messages: File,
}

impl Baseline {
    /// Takes what is held now for the baseline, and enters a cgroup.
    pub fn new() -> Result<Self> {
        fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+misc")?;
        enter_cgroup()?;
        let mut psp = Psp::open()?;
        psp.clear_faults()?;
        let module = if Host::open()?.is_ours() { "rust" } else { "stock" };
        let mut messages =
            OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open("/dev/kmsg")?;
        drain(&mut messages)?;
        let (held, charges) = (Held::now(&mut psp)?, charges()?);
        Ok(Self { psp, held, charges, module, leased: [0; 2], messages })
    }

    /// Marks the kernel log. The firmware's random numbers follow from the name.
    pub fn announce(&mut self, name: &str) -> Result<()> {
        self.messages.write_all(format!("sequence {name}\n").as_bytes())?;
        self.seed(name)
    }

    fn seed(&mut self, text: &str) -> Result<()> {
        // The last 16 bytes tell names apart.
        let bytes = text.bytes().fold(0, |number, byte| (number << 8) | u128::from(byte));
        self.psp.request(&format!("seed {bytes:032x}")).map(drop)
    }

    /// What the kernel complained about since the last call, without what varies.
    pub fn complaints(&mut self) -> Result<Vec<String>> {
        let lines = drain(&mut self.messages)?;
        let complaints = lines.iter().filter(|l| COMPLAINTS.iter().any(|c| l.contains(c)));
        // After ", CPU" come the CPU, the process and its number.
        Ok(complaints.map(|l| l.split(", CPU").next().unwrap_or(l).to_owned()).collect())
    }

    /// A new log of firmware commands.
    pub fn log(&mut self) -> Result<Log> {
        self.psp.request("log-start")?;
        Ok(Log { seen: 0 })
    }

    /// After a sequence that leased so many ASIDs: what is not back at the baseline.
    pub fn settle(&mut self, leased: [u64; 2], faulty: bool) -> Result<Option<String>> {
        if faulty {
            self.psp.clear_faults()?;
        }
        let mut used_up = false;
        for (kind, limit) in LEASES.iter().enumerate() {
            self.leased[kind] += leased[kind];
            used_up |= self.leased[kind] > *limit;
        }
        let leak = self.leak()?;
        if leak.is_some() || used_up {
            self.reload()?;
        }
        Ok(leak)
    }

    fn leak(&mut self) -> Result<Option<String>> {
        // Some of it is given back a moment later (RCU, work queues).
        let start = Instant::now();
        let now = loop {
            let now = Held::now(&mut self.psp)?;
            if now == self.held && charges()? == self.charges {
                return Ok(None);
            }
            if start.elapsed() > PATIENCE {
                break now;
            }
        };
        Ok(Some(
            format!(
                "references={} pins={} contexts={} bound={} charges={}",
                now.module_refs as i64 - self.held.module_refs as i64,
                now.pinned_pages - self.held.pinned_pages,
                now.contexts as i64 - self.held.contexts as i64,
                now.asids_bound as i64 - self.held.asids_bound as i64,
                charges()?,
            ) + &changed(&self.held.rmp, &now.rmp),
        ))
    }

    /// Loads kvm_amd anew: all ASIDs are free, and the platform has a new key.
    pub fn reload(&mut self) -> Result<()> {
        self.seed("reload")?;
        let path = format!("/lib/modules/kvm-amd-{}.ko", self.module);
        for (program, argument) in [("rmmod", "kvm_amd"), ("insmod", &path)] {
            let status = Command::new(program).arg(argument).status().context(program)?;
            ensure!(status.success(), "{program} {argument}: {status}");
        }
        self.leased = [0; 2];
        if !charges()?.is_empty() {
            enter_cgroup()?;
            let charged = Held::now(&mut self.psp)?.charged;
            self.held.charged = charged;
        }
        // Not all that the driver of the firmware keeps for itself is what it kept before.
        self.held.rmp = self.psp.rmp()?;
        ensure!(self.leak()?.is_none(), "held after a reload: {:?}", self.leak()?);
        Ok(())
    }
}

/// States of which there are more pages, or fewer.
fn changed(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> String {
    let count = |map: &BTreeMap<String, u64>, state: &str| -> i64 {
        map.get(state).copied().unwrap_or(0) as i64
    };
    let states: BTreeSet<&str> = before.keys().chain(now.keys()).map(String::as_str).collect();
    let more = states.into_iter().map(|state| (state, count(now, state) - count(before, state)));
    let changed = more.filter(|(_, more)| *more != 0);
    changed.map(|(state, more)| format!(" {state}={more}")).collect::<Vec<_>>().concat()
}

/// A file of the cgroup that the sequences run in.
pub fn cgroup(file: &str) -> String {
    format!("/sys/fs/cgroup/sequences-{}/{file}", CGROUP.load(Relaxed))
}

/// Makes another cgroup, without charges, and enters it.
fn enter_cgroup() -> Result<()> {
    CGROUP.fetch_add(1, Relaxed);
    fs::create_dir(cgroup(""))?;
    Ok(fs::write(cgroup("cgroup.procs"), std::process::id().to_string())?)
}

/// Charges of the cgroup, without resources that nothing is charged to.
fn charges() -> Result<String> {
    let text = fs::read_to_string(cgroup("misc.current"))?;
    let charged = text.lines().filter(|line| !line.ends_with(" 0"));
    Ok(charged.map(|line| line.replace(' ', ":")).collect::<Vec<_>>().join(","))
}

fn drain(messages: &mut File) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut record = [0; 8192];
    loop {
        match messages.read(&mut record) {
            Ok(0) => break,
            Ok(len) => {
                let text = String::from_utf8_lossy(&record[..len]);
                let message = text.split_once(';').map_or("", |(_, message)| message);
                lines.extend(message.lines().next().map(str::to_owned));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // Records were overwritten before they were read.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(lines)
}

/// The firmware's log of commands.
pub struct Log {
    seen: usize,
}

impl Log {
    /// ` psp=` and the commands since the last call; nothing if there were none. A status is
    /// only given if it is a failure.
    pub fn news(&mut self, psp: &mut Psp) -> Result<String> {
        let entries: Vec<LogEntry> = serde_json::from_str(&psp.request("log")?)?;
        let news = &entries[self.seen.min(entries.len())..];
        self.seen = entries.len();
        let mut commands: Vec<(String, usize)> = Vec::new();
        for entry in news {
            let text = match entry.status.as_str() {
                "SUCCESS" => entry.cmd.clone(),
                status => format!("{}/{status}", entry.cmd),
            };
            match commands.last_mut() {
                Some((last, count)) if *last == text => *count += 1,
                _ => commands.push((text, 1)),
            }
        }
        let text = |(text, count): &(String, usize)| match count {
            1 => text.clone(),
            count => format!("{text}*{count}"),
        };
        let commands: Vec<_> = commands.iter().map(text).collect();
        Ok(if commands.is_empty() { String::new() } else { format!(" psp={}", commands.join(",")) })
    }
}
