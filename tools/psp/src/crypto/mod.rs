// SPDX-License-Identifier: GPL-2.0-or-later
//! Keys, certificates and MACs of the SEV API, over the RustCrypto crates. Pure.

pub mod ca;
pub mod cert;
pub mod ecc;
pub mod kdf;
pub mod session;
pub mod sign;
pub mod x509;

/// The firmware's random numbers, seeded once from the machine or from the configuration.
pub type Rng = rand_chacha::ChaCha20Rng;

/// Random bytes.
pub fn random<const N: usize>(rng: &mut Rng) -> [u8; N] {
    use rand_core::RngCore;
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}
