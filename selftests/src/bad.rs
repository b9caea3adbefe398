// SPDX-License-Identifier: GPL-2.0-or-later
//! Bad arguments: user addresses and descriptors that a command has to refuse.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};

use anyhow::Result;

use crate::host::Host;
use crate::mem::{Hole, Mapping, PAGE};

/// Where the kernel's direct map lives: canonical, but not the user's.
pub const KERNEL: u64 = 0xffff_8880_0000_0000;
/// Not a canonical address.
pub const NON_CANONICAL: u64 = 0x8000_0000_0000_0000;

/// Addresses at which nothing can be read.
pub struct Addresses {
    hole: Hole,
}

impl Addresses {
    /// Sets up the unmapped page.
    pub fn new() -> Result<Self> {
        Ok(Self { hole: Hole::new()? })
    }

    /// Name and address of each; `size` is that of the structure expected there.
    pub fn unreadable(&self, size: usize) -> [(&'static str, u64); 5] {
        [
            ("null", 0),
            ("unmapped", self.unmapped()),
            ("kernel", KERNEL),
            ("non_canonical", NON_CANONICAL),
            ("tail_unmapped", self.unmapped() - size as u64 / 2),
        ]
    }

    /// A page that is not mapped; the page before it is.
    pub fn unmapped(&self) -> u64 {
        self.hole.addr()
    }

    /// The `len` bytes just before the unmapped page.
    pub fn read_before_hole(&self, len: usize) -> Vec<u8> {
        self.hole.read_before(len)
    }
}

/// A mapping that holds `bytes` and cannot be written.
pub fn read_only(bytes: &[u8]) -> Result<Mapping> {
    let map = Mapping::anonymous(PAGE)?;
    map.write(0, bytes);
    map.read_only()
}

/// Descriptors that are not `/dev/sev`.
pub struct Descriptors {
    null: File,
    kvm: RawFd,
    closed: RawFd,
}

impl Descriptors {
    /// Opens what is needed.
    pub fn new(host: &Host) -> Result<Self> {
        // Far above the numbers that open() hands out, so that nobody gets it meanwhile.
        let closed = 900;
        Ok(Self {
            null: OpenOptions::new().read(true).open("/dev/null")?,
            kvm: host.kvm.as_raw_fd(),
            closed,
        })
    }

    /// Name and number of each.
    pub fn wrong(&self) -> [(&'static str, RawFd); 5] {
        [
            ("minus_1", -1),
            ("not_open", self.closed),
            ("dev_null", self.null.as_raw_fd()),
            ("dev_kvm", self.kvm),
            ("int_min", RawFd::MIN),
        ]
    }
}
