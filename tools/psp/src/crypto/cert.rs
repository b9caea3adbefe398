// SPDX-License-Identifier: GPL-2.0-or-later
//! SEV certificates (PDH, PEK, OCA, CEK and the guest owner's DH key), version 1.
//!
//! All numbers are little-endian. Facts: AMDESE/sev-tool `src/sevapi.h`, virtee/sev
//! `src/certs/sev/sev`.

use p384::PublicKey;
use p384::elliptic_curve::sec1::FromEncodedPoint;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::crypto::ecc::PrivateKey;
use crate::status::{Result, Status};

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Usage {
    /// AMD root key.
    Ark = 0,
    /// AMD signing key.
    Ask = 0x13,
    /// No signature in this slot.
    Invalid = 0x1000,
    /// Owner certificate authority.
    Oca = 0x1001,
    /// Platform endorsement key.
    Pek = 0x1002,
    /// Platform Diffie-Hellman key.
    Pdh = 0x1003,
    /// Chip endorsement key.
    Cek = 0x1004,
}

/// Signature algorithm identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)] // the names say it
pub enum Algorithm {
    None = 0,
    RsaSha256 = 1,
    EcdsaSha256 = 2,
    EcdhSha256 = 3,
    RsaSha384 = 0x101,
    EcdsaSha384 = 0x102,
    EcdhSha384 = 0x103,
}

impl Algorithm {
    /// The algorithm of an identifier; unknown ones count as none.
    pub fn from_id(id: U32) -> Self {
        use Algorithm::*;
        [
            RsaSha256,
            EcdsaSha256,
            EcdhSha256,
            RsaSha384,
            EcdsaSha384,
            EcdhSha384,
        ]
        .into_iter()
        .find(|algorithm| *algorithm as u32 == id.get())
        .unwrap_or(None)
    }
}

/// Curve identifier of P-384.
const CURVE_P384: u32 = 2;

/// The two signatures of a certificate.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Signature {
    /// What the signing key is for.
    pub usage: U32,
    /// The signing algorithm.
    pub algorithm: U32,
    /// r and s, 72 bytes each; or an RSA number of 512 bytes.
    pub data: [u8; 512],
}

/// An elliptic-curve key in a certificate.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EcKey {
    curve: U32,
    x: [u8; 72],
    y: [u8; 72],
    reserved: [u8; 880],
}

/// An RSA key in a certificate.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RsaKey {
    /// Bits of the modulus.
    pub bits: U32,
    /// Public exponent.
    pub exponent: [u8; 512],
    /// Modulus.
    pub modulus: [u8; 512],
}

/// A certificate.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Certificate {
    version: U32,
    /// API version of the firmware that made it; zero unless it is a PEK.
    pub api: [u8; 2],
    reserved: [u8; 2],
    /// What the key is for.
    pub usage: U32,
    /// The key's algorithm.
    pub algorithm: U32,
    key: [u8; 1028],
    /// Signatures over everything before them.
    pub signatures: [Signature; 2],
}

const _: () = assert!(size_of::<Certificate>() == 2084);
const _: () = assert!(size_of::<EcKey>() == 1028 && size_of::<RsaKey>() == 1028);

/// Little-endian from big-endian, zero-extended.
pub fn le_extend<const N: usize>(big_endian: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.iter_mut()
        .zip(big_endian.iter().rev())
        .for_each(|(to, from)| *to = *from);
    out
}

/// Big-endian of 48 bytes from a little-endian field, unless more is set.
pub fn be_48(field: &[u8; 72]) -> Option<[u8; 48]> {
    let (low, high) = field.split_first_chunk::<48>()?;
    if high.iter().any(|byte| *byte != 0) {
        return None;
    }
    let mut out = *low;
    out.reverse();
    Some(out)
}

impl Signature {
    /// An empty slot.
    fn none() -> Self {
        let mut none = Self::new_zeroed();
        none.usage = U32::new(Usage::Invalid as u32);
        none
    }
}

impl Certificate {
    /// An unsigned certificate of a P-384 key.
    pub fn new(usage: Usage, api: [u8; 2], key: &PrivateKey) -> Self {
        let (x, y) = key.public_coordinates();
        let key = EcKey {
            curve: U32::new(CURVE_P384),
            x: le_extend(&x),
            y: le_extend(&y),
            reserved: [0; 880],
        };
        let algorithm = if usage == Usage::Pdh {
            Algorithm::EcdhSha256
        } else {
            Algorithm::EcdsaSha256
        };
        Self {
            version: U32::new(1),
            api,
            reserved: [0; 2],
            usage: U32::new(usage as u32),
            algorithm: U32::new(algorithm as u32),
            key: zerocopy::transmute!(key),
            signatures: [Signature::none(); 2],
        }
    }

    /// What the signatures cover.
    pub fn body(&self) -> &[u8] {
        let bytes = self.as_bytes();
        bytes
            .get(..core::mem::offset_of!(Certificate, signatures))
            .unwrap_or(bytes)
    }

    /// Puts an ECDSA signature by `key` into a slot; other slots stay.
    pub fn sign(&mut self, slot: usize, key: &PrivateKey, usage: Usage) {
        let (r, s) = key.sign(self.body());
        let mut signature = Signature::none();
        signature.usage = U32::new(usage as u32);
        signature.algorithm = U32::new(Algorithm::EcdsaSha256 as u32);
        let (r, s): ([u8; 72], [u8; 72]) = (le_extend(&r), le_extend(&s));
        signature
            .data
            .iter_mut()
            .zip(r.iter().chain(&s))
            .for_each(|(to, from)| *to = *from);
        if let Some(to) = self.signatures.get_mut(slot) {
            *to = signature;
        }
    }

    /// Empties both signature slots.
    pub fn strip(&mut self) {
        self.signatures = [Signature::none(); 2];
    }

    /// Refuses a certificate of another version or usage: INVALID_CERTIFICATE.
    pub fn expect(&self, usage: Usage) -> Result<&Self> {
        if self.version.get() == 1 && self.usage.get() == usage as u32 {
            Ok(self)
        } else {
            Err(Status::INVALID_CERTIFICATE)
        }
    }

    /// The P-384 key, if it is one and on the curve, else INVALID_CERTIFICATE.
    pub fn ec_key(&self) -> Result<PublicKey> {
        let key: EcKey = zerocopy::transmute!(self.key);
        let point = match (key.curve.get(), be_48(&key.x), be_48(&key.y)) {
            (CURVE_P384, Some(x), Some(y)) => {
                p384::EncodedPoint::from_affine_coordinates(&x.into(), &y.into(), false)
            }
            _ => return Err(Status::INVALID_CERTIFICATE),
        };
        Option::from(PublicKey::from_encoded_point(&point)).ok_or(Status::INVALID_CERTIFICATE)
    }

    /// The RSA key fields.
    pub fn rsa_key(&self) -> RsaKey {
        zerocopy::transmute!(self.key)
    }
}
