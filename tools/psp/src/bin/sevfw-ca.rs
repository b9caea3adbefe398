// SPDX-License-Identifier: GPL-2.0-or-later
//! Stands in for AMD's key distribution service: prints the certificates above a chip's own and
//! those of the keys that sign attestation reports.

use std::io::{self, Write};
use std::process::ExitCode;

use sevfw::config::Config;
use sevfw::crypto::ca;
use sevfw::crypto::x509::{self, Kind, Product};
use sevfw::platform::identity::Chip;
use sevfw::snp::certs;
use sevfw::snp::config::Vlek;
use zerocopy::IntoBytes;

const USAGE: &str = "\
usage: sevfw-ca ask-ark                    ASK and ARK certificates, as `sevctl verify --ca` reads them
       sevfw-ca cek [CHIP]                 CEK certificate of a chip, signed by ASK
       sevfw-ca id [CHIP]                  identifier of a chip, in hexadecimal
       sevfw-ca chain vcek|vlek            ASK or ASVK and ARK certificates, X.509, PEM
       sevfw-ca vcek TCB [CHIP]            certificate of a chip's VCEK, X.509, DER
       sevfw-ca vlek TCB PROVIDER          certificate of a provider's VLEK, X.509, DER
       sevfw-ca hashstick TCB PROVIDER [CHIP]  what loads that VLEK into a chip

Certificates go to standard output, those of SEV in AMD's binary formats. CHIP is the firmware's
configuration item chip=, by default that of a firmware without one. TCB is
BOOTLOADER.TEE.SNP.MICROCODE, in decimal numbers.
";

fn chip(name: Option<&&str>) -> Chip {
    Chip::new(name.unwrap_or(&&*Config::default().chip))
}

/// The TCB version of a text, as Milan lays it out.
fn tcb(text: &str) -> Option<[u8; 8]> {
    let parts: Vec<u8> = text
        .split('.')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let [boot_loader, tee, snp, microcode] = parts[..] else {
        return None;
    };
    Some([boot_loader, tee, 0, 0, 0, 0, snp, microcode])
}

fn chain(product: Product, kind: Kind) -> Option<Vec<u8>> {
    let below = x509::signing_key(product, kind).ok()?.to_pem().ok()?;
    let ark = x509::ark(product).ok()?.to_pem().ok()?;
    Some([below, ark].concat().into_bytes())
}

fn answer(arguments: &[&str]) -> Option<Vec<u8>> {
    let product = Product::from_fms(Config::default().fms)?;
    match arguments {
        ["ask-ark"] => ca::ask_ark().ok(),
        ["cek", rest @ ..] if rest.len() <= 1 => {
            let chip = chip(rest.first());
            chip.cek_cert().ok().map(|cert| cert.as_bytes().to_vec())
        }
        ["id", rest @ ..] if rest.len() <= 1 => {
            let mut text = Vec::new();
            for byte in chip(rest.first()).id() {
                write!(text, "{byte:02X}").ok()?;
            }
            writeln!(text).ok()?;
            Some(text)
        }
        ["chain", "vcek"] => chain(product, Kind::Vcek),
        ["chain", "vlek"] => chain(product, Kind::Vlek),
        ["vcek", version, rest @ ..] if rest.len() <= 1 => {
            let certificate = certs::vcek(product, &chip(rest.first()), &tcb(version)?);
            certificate.ok()?.to_der().ok()
        }
        ["vlek", version, provider] => {
            let certificate = certs::vlek(product, &Vlek::of(provider)?, &tcb(version)?);
            certificate.ok()?.to_der().ok()
        }
        ["hashstick", version, provider, rest @ ..] if rest.len() <= 1 => {
            let wrapped = Vlek::of(provider)?.wrap(&chip(rest.first()), &tcb(version)?);
            wrapped.ok().map(|bytes| bytes.as_bytes().to_vec())
        }
        _ => None,
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match answer(&arguments) {
        Some(bytes) => match io::stdout().write_all(&bytes) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("sevfw-ca: {error}");
                ExitCode::FAILURE
            }
        },
        None => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
