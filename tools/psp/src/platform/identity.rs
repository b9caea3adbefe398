// SPDX-License-Identifier: GPL-2.0-or-later
//! The keys and certificates of a chip and of its platform.
//!
//! ```text
//! ARK ──signs──> ASK ──signs──> CEK ──┐
//!                         OCA ────────┴─sign──> PEK ──signs──> PDH
//! ```
//! CEK follows from the chip. OCA, PEK and PDH are made by the firmware and persist; an owner
//! replaces OCA with a certificate of its own (PEK_CERT_IMPORT).

use std::cell::OnceCell;

use sha2::{Digest, Sha512};
use zerocopy::IntoBytes;

use crate::crypto::cert::{Certificate, Usage};
use crate::crypto::ecc::PrivateKey;
use crate::crypto::sign::Authority;
use crate::crypto::{Rng, ca, kdf};
use crate::firmware::API;
use crate::status::{Result, Status};

/// What is fused into a chip.
pub struct Chip {
    secret: [u8; 32],
    cek: PrivateKey,
    cek_cert: OnceCell<Certificate>,
}

impl Chip {
    /// The chip of that name; the same name gives the same chip.
    pub fn new(name: &str) -> Self {
        let secret = kdf::mac(b"sevfw chip", &[name.as_bytes()]);
        Self {
            cek: PrivateKey::from_secret(&secret, "cek"),
            cek_cert: OnceCell::new(),
            secret,
        }
    }

    /// The unique identifier that GET_ID returns.
    pub fn id(&self) -> [u8; 64] {
        Sha512::new()
            .chain_update(b"sevfw chip id")
            .chain_update(self.secret)
            .finalize()
            .into()
    }

    /// The key that seals the persistent state.
    pub fn nv_key(&self, label: &str) -> [u8; 32] {
        kdf::derive(&self.secret, label, &[])
    }

    /// The endorsement key of a TCB version.
    pub fn vcek(&self, tcb: &[u8; 8]) -> PrivateKey {
        PrivateKey::from_secret(&kdf::mac(&self.secret, &[b"vcek", tcb]), "vcek")
    }

    /// The endorsement certificate. On products the firmware exports it unsigned and AMD's key
    /// service hands out the signed one; here it carries ASK's signature from the start, so that
    /// the chain can be verified without that service.
    pub fn cek_cert(&self) -> Result<&Certificate> {
        if let Some(cert) = self.cek_cert.get() {
            return Ok(cert);
        }
        let mut cert = Certificate::new(Usage::Cek, [0; 2], &self.cek);
        ca::sign_cek(&mut cert)?;
        Ok(self.cek_cert.get_or_init(|| cert))
    }
}

/// The platform's keys and certificates.
#[derive(Clone)]
pub struct Identity {
    /// The OCA's private key if the platform is self-owned.
    pub(super) oca: Option<PrivateKey>,
    pub(super) oca_cert: Certificate,
    pub(super) pek: PrivateKey,
    pub(super) pek_cert: Certificate,
    pub(super) pdh: PrivateKey,
    pub(super) pdh_cert: Certificate,
}

fn self_signed_oca(key: &PrivateKey) -> Certificate {
    let mut cert = Certificate::new(Usage::Oca, [0; 2], key);
    cert.sign(0, key, Usage::Oca);
    cert
}

fn endorsed_pek(key: &PrivateKey, oca: &PrivateKey, chip: &Chip) -> Certificate {
    let mut cert = Certificate::new(Usage::Pek, API, key);
    cert.sign(0, oca, Usage::Oca);
    cert.sign(1, &chip.cek, Usage::Cek);
    cert
}

fn endorsed_pdh(key: &PrivateKey, pek: &PrivateKey) -> Certificate {
    let mut cert = Certificate::new(Usage::Pdh, [0; 2], key);
    cert.sign(0, pek, Usage::Pek);
    cert
}

impl Identity {
    /// A new self-owned identity.
    pub fn generate(chip: &Chip, rng: &mut Rng) -> Self {
        Self::with_oca(PrivateKey::generate(rng), chip, rng)
    }

    fn with_oca(oca: PrivateKey, chip: &Chip, rng: &mut Rng) -> Self {
        let (pek, pdh) = (PrivateKey::generate(rng), PrivateKey::generate(rng));
        Self {
            oca_cert: self_signed_oca(&oca),
            pek_cert: endorsed_pek(&pek, &oca, chip),
            pdh_cert: endorsed_pdh(&pdh, &pek),
            oca: Some(oca),
            pek,
            pdh,
        }
    }

    /// Whether somebody else holds the OCA key.
    pub fn is_externally_owned(&self) -> bool {
        self.oca.is_none()
    }

    /// New PEK and PDH. The platform is self-owned afterwards: without the owner's key no other
    /// PEK can be certified (AMDESE/sev-tool `set_self_owned` relies on it).
    pub fn new_pek(&self, chip: &Chip, rng: &mut Rng) -> Self {
        match &self.oca {
            Some(oca) => Self::with_oca(oca.clone(), chip, rng),
            None => Self::generate(chip, rng),
        }
    }

    /// New PDH.
    pub fn new_pdh(&self, rng: &mut Rng) -> Self {
        let pdh = PrivateKey::generate(rng);
        Self {
            pdh_cert: endorsed_pdh(&pdh, &self.pek),
            pdh,
            ..self.clone()
        }
    }

    /// The PEK certificate without signatures.
    pub fn pek_csr(&self) -> Certificate {
        let mut csr = self.pek_cert;
        csr.strip();
        csr
    }

    /// The identity after an owner certified this PEK; with a new PDH.
    pub fn adopt(
        &self,
        pek: &Certificate,
        oca: &Certificate,
        chip: &Chip,
        rng: &mut Rng,
    ) -> Result<Self> {
        let owner = Authority::from_certificate(oca.expect(Usage::Oca)?)?;
        owner.verify(oca)?;
        if pek.expect(Usage::Pek)?.body() != self.pek_cert.body() {
            return Err(Status::INVALID_CERTIFICATE);
        }
        let signature = *owner.verify(pek)?;
        let mut pek_cert = self.pek_csr();
        let [first, _] = &mut pek_cert.signatures;
        *first = signature;
        pek_cert.sign(1, &chip.cek, Usage::Cek);
        Ok(Self {
            oca: None,
            oca_cert: *oca,
            pek_cert,
            ..self.new_pdh(rng)
        })
    }

    /// The chain that PDH_CERT_EXPORT returns beside the PDH: PEK, OCA, CEK.
    pub fn chain(&self, chip: &Chip) -> Result<[Certificate; 3]> {
        Ok([self.pek_cert, self.oca_cert, *chip.cek_cert()?])
    }

    /// Whether a certificate is this platform's OCA.
    pub fn has_oca(&self, oca: &Certificate) -> bool {
        self.oca_cert.as_bytes() == oca.as_bytes()
    }

    /// The secret shared with the holder of a P-384 key.
    pub fn shared_secret(&self, peer: &p384::PublicKey) -> [u8; 48] {
        self.pdh.shared_secret(peer)
    }

    /// PEK's signature of a message: big-endian r and s.
    pub fn endorse(&self, message: &[u8]) -> ([u8; 48], [u8; 48]) {
        self.pek.sign(message)
    }
}
