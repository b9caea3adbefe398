// SPDX-License-Identifier: GPL-2.0-or-later
//! `snphost`, unmodified, against the host: probing, status, configuration, certificates from the
//! key distribution service, and a provider's key.
//!
//! Needs `/snphost` (clients/install) and `/sevfw-ca` (the emulated platform's certificate
//! authority) in the host VM.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output};

use anyhow::{Context, Result, ensure};
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::{X509, X509Name};
use sev_vm::host::Host;
use sev_vm::kds;
use sev_vm::ktap::{self, Test};
use sev_vm::snp::{Snp, policy};

const DIR: &str = "/tmp/snphost";

fn main() -> ExitCode {
    if let Err(error) = fs::create_dir_all(DIR).map_err(Into::into).and_then(|()| key_service()) {
        println!("# the key service cannot be set up: {error:#}");
        return ExitCode::FAILURE;
    }
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("ok", ok),
            ("show", show),
            ("config", config),
            ("commit", commit),
            ("certificates", certificates),
            ("endorsement", endorsement),
            ("provider", provider),
        ],
    )
}

fn authority() -> String {
    format!("{DIR}/tls.pem")
}

fn key_service() -> Result<()> {
    kds::serve(Path::new(&authority()))
}

fn snphost(arguments: &[&str]) -> Result<Output> {
    Command::new("/snphost")
        .args(arguments)
        .env("SSL_CERT_FILE", authority())
        .output()
        .context("/snphost")
}

