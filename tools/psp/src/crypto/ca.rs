// SPDX-License-Identifier: GPL-2.0-or-later
//! The AMD root of trust of the emulated chips: root key ARK, signing key ASK, and the chip
//! endorsement certificate that ASK signs, in AMD's certificate format. ASVK is the signing key
//! for VLEKs; with the same ARK and ASK as here, `x509` has the certificates of SNP.
//!
//! The keys are this project's own and protect nothing: their primes are the first ones after
//! numbers hashed from a label. `OFFSETS` are the distances, so that nobody has to search.
//!
//! Facts: AMDESE/sev-tool `src/sevapi.h`, `src/amdcert.cpp`; virtee/sev `src/certs/sev/ca`.

use rand_core::SeedableRng;
use rsa::traits::PublicKeyParts;
use rsa::{BigUint, Pss, RsaPrivateKey, RsaPublicKey};
use sha2::{Digest, Sha384, Sha512};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::crypto::Rng;
use crate::crypto::cert::{Algorithm, Certificate, Usage};
use crate::crypto::sign::{Authority, rsa_key, rsa_verify};
use crate::status::{Result, Status};

const EXPONENT: u32 = 65537;
/// Size of modulus, exponent and signature of our own certificates.
const BITS: u32 = 4096;
const SIZE: usize = BITS as usize / 8;
/// Size of an AMD certificate with 4096-bit numbers, the largest.
pub const MAX_CERT_SIZE: usize = size_of::<Head>() + 3 * SIZE;

/// Distances from the hashed numbers to the primes p and q of each key.
const OFFSETS: [(&str, u32); 6] = [
    ("ARK p", 680),
    ("ARK q", 4952),
    ("ASK p", 570),
    ("ASK q", 2624),
    ("ASVK p", 1714),
    ("ASVK q", 80),
];

/// A 2048-bit odd number from a label, the two upper bits set.
fn hashed_number(label: &str) -> BigUint {
    let mut bytes = [0; 256];
    for (counter, block) in (0u8..).zip(bytes.chunks_mut(64)) {
        let digest = Sha512::new()
            .chain_update(b"sevfw fake AMD key ")
            .chain_update(label)
            .chain_update([counter])
            .finalize();
        block.copy_from_slice(&digest);
    }
    let [first, .., last] = &mut bytes;
    *first |= 0xc0;
    *last |= 1;
    BigUint::from_bytes_be(&bytes)
}

/// The prime of a label.
#[allow(clippy::arithmetic_side_effects)] // a BigUint grows as needed
fn prime(label: &str, offset: u32) -> BigUint {
    hashed_number(label) + BigUint::from(offset)
}

/// The key of that name: ARK, ASK or ASVK.
pub(super) fn private_key(name: &str) -> Result<RsaPrivateKey> {
    let mut primes = OFFSETS
        .iter()
        .filter(|(label, _)| label.starts_with(name))
        .map(|(label, offset)| prime(label, *offset));
    match (primes.next(), primes.next()) {
        (Some(p), Some(q)) => RsaPrivateKey::from_p_q(p, q, BigUint::from(EXPONENT)),
        _ => return Err(Status::HWERROR_PLATFORM),
    }
    .map_err(|_| Status::HWERROR_PLATFORM)
}

/// RSA-PSS with SHA-384; big-endian. The salt follows from the message.
pub(super) fn pss_sign(key: &RsaPrivateKey, message: &[u8]) -> Result<Vec<u8>> {
    let digest = Sha384::digest(message);
    let mut seed = [0; 32];
    seed.iter_mut()
        .zip(digest)
        .for_each(|(to, from)| *to = from);
    key.sign_with_rng(&mut Rng::from_seed(seed), Pss::new::<Sha384>(), &digest)
        .map_err(|_| Status::HWERROR_PLATFORM)
}

/// The same, little-endian.
fn rsa_sign(key: &RsaPrivateKey, message: &[u8]) -> Result<[u8; SIZE]> {
    Ok(crate::crypto::cert::le_extend(&pss_sign(key, message)?))
}

/// The fixed part of an AMD certificate; exponent, modulus and signature follow.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    version: U32,
    key_id: [u8; 16],
    certifying_id: [u8; 16],
    usage: U32,
    reserved: [u8; 16],
    exponent_bits: U32,
    modulus_bits: U32,
}

fn key_id(name: &str) -> [u8; 16] {
    let digest = Sha512::digest(["sevfw key id ", name].concat());
    digest.first_chunk().copied().unwrap_or_default()
}

