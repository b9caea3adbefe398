// SPDX-License-Identifier: GPL-2.0-or-later
//! Hostile VMGEXITs from a seed: well-formed requests with damage, and noise.
//!
//! The same seed makes the same requests on every host. So that answers are the same as well,
//! nothing is asked for that depends on time, on the machine, or on a key of memory encryption.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::ghcb::{BUFFER, FIELDS, Field, Ghcb, INFO, VALID, exit, ioio};
use crate::guest;
use crate::mem::PAGE;
use crate::step::{GHCB, OUTSIDE, OUTSIDE_END};

/// One VMGEXIT: the page and the MSR.
pub struct Request {
    /// Content of the GHCB.
    pub ghcb: Ghcb,
    /// Value of the GHCB MSR.
    pub msr: u64,
}

/// MSRs whose values do not depend on time.
const MSRS: [u64; 32] = [
    0x1b,
    0x3a,
    0x3b,
    0x79,
    0x8b,
    0xfe,
    0x174,
    0x179,
    0x17a,
    0x1a0,
    0x1d9,
    0x200,
    0x250,
    0x277,
    0x2ff,
    0x400,
    0xda0,
    0xc000_0080,
    0xc000_0081,
    0xc000_0082,
    0xc000_0100,
    0xc000_0102,
    0xc000_0103,
    0xc001_0015,
    0xc001_001f,
    0xc001_0055,
    0xc001_0114,
    0xc001_0117,
    0xc001_011f,
    0xc001_0130,
    0xc001_0131,
    0xc001_0140,
];

/// Hypercalls but for KVM_HC_CLOCK_PAIRING.
const HYPERCALLS: [u64; 8] = [0, 1, 2, 5, 10, 11, 12, 0x1_0000_000c];

/// Values near which checks go wrong.
const EDGES: [u64; 24] = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    9,
    0x7f0,
    0x7f1,
    0xfff,
    0x1000,
    0xffff,
    0x1_0000,
    0x1_0001,
    0x1fff_ffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    1 << 51,
    1 << 63,
    u64::MAX - 7,
    u64::MAX,
];

/// A source of hostile requests.
pub struct Hostile {
    random: ChaCha8Rng,
}