/// Records that it succeeds; its standard output.
fn succeeds(t: &mut Test, case: &str, arguments: &[&str]) -> Result<String> {
    let output = snphost(arguments)?;
    if !output.status.success() {
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        for line in String::from_utf8_lossy(&text).lines() {
            t.note(format!("snphost {}: {line}", arguments.join(" ")));
        }
    }
    t.check(case, output.status.success());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn ok(t: &mut Test) -> Result<()> {
    // It reads SYSCFG and the RMP's place.
    let loaded = Command::new("modprobe").arg("msr").status()?;
    ensure!(loaded.success(), "modprobe msr: {loaded}");
    let said = succeeds(t, "ok", &["ok"])?;
    for line in said.lines().filter(|line| line.contains("FAIL")) {
        t.note(line);
    }
    t.value("failed", said.lines().filter(|line| line.contains("FAIL")).count(), 0);
    t.check("says_something", said.contains("PASS"));
    Ok(())
}

fn show(t: &mut Test) -> Result<()> {
    let guests = |t: &mut Test, case: &str| succeeds(t, case, &["show", "guests"]);
    let none = guests(t, "guests_none")?;
    t.value("guests_before", none.as_str(), "0");
    let host = Host::open()?;
    let vms = [Snp::started(&host, policy::DEFAULT)?, Snp::started(&host, policy::DEFAULT)?];
    let two = guests(t, "guests_two")?;
    t.value("guests_with_two", two.as_str(), "2");
    drop(vms);
    let gone = guests(t, "guests_gone")?;
    t.value("guests_after", gone.as_str(), "0");
    let identifier = succeeds(t, "identifier", &["show", "identifier"])?;
    t.value("identifier_len", identifier.len(), 128);
    let version = succeeds(t, "version", &["show", "version"])?;
    let build = sev_vm::tenant::build()?.version;
    t.value("version_is_sevs", version, format!("{}.{}", build.major, build.minor));
    let url = succeeds(t, "vcek_url", &["show", "vcek-url"])?;
    t.check("url_names_the_chip", url.contains(&identifier));
    t.check("url_names_the_processor", url.contains("/vcek/v1/Milan/"));
    Ok(())
}

/// Reported and platform TCB, as text.
fn tcbs(t: &mut Test, case: &str) -> Result<(String, String)> {
    let said = succeeds(t, case, &["show", "tcb"])?;
    let parts = said.strip_prefix("Reported TCB:").and_then(|s| s.split_once("Platform TCB:"));
    let (reported, platform) = parts.context("show tcb")?;
    Ok((reported.trim().to_owned(), platform.trim().to_owned()))
}

fn config(t: &mut Test) -> Result<()> {
    let before = tcbs(t, "before")?;
    t.check("reported_is_platforms", before.0 == before.1);
    // Boot loader, TEE, SNP firmware, microcode; nothing but zeroes would be the platform's again.
    succeeds(t, "set", &["config", "set", "2", "0", "9", "0", "0"])?;
    let set = tcbs(t, "after_set")?;
    t.check("platforms_is_kept", set.1 == before.1);
    t.check("reported_is_set", set.0 != before.0);
    let too_high = snphost(&["config", "set", "255", "255", "255", "255", "0"])?;
    t.check("too_high_refused", !too_high.status.success());
    let kept = tcbs(t, "after_refusal")?;
    t.check("refusal_changes_nothing", kept == set);
    succeeds(t, "masked", &["config", "set", "0", "0", "0", "0", "1"])?;
    succeeds(t, "reset", &["config", "reset"])?;
    let after = tcbs(t, "after_reset")?;
    t.observe("reset_reports_platforms", after.0 == after.1);
    Ok(())
}

fn commit(t: &mut Test) -> Result<()> {
    let before = tcbs(t, "before")?;
    succeeds(t, "commit", &["commit"])?;
    let after = tcbs(t, "after")?;
    t.check("platform_is_kept", after.1 == before.1);
    Ok(())
}

const NAMES: [&str; 3] = ["ark", "ask", "vcek"];

/// The platform's certificates, from the key distribution service.
fn fetch(t: &mut Test, name: &str) -> Result<String> {
    let place = format!("{DIR}/{name}");
    succeeds(t, &format!("{name}.fetch_ca"), &["fetch", "ca", "der", &place])?;
    succeeds(t, &format!("{name}.fetch_vek"), &["fetch", "vek", "der", &place])?;
    Ok(place)
}

/// Whether it finds a chain good. Its exit status does not tell.
fn verifies(place: &str) -> Result<bool> {
    let said = String::from_utf8(snphost(&["verify", "certs", place])?.stdout)?;
    ensure!(said.lines().count() > 3, "verify certs: {said}");
    // Crossed-out signs of a relation: combining characters.
    Ok(!said.lines().skip(3).any(|line| line.contains(['\u{337}', '\u{338}'])))
}

/// Into the table for guests, and out of it again.
fn certificates(t: &mut Test) -> Result<()> {
    let (table, to) = (format!("{DIR}/table"), format!("{DIR}/to"));
    let from = fetch(t, "from")?;
    succeeds(t, "import", &["import", &from, &table])?;
    succeeds(t, "export", &["export", "der", &table, &to])?;
    for name in NAMES {
        let (before, after) =
            (fs::read(format!("{from}/{name}.der"))?, fs::read(format!("{to}/{name}.der"))?);
        t.check(&format!("{name}_is_the_same"), before == after);
    }
    fs::write(&table, [0xff; 100])?;
    t.check("nonsense_refused", !snphost(&["export", "der", &table, &to])?.status.success());
    Ok(())
}

/// Certificates of the platform lead to the root; others do not.
fn endorsement(t: &mut Test) -> Result<()> {
    let now = fetch(t, "now")?;
    t.check("verified", verifies(&now)?);
    succeeds(t, "set", &["config", "set", "2", "0", "9", "0", "0"])?;
    let older = fetch(t, "older")?;
    t.check("older_verified", verifies(&older)?);
    succeeds(t, "back", &["config", "set", "0", "0", "0", "0", "0"])?;
    let read = |place: &str, name: &str| fs::read(format!("{place}/{name}.der"));
    for (name, same) in NAMES.into_iter().zip([true, true, false]) {
        t.check(&format!("older_{name}"), (read(&now, name)? == read(&older, name)?) == same);
    }
    // The signature is at the end.
    for name in NAMES {
        let good = read(&now, name)?;
        let mut bad = good.clone();
        *bad.last_mut().context("an empty certificate")? ^= 1;
        fs::write(format!("{now}/{name}.der"), bad)?;
        t.check(&format!("damaged_{name}"), !verifies(&now)?);
        fs::write(format!("{now}/{name}.der"), good)?;
    }
    t.check("verified_again", verifies(&now)?);
    Ok(())
}

/// A provider's key is fetched, loaded and verified. It stays loaded: the last test.
fn provider(t: &mut Test) -> Result<()> {
    let place = format!("{DIR}/provider");
    let (certificate, key) = (format!("{DIR}/client.pem"), format!("{DIR}/client.key"));
    identify(&certificate, &key)?;
    succeeds(t, "fetch_hashsticks", &["fetch", "hashsticks", &place, &certificate, &key])?;
    let hashstick = format!("{place}/hashsticks");
    succeeds(t, "verify_hashstick", &["verify", "vlek-hashstick", &hashstick])?;
    let mut bytes = fs::read(&hashstick)?;
    bytes[100] ^= 1;
    let bad = format!("{DIR}/bad-hashstick");
    fs::write(&bad, bytes)?;
    t.check("damaged_refused", !snphost(&["vlek-load", &bad])?.status.success());
    succeeds(t, "load", &["vlek-load", &hashstick])?;
    succeeds(t, "fetch_ca", &["fetch", "ca", "pem", &place, "--endorser", "vlek"])?;
    succeeds(t, "fetch_vek", &["fetch", "vek", "pem", &place, "--endorser", "vlek"])?;
    t.check("verified", verifies(&place)?);
    // Signed by the key for chips instead: not its chain.
    succeeds(t, "fetch_other_ca", &["fetch", "ca", "pem", &place])?;
    fs::rename(format!("{place}/ask.pem"), format!("{place}/asvk.pem"))?;
    t.check("other_signer", !verifies(&place)?);
    Ok(())
}

/// How a provider identifies himself to the service, which believes everybody.
fn identify(certificate: &str, key: &str) -> Result<()> {
    let private = PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::SECP384R1)?)?)?;
    let mut name = X509Name::builder()?;
    name.append_entry_by_text("CN", "a-provider")?;
    let name = name.build();
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(1)?)?;
    builder.set_pubkey(&private)?;
    builder.sign(&private, MessageDigest::sha384())?;
    fs::write(certificate, builder.build().to_pem()?)?;
    Ok(fs::write(key, private.private_key_to_pem_pkcs8()?)?)
}
