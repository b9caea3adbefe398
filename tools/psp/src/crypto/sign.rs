// SPDX-License-Identifier: GPL-2.0-or-later
//! Verification of certificate signatures: ECDSA P-384 and RSA-PSS, SHA-256 and SHA-384.

use p384::ecdsa::VerifyingKey;
use p384::ecdsa::signature::hazmat::PrehashVerifier;
use rsa::{BigUint, Pss, RsaPublicKey};
use sha2::{Digest, Sha256, Sha384};

use crate::crypto::cert::{Algorithm, Certificate, Signature, be_48};
use crate::status::{Result, Status};

/// A public key that signs certificates.
enum Key {
    P384(VerifyingKey),
    Rsa(RsaPublicKey),
}

/// A signer: its key, and what its signatures must say of it.
pub struct Authority {
    key: Key,
    usage: u32,
    algorithm: Algorithm,
}

/// An RSA key from little-endian numbers; INVALID_CERTIFICATE unless it is a sane one.
pub fn rsa_key(bits: u32, exponent: &[u8], modulus: &[u8]) -> Result<RsaPublicKey> {
    let (n, e) = (
        BigUint::from_bytes_le(modulus),
        BigUint::from_bytes_le(exponent),
    );
    if !matches!(bits, 2048 | 4096) || n.bits() != bits as usize {
        return Err(Status::INVALID_CERTIFICATE);
    }
    RsaPublicKey::new(n, e).map_err(|_| Status::INVALID_CERTIFICATE)
}

/// RSA-PSS with a salt as long as the digest; `signature` is little-endian.
pub fn rsa_verify(key: &RsaPublicKey, sha384: bool, parts: &[&[u8]], signature: &[u8]) -> Result {
    use rsa::traits::PublicKeyParts;
    let mut signature: Vec<u8> = signature.iter().take(key.size()).copied().collect();
    signature.reverse();
    let verified = if sha384 {
        let mut hash = Sha384::new();
        parts.iter().for_each(|part| hash.update(part));
        key.verify(Pss::new::<Sha384>(), &hash.finalize(), &signature)
    } else {
        let mut hash = Sha256::new();
        parts.iter().for_each(|part| hash.update(part));
        key.verify(Pss::new::<Sha256>(), &hash.finalize(), &signature)
    };
    verified.map_err(|_| Status::BAD_SIGNATURE)
}

impl Authority {
    /// The signer that a certificate describes.
    pub fn from_certificate(cert: &Certificate) -> Result<Self> {
        let algorithm = Algorithm::from_id(cert.algorithm);
        let key = match algorithm {
            Algorithm::EcdsaSha256 | Algorithm::EcdsaSha384 => {
                Key::P384(VerifyingKey::from(cert.ec_key()?))
            }
            Algorithm::RsaSha256 | Algorithm::RsaSha384 => {
                let key = cert.rsa_key();
                Key::Rsa(rsa_key(key.bits.get(), &key.exponent, &key.modulus)?)
            }
            _ => return Err(Status::INVALID_CERTIFICATE),
        };
        Ok(Self {
            key,
            usage: cert.usage.get(),
            algorithm,
        })
    }

    /// An RSA signer.
    pub fn from_rsa(key: RsaPublicKey, usage: u32, sha384: bool) -> Self {
        let algorithm = if sha384 {
            Algorithm::RsaSha384
        } else {
            Algorithm::RsaSha256
        };
        Self {
            key: Key::Rsa(key),
            usage,
            algorithm,
        }
    }

    /// The one of the certificate's signatures that is this signer's, else BAD_SIGNATURE.
    pub fn verify<'c>(&self, cert: &'c Certificate) -> Result<&'c Signature> {
        cert.signatures
            .iter()
            .find(|signature| self.verify_one(cert.body(), signature).is_ok())
            .ok_or(Status::BAD_SIGNATURE)
    }

    fn verify_one(&self, body: &[u8], signature: &Signature) -> Result {
        if signature.usage.get() != self.usage
            || Algorithm::from_id(signature.algorithm) != self.algorithm
        {
            return Err(Status::BAD_SIGNATURE);
        }
        let sha384 = matches!(
            self.algorithm,
            Algorithm::EcdsaSha384 | Algorithm::RsaSha384
        );
        match &self.key {
            Key::Rsa(key) => rsa_verify(key, sha384, &[body], &signature.data),
            Key::P384(key) => {
                let digest = if sha384 {
                    Sha384::digest(body).to_vec()
                } else {
                    Sha256::digest(body).to_vec()
                };
                ecdsa_verify(key, &digest, signature).ok_or(Status::BAD_SIGNATURE)
            }
        }
    }
}

fn ecdsa_verify(key: &VerifyingKey, digest: &[u8], signature: &Signature) -> Option<()> {
    let (r, rest) = signature.data.split_first_chunk::<72>()?;
    let (r, s) = (be_48(r)?, be_48(rest.first_chunk()?)?);
    let signature = p384::ecdsa::Signature::from_scalars(r, s).ok()?;
    key.verify_prehash(digest, &signature).ok()
}