impl Hostile {
    /// Everything follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        // The bias of the remainder is no matter here.
        (self.random.next_u32() as usize) % limit
    }

    /// Whether something comes about that happens once in `n` times.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `list`.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// Any number.
    pub fn word(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// An edge, something near to it, or any number.
    pub fn value(&mut self) -> u64 {
        match self.below(4) {
            0 => self.word(),
            1 => self.pick(&EDGES).wrapping_add(self.below(5) as u64).wrapping_sub(2),
            _ => self.pick(&EDGES),
        }
    }

    /// A guest physical address, mostly where the data of a request may be.
    pub fn address(&mut self) -> u64 {
        let offset = self.below(PAGE) as u64;
        match self.below(12) {
            0..6 => GHCB + BUFFER as u64 + offset % 0x800,
            6 => GHCB + offset,
            7..9 => OUTSIDE + offset % (OUTSIDE_END - OUTSIDE),
            9 => guest::MEMORY as u64 - 16 + offset % 32,
            10 => guest::MMIO.start + offset,
            // Nothing may be near the guest's code, its mailbox and its stack.
            _ => self.value() | (1 << 40),
        }
    }

    /// The next request.
    pub fn request(&mut self) -> Request {
        match self.below(16) {
            0 => Request { ghcb: Ghcb::empty(), msr: self.msr() },
            1 => Request { ghcb: self.noise(), msr: GHCB },
            2 => Request { ghcb: self.damaged(), msr: self.elsewhere() },
            _ => Request { ghcb: self.damaged(), msr: GHCB },
        }
    }

    /// A value of the MSR protocol.
    fn msr(&mut self) -> u64 {
        const CODES: [u64; 9] = [2, 4, 6, 0x10, 0x12, 0x14, 0x16, 0x80, 0x100];
        let code = if self.once_in(4) { self.word() & INFO | 1 } else { self.pick(&CODES) };
        (self.value() << 12) | code
    }

    /// Another place of the GHCB, where nothing of the guest's is.
    fn elsewhere(&mut self) -> u64 {
        let pages = (OUTSIDE_END - OUTSIDE) as usize / PAGE;
        match self.below(4) {
            0 => OUTSIDE + (self.below(pages) * PAGE) as u64,
            1 => guest::MMIO.start,
            2 => guest::MEMORY as u64,
            _ => (self.value() | (1 << 40)) & !INFO,
        }
    }

    /// Random bytes, though mostly of usage 0 and with everything valid.
    fn noise(&mut self) -> Ghcb {
        let mut page = vec![0; PAGE];
        self.random.fill_bytes(&mut page);
        let mut ghcb = Ghcb(page);
        if !self.once_in(4) {
            ghcb = ghcb.usage(0);
        }
        if !self.once_in(4) {
            let code = self.event().get(Field::ExitCode);
            ghcb = FIELDS.iter().fold(ghcb, |ghcb, field| {
                let value = ghcb.get(*field);
                ghcb.with(*field, value)
            });
            let (rcx, rax) = (self.pick(&MSRS), self.pick(&HYPERCALLS));
            let scratch = self.address();
            ghcb = ghcb.with(Field::ExitCode, code).with(Field::Scratch, scratch);
            ghcb = ghcb.with(Field::Rcx, rcx).with(Field::Rax, rax);
        }
        ghcb
    }

    /// A well-formed request.
    fn event(&mut self) -> Ghcb {
        use Field::*;
        let scratch = self.address();
        let value = self.value();
        let request = Ghcb::request;
        match self.below(20) {
            0..3 => {
                let size = if self.once_in(4) { self.below(8) } else { self.pick(&[1, 2, 4]) };
                let port = self.pick(&[0, 0x7e, 0x80, 0x3f8, 0xcf8, 0xffff]);
                let info = ioio::info(port, size as u64, self.below(2) as u64);
                request(exit::IOIO, info, 0).with(Rax, value)
            }
            3..6 => {
                let size = if self.once_in(4) { self.below(8) } else { self.pick(&[1, 2, 4]) };
                let flags =
                    ioio::STRING | self.below(2) as u64 | (ioio::REP * self.below(2) as u64);
                let count = if self.once_in(3) { self.value() } else { self.below(600) as u64 };
                request(exit::IOIO, ioio::info(0x3f8, size as u64, flags), count)
                    .with(Scratch, scratch)
            }
            6..9 => {
                let code = self.pick(&[exit::MMIO_READ, exit::MMIO_WRITE]);
                let len = if self.once_in(3) { self.value() } else { self.below(10) as u64 };
                let gpa = if self.once_in(2) { self.address() } else { guest::MMIO.start };
                request(code, gpa, len).with(Scratch, scratch)
            }
            9..11 => {
                let leaf = self.pick(&[0, 1, 7, 0xb, 0xd, 0x8000_0001, 0x8000_001f, value]);
                let index = self.pick(&[0, 1, 2, value]);
                request(exit::CPUID, 0, 0).with(Rax, leaf).with(Rcx, index).with(Xcr0, self.value())
            }
            11..13 => {
                let msr = self.pick(&MSRS);
                request(exit::MSR, self.below(2) as u64, 0)
                    .with(Rcx, msr)
                    .with(Rax, value & 0xffff_ffff)
                    .with(Rdx, value >> 32)
            }
            13..15 => {
                let number = self.pick(&HYPERCALLS);
                let cpl = if self.once_in(4) { self.word() } else { 0 };
                let ghcb = request(exit::VMMCALL, 0, 0).with(Rax, number).with(Cpl, cpl);
                // Far from memory: some hypercalls write there.
                let rbx = self.value() | (1 << 40);
                ghcb.with(Rbx, rbx).with(Rcx, value).with(Rdx, self.value()).with(Rsi, value)
            }
            15 => request(exit::AP_JUMP_TABLE, self.below(3) as u64, value),
            16 => {
                const SNP: [u64; 4] =
                    [exit::PSC, exit::GUEST_REQUEST, exit::EXT_GUEST_REQUEST, exit::AP_CREATION];
                request(self.pick(&SNP), value, self.value()).with(Scratch, scratch).with(Rax, 0)
            }
            17 => request(exit::RDPMC, 0, 0).with(Rcx, value),
            18 => {
                const BARE: [u64; 12] = [
                    exit::READ_DR7,
                    exit::RDTSC,
                    exit::INVD,
                    exit::RDTSCP,
                    exit::WBINVD,
                    exit::MONITOR,
                    exit::MWAIT,
                    exit::NMI_COMPLETE,
                    exit::AP_RESET_HOLD,
                    exit::HV_FEATURES,
                    exit::TERMINATE,
                    exit::UNSUPPORTED,
                ];
                request(self.pick(&BARE), value, 0).with(Rax, value).with(Rcx, 0).with(Rdx, 0)
            }
            _ => request(self.value(), value, self.value()),
        }
    }

    /// A request with up to three defects.
    fn damaged(&mut self) -> Ghcb {
        let mut ghcb = self.event();
        for byte in &mut ghcb.0[BUFFER..BUFFER + 64] {
            *byte = self.random.next_u32() as u8;
        }
        for _ in 0..self.below(4) {
            let field = self.pick(&FIELDS);
            ghcb = match self.below(8) {
                0 | 1 => ghcb.without(field),
                2 => {
                    let value = ghcb.get(field);
                    ghcb.with(field, value)
                }
                3 => {
                    let bit = 1 << self.below(64);
                    let parameter = self.pick(&[Field::ExitCode, Field::Info1, Field::Info2]);
                    let value = ghcb.get(parameter) ^ bit;
                    ghcb.with(parameter, value)
                }
                4 => {
                    let value = self.value();
                    ghcb.with(
                        self.pick(&[Field::Info1, Field::Info2, Field::Xss, Field::Xcr0]),
                        value,
                    )
                }
                5 => {
                    let scratch = self.address();
                    ghcb.with(Field::Scratch, scratch)
                }
                6 => {
                    ghcb.0[VALID + self.below(16)] ^= 1 << self.below(8);
                    ghcb
                }
                _ if self.once_in(4) => ghcb.usage(1 << self.below(32)),
                _ => {
                    let version = self.value() as u16;
                    ghcb.version(version)
                }
            };
        }
        ghcb
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_requests() {
        let (mut one, mut other) = (Hostile::new(7), Hostile::new(7));
        for _ in 0..1000 {
            let (a, b) = (one.request(), other.request());
            assert!(a.ghcb == b.ghcb && a.msr == b.msr);
        }
        let mut third = Hostile::new(8);
        assert!((0..10).any(|_| third.request().ghcb != one.request().ghcb));
    }

    #[test]
    fn keeps_away_from_code() {
        let mut source = Hostile::new(1);
        for _ in 0..100_000 {
            let (address, place) = (source.address(), source.elsewhere());
            assert!(
                address >= GHCB && (address < OUTSIDE_END || address >= guest::MEMORY as u64 - 16)
            );
            assert!(place >= OUTSIDE && (place < OUTSIDE_END || place >= guest::MEMORY as u64));
        }
    }
}
