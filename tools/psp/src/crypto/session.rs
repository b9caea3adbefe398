// SPDX-License-Identifier: GPL-2.0-or-later
//! The secure session with a guest owner or another platform, and the MACs made in it.
//!
//! ECDH secret → `sev-master-secret`(nonce) → `sev-kek`, `sev-kik`, which wrap the transport
//! keys TEK and TIK. Facts: virtee/sev `src/session`; AMDESE/sev-tool `src/commands.cpp`.

use aes::Aes128;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zerocopy::little_endian::U32;

use crate::crypto::{Rng, kdf, random};
use crate::status::{Result, Status};
use crate::wire::{PacketHeader, Session};

/// First byte of what a MAC covers.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Context {
    /// LAUNCH_SECRET.
    Secret = 1,
    /// SEND_UPDATE_DATA and RECEIVE_UPDATE_DATA.
    Data = 2,
    /// SEND_UPDATE_VMSA and RECEIVE_UPDATE_VMSA. unspecified: the value that the others leave.
    Vmsa = 3,
    /// LAUNCH_MEASURE.
    Measure = 4,
}

/// AES-128 in counter mode, both directions.
fn crypt(key: &[u8; 16], iv: &[u8; 16], data: &mut [u8]) {
    ctr::Ctr128BE::<Aes128>::new(key.into(), iv.into()).apply_keystream(data);
}

/// The transport encryption and integrity keys of a session.
#[derive(Clone)]
pub struct TransportKeys {
    tek: [u8; 16],
    tik: [u8; 16],
}

fn wrapping_keys(secret: &[u8], nonce: &[u8; 16]) -> ([u8; 16], [u8; 16]) {
    let master: [u8; 16] = kdf::derive(secret, "sev-master-secret", nonce);
    (
        kdf::derive(&master, "sev-kek", &[]),
        kdf::derive(&master, "sev-kik", &[]),
    )
}

impl TransportKeys {
    /// New keys.
    pub fn generate(rng: &mut Rng) -> Self {
        Self {
            tek: random(rng),
            tik: random(rng),
        }
    }

    /// The keys of a session blob; BAD_MEASUREMENT if it was not made for this secret and
    /// policy.
    pub fn unwrap(secret: &[u8], session: &Session, policy: u32) -> Result<Self> {
        let (kek, kik) = wrapping_keys(secret, &session.nonce);
        if !kdf::mac_is(&kik, &[&session.wrap_tk], &session.wrap_mac) {
            return Err(Status::BAD_MEASUREMENT);
        }
        let mut keys = session.wrap_tk;
        crypt(&kek, &session.wrap_iv, &mut keys);
        let (tek, tik) = keys.split_first_chunk().ok_or(Status::HWERROR_PLATFORM)?;
        let tik = tik.first_chunk().ok_or(Status::HWERROR_PLATFORM)?;
        if !kdf::mac_is(tik, &[&policy.to_le_bytes()], &session.policy_mac) {
            return Err(Status::BAD_MEASUREMENT);
        }
        Ok(Self {
            tek: *tek,
            tik: *tik,
        })
    }

    /// A session blob that hands the keys to whoever shares the secret.
    pub fn wrap(&self, secret: &[u8], policy: u32, rng: &mut Rng) -> Session {
        let nonce = random(rng);
        let wrap_iv = random(rng);
        let (kek, kik) = wrapping_keys(secret, &nonce);
        let mut wrap_tk = [0; 32];
        wrap_tk
            .iter_mut()
            .zip(self.tek.iter().chain(&self.tik))
            .for_each(|(to, from)| *to = *from);
        crypt(&kek, &wrap_iv, &mut wrap_tk);
        Session {
            nonce,
            wrap_tk,
            wrap_iv,
            wrap_mac: kdf::mac(&kik, &[&wrap_tk]),
            policy_mac: kdf::mac(&self.tik, &[&policy.to_le_bytes()]),
        }
    }

    /// The launch measurement.
    pub fn measure(
        &self,
        version: [u8; 3],
        policy: u32,
        digest: &[u8; 32],
        mnonce: &[u8; 16],
    ) -> [u8; 32] {
        let context = [Context::Measure as u8];
        let policy = policy.to_le_bytes();
        kdf::mac(&self.tik, &[&context, &version, &policy, digest, mnonce])
    }

