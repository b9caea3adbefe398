// SPDX-License-Identifier: GPL-2.0-or-later
//! The encryption of guest messages: AES-256-GCM, the sequence number as IV, the header from the
//! algorithm on as additional data.

use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes256Gcm, KeyInit};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::memory::PAGE;
use crate::snp::wire::MessageHeader;
use crate::status::{Result, Status};

const ALGORITHM: u8 = 1;
const HEADER_VERSION: u8 = 1;
const PAYLOAD: usize = PAGE - size_of::<MessageHeader>();

/// The plaintext of a message; what follows it is zero.
pub struct Payload {
    bytes: [u8; PAYLOAD],
    size: usize,
}

impl Payload {
    /// At most as much as fits into a page, else INVALID_LENGTH.
    pub fn from_bytes(content: &[u8]) -> Result<Self> {
        let mut bytes = [0; PAYLOAD];
        let to = bytes.get_mut(..content.len());
        to.ok_or(Status::INVALID_LENGTH)?.copy_from_slice(content);
        let size = content.len();
        Ok(Self { bytes, size })
    }
}

/// A message in its page.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Message {
    /// The header, in the clear.
    pub header: MessageHeader,
    payload: [u8; PAYLOAD],
}

/// What the tag covers beside the payload.
fn additional(header: &MessageHeader) -> &[u8] {
    let bytes = header.as_bytes();
    let from = core::mem::offset_of!(MessageHeader, algorithm);
    bytes.get(from..).unwrap_or(bytes)
}

fn nonce(header: &MessageHeader) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce
        .iter_mut()
        .zip(header.sequence.as_bytes())
        .for_each(|(to, from)| *to = *from);
    nonce
}

impl Message {
    /// Decrypts: INVALID_PARAM for a wrong header, BAD_MEASUREMENT for a wrong tag.
    pub fn open(&self, key: &[u8; 32]) -> Result<Vec<u8>> {
        let header = &self.header;
        let payload = self.payload.get(..usize::from(header.size.get()));
        let right = header.algorithm == ALGORITHM
            && header.header_version == HEADER_VERSION
            && usize::from(header.header_size.get()) == size_of::<MessageHeader>();
        let (true, Some(payload)) = (right, payload) else {
            return Err(Status::INVALID_PARAM);
        };
        let mut plaintext = payload.to_vec();
        let (tag, _) = header
            .authtag
            .split_first_chunk()
            .unwrap_or((&[0; 16], &[]));
        Aes256Gcm::new(key.into())
            .decrypt_in_place_detached(
                &nonce(header).into(),
                additional(header),
                &mut plaintext,
                tag.into(),
            )
            .map_err(|_| Status::BAD_MEASUREMENT)?;
        Ok(plaintext)
    }

    /// Encrypts.
    pub fn seal(key: &[u8; 32], header: MessageHeader, payload: &Payload) -> Result<Self> {
        let mut message = Self {
            header,
            payload: payload.bytes,
        };
        let bytes = message.payload.get_mut(..payload.size);
        let tag = Aes256Gcm::new(key.into())
            .encrypt_in_place_detached(
                &nonce(&header).into(),
                additional(&header),
                bytes.ok_or(Status::INVALID_LENGTH)?,
            )
            .map_err(|_| Status::HWERROR_PLATFORM)?;
        message.header.authtag.zero();
        for (to, from) in message.header.authtag.iter_mut().zip(tag) {
            *to = from;
        }
        Ok(message)
    }
}
