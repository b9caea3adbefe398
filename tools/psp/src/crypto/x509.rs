// SPDX-License-Identifier: GPL-2.0-or-later
//! X.509 certificates of the keys that endorse attestation reports, as AMD's key distribution
//! service has them.
//!
//! ```text
//! ARK ──signs──> ASK  ──signs──> VCEK   of a chip at a TCB version
//!     └─signs──> ASVK ──signs──> VLEK   of a provider at a TCB version
//! ```
//! Facts: AMD publication 57230 (VCEK certificate and KDS interface); a VCEK certificate and the
//! roots in virtee/sev (`tests/certs_data`, `src/certs/snp/builtin`), read with
//! `openssl asn1parse`. unspecified: the validity, here the same for all, as there is no clock.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use rsa::RsaPublicKey;
use rsa::pss::get_default_pss_signature_algo_id;
use sha2::{Digest, Sha256, Sha384};
use x509_cert::certificate::{CertificateInner, TbsCertificateInner, Version};
use x509_cert::der::asn1::{BitString, Ia5StringRef, OctetString, UtcTime};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{self, Encode, EncodePem};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier,
};
use x509_cert::ext::{AsExtension, Extension, Extensions};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use x509_cert::time::{Time, Validity};

use crate::crypto::ca;
use crate::crypto::ecc::PrivateKey;
use crate::status::{Result, Status};

/// The extensions with the parts of a TCB version, in its order.
const SPL: [&str; 8] = [
    "1.3.6.1.4.1.3704.1.3.1", // blSPL
    "1.3.6.1.4.1.3704.1.3.2", // teeSPL
    "1.3.6.1.4.1.3704.1.3.4", // spl_4 to spl_7
    "1.3.6.1.4.1.3704.1.3.5",
    "1.3.6.1.4.1.3704.1.3.6",
    "1.3.6.1.4.1.3704.1.3.7",
    "1.3.6.1.4.1.3704.1.3.3", // snpSPL
    "1.3.6.1.4.1.3704.1.3.8", // ucodeSPL
];
const STRUCT_VERSION: &str = "1.3.6.1.4.1.3704.1.1";
const PRODUCT_NAME: &str = "1.3.6.1.4.1.3704.1.2";
const HWID: &str = "1.3.6.1.4.1.3704.1.4";
const CSP_ID: &str = "1.3.6.1.4.1.3704.1.5";

/// The beginnings of 2020 and of 2046, seconds of Unix time.
const VALID: [u64; 2] = [1_577_836_800, 2_398_377_600];

/// A processor, as certificates name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    line: &'static str,
    stepping: u32,
}

impl Product {
    /// From CPUID 1 EAX; None if its TCB versions have another layout or it is not known.
    pub fn from_fms(fms: u32) -> Option<Self> {
        let line = match (fms >> 4) & 0xfff_ffff {
            0xa_00f0..=0xa_00ff => "Milan",
            0xa_10f0..=0xa_10ff => "Genoa",
            _ => return None,
        };
        let stepping = fms & 0xf;
        Some(Self { line, stepping })
    }

    /// The name of the product line in subjects and addresses.
    pub fn line(self) -> &'static str {
        self.line
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-B{}", self.line, self.stepping)
    }
}

/// A kind of endorsement key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a chip.
    Vcek,
    /// Of a provider, loaded into its chips.
    Vlek,
}

impl Kind {
    /// The signing key's name among the keys, its certificate's serial number, and the middle of
    /// its subject.
    fn signer(self) -> (&'static str, u32, &'static str) {
        match self {
            Self::Vcek => ("ASK", 0x10001, "SEV"),
            Self::Vlek => ("ASVK", 0x10002, "SEV-VLEK"),
        }
    }
}

/// Whose endorsement key it is.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// VCEK: the chip's identifier.
    Chip(&'a [u8; 64]),
    /// VLEK: the provider's name, in ASCII.
    Provider(&'a str),
}

impl Owner<'_> {
    fn kind(self) -> Kind {
        match self {
            Self::Chip(_) => Kind::Vcek,
            Self::Provider(_) => Kind::Vlek,
        }
    }
}

/// A signed certificate.
pub struct Certificate(CertificateInner);

impl Certificate {
    /// DER.
    pub fn to_der(&self) -> Result<Vec<u8>> {
        self.0.to_der().map_err(broken)
    }

    /// PEM.
    pub fn to_pem(&self) -> Result<String> {
        self.0.to_pem(LineEnding::LF).map_err(broken)
    }
}

/// Nothing of what is encoded here comes from outside but a provider's name.
fn broken<E>(_: E) -> Status {
    Status::HWERROR_PLATFORM
}

fn validity() -> der::Result<Validity> {
    let [not_before, not_after] = VALID.map(|seconds| {
        UtcTime::from_unix_duration(Duration::from_secs(seconds)).map(Time::UtcTime)
    });
    Ok(Validity {
        not_before: not_before?,
        not_after: not_after?,
    })
}

fn name(common: &str) -> der::Result<Name> {
    Name::from_str(&format!("CN={common},O=Emulated AMD EPYC"))
}

/// What distinguishes a certificate.
struct Subject {
    name: Name,
    serial: u32,
    key: SubjectPublicKeyInfoOwned,
    extensions: Extensions,
}

