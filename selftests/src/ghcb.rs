// SPDX-License-Identifier: GPL-2.0-or-later
//! The guest-hypervisor communication block: its layout, requests, and the answers.
//!
//! Source: AMD publication 56421 (SEV-ES Guest-Hypervisor Communication Block
//! Standardization); layout and numbers also in the kernel's asm/svm.h, uapi/asm/svm.h and
//! asm/sev-common.h.

use crate::mem::PAGE;

/// First byte of the shared buffer, where scratch areas may be.
pub const BUFFER: usize = 0x800;
/// Bytes of the shared buffer.
pub const BUFFER_LEN: usize = 2032;
/// The bit map of valid fields: bit n stands for the quadword at offset 8n.
pub const VALID: usize = 0x3f0;
/// Offsets of the bit map's two words.
pub const VALID_WORDS: [usize; 2] = [VALID, VALID + 8];
/// The bit map after an answer: RAX, RBX, RCX, RDX and the two words of the answer.
pub const ANSWERED: [u64; 2] = [1 << 63, 0x18_000e << 32];
const VERSION: usize = 0xffa;
const USAGE: usize = 0xffc;

/// Low bits of the GHCB MSR that hold a request of the MSR protocol; zero for a GHCB's address.
pub const INFO: u64 = 0xfff;

/// A field with a bit in the bit map; the value is its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Field {
    /// Bits 31:24 of this quadword are the CPL.
    Cpl = 0xc8,
    /// IA32_XSS.
    Xss = 0x140,
    /// RAX.
    Rax = 0x1f8,
    /// RCX.
    Rcx = 0x308,
    /// RDX.
    Rdx = 0x310,
    /// RBX.
    Rbx = 0x318,
    /// RSI.
    Rsi = 0x330,
    /// Exit code of the event.
    ExitCode = 0x390,
    /// First parameter, and afterwards the kind of answer.
    Info1 = 0x398,
    /// Second parameter, and afterwards the answer.
    Info2 = 0x3a0,
    /// Guest physical address of the scratch area.
    Scratch = 0x3a8,
    /// XCR0.
    Xcr0 = 0x3e8,
}

/// Every field, for tests that leave one out or damage one.
pub const FIELDS: [Field; 12] = [
    Field::Cpl,
    Field::Xss,
    Field::Rax,
    Field::Rcx,
    Field::Rdx,
    Field::Rbx,
    Field::Rsi,
    Field::ExitCode,
    Field::Info1,
    Field::Info2,
    Field::Scratch,
    Field::Xcr0,
];

/// Exit codes of non-automatic exits.
pub mod exit {
    /// `mov reg, dr7`.
    pub const READ_DR7: u64 = 0x27;
    /// `mov dr7, reg`.
    pub const WRITE_DR7: u64 = 0x37;
    /// `rdtsc`.
    pub const RDTSC: u64 = 0x6e;
    /// `rdpmc`.
    pub const RDPMC: u64 = 0x6f;
    /// `cpuid`.
    pub const CPUID: u64 = 0x72;
    /// `invd`.
    pub const INVD: u64 = 0x76;
    /// Port input and output.
    pub const IOIO: u64 = 0x7b;
    /// `rdmsr`, `wrmsr`.
    pub const MSR: u64 = 0x7c;
    /// `vmmcall`.
    pub const VMMCALL: u64 = 0x81;
    /// `rdtscp`.
    pub const RDTSCP: u64 = 0x87;
    /// `wbinvd`.
    pub const WBINVD: u64 = 0x89;
    /// `monitor`.
    pub const MONITOR: u64 = 0x8a;
    /// `mwait`.
    pub const MWAIT: u64 = 0x8b;
    /// Read memory-mapped registers.
    pub const MMIO_READ: u64 = 0x8000_0001;
    /// Write memory-mapped registers.
    pub const MMIO_WRITE: u64 = 0x8000_0002;
    /// The NMI handler has ended.
    pub const NMI_COMPLETE: u64 = 0x8000_0003;
    /// Wait for INIT-SIPI.
    pub const AP_RESET_HOLD: u64 = 0x8000_0004;
    /// Store or fetch the address of the AP jump table.
    pub const AP_JUMP_TABLE: u64 = 0x8000_0005;
    /// SNP: page state change.
    pub const PSC: u64 = 0x8000_0010;
    /// SNP: message to the firmware.
    pub const GUEST_REQUEST: u64 = 0x8000_0011;
    /// SNP: the same with certificates.
    pub const EXT_GUEST_REQUEST: u64 = 0x8000_0012;
    /// SNP: another vCPU's VMSA.
    pub const AP_CREATION: u64 = 0x8000_0013;
    /// The hypervisor's features.
    pub const HV_FEATURES: u64 = 0x8000_fffd;
    /// The guest ends itself.
    pub const TERMINATE: u64 = 0x8000_fffe;
    /// The guest's handler met an event that it does not know.
    pub const UNSUPPORTED: u64 = 0x8000_ffff;
}

