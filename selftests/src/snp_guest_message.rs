// SPDX-License-Identifier: GPL-2.0-or-later
//! Messages between an SNP guest and the firmware: header, AES-256-GCM, and the payloads of some.
//!
//! Source: AMD publication 56860 (SEV-SNP firmware ABI), as in the kernel's asm/sev.h and
//! uapi/linux/sev-guest.h. The cipher is OpenSSL's.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};

use crate::mem::PAGE;

/// Bytes of the header.
pub const HEADER: usize = 0x60;
/// Most bytes of a payload.
pub const MOST: usize = PAGE - HEADER;
/// What the authentication tag covers besides the payload.
const ASSOCIATED: Range<usize> = 0x30..HEADER;
const TAG_LEN: usize = 16;

/// Offsets of the header's fields, for tests that damage them.
pub mod field {
    /// Authentication tag, 32 bytes of which 16 are used.
    pub const TAG: usize = 0;
    /// Sequence number, 8 bytes.
    pub const SEQUENCE: usize = 0x20;
    /// Algorithm, a byte.
    pub const ALGORITHM: usize = 0x30;
    /// Version of the header, a byte.
    pub const HEADER_VERSION: usize = 0x31;
    /// Size of the header, 2 bytes.
    pub const HEADER_SIZE: usize = 0x32;
    /// Type of the message, a byte.
    pub const TYPE: usize = 0x34;
    /// Version of the message, a byte.
    pub const VERSION: usize = 0x35;
    /// Size of the payload, 2 bytes.
    pub const SIZE: usize = 0x36;
    /// Number of the key, a byte.
    pub const KEY: usize = 0x3c;
}

/// Types of messages; an answer has the number of its request plus one.
pub mod kind {
    /// CPUID values to check.
    pub const CPUID: u8 = 1;
    /// A key derived from the chip's or the guest's secret.
    pub const KEY: u8 = 3;
    /// An attestation report.
    pub const REPORT: u8 = 5;
    /// Export of the guest's context, for its migration agent.
    pub const EXPORT: u8 = 7;
    /// The VM root key, from the migration agent.
    pub const VMRK: u8 = 13;
    /// How the TSC runs in the guest.
    pub const TSC_INFO: u8 = 17;
}

const AES_256_GCM: u8 = 1;

/// The guest's key for its messages at a VMPL, and the sequence number.
#[derive(Clone)]
pub struct Channel {
    key: [u8; 32],
    number: u8,
    /// Messages sent or received so far.
    pub sequence: u64,
}

impl Channel {
    /// Key `number` of the secrets page.
    pub fn new(secrets: &[u8], number: u8) -> Result<Self> {
        let at = 0x20 + 32 * usize::from(number);
        let key = secrets.get(at..at + 32).context("no secrets page")?.try_into()?;
        Ok(Self { key, number, sequence: 0 })
    }

    /// A page with the next request.
    pub fn seal(&self, kind: u8, payload: &[u8]) -> Result<Vec<u8>> {
        self.seal_as(self.sequence + 1, kind, 1, payload)
    }

    /// A page with any request.
    pub fn seal_as(&self, sequence: u64, kind: u8, version: u8, payload: &[u8]) -> Result<Vec<u8>> {
        let mut page = vec![0; PAGE];
        page[field::SEQUENCE..][..8].copy_from_slice(&sequence.to_le_bytes());
        page[field::ALGORITHM] = AES_256_GCM;
        page[field::HEADER_VERSION] = 1;
        page[field::HEADER_SIZE..][..2].copy_from_slice(&(HEADER as u16).to_le_bytes());
        page[field::TYPE] = kind;
        page[field::VERSION] = version;
        page[field::SIZE..][..2].copy_from_slice(&(payload.len() as u16).to_le_bytes());
        page[field::KEY] = self.number;
        let mut tag = [0; TAG_LEN];
        let text = encrypt_aead(
            Cipher::aes_256_gcm(),
            &self.key,
            Some(&nonce(sequence)),
            &page[ASSOCIATED],
            payload,
            &mut tag,
        )?;
        page[..TAG_LEN].copy_from_slice(&tag);
        page[HEADER..HEADER + text.len()].copy_from_slice(&text);
        Ok(page)
    }