    fn packet_mac<'a>(
        context: &'a [u8; 1],
        header: &'a PacketHeader,
        len: &'a [u8; 4],
        data: &'a [u8],
        measure: &'a [u8],
    ) -> [&'a [u8]; 7] {
        use zerocopy::IntoBytes;
        // Guest and transport length are equal: compression is not supported.
        [
            context,
            header.flags.as_bytes(),
            &header.iv,
            len,
            len,
            data,
            measure,
        ]
    }

    /// Decrypts a packet in place if its MAC is right, else BAD_MEASUREMENT. `measure` is the
    /// launch measurement for a secret, empty otherwise.
    pub fn open(
        &self,
        context: Context,
        header: &PacketHeader,
        data: &mut [u8],
        measure: &[u8],
    ) -> Result {
        let len = u32::try_from(data.len()).map_err(|_| Status::INVALID_LENGTH)?;
        let (context, len) = ([context as u8], len.to_le_bytes());
        let parts = Self::packet_mac(&context, header, &len, data, measure);
        if !kdf::mac_is(&self.tik, &parts, &header.mac) {
            return Err(Status::BAD_MEASUREMENT);
        }
        crypt(&self.tek, &header.iv, data);
        Ok(())
    }

    /// Encrypts a packet in place and makes its header.
    pub fn seal(&self, context: Context, data: &mut [u8], rng: &mut Rng) -> Result<PacketHeader> {
        let mut header = PacketHeader {
            flags: U32::ZERO,
            iv: random(rng),
            mac: [0; 32],
        };
        let len = u32::try_from(data.len()).map_err(|_| Status::INVALID_LENGTH)?;
        crypt(&self.tek, &header.iv, data);
        let (context, len) = ([context as u8], len.to_le_bytes());
        let parts = Self::packet_mac(&context, &header, &len, data, &[]);
        header.mac = kdf::mac(&self.tik, &parts);
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO_KEYS: TransportKeys = TransportKeys {
        tek: [0; 16],
        tik: [0; 16],
    };

    /// The session of virtee/sev `src/session/mod.rs`, test `session`: all inputs zero.
    fn vector() -> Session {
        Session {
            nonce: [0; 16],
            wrap_iv: [0; 16],
            wrap_tk: [
                0x21, 0x37, 0xbc, 0x7f, 0x9b, 0xb8, 0xbd, 0x7c, 0x3e, 0x55, 0xa5, 0x76, 0xa1, 0x5d,
                0x34, 0x54, 0xb3, 0x85, 0x6b, 0x8b, 0xa2, 0x7a, 0xfa, 0xdf, 0x46, 0xdc, 0xfe, 0xe9,
                0xf0, 0x2c, 0x02, 0xc4,
            ],
            wrap_mac: [
                0x31, 0x76, 0xc0, 0x75, 0x27, 0x38, 0xbd, 0x9d, 0x5e, 0x86, 0x68, 0x95, 0x34, 0x02,
                0x0f, 0x52, 0x8c, 0x08, 0x8f, 0x16, 0x23, 0x88, 0x26, 0xb0, 0x00, 0xb3, 0x27, 0xde,
                0xe6, 0xae, 0xed, 0x7d,
            ],
            policy_mac: [
                0xaa, 0x78, 0x55, 0xe1, 0x38, 0x39, 0xdd, 0x76, 0x7c, 0xd5, 0xda, 0x7c, 0x1f, 0xf5,
                0x03, 0x65, 0x40, 0xc9, 0x26, 0x4b, 0x7a, 0x80, 0x30, 0x29, 0x31, 0x5e, 0x55, 0x37,
                0x52, 0x87, 0xb4, 0xaf,
            ],
        }
    }

    #[test]
    fn third_party_session_is_unwrapped() {
        let keys = TransportKeys::unwrap(&[0; 16], &vector(), 0).unwrap();
        assert_eq!((keys.tek, keys.tik), (ZERO_KEYS.tek, ZERO_KEYS.tik));
    }

    #[test]
    fn every_part_of_a_session_is_protected() {
        use zerocopy::IntoBytes;
        for byte in 0..size_of::<Session>() {
            let mut session = vector();
            session.as_mut_bytes()[byte] ^= 1;
            let result = TransportKeys::unwrap(&[0; 16], &session, 0);
            assert_eq!(result.err(), Some(Status::BAD_MEASUREMENT), "byte {byte}");
        }
        assert!(TransportKeys::unwrap(&[0; 16], &vector(), 1).is_err());
        assert!(TransportKeys::unwrap(&[1; 16], &vector(), 0).is_err());
    }

    /// The measurement of AMDESE/sev-tool `src/tests.cpp` test_calc_measurement, also in
    /// virtee/sev `src/session/mod.rs` test `verify`.
    #[test]
    fn third_party_measurement() {
        let keys = TransportKeys {
            tek: [0; 16],
            tik: [
                0x66, 0x32, 0x0d, 0xb7, 0x31, 0x58, 0xa3, 0x5a, 0x25, 0x5d, 0x05, 0x17, 0x58, 0xe9,
                0x5e, 0xd4,
            ],
        };
        let mnonce = [
            0x4f, 0xbe, 0x0b, 0xed, 0xba, 0xd6, 0xc8, 0x6a, 0xe8, 0xf6, 0x89, 0x71, 0xd1, 0x03,
            0xe5, 0x54,
        ];
        use sha2::Digest;
        let digest = sha2::Sha256::digest([]).into();
        assert_eq!(
            keys.measure([0, 0x12, 0x0f], 0, &digest, &mnonce),
            [
                0x6f, 0xaa, 0xb2, 0xda, 0xae, 0x38, 0x9b, 0xcd, 0x34, 0x05, 0xa0, 0x5d, 0x6c, 0xaf,
                0xe3, 0x3c, 0x04, 0x14, 0xf7, 0xbe, 0xdd, 0x0b, 0xae, 0x19, 0xba, 0x5f, 0x38, 0xb7,
                0xfd, 0x16, 0x64, 0xea,
            ]
        );
    }
}
