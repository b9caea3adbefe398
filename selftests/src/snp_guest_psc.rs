// SPDX-License-Identifier: GPL-2.0-or-later
//! Page state change requests by a GHCB: header and entries in its shared buffer.
//!
//! Source: AMD publication 56421, SNP Page State Change; asm/sev-common.h.

use std::fmt;

use anyhow::Result;

use crate::ghcb::{BUFFER, BUFFER_LEN, Field, Ghcb, exit};
use crate::snp_guest::{Actor, Outcome, answer, ghcb_of};

/// Bytes of the header.
const HEADER: usize = 8;
/// Entries that fit into the buffer.
pub const MOST: usize = (BUFFER_LEN - HEADER) / 8;

/// Second word of the answer if the first one says that all is well.
pub mod error {
    /// `end_entry` is beyond the buffer.
    pub const HEADER: u64 = (1 << 32) | 1;
    /// An entry is malformed.
    pub const ENTRY: u64 = (1 << 32) | 2;
    /// The hypervisor could not do it.
    pub const GENERIC: u64 = 0x100 << 32;
}

/// One entry of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u64);

impl Entry {
    const OPERATION: u32 = 52;
    const LARGE: u64 = 1 << 56;
    const CURRENT: u64 = 0xfff;

    /// A page with an operation: 1 makes it private, 2 shared.
    pub const fn new(gpa: u64, operation: u64) -> Self {
        Self((gpa & ((1 << 52) - 1) & !Self::CURRENT) | (operation << Self::OPERATION))
    }

    /// To private.
    pub const fn private(gpa: u64) -> Self {
        Self::new(gpa, 1)
    }

    /// To shared.
    pub const fn shared(gpa: u64) -> Self {
        Self::new(gpa, 2)
    }

    /// Of 2 MiB.
    pub const fn large(self) -> Self {
        Self(self.0 | Self::LARGE)
    }

    /// With so many of its 4 KiB pages already done.
    pub const fn current(self, pages: u64) -> Self {
        Self((self.0 & !Self::CURRENT) | pages)
    }

    /// How many of its 4 KiB pages are done.
    pub const fn done(self) -> u64 {
        self.0 & Self::CURRENT
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Psc {
    /// First entry that is not done.
    pub current: u16,
    /// Last entry.
    pub end: u16,
    /// The reserved part of the header.
    pub reserved: u32,
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where in the page the request begins.
    pub offset: usize,
}

impl Psc {
    /// A request for all of `entries`.
    pub fn new(entries: &[Entry]) -> Self {
        let end = entries.len().saturating_sub(1) as u16;
        Self { current: 0, end, reserved: 0, entries: entries.to_vec(), offset: BUFFER }
    }

    /// With other numbers in the header.
    pub fn header(mut self, current: u16, end: u16) -> Self {
        (self.current, self.end) = (current, end);
        self
    }

    /// The request in a GHCB at `gpa`.
    pub fn ghcb(&self, gpa: u64) -> Ghcb {
        let mut ghcb = Ghcb::request(exit::PSC, 0, 0);
        let mut bytes = Vec::new();
        bytes.extend(self.current.to_le_bytes());
        bytes.extend(self.end.to_le_bytes());
        bytes.extend(self.reserved.to_le_bytes());
        for entry in &self.entries {
            bytes.extend(entry.0.to_le_bytes());
        }
        ghcb.0[self.offset..self.offset + bytes.len()].copy_from_slice(&bytes);
        ghcb.with(Field::Scratch, gpa + self.offset as u64)
    }

    /// The request as a GHCB holds it afterwards.
    pub fn read(&self, ghcb: &Ghcb) -> Self {
        let word = |i: usize| ghcb.word(self.offset + 8 * i);
        let header = word(0);
        let entries = (1..=self.entries.len()).map(|i| Entry(word(i))).collect();
        Self {
            current: header as u16,
            end: (header >> 16) as u16,
            reserved: (header >> 32) as u32,
            entries,
            offset: self.offset,
        }
    }

    /// How many pages of each entry are done, as text.
    pub fn progress(&self) -> String {
        let done: Vec<_> = self.entries.iter().map(|entry| entry.done().to_string()).collect();
        format!("{}/{} [{}]", self.current, self.end, done.join(" "))
    }
}

/// What became of a request.
pub struct Done {
    /// The VMGEXIT.
    pub outcome: Outcome,
    /// The two words of the answer.
    pub answer: (u64, u64),
    /// The request afterwards.
    pub after: Psc,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.outcome.done {
            // What the GHCB holds is nobody's business before the guest runs again.
            return write!(f, "unfinished {}", self.outcome.exits());
        }
        let (kind, value) = self.answer;
        write!(f, "{:x}:{:x} {} {}", kind, value, self.after.progress(), self.outcome.exits())
    }
}

impl Actor<'_> {
    /// Makes a request.
    pub fn psc(&mut self, request: &Psc) -> Result<Done> {
        let (outcome, page) = self.vmgexit(&request.ghcb(ghcb_of(self.index)))?;
        Ok(Done { outcome, answer: answer(&page), after: request.read(&page) })
    }

    /// Lets the VMM go on with a request at which it stopped.
    pub fn resume_psc(&mut self, request: &Psc) -> Result<Done> {
        let outcome = self.resume()?;
        let page = self.ghcb();
        Ok(Done { outcome, answer: answer(&page), after: request.read(&page) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_as_in_the_header() {
        // psc_entry: cur_page 12 bits, gfn 40, operation 4, pagesize 1, reserved 7.
        let entry = Entry::shared(0x1234_5000).large().current(7);
        assert_eq!(entry.0, 7 | (0x12345 << 12) | (2 << 52) | (1 << 56));
        assert_eq!(entry.done(), 7);
        assert_eq!(MOST, 253);
    }

    #[test]
    fn request_comes_back() {
        let psc = Psc::new(&[Entry::private(0x1000), Entry::shared(0x20_0000).large()]);
        let ghcb = psc.ghcb(0x5000);
        assert_eq!(ghcb.get(Field::Scratch), 0x5800);
        let back = psc.read(&ghcb);
        assert_eq!((back.current, back.end), (0, 1));
        assert_eq!(back.entries, psc.entries);
    }
}
