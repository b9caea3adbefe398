// SPDX-License-Identifier: GPL-2.0-or-later
//! The part of AMD's key distribution service: what it knows of the keys that sign reports.

use core::fmt;

use serde::Serialize;
use zerocopy::IntoBytes;

use super::config::Vlek;
use super::wire::Hashstick;
use crate::crypto::x509::{self, Certificate, Kind, Owner, Product};
use crate::firmware::Firmware;
use crate::platform::identity::Chip;
use crate::status::{self, Status};

/// VCEK's certificate.
pub fn vcek(product: Product, chip: &Chip, tcb: &[u8; 8]) -> status::Result<Certificate> {
    let id = chip.id();
    x509::endorsement_key(product, Owner::Chip(&id), tcb, &chip.vcek(tcb))
}

/// VLEK's certificate.
pub fn vlek(product: Product, vlek: &Vlek, tcb: &[u8; 8]) -> status::Result<Certificate> {
    let owner = Owner::Provider(vlek.provider());
    x509::endorsement_key(product, owner, tcb, &vlek.key(tcb))
}

/// Everything that a verifier of this firmware's reports needs, PEM.
#[derive(Serialize)]
pub struct Certificates {
    ark: String,
    ask: String,
    asvk: String,
    vcek: String,
    vlek: Option<String>,
}

fn failed(status: Status) -> String {
    format!("no certificate: {status:?}")
}

/// The certificates at the reported TCB version. The error is for people.
pub fn certificates(fw: &Firmware) -> Result<Certificates, String> {
    let fms = fw.config.fms;
    let product = Product::from_fms(fms);
    let product = product.ok_or_else(|| format!("no certificates for processors like {fms:x}"))?;
    let tcb = &fw.snp.reported.tcb;
    let make = || -> status::Result<Certificates> {
        let loaded = fw.snp.vlek.as_ref();
        let loaded = loaded.map(|loaded| vlek(product, loaded, tcb)?.to_pem());
        Ok(Certificates {
            ark: x509::ark(product)?.to_pem()?,
            ask: x509::signing_key(product, Kind::Vcek)?.to_pem()?,
            asvk: x509::signing_key(product, Kind::Vlek)?.to_pem()?,
            vcek: vcek(product, &fw.platform.chip, tcb)?.to_pem()?,
            vlek: loaded.transpose()?,
        })
    };
    make().map_err(failed)
}

/// Bytes as hexadecimal digits.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An answer with a hashstick.
#[derive(Serialize)]
pub struct Wrapped {
    hashstick: String,
}

/// The hashstick that loads a provider's VLEK into this chip. The error is for people.
pub fn hashstick(fw: &Firmware, provider: &str) -> Result<Wrapped, String> {
    let vlek = Vlek::of(provider).ok_or("a provider's name has 1 to 64 characters of ASCII")?;
    let wrapped: Hashstick = vlek
        .wrap(&fw.platform.chip, &fw.snp.reported.tcb)
        .map_err(|status| format!("no hashstick: {status:?}"))?;
    Ok(Wrapped {
        hashstick: Hex(wrapped.as_bytes()).to_string(),
    })
}