fn amd_certificate(name: &str, usage: Usage, signer: &str) -> Result<Vec<u8>> {
    let key = private_key(name)?;
    let head = Head {
        version: U32::new(1),
        key_id: key_id(name),
        certifying_id: key_id(signer),
        usage: U32::new(usage as u32),
        reserved: [0; 16],
        exponent_bits: U32::new(BITS),
        modulus_bits: U32::new(BITS),
    };
    let exponent: [u8; SIZE] = crate::crypto::cert::le_extend(&key.e().to_bytes_be());
    let modulus: [u8; SIZE] = crate::crypto::cert::le_extend(&key.n().to_bytes_be());
    let mut cert = [head.as_bytes(), &exponent, &modulus].concat();
    let signature = rsa_sign(&private_key(signer)?, &cert)?;
    cert.extend(signature);
    Ok(cert)
}

/// The ASK and ARK certificates one after the other, as AMD publishes them (`ask_ark`).
pub fn ask_ark() -> Result<Vec<u8>> {
    let ask = amd_certificate("ASK", Usage::Ask, "ARK")?;
    let ark = amd_certificate("ARK", Usage::Ark, "ARK")?;
    Ok([ask, ark].concat())
}

/// Signs a chip's endorsement certificate with ASK, as AMD's key distribution service does.
pub fn sign_cek(cert: &mut Certificate) -> Result {
    let data = rsa_sign(&private_key("ASK")?, cert.body())?;
    if let Some(slot) = cert.signatures.first_mut() {
        slot.usage = U32::new(Usage::Ask as u32);
        slot.algorithm = U32::new(Algorithm::RsaSha384 as u32);
        slot.data = data;
    }
    Ok(())
}

/// An AMD certificate taken apart.
struct Parsed<'a> {
    head: Head,
    body: &'a [u8],
    signature: &'a [u8],
    key: RsaPublicKey,
    modulus: &'a [u8],
}

/// Takes the first AMD certificate off `bytes`.
fn parse(bytes: &[u8], usage: Usage) -> Result<(Parsed<'_>, &[u8])> {
    let bad = Status::INVALID_CERTIFICATE;
    let (head, numbers) = Head::read_from_prefix(bytes).map_err(|_| bad)?;
    let bits = head.modulus_bits.get();
    let size = bits as usize / 8;
    if head.version.get() != 1
        || head.usage.get() != usage as u32
        || head.exponent_bits.get() != bits
        || !matches!(bits, 2048 | BITS)
    {
        return Err(bad);
    }
    let (exponent, rest) = numbers.split_at_checked(size).ok_or(bad)?;
    let (modulus, rest) = rest.split_at_checked(size).ok_or(bad)?;
    let (signature, rest) = rest.split_at_checked(size).ok_or(bad)?;
    let body = bytes
        .get(..size_of::<Head>().saturating_add(size.saturating_mul(2)))
        .ok_or(bad)?;
    let parsed = Parsed {
        head,
        body,
        signature,
        key: rsa_key(bits, exponent, modulus)?,
        modulus,
    };
    Ok((parsed, rest))
}

impl Parsed<'_> {
    fn sha384(&self) -> bool {
        self.head.modulus_bits.get() == BITS
    }

    fn verify(&self, signer: &Parsed<'_>) -> Result {
        if self.head.certifying_id != signer.head.key_id {
            return Err(Status::INVALID_CERTIFICATE);
        }
        rsa_verify(&signer.key, signer.sha384(), &[self.body], self.signature)
    }
}

/// The ASK of an `ask_ark` blob, if it leads to our root; otherwise INVALID_CERTIFICATE (not our
/// root, malformed) or BAD_SIGNATURE.
pub fn verify_ask_ark(bytes: &[u8]) -> Result<Authority> {
    let (ask, rest) = parse(bytes, Usage::Ask)?;
    let (ark, _) = parse(rest, Usage::Ark)?;
    let root: [u8; SIZE] = crate::crypto::cert::le_extend(&private_key("ARK")?.n().to_bytes_be());
    if ark.modulus != root {
        return Err(Status::INVALID_CERTIFICATE);
    }
    ark.verify(&ark)?;
    ask.verify(&ark)?;
    let sha384 = ask.sha384();
    Ok(Authority::from_rsa(ask.key, Usage::Ask as u32, sha384))
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_bigint_dig::prime::probably_prime;

    /// The stated offsets are those of the first primes.
    #[test]
    fn offsets_lead_to_the_next_primes() {
        let found = OFFSETS.map(|(label, _)| {
            let start = hashed_number(label);
            let is_prime = |d: &u32| probably_prime(&(&start + BigUint::from(*d)), 20);
            (label, (0..).step_by(2).find(is_prime).unwrap())
        });
        assert_eq!(found, OFFSETS);
    }
}
