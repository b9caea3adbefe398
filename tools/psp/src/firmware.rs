// SPDX-License-Identifier: GPL-2.0-or-later
//! The firmware as a whole: what a command may touch, and how it is dispatched.

use std::collections::BTreeSet;
use std::rc::Rc;

use rand_core::SeedableRng;
use sha2::{Digest, Sha256};

use crate::asid::AsidTable;
use crate::command::{self, Command};
use crate::config::Config;
use crate::crypto::Rng;
use crate::guest::Guests;
use crate::host::Host;
use crate::memory::Memory;
use crate::monitor::Monitor;
use crate::platform::{Platform, State};
use crate::snp::Snp;
use crate::status::Status;

/// Version of the SEV API that this firmware implements: major, minor.
pub const API: [u8; 2] = [1, 55];
/// Build number.
pub const BUILD: u8 = 8;

/// The outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Status for the mailbox.
    pub status: Status,
    /// How long the command is to take, microseconds; 0 unless injected.
    pub delay_us: u32,
}

/// Something that happens to the machine outside commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The machine was reset: everything volatile is lost. Counters and armed faults stay.
    Reset,
    /// A core executed WBINVD. WBNOINVD, which leaves lines in the caches, does not count.
    Wbinvd(u32),
}

/// The firmware of one chip.
pub struct Firmware {
    pub(crate) host: Rc<dyn Host>,
    pub(crate) mem: Memory,
    pub(crate) config: Config,
    pub(crate) rng: Rng,
    pub(crate) platform: Platform,
    pub(crate) guests: Guests,
    pub(crate) asids: AsidTable,
    pub(crate) snp: Snp,
    pub(crate) monitor: Monitor,
}

impl Firmware {
    /// A firmware in the UNINIT state. The error is for people.
    pub fn new(host: Rc<dyn Host>, config: &str) -> Result<Self, String> {
        let config = Config::parse(config)?;
        let mut seed = [0; 32];
        match &config.seed {
            Some(bytes) => seed = Sha256::digest(bytes).into(),
            None => host
                .entropy(&mut seed)
                .map_err(|_| "the machine gives no entropy")?,
        }
        Ok(Self {
            mem: Memory::new(host.clone(), config.c_bit),
            rng: Rng::from_seed(seed),
            platform: Platform::new(&config),
            guests: Guests::new(config.slots),
            asids: AsidTable::new(config.asids, config.min_asid),
            snp: Snp::default(),
            monitor: Monitor::default(),
            host,
            config,
        })
    }

    /// Random numbers follow from `seed` from now on.
    pub(crate) fn seed(&mut self, seed: &[u8]) {
        self.rng = Rng::from_seed(Sha256::digest(seed).into());
    }

    /// The platform state: it follows from whether INIT was done and whether guests exist.
    pub fn state(&self) -> State {
        match (self.platform.is_initialized(), self.guests.is_empty()) {
            (false, _) => State::Uninit,
            (true, true) => State::Init,
            (true, false) => State::Working,
        }
    }

    /// Executes a command.
    pub fn command(&mut self, id: u32, buffer: u64) -> Reply {
        let command = command::find(id).filter(|command| !command.snp || self.config.snp);
        let name = command.map_or(command::UNKNOWN, |command| command.name);
        let injected = self.monitor.inject(name);
        let status = match injected.status {
            Some(status) => status,
            None => self.execute(command, buffer),
        };
        self.monitor.record(name, status, self.contexts());
        Reply {
            status,
            delay_us: injected.delay_us,
        }
    }

    fn execute(&mut self, command: Option<&Command>, buffer: u64) -> Status {
        let Some(command) = command else {
            return Status::INVALID_COMMAND;
        };
        let snp_missing = command.snp_initialized && !self.snp.is_initialized();
        if !command.states.contains(&self.state()) || snp_missing {
            return Status::INVALID_PLATFORM_STATE;
        }
        let buffer = self.mem.spa(buffer);
        match (command.run)(self, buffer) {
            Ok(()) => Status::SUCCESS,
            Err(status) => status,
        }
    }

    /// Takes note of an event.
    pub fn event(&mut self, event: Event) {
        match event {
            Event::Wbinvd(core) => self.asids.wbinvd(core),
            Event::Reset => {
                self.drop_all_guests();
                self.platform.machine_reset();
                self.drop_snp();
            }
        }
    }

    /// Deletes every guest context and removes the keys from the memory controllers.
    pub(crate) fn drop_all_guests(&mut self) {
        for guest in self.guests.drain() {
            if let Some(asid) = guest.asid {
                // The machine is going down; a failure to forget a key changes nothing.
                let _ = self.host.asid_key(asid.get(), None);
                self.asids.unbind(asid, self.running_cores());
            }
        }
        self.asids.mark_all_dirty(self.running_cores());
    }

    /// Number of guest contexts of either kind.
    pub(crate) fn contexts(&self) -> usize {
        self.guests.len().saturating_add(self.snp.contexts())
    }

    /// Forgets SNP with all guests.
    fn drop_snp(&mut self) {
        for asid in self.snp.asids() {
            // As in `drop_all_guests`.
            let _ = self.host.asid_key(asid.get(), None);
            self.asids.unbind(asid, self.running_cores());
        }
        self.asids.mark_all_dirty(self.running_cores());
        self.mem.set_snp(false);
        self.snp = Snp::default();
    }

    /// The cores that owe a WBINVD once an ASID is released.
    ///
    /// unspecified: what the firmware makes of cores that the system took offline. They cannot
    /// execute WBINVD; what they executed before they halted is enough here, if they halted
    /// before the release.
    pub(crate) fn running_cores(&self) -> BTreeSet<u32> {
        (0..self.host.ncpus())
            .filter(|core| !self.host.cpu_is_parked(*core))
            .collect()
    }
}
