// SPDX-License-Identifier: GPL-2.0-or-later
//! `snpguest`, unmodified, in the place of who wants to trust a guest: it fetches the certificates
//! for a guest's report and verifies both.
//!
//! Needs `/snpguest` (clients/install) and `/sevfw-ca` (the emulated platform's certificate
//! authority) in the host VM.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output};

use anyhow::{Context, Result};
use sev::firmware::host::{Config, Firmware, MaskId, TcbVersion};
use sev_vm::es::kept_vm;
use sev_vm::host::Host;
use sev_vm::kds;
use sev_vm::ktap::{self, Test};
use sev_vm::snp_guest::Setup;
use sev_vm::snp_guest_message::Key;
use sev_vm::snp_guest_request::{launched, report_by};

const DIR: &str = "/tmp/snpguest";

fn main() -> ExitCode {
    let _kept = kept_vm();
    if let Err(error) = fs::create_dir_all(DIR).map_err(Into::into).and_then(|()| key_service()) {
        println!("# the key service cannot be set up: {error:#}");
        return ExitCode::FAILURE;
    }
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("attestation", attestation),
            ("damaged", damaged),
            ("other_tcb_version", other_tcb_version),
        ],
    )
}

fn file(name: &str) -> String {
    format!("{DIR}/{name}")
}

fn key_service() -> Result<()> {
    kds::serve(Path::new(&file("tls.pem")))
}

fn snpguest(arguments: &[&str]) -> Result<Output> {
    Command::new("/snpguest")
        .args(arguments)
        .env("SSL_CERT_FILE", file("tls.pem"))
        .output()
        .context("/snpguest")
}

/// Records that it succeeds; its standard output.
fn succeeds(t: &mut Test, case: &str, arguments: &[&str]) -> Result<String> {
    let output = snpguest(arguments)?;
    if !output.status.success() {
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        for line in String::from_utf8_lossy(&text).lines() {
            t.note(format!("snpguest {}: {line}", arguments.join(" ")));
        }
    }
    t.check(case, output.status.success());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Records that it fails, and says this.
fn fails(t: &mut Test, case: &str, says: &str, arguments: &[&str]) -> Result<()> {
    let output = snpguest(arguments)?;
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let expected = !output.status.success() && text.contains(says);
    if !expected {
        t.note(format!("snpguest {}: {text}", arguments.join(" ")));
    }
    t.check(case, expected);
    Ok(())
}

/// A guest's report and the certificates that snpguest fetches for it: file and directory.
fn fetched(t: &mut Test, name: &str) -> Result<(String, String)> {
    let (report, certificates) = (file(&format!("{name}.bin")), file(name));
    let host = Host::open()?;
    let (mut guest, mut channel) = launched(&host, Setup::default())?;
    let bytes = report_by(&mut guest.actor(0), &mut channel, [0x77; 64], 0, Key::Any)?;
    fs::write(&report, bytes)?;
    succeeds(
        t,
        &format!("{name}.fetch_ca"),
        &["fetch", "ca", "pem", &certificates, "--report", &report],
    )?;
    succeeds(t, &format!("{name}.fetch_vcek"), &["fetch", "vcek", "pem", &certificates, &report])?;
    Ok((report, certificates))
}

fn attestation(t: &mut Test) -> Result<()> {
    let (report, certificates) = fetched(t, "guest")?;
    let said = succeeds(t, "certs", &["verify", "certs", &certificates])?;
    t.check("certs.root", said.contains("ARK was self-signed"));
    t.check("certs.vcek", said.contains("VCEK was signed by the AMD ASK"));
    let said = succeeds(t, "attestation", &["verify", "attestation", &certificates, &report])?;
    t.check("attestation.signed", said.contains("VEK signed the Attestation Report"));
    for part in ["Boot Loader", "TEE", "SNP", "Microcode"] {
        let line = format!("Reported TCB {part} from certificate matches");
        t.check(&format!("attestation.{}", part.replace(' ', "_")), said.contains(&line));
    }
    Ok(())
}

/// A bit flipped in the report, or in a certificate's signature, is noticed.
fn damaged(t: &mut Test) -> Result<()> {
    let (report, certificates) = fetched(t, "damaged")?;
    let bad = file("bad.bin");
    for (name, at) in [("data", 0x50), ("measurement", 0x90), ("signature", 0x2a0)] {
        let mut bytes = fs::read(&report)?;
        bytes[at] ^= 1;
        fs::write(&bad, bytes)?;
        let says = "VEK did NOT sign the Attestation Report";
        fails(t, name, says, &["verify", "attestation", &certificates, &bad])?;
    }
    // ASVK, another key of the same root, in the place of ASK.
    let asvk = file("asvk");
    succeeds(t, "fetch_asvk", &["fetch", "ca", "pem", &asvk, "milan", "--endorser", "vlek"])?;
    fs::copy(format!("{asvk}/asvk.pem"), format!("{certificates}/ask.pem"))?;
    fails(t, "other_signer", "was not signed", &["verify", "certs", &certificates])
}

/// VCEK of another TCB version: neither its certificate nor its key fit.
fn other_tcb_version(t: &mut Test) -> Result<()> {
    let (report, certificates) = fetched(t, "now")?;
    let configure = |boot_loader, snp| -> Result<()> {
        let tcb = TcbVersion::new(None, boot_loader, 0, snp, 0);
        Firmware::open()?.snp_set_config(Config::new(tcb, MaskId(0)))?;
        Ok(())
    };
    configure(2, 9)?;
    let (older_report, older) = fetched(t, "older")?;
    configure(0, 0)?;
    succeeds(t, "older", &["verify", "attestation", &older, &older_report])?;
    let arguments = ["verify", "attestation", &older, &report];
    fails(t, "other_certificate", "Boot Loader mismatch", &arguments)?;
    let arguments = ["verify", "attestation", "--signature", &older, &report];
    fails(t, "other_key", "VEK did NOT sign", &arguments)?;
    let arguments = ["verify", "attestation", "--signature", &certificates, &older_report];
    fails(t, "other_report", "VEK did NOT sign", &arguments)
}
