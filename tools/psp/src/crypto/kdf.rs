// SPDX-License-Identifier: GPL-2.0-or-later
//! Key derivation and MACs.

use hmac::{Hmac, Mac};
use sha2::Sha256;

type HmacSha256 = Hmac<Sha256>;

fn hmac(key: &[u8], parts: &[&[u8]]) -> HmacSha256 {
    // HMAC takes keys of every length.
    let mut mac = <HmacSha256 as Mac>::new_from_slice(key)
        .unwrap_or_else(|_| <HmacSha256 as Mac>::new(&Default::default()));
    for part in parts {
        mac.update(part);
    }
    mac
}

/// HMAC-SHA256 over the concatenated parts.
pub fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    hmac(key, parts).finalize().into_bytes().into()
}

/// Compares a MAC in constant time.
pub fn mac_is(key: &[u8], parts: &[&[u8]], expected: &[u8; 32]) -> bool {
    hmac(key, parts).verify_slice(expected).is_ok()
}

/// NIST SP 800-108 in counter mode with HMAC-SHA256 and little-endian counter and length, one
/// block: `HMAC(key, 1 ‖ label ‖ 0 ‖ context ‖ bits)`. Fact: virtee/sev `session/key.rs`.
pub fn derive<const N: usize>(key: &[u8], label: &str, context: &[u8]) -> [u8; N] {
    const { assert!(N <= 32) };
    let bits = (N as u32).saturating_mul(8).to_le_bytes();
    let block = mac(
        key,
        &[&1u32.to_le_bytes(), label.as_bytes(), &[0], context, &bits],
    );
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(block) {
        *to = from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of virtee/sev `src/session/key.rs`, tests `derive` and `mac`.
    #[test]
    fn third_party_vectors() {
        assert_eq!(
            derive::<16>(&[0; 16], "sev-master-secret", &[0; 16]),
            [
                0xab, 0x4d, 0x26, 0x9f, 0xcc, 0x62, 0xbe, 0xdb, 0x45, 0x11, 0xd5, 0x6c, 0x38, 0x6c,
                0xe7, 0x06
            ]
        );
        let expected = [
            0xaa, 0x78, 0x55, 0xe1, 0x38, 0x39, 0xdd, 0x76, 0x7c, 0xd5, 0xda, 0x7c, 0x1f, 0xf5,
            0x03, 0x65, 0x40, 0xc9, 0x26, 0x4b, 0x7a, 0x80, 0x30, 0x29, 0x31, 0x5e, 0x55, 0x37,
            0x52, 0x87, 0xb4, 0xaf,
        ];
        assert_eq!(mac(&[0; 16], &[&[0, 0], &[0, 0]]), expected);
        assert!(mac_is(&[0; 16], &[&[0; 4]], &expected));
        assert!(!mac_is(&[0; 16], &[&[0; 5]], &expected));
    }
}
