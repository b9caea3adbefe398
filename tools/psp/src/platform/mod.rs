// SPDX-License-Identifier: GPL-2.0-or-later
//! The platform: INIT to SHUTDOWN, its identity and where that is kept.

pub mod certs;
pub mod identity;
pub mod nv;
pub mod state;

use crate::config::Config;
use crate::memory::Spa;
use identity::{Chip, Identity};
use nv::Flash;

/// Platform states, with their encoding in PLATFORM_STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Before INIT and after SHUTDOWN.
    Uninit = 0,
    /// Initialised, no guest.
    Init = 1,
    /// At least one guest.
    Working = 2,
}

/// Where the persistent state goes when it changes.
#[derive(Clone, Copy, Debug)]
enum Home {
    /// The chip's own store: INIT.
    Flash,
    /// A buffer that the driver saves: INIT_EX.
    Buffer(Spa),
}

/// What exists between INIT and SHUTDOWN.
struct Running {
    es: bool,
    identity: Box<Identity>,
    home: Home,
}

/// The platform.
pub struct Platform {
    pub(crate) chip: Chip,
    running: Option<Running>,
    flash: Flash,
    /// The buffer of the last INIT_EX and the digest of what was last written there.
    last_buffer: Option<(Spa, [u8; 32])>,
    /// PLATFORM_RESET could not reach the driver's buffer: the next INIT_EX ignores its content.
    reset_pending: bool,
}

impl Platform {
    /// A platform in the UNINIT state.
    pub fn new(config: &Config) -> Self {
        Self {
            chip: Chip::new(&config.chip),
            running: None,
            flash: Flash::new(config.state.clone()),
            last_buffer: None,
            reset_pending: false,
        }
    }

    /// Whether INIT was done.
    pub fn is_initialized(&self) -> bool {
        self.running.is_some()
    }

    /// Whether SEV-ES guests may be launched.
    pub fn es_enabled(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.es)
    }

    /// Forgets everything volatile.
    pub fn machine_reset(&mut self) {
        self.running = None;
        self.last_buffer = None;
    }
}
