// SPDX-License-Identifier: GPL-2.0-or-later
//! Stands in for AMD's key distribution service: prints the certificates above a chip's own.

use std::io::{self, Write};
use std::process::ExitCode;

use sevfw::config::Config;
use sevfw::crypto::ca;
use sevfw::platform::identity::Chip;
use zerocopy::IntoBytes;

const USAGE: &str = "\
usage: sevfw-ca ask-ark        ASK and ARK certificates, as `sevctl verify --ca` reads them
       sevfw-ca cek [CHIP]     CEK certificate of a chip, signed by ASK
       sevfw-ca id [CHIP]      identifier of a chip, in hexadecimal

Certificates go to standard output in AMD's binary formats. CHIP is the firmware's
configuration item chip=, by default that of a firmware without one.
";

fn answer(arguments: &[&str]) -> Option<Vec<u8>> {
    let chip = |name: Option<&&str>| Chip::new(name.unwrap_or(&&*Config::default().chip));
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
