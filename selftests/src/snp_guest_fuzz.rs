// SPDX-License-Identifier: GPL-2.0-or-later
//! Hostile requests of SNP guests from a seed: page state changes, guest requests, AP creation
//! and the MSR protocol, well-formed and with damage.
//!
//! The same seed makes the same requests on every host. Nothing is asked for that would take
//! the mailbox, the GHCB or the code away from the guest: those are below [`PRIVATE`], where the
//! VMM refuses to change anything, or are left out here.

use crate::ghcb::{BUFFER, FIELDS, Field, Ghcb, VALID, exit};
use crate::hostile::Hostile;
use crate::mem::PAGE;
use crate::snp_guest::{AREA, BUFFERS, LARGE, MEMORY, PRIVATE, ghcb_of};
use crate::snp_guest_psc::{Entry, MOST, Psc};
use crate::snp_guest_vmsa::creation;

const PAGE_LEN: u64 = PAGE as u64;
/// Page of requests to firmware.
pub const REQUEST: u64 = BUFFERS.start;

/// One VMGEXIT: the GHCB, the MSR, and the page at [`REQUEST`].
pub struct Request {
    /// Content of the GHCB.
    pub ghcb: Ghcb,
    /// Value of the GHCB MSR.
    pub msr: u64,
    /// Content of the page for firmware, if it changes.
    pub page: Option<Vec<u8>>,
}

/// A source of hostile requests.
pub struct Fuzz {
    source: Hostile,
    /// vCPUs that AP creation may be about: none of them is the one that asks.
    others: u64,
}