/// `Info1` of an answer, and `Info2` for malformed requests.
pub mod answer {
    /// Done.
    pub const DONE: u64 = 0;
    /// The guest should raise an exception (`Info2`, in the format of EVENTINJ).
    pub const EXCEPTION: u64 = 1;
    /// The request is malformed; `Info2` says how.
    pub const MALFORMED: u64 = 2;
    /// The usage field is not one that the hypervisor knows.
    pub const INVALID_USAGE: u64 = 2;
    /// The scratch area is not acceptable.
    pub const INVALID_SCRATCH: u64 = 3;
    /// A field that the event needs is not valid.
    pub const MISSING_INPUT: u64 = 4;
    /// A field has a value that it must not have.
    pub const INVALID_INPUT: u64 = 5;
    /// The exit code is not one that the hypervisor serves.
    pub const INVALID_EVENT: u64 = 6;
}

/// Parts of `Info1` of an IOIO event (APM volume 2, IOIO intercept).
pub mod ioio {
    /// Input rather than output.
    pub const IN: u64 = 1 << 0;
    /// A string instruction.
    pub const STRING: u64 = 1 << 2;
    /// With a repeat prefix.
    pub const REP: u64 = 1 << 3;
    /// Position of the operand size in bytes (three bits).
    pub const SIZE: u32 = 4;

    /// The parameter for `port` with operands of `size` bytes.
    pub const fn info(port: u16, size: u64, flags: u64) -> u64 {
        ((port as u64) << 16) | (size << SIZE) | flags
    }
}

/// Content of a GHCB page, made by the test.
#[derive(Clone, PartialEq, Eq)]
pub struct Ghcb(pub Vec<u8>);

impl Ghcb {
    /// A page of zeroes: nothing is valid.
    pub fn empty() -> Self {
        Self(vec![0; PAGE])
    }

    /// A request with the three fields that every event has.
    pub fn request(code: u64, info1: u64, info2: u64) -> Self {
        let mut ghcb = Self::empty();
        ghcb.0[VERSION..VERSION + 2].copy_from_slice(&2u16.to_le_bytes());
        ghcb.with(Field::ExitCode, code).with(Field::Info1, info1).with(Field::Info2, info2)
    }

    /// Sets a field and its bit.
    pub fn with(mut self, field: Field, value: u64) -> Self {
        self.set(field, value);
        self.0[VALID + field as usize / 64] |= 1 << (field as usize / 8 % 8);
        self
    }

    /// Sets a field and leaves its bit alone.
    pub fn set(&mut self, field: Field, value: u64) {
        self.0[field as usize..field as usize + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Clears a field's bit and keeps its value.
    pub fn without(mut self, field: Field) -> Self {
        self.0[VALID + field as usize / 64] &= !(1 << (field as usize / 8 % 8));
        self
    }

    /// The protocol version that the guest chose.
    pub fn version(mut self, version: u16) -> Self {
        self.0[VERSION..VERSION + 2].copy_from_slice(&version.to_le_bytes());
        self
    }

    /// How the page is used; 0 for the layout above.
    pub fn usage(mut self, usage: u32) -> Self {
        self.0[USAGE..USAGE + 4].copy_from_slice(&usage.to_le_bytes());
        self
    }

    /// Bytes at the start of the shared buffer.
    pub fn buffer(mut self, bytes: &[u8]) -> Self {
        self.0[BUFFER..BUFFER + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Value of a field.
    pub fn get(&self, field: Field) -> u64 {
        self.word(field as usize)
    }

    /// The bit map.
    pub fn valid(&self) -> [u64; 2] {
        VALID_WORDS.map(|offset| self.word(offset))
    }

    /// The quadword at `offset`.
    pub fn word(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.0[offset..offset + 8].try_into().expect("eight bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answered_fields() {
        use Field::*;
        let fields = [Rax, Rbx, Rcx, Rdx, Info1, Info2];
        let ghcb = fields.iter().fold(Ghcb::empty(), |ghcb, field| ghcb.with(*field, 0));
        assert_eq!(ghcb.valid(), ANSWERED);
    }

    #[test]
    fn bits_follow_offsets() {
        // asm/svm.h: the bit of a field is its offset divided by eight.
        let ghcb = Ghcb::empty().with(Field::Rax, 1);
        assert_eq!(ghcb.word(VALID) | ghcb.word(VALID + 8), 1 << (0x1f8 / 8));
        let ghcb = Ghcb::empty().with(Field::Scratch, 1);
        assert_eq!(ghcb.word(VALID + 8), 1 << (0x3a8 / 8 - 64));
        assert_eq!(ghcb.without(Field::Scratch).word(VALID + 8), 0);
    }
}