    /// The payload of the answer to a request of type `kind`; both numbers are used up then.
    pub fn open(&mut self, kind: u8, page: &[u8]) -> Result<Vec<u8>> {
        let number = |at: usize| u64::from(page[at]);
        let sequence = u64::from_le_bytes(page[field::SEQUENCE..][..8].try_into()?);
        ensure!(sequence == self.sequence + 2, "answer {sequence} after {}", self.sequence);
        ensure!(page[field::TYPE] == kind + 1, "an answer of type {}", page[field::TYPE]);
        ensure!(page[field::KEY] == self.number, "an answer with key {}", page[field::KEY]);
        let len = (number(field::SIZE) | (number(field::SIZE + 1) << 8)) as usize;
        ensure!(len <= MOST, "an answer of {len} bytes");
        let payload = decrypt_aead(
            Cipher::aes_256_gcm(),
            &self.key,
            Some(&nonce(sequence)),
            &page[ASSOCIATED],
            &page[HEADER..HEADER + len],
            &page[..TAG_LEN],
        )?;
        self.sequence += 2;
        Ok(payload)
    }
}

fn nonce(sequence: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&sequence.to_le_bytes());
    nonce
}

/// Which key is to sign a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Key {
    /// VLEK if there is one, else VCEK.
    Any = 0,
    /// The chip's.
    Vcek = 1,
    /// The provider's.
    Vlek = 2,
}

/// MSG_REPORT_REQ: what the report is to contain, and for which VMPL.
pub fn report_request(data: [u8; 64], vmpl: u32) -> Vec<u8> {
    report_request_for(data, vmpl, Key::Any)
}

/// MSG_REPORT_REQ with a choice of key.
pub fn report_request_for(data: [u8; 64], vmpl: u32, key: Key) -> Vec<u8> {
    let mut payload = vec![0; 96];
    payload[..64].copy_from_slice(&data);
    payload[64..68].copy_from_slice(&vmpl.to_le_bytes());
    payload[68..72].copy_from_slice(&(key as u32).to_le_bytes());
    payload
}

/// MSG_KEY_REQ: root key 0 is VCEK, 1 VMRK; `fields` are mixed in.
pub fn key_request(root: u32, fields: u64, vmpl: u32) -> Vec<u8> {
    let mut payload = vec![0; 32];
    payload[..4].copy_from_slice(&root.to_le_bytes());
    payload[8..16].copy_from_slice(&fields.to_le_bytes());
    payload[16..20].copy_from_slice(&vmpl.to_le_bytes());
    payload
}

/// Rows of MSG_CPUID_REQ.
const MOST_ROWS: usize = 64;

/// One row of MSG_CPUID_REQ.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuidRow {
    /// EAX and ECX before.
    pub leaf: [u32; 2],
    /// XCR0 and XSS then.
    pub state: [u64; 2],
    /// EAX, EBX, ECX, EDX after.
    pub values: [u32; 4],
}

/// MSG_CPUID_REQ: which values to check.
pub fn cpuid_request(rows: &[CpuidRow]) -> Vec<u8> {
    let mut payload = vec![0; 16];
    payload[..4].copy_from_slice(&(rows.len() as u32).to_le_bytes());
    for row in rows {
        row.leaf.iter().for_each(|word| payload.extend(word.to_le_bytes()));
        row.state.iter().for_each(|word| payload.extend(word.to_le_bytes()));
        row.values.iter().for_each(|word| payload.extend(word.to_le_bytes()));
        payload.extend([0; 8]);
    }
    payload.resize(16 + 48 * MOST_ROWS, 0);
    payload
}

/// The status that every answer begins with.
pub fn status(payload: &[u8]) -> Result<u32> {
    let status = payload.first_chunk().context("an empty answer")?;
    Ok(u32::from_le_bytes(*status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back() {
        let secrets = [7; 0xa0];
        let mut guest = Channel::new(&secrets, 0).unwrap();
        let firmware = Channel { sequence: 1, ..guest.clone() };
        let page = firmware.seal(kind::REPORT + 1, b"report").unwrap();
        assert_eq!(guest.open(kind::REPORT, &page).unwrap(), b"report");
        assert_eq!(guest.sequence, 2);
        let mut page = firmware.seal(kind::REPORT + 1, b"report").unwrap();
        guest.sequence = 0;
        page[field::VERSION] ^= 1;
        assert!(guest.open(kind::REPORT, &page).is_err());
    }
}
