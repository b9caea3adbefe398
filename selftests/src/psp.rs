// SPDX-License-Identifier: GPL-2.0-or-later
//! The emulated PSP's control port: one request line, one reply line.
//!
//! The port belongs to the emulated host (Documentation/platform.rst); real hardware has none.
//! Requests are serialised by the port: only one process may have it open.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

const PORT: &str = "/dev/virtio-ports/psp";

/// What the firmware has done and holds.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Counters {
    /// Commands by name since power-on or the last reset of the counters.
    pub commands: BTreeMap<String, u64>,
    /// Failed commands by `NAME/STATUS`.
    pub failures: BTreeMap<String, u64>,
    /// Guest contexts in use.
    pub contexts: u64,
    /// Most guest contexts in use at once since power-on or the last reset of the counters.
    pub contexts_max: u64,
    /// ASIDs bound to a guest.
    pub asids_bound: u64,
    /// ASIDs that were unbound and not yet flushed.
    pub dirty_asids: u64,
}

impl Counters {
    /// How often ASIDs were flushed. Once the firmware serves SNP, that is another command.
    pub fn flushes(&self) -> u64 {
        self.count("DF_FLUSH") + self.count("SNP_DF_FLUSH")
    }

    /// How often command `name` was issued.
    pub fn count(&self, name: &str) -> u64 {
        self.commands.get(name).copied().unwrap_or(0)
    }
}

/// Figures of the machine itself, as far as the tests use them.
#[derive(Clone, Debug, Deserialize)]
pub struct MachineCounters {
    /// WBINVD and WBNOINVD instructions executed, all CPUs.
    pub wbinvd: u64,
    /// Pages that changed between plain and encrypted, or between two keys.
    pub page_transitions: u64,
    /// Pages whose cache lines were flushed by way of the MSR VM_PAGE_FLUSH.
    pub page_flushes: u64,
    /// Executed RMPUPDATE instructions.
    pub rmpupdate: u64,
    /// Executed PSMASH instructions.
    pub psmash: u64,
}

/// Certificates of the keys that sign attestation reports, PEM.
#[derive(Clone, Debug, Deserialize)]
pub struct Certificates {
    /// The root.
    pub ark: String,
    /// The signer of VCEKs.
    pub ask: String,
    /// The signer of VLEKs.
    pub asvk: String,
    /// Of the chip, at the reported TCB version.
    pub vcek: String,
    /// Of the provider, if one is loaded, at the reported TCB version.
    pub vlek: Option<String>,
}

#[derive(Deserialize)]
struct Hashstick {
    hashstick: String,
}

/// One entry of the command log.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct LogEntry {
    /// Command by name.
    pub cmd: String,
    /// Status by name.
    pub status: String,
}

/// The open port.
pub struct Psp {
    port: BufReader<File>,
}

impl Psp {
    /// Opens the port.
    pub fn open() -> Result<Self> {
        let port = OpenOptions::new().read(true).write(true).open(PORT).with_context(|| {
            format!("open {PORT}: is this the emulated host, and virtio_console loaded?")
        })?;
        Ok(Self { port: BufReader::new(port) })
    }

    /// Sends one request and returns the reply's text.
    pub fn request(&mut self, request: &str) -> Result<String> {
        self.port.get_mut().write_all(format!("{request}\n").as_bytes())?;
        let mut reply = String::new();
        ensure!(self.port.read_line(&mut reply)? > 0, "{PORT} closed after {request:?}");
        if let Some(reason) = reply.strip_prefix("error:") {
            bail!("PSP request {request:?}: {}", reason.trim());
        }
        Ok(reply.trim_end().to_owned())
    }

    fn json<T: DeserializeOwned>(&mut self, request: &str) -> Result<T> {
        let reply = self.request(request)?;
        serde_json::from_str(&reply).with_context(|| format!("{request}: {reply}"))
    }

    /// Firmware counters.
    pub fn counters(&mut self) -> Result<Counters> {
        self.json("counters")
    }

    /// Machine counters.
    pub fn machine(&mut self) -> Result<MachineCounters> {
        self.json("machine-counters")
    }

    /// A walk over the RMP: 4 KiB pages by state, those of the hypervisor left out.
    pub fn rmp(&mut self) -> Result<BTreeMap<String, u64>> {
        self.json("rmp")
    }

    /// What AMD's key distribution service has for the chip and the reported TCB version.
    pub fn certificates(&mut self) -> Result<Certificates> {
        self.json("certs")
    }

    /// What loads the VLEK of `provider` into this chip.
    pub fn hashstick(&mut self, provider: &str) -> Result<Vec<u8>> {
        let answer: Hashstick = self.json(&format!("hashstick {provider}"))?;
        let digits = answer.hashstick;
        (0..digits.len())
            .step_by(2)
            .map(|at| {
                let digits = digits.get(at..at + 2).context("an odd number of digits")?;
                Ok(u8::from_str_radix(digits, 16)?)
            })
            .collect()
    }

    /// The `n`-th `cmd` from now fails with `status`, once.
    pub fn fail(&mut self, cmd: &str, n: u32, status: u32) -> Result<()> {
        self.request(&format!("fault cmd={cmd} n={n} status={status:#x}")).map(drop)
    }

    /// The next flush of ASIDs fails with `status`.
    pub fn fail_flush(&mut self, status: u32) -> Result<()> {
        let commands = self.counters()?.commands;
        let snp = commands.keys().any(|name| name.starts_with("SNP_INIT"));
        self.fail(if snp { "SNP_DF_FLUSH" } else { "DF_FLUSH" }, 1, status)
    }

    /// Forgets faults that have not happened.
    pub fn clear_faults(&mut self) -> Result<()> {
        self.request("clear-faults").map(drop)
    }

    /// Records every command that `action` causes.
    pub fn logged<T>(&mut self, action: impl FnOnce() -> Result<T>) -> Result<(T, Vec<LogEntry>)> {
        self.request("log-start")?;
        let value = action()?;
        Ok((value, self.json("log")?))
    }
}
