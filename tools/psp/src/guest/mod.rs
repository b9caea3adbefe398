// SPDX-License-Identifier: GPL-2.0-or-later
//! Guest contexts: their states, keys and policy, and the bounded table of them.
//!
//! ```text
//! LAUNCH_START --> LUPDATE --MEASURE--> LSECRET --FINISH--> RUNNING --SEND_START--> SUPDATE
//! RECEIVE_START -> RUPDATE -----------RECEIVE_FINISH------> RUNNING <-SEND_CANCEL---'  |
//!                                                              SENT <--SEND_FINISH-----'
//! ```
//! Source: AMDESE/sev-tool `src/sevapi.h`, SEV_GUEST_STATE.

pub mod activate;
pub mod attest;
pub mod debug;
pub mod launch;
pub mod packet;
pub mod policy;
pub mod receive;
pub mod send;

use std::collections::BTreeMap;

use sha2::Sha256;
use zerocopy::little_endian::U32;

use crate::asid::Asid;
use crate::crypto::session::TransportKeys;
use crate::status::{Result, Status};
use policy::Policy;

/// Where a guest is in its life, with what exists only there.
#[derive(Clone)]
pub enum Phase {
    /// LUPDATE: plaintext is being imported.
    LaunchUpdate {
        /// Keys of the session with the guest owner.
        keys: TransportKeys,
        /// Digest of all imported so far.
        digest: Sha256,
    },
    /// LSECRET: measured; secrets may be injected.
    LaunchSecret {
        /// Keys of the session with the guest owner.
        keys: TransportKeys,
        /// The launch measurement.
        measure: [u8; 32],
    },
    /// RUNNING.
    Running,
    /// SUPDATE: being sent.
    SendUpdate {
        /// Keys of the session with the other platform.
        keys: TransportKeys,
    },
    /// RUPDATE: being received.
    ReceiveUpdate {
        /// Keys of the session with the other platform.
        keys: TransportKeys,
    },
    /// SENT: only good for removal.
    Sent,
}

impl Phase {
    /// The encoding of GUEST_STATUS.
    pub fn code(&self) -> u8 {
        match self {
            Phase::LaunchUpdate { .. } => 1,
            Phase::LaunchSecret { .. } => 2,
            Phase::Running => 3,
            Phase::SendUpdate { .. } => 4,
            Phase::ReceiveUpdate { .. } => 5,
            Phase::Sent => 6,
        }
    }
}

/// A guest context.
pub struct Guest {
    pub(crate) policy: Policy,
    pub(crate) phase: Phase,
    /// The memory encryption key.
    vek: [u8; 16],
    /// The ASID it is bound to. Invariant: no two guests have the same.
    pub(crate) asid: Option<Asid>,
    /// Digest of the launched plaintext, once measured.
    launch_digest: Option<[u8; 32]>,
}

impl Guest {
    /// The bound ASID, else INACTIVE.
    pub fn active(&self) -> Result<Asid> {
        self.asid.ok_or(Status::INACTIVE)
    }

    /// Refuses a guest that is sent: INVALID_GUEST_STATE.
    pub fn not_sent(&self) -> Result {
        match self.phase {
            Phase::Sent => Err(Status::INVALID_GUEST_STATE),
            _ => Ok(()),
        }
    }
}

/// The guest contexts, by handle.
pub struct Guests {
    by_handle: BTreeMap<u32, Guest>,
    slots: usize,
    /// Handles are not reused soon, so that a stale one is noticed.
    last_handle: u32,
}

impl Guests {
    /// A table with room for `slots` guests.
    pub fn new(slots: usize) -> Self {
        Self {
            by_handle: BTreeMap::new(),
            slots,
            last_handle: 0,
        }
    }

    /// Number of contexts in use.
    pub fn len(&self) -> usize {
        self.by_handle.len()
    }

    /// Whether no context is in use.
    pub fn is_empty(&self) -> bool {
        self.by_handle.is_empty()
    }

    /// Refuses if no context is free: RESOURCE_LIMIT.
    fn check_room(&self) -> Result {
        if self.by_handle.len() < self.slots {
            Ok(())
        } else {
            Err(Status::RESOURCE_LIMIT)
        }
    }

    /// Adds a guest; its handle.
    fn insert(&mut self, guest: Guest) -> Result<u32> {
        self.check_room()?;
        loop {
            self.last_handle = self.last_handle.wrapping_add(1).max(1);
            if let std::collections::btree_map::Entry::Vacant(slot) =
                self.by_handle.entry(self.last_handle)
            {
                slot.insert(guest);
                return Ok(self.last_handle);
            }
        }
    }

    fn remove(&mut self, handle: u32) {
        self.by_handle.remove(&handle);
    }

    /// The guest of a handle, else INVALID_GUEST.
    pub fn get(&self, handle: U32) -> Result<&Guest> {
        self.by_handle
            .get(&handle.get())
            .ok_or(Status::INVALID_GUEST)
    }

    /// The guest of a handle, else INVALID_GUEST.
    pub fn get_mut(&mut self, handle: U32) -> Result<&mut Guest> {
        self.by_handle
            .get_mut(&handle.get())
            .ok_or(Status::INVALID_GUEST)
    }

    /// Takes all guests out.
    pub fn drain(&mut self) -> impl Iterator<Item = Guest> + use<> {
        core::mem::take(&mut self.by_handle).into_values()
    }
}
