// SPDX-License-Identifier: GPL-2.0-or-later
//! P-384 keys: ECDSA for CEK, PEK and OCA, ECDH for the PDH.

use p384::SecretKey;
use p384::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256, Sha384};

use crate::crypto::{Rng, kdf};
use crate::status::{Result, Status};

/// A big-endian number of P-384.
pub type Number = [u8; 48];

/// A private P-384 key.
#[derive(Clone)]
pub struct PrivateKey(SecretKey);

impl PrivateKey {
    /// A new key.
    pub fn generate(rng: &mut Rng) -> Self {
        Self(SecretKey::random(rng))
    }

    /// The key that follows from a secret: the first derived candidate below the group order.
    pub fn from_secret(secret: &[u8; 32], label: &str) -> Self {
        let mut counter = 0u8;
        loop {
            let high: [u8; 32] = kdf::derive(secret, label, &[counter, 0]);
            let low: [u8; 16] = kdf::derive(secret, label, &[counter, 1]);
            let mut scalar = [0; 48];
            scalar
                .iter_mut()
                .zip(high.iter().chain(&low))
                .for_each(|(to, from)| *to = *from);
            if let Some(key) = Self::from_bytes(&scalar) {
                return key;
            }
            // A candidate fails with probability 2^-190.
            counter = counter.wrapping_add(1);
        }
    }

    /// The key of a big-endian scalar, if it is a valid one.
    pub fn from_bytes(scalar: &[u8; 48]) -> Option<Self> {
        SecretKey::from_slice(scalar).ok().map(Self)
    }

    /// The big-endian scalar.
    pub fn to_bytes(&self) -> [u8; 48] {
        self.0.to_bytes().into()
    }

    /// The public key.
    pub fn public_key(&self) -> p384::PublicKey {
        self.0.public_key()
    }

    /// The public key: big-endian affine coordinates.
    pub fn public_coordinates(&self) -> ([u8; 48], [u8; 48]) {
        use p384::elliptic_curve::sec1::ToEncodedPoint;
        let point = self.0.public_key().to_encoded_point(false);
        let coordinate = |c: Option<&p384::FieldBytes>| c.map_or([0; 48], |c| (*c).into());
        (coordinate(point.x()), coordinate(point.y()))
    }

    /// ECDSA with SHA-256 over the concatenated parts: big-endian r and s.
    pub fn sign(&self, message: &[u8]) -> (Number, Number) {
        self.sign_digest(&Sha256::digest(message))
    }

    /// ECDSA with SHA-384: big-endian r and s.
    pub fn sign_sha384(&self, message: &[u8]) -> (Number, Number) {
        self.sign_digest(&Sha384::digest(message))
    }

    fn sign_digest(&self, digest: &[u8]) -> (Number, Number) {
        let signer = SigningKey::from(&self.0);
        // Fails only for a digest shorter than half the field.
        let signature: Option<Signature> = signer.sign_prehash(digest).ok();
        signature.map_or(([0; 48], [0; 48]), |s| {
            let (r, s) = s.split_bytes();
            (r.into(), s.into())
        })
    }

    /// The shared x coordinate with a peer.
    pub fn shared_secret(&self, peer: &p384::PublicKey) -> [u8; 48] {
        let shared = p384::ecdh::diffie_hellman(self.0.to_nonzero_scalar(), peer.as_affine());
        (*shared.raw_secret_bytes()).into()
    }
}

/// Verifies ECDSA with SHA-384 of the key with coordinates x and y: BAD_SIGNATURE.
pub fn verify_sha384(
    (x, y): (&Number, &Number),
    message: &[u8],
    (r, s): (&Number, &Number),
) -> Result {
    let point = p384::EncodedPoint::from_affine_coordinates(x.into(), y.into(), false);
    let key = VerifyingKey::from_encoded_point(&point).map_err(|_| Status::BAD_SIGNATURE)?;
    let signature = Signature::from_scalars(*r, *s).map_err(|_| Status::BAD_SIGNATURE)?;
    key.verify_prehash(&Sha384::digest(message), &signature)
        .map_err(|_| Status::BAD_SIGNATURE)
}