/// Signs with the key `signer`, whose certificate has the subject `issuer`.
fn sign(subject: Subject, signer: &str, issuer: Name) -> Result<Certificate> {
    let algorithm = get_default_pss_signature_algo_id::<Sha384>().map_err(broken)?;
    let tbs_certificate = TbsCertificateInner {
        version: Version::V3,
        serial_number: SerialNumber::from(subject.serial),
        signature: algorithm.clone(),
        issuer,
        validity: validity().map_err(broken)?,
        subject: subject.name,
        subject_public_key_info: subject.key,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(subject.extensions),
    };
    let message = tbs_certificate.to_der().map_err(broken)?;
    let signature = ca::pss_sign(&ca::private_key(signer)?, &message)?;
    Ok(Certificate(CertificateInner {
        tbs_certificate,
        signature_algorithm: algorithm,
        signature: BitString::from_bytes(&signature).map_err(broken)?,
    }))
}

/// The public key of that name, and its identifier (RFC 7093, method 1).
fn authority_key(name: &str) -> Result<(SubjectPublicKeyInfoOwned, OctetString)> {
    let public = RsaPublicKey::from(&ca::private_key(name)?);
    let info = SubjectPublicKeyInfoOwned::from_key(public).map_err(broken)?;
    let digest = Sha256::digest(info.subject_public_key.raw_bytes());
    let identifier: [u8; 20] = digest.first_chunk().copied().unwrap_or_default();
    let identifier = OctetString::new(identifier).map_err(broken)?;
    Ok((info, identifier))
}

/// A certificate that signs others, itself signed by ARK.
fn authority(product: Product, key: &str, serial: u32, common: &str) -> Result<Certificate> {
    let root = key == "ARK";
    let (info, identifier) = authority_key(key)?;
    let (_, above) = authority_key("ARK")?;
    let encode = || -> der::Result<Subject> {
        let name = name(&format!("{common}-{}", product.line()))?;
        let mut extensions = Extensions::new();
        let usage = match root {
            true => KeyUsages::KeyCertSign | KeyUsages::CRLSign,
            false => KeyUsages::KeyCertSign.into(),
        };
        let constraints = BasicConstraints {
            ca: true,
            path_len_constraint: (!root).then_some(0),
        };
        extensions.push(KeyUsage(usage).to_extension(&name, &[])?);
        extensions.push(constraints.to_extension(&name, &[])?);
        extensions.push(SubjectKeyIdentifier(identifier).to_extension(&name, &[])?);
        if !root {
            let identifier = AuthorityKeyIdentifier {
                key_identifier: Some(above),
                ..Default::default()
            };
            extensions.push(identifier.to_extension(&name, &[])?);
        }
        Ok(Subject {
            name,
            serial,
            key: info,
            extensions,
        })
    };
    let issuer = name(&format!("ARK-{}", product.line())).map_err(broken)?;
    sign(encode().map_err(broken)?, "ARK", issuer)
}

/// ARK's certificate.
pub fn ark(product: Product) -> Result<Certificate> {
    authority(product, "ARK", 0x10000, "ARK")
}

/// The certificate of the key that signs endorsement keys: ASK or ASVK.
pub fn signing_key(product: Product, kind: Kind) -> Result<Certificate> {
    let (key, serial, common) = kind.signer();
    authority(product, key, serial, common)
}

/// A certificate's extension of AMD's.
fn extension(oid: &str, value: Vec<u8>) -> der::Result<Extension> {
    Ok(Extension {
        extn_id: ObjectIdentifier::new(oid)?,
        critical: false,
        extn_value: OctetString::new(value)?,
    })
}

fn extensions(product: Product, owner: Owner<'_>, tcb: &[u8; 8]) -> der::Result<Extensions> {
    let text = |text: &str| Ia5StringRef::new(text)?.to_der();
    let mut extensions = vec![
        extension(STRUCT_VERSION, 0u8.to_der()?)?,
        extension(PRODUCT_NAME, text(&product.to_string())?)?,
    ];
    for (oid, svn) in SPL.iter().zip(tcb) {
        extensions.push(extension(oid, svn.to_der()?)?);
    }
    extensions.push(match owner {
        // This one is not encoded.
        Owner::Chip(id) => extension(HWID, id.to_vec())?,
        Owner::Provider(name) => extension(CSP_ID, text(name)?)?,
    });
    Ok(extensions)
}

/// The certificate of an endorsement key.
pub fn endorsement_key(
    product: Product,
    owner: Owner<'_>,
    tcb: &[u8; 8],
    key: &PrivateKey,
) -> Result<Certificate> {
    let (signer, _, common) = owner.kind().signer();
    let subject = match owner.kind() {
        Kind::Vcek => "SEV-VCEK",
        Kind::Vlek => "SEV-VLEK",
    };
    let subject = Subject {
        name: name(subject).map_err(broken)?,
        serial: 0,
        key: SubjectPublicKeyInfoOwned::from_key(key.public_key()).map_err(broken)?,
        extensions: extensions(product, owner, tcb).map_err(broken)?,
    };
    let issuer = name(&format!("{common}-{}", product.line())).map_err(broken)?;
    sign(subject, signer, issuer)
}