impl Fuzz {
    /// Everything follows from `seed`.
    pub fn new(seed: u64, others: u64) -> Self {
        Self { source: Hostile::new(seed), others }
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> u64 {
        self.source.below(limit) as u64
    }

    /// A page where the guest has nothing that it needs.
    fn page(&mut self) -> u64 {
        match self.below(12) {
            0..6 => PRIVATE.start + self.below(16) * PAGE_LEN,
            6..8 => AREA + self.below(2) * LARGE,
            8 => AREA + self.below(1024) * PAGE_LEN,
            9 => MEMORY - PAGE_LEN + self.below(3) * PAGE_LEN,
            10 => (self.source.value() | (1 << 40)) & !0xfff,
            _ => BUFFERS.start + self.below(8) * PAGE_LEN,
        }
    }

    fn entry(&mut self) -> Entry {
        let operation = if self.below(5) == 0 { self.below(16) } else { 1 + self.below(2) };
        let mut entry = Entry::new(self.page(), operation);
        if self.below(4) == 0 {
            entry = entry.large();
        }
        match self.below(10) {
            0 => entry.current(self.below(3)),
            1 => entry.current(508 + self.below(8)),
            2 => entry.current(self.below(4096)),
            3 => Entry(entry.0 ^ (1 << (57 + self.below(7)))),
            _ => entry,
        }
    }

    fn psc(&mut self) -> Ghcb {
        let count = match self.below(8) {
            0 => MOST,
            1 => 32,
            n => n as usize,
        };
        // Runs of neighbours, so that there is something to combine.
        let mut entries = vec![self.entry()];
        while entries.len() < count {
            let last = entries[entries.len() - 1].0;
            let next = if self.below(3) != 0 { Entry(last + PAGE_LEN) } else { self.entry() };
            entries.push(next);
        }
        let mut psc = Psc::new(&entries);
        match self.below(8) {
            0 => psc.current = self.below(300) as u16,
            1 => psc.end = self.below(300) as u16,
            2 => (psc.current, psc.end) = (self.source.word() as u16, self.source.word() as u16),
            3 => psc.reserved = self.source.word() as u32,
            _ => {}
        }
        psc.ghcb(ghcb_of(0))
    }

    /// An address for a message, mostly a page for it.
    fn message_page(&mut self) -> u64 {
        match self.below(12) {
            0 => REQUEST + self.below(PAGE),
            1 => MEMORY + self.below(2) * PAGE_LEN,
            2 => (self.source.value() | (1 << 40)) & !0xfff,
            3 => PRIVATE.start + self.below(4) * PAGE_LEN,
            _ => REQUEST + self.below(4) * PAGE_LEN,
        }
    }

    fn message(&mut self) -> (Ghcb, Vec<u8>) {
        let extended = self.below(2) == 0;
        let code = if extended { exit::EXT_GUEST_REQUEST } else { exit::GUEST_REQUEST };
        let (request, response) = (self.message_page(), self.message_page());
        let mut ghcb = Ghcb::request(code, request, response);
        if self.below(8) != 0 {
            ghcb = ghcb.with(Field::Rax, self.message_page());
        }
        if self.below(8) != 0 {
            ghcb = ghcb.with(Field::Rbx, self.source.value());
        }
        let mut page = vec![0; PAGE];
        // A header that may pass the first checks; nothing has the right key.
        let header = [1, 1, 0x60, 0, self.below(20) as u8, 1, self.below(256) as u8, 0];
        page[0x20..0x28].copy_from_slice(&self.below(3).to_le_bytes());
        page[0x30..0x38].copy_from_slice(&header);
        page[0x3c] = self.below(5) as u8;
        for _ in 0..self.below(4) {
            let at = self.below(0x80) as usize;
            page[at] = self.source.word() as u8;
        }
        (ghcb, page)
    }

    fn creation(&mut self) -> Ghcb {
        let what =
            if self.below(6) == 0 { self.source.value() as u32 } else { self.below(4) as u32 };
        let id = match self.below(4) {
            // Not the one that asks: that is number 0.
            0 => 1 + self.others + self.below(1 << 20),
            _ => 1 + self.below(self.others as usize),
        };
        let vmsa = if self.below(4) == 0 { self.source.value() } else { self.page() };
        let features = if self.below(4) == 0 { self.source.value() } else { 1 };
        creation(what.into(), id, vmsa, features)
    }

    fn msr(&mut self) -> u64 {
        const CODES: [u64; 12] =
            [0x02, 0x04, 0x10, 0x12, 0x14, 0x14, 0x14, 0x16, 0x18, 0x80, 0x100, 0x7ff];
        let code = self.source.pick(&CODES);
        if code == 0x14 {
            let operation = self.below(16);
            return (self.page() & ((1 << 52) - 1)) | (operation << 52) | code;
        }
        (self.source.value() << 12) | code
    }

    /// The next request.
    pub fn request(&mut self) -> Request {
        let mut page = None;
        let mut ghcb = match self.below(16) {
            0..6 => self.psc(),
            6..10 => {
                let (ghcb, message) = self.message();
                page = Some(message);
                ghcb
            }
            10..13 => self.creation(),
            13 => {
                Ghcb::request(exit::PSC + self.below(16), self.source.value(), self.source.value())
            }
            _ => return Request { ghcb: Ghcb::empty(), msr: self.msr(), page },
        };
        for _ in 0..self.below(6) / 3 {
            let field = self.source.pick(&FIELDS);
            ghcb = match self.below(6) {
                0 => ghcb.without(field),
                1 => ghcb.usage(1 << self.below(32)),
                2 => ghcb.version(self.source.value() as u16),
                3 => {
                    ghcb.0[VALID + self.below(16) as usize] ^= 1 << self.below(8);
                    ghcb
                }
                4 => {
                    let scratch = ghcb_of(0) + BUFFER as u64 + self.below(0x800);
                    ghcb.with(Field::Scratch, scratch)
                }
                _ => {
                    let scratch = self.source.value();
                    ghcb.with(Field::Scratch, scratch)
                }
            };
        }
        // A GHCB somewhere else is not registered.
        let msr = if self.below(24) == 0 { self.page() } else { ghcb_of(0) };
        Request { ghcb, msr, page }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_requests() {
        let (mut one, mut other) = (Fuzz::new(7, 1), Fuzz::new(7, 1));
        for _ in 0..1000 {
            let (a, b) = (one.request(), other.request());
            assert!(a.ghcb == b.ghcb && a.msr == b.msr && a.page == b.page);
        }
    }

    #[test]
    fn creates_others_only() {
        let mut source = Fuzz::new(3, 1);
        assert!((0..10_000).all(|_| source.creation().get(Field::Info1) >> 32 != 0));
    }
}
