// SPDX-License-Identifier: GPL-2.0-or-later
//! `sevctl`, unmodified, against the host: probing, certificates, ownership, and a launch whose
//! session, measurement and secret are all its work.
//!
//! Needs `/sevctl` (clients/install) and `/sevfw-ca` (the emulated platform's certificate
//! authority) in the host VM.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kvm_bindings::{kvm_sev_launch_secret, kvm_sev_launch_start};
use openssl::sha::sha256;
use sev_vm::cmd::Answer;
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::kds;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::tenant;
use sev_vm::vm::Vm;

const DIR: &str = "/tmp/sevctl";
const POLICY: u32 = 8;
const TABLE: &str = "1e74f542-71dd-4d66-963e-ef4287ff173b";
const ENTRY: &str = "736869e5-84f0-4973-92ec-06879ce3da0b";

fn main() -> ExitCode {
    if let Err(error) = key_service() {
        println!("# the key service cannot be set up: {error:#}");
        return ExitCode::FAILURE;
    }
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("ok", ok),
            ("show", show),
            ("export_and_verify", export_and_verify),
            ("tampered_chain", tampered_chain),
            ("rotate", rotate),
            ("provision", provision),
            ("reset", reset),
            ("launch", launch),
            ("session_of_another_platform", session_of_another_platform),
        ],
    )
}

fn file(name: &str) -> String {
    format!("{DIR}/{name}")
}

fn key_service() -> Result<()> {
    fs::create_dir_all(DIR)?;
    fs::write(file("ask_ark"), kds::ask(&["ask-ark"])?)?;
    kds::serve(Path::new(&file("tls.pem")))
}

/// Runs sevctl and shows what it said if it failed.
fn sevctl(arguments: &[&str]) -> Result<Output> {
    let output = Command::new("/sevctl")
        .args(arguments)
        .current_dir(DIR)
        .env("SSL_CERT_FILE", file("tls.pem"))
        .output()
        .context("/sevctl")?;
    if !output.status.success() {
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        for line in String::from_utf8_lossy(&text).lines() {
            println!("# note sevctl {}: {line}", arguments[0]);
        }
    }
    Ok(output)
}

/// Records that sevctl succeeds; its standard output.
fn succeeds(t: &mut Test, case: &str, arguments: &[&str]) -> Result<String> {
    let output = sevctl(arguments)?;
    t.check(case, output.status.success());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn ok(t: &mut Test) -> Result<()> {
    // It reads SYSCFG.
    let loaded = Command::new("modprobe").arg("msr").status()?;
    ensure!(loaded.success(), "modprobe msr: {loaded}");
    let said = succeeds(t, "ok", &["ok", "sev"])?;
    t.check("kvm", said.contains("SEV enabled in KVM: enabled"));
    Ok(())
}

fn show(t: &mut Test) -> Result<()> {
    let build = tenant::build()?;
    let version = succeeds(t, "version", &["show", "version"])?;
    t.check("version_is_the_platforms", version.trim() == build.to_string());
    let guests = |t: &mut Test, case: &str| succeeds(t, case, &["show", "guests"]);
    t.note(format!("version {}", version.trim()));
    let none = guests(t, "guests_none")?;
    t.value("guests_before", none.trim(), "0");
    let host = Host::open()?;
    let vm = Vm::started(&host, 0)?;
    let one = guests(t, "guests_one")?;
    t.value("guests_with_one", one.trim(), "1");
    drop(vm);
    let none = guests(t, "guests_gone")?;
    t.value("guests_after", none.trim(), "0");
    let identifier = succeeds(t, "identifier", &["show", "identifier"])?;
    t.value("identifier_len", identifier.trim().len(), 128);
    let flags = succeeds(t, "flags", &["show", "flags"])?;
    t.check("not_owned", !flags.contains("owned"));
    Ok(())
}

/// Exports the chain to a file and verifies it up to the root.
fn export(t: &mut Test, name: &str) -> Result<Vec<u8>> {
    let chain = file(name);
    succeeds(t, &format!("{name}_export"), &["export", &chain])?;
    let ca = file("ask_ark");
    let said = succeeds(t, &format!("{name}_verify"), &["verify", "--sev", &chain, "--ca", &ca])?;
    t.check(&format!("{name}_root"), said.contains("ARK"));
    fs::read(&chain).context(chain)
}

fn export_and_verify(t: &mut Test) -> Result<()> {
    let first = export(t, "first")?;
    let second = export(t, "second")?;
    t.check("stable", first == second);
    Ok(())
}

/// A flipped bit anywhere in a signed part is noticed.
fn tampered_chain(t: &mut Test) -> Result<()> {
    let chain = export(t, "chain")?;
    let size = chain.len() / 4;
    for (certificate, name) in ["pdh", "pek", "oca", "cek"].iter().enumerate() {
        let mut bad = chain.clone();
        // In the public key: version (4), API (2), reserved (2), usage (4), algorithm (4),
        // curve (4), then the point.
        bad[certificate * size + 30] ^= 1;
        fs::write(file("bad"), bad)?;
        let arguments = ["--quiet", "verify", "--sev", &file("bad"), "--ca", &file("ask_ark")];
        t.check(&format!("{name}_rejected"), !sevctl(&arguments)?.status.success());
    }
    Ok(())
}

/// A new PDH under the same PEK.
fn rotate(t: &mut Test) -> Result<()> {
    let before = export(t, "before")?;
    succeeds(t, "rotate", &["rotate"])?;
    let after = export(t, "after")?;
    let size = before.len() / 4;
    t.check("new_pdh", before[..size] != after[..size]);
    t.check("same_pek", before[size..] == after[size..]);
    Ok(())
}

/// An owner's certificate authority takes the platform over.
fn provision(t: &mut Test) -> Result<()> {
    let before = export(t, "self_owned")?;
    let (oca, key) = (file("oca.cert"), file("oca.key"));
    succeeds(t, "generate", &["generate", &oca, &key])?;
    succeeds(t, "provision", &["provision", &oca, &key])?;
    let flags = succeeds(t, "flags", &["show", "flags"])?;
    t.check("owned", flags.lines().any(|flag| flag == "owned"));
    let chain = export(t, "owned")?;
    let size = chain.len() / 4;
    t.check("owners_authority", chain[2 * size..3 * size] == fs::read(&oca)?);
    t.check("new_pdh", chain[..size] != before[..size]);
    Ok(())
}

/// Back to the factory's state: an identity of its own, new keys.
fn reset(t: &mut Test) -> Result<()> {
    let before = export(t, "owned")?;
    succeeds(t, "reset", &["reset"])?;
    let flags = succeeds(t, "flags", &["show", "flags"])?;
    t.check("not_owned", !flags.lines().any(|flag| flag == "owned"));
    let after = export(t, "reset")?;
    let size = before.len() / 4;
    t.check("new_pek", before[size..2 * size] != after[size..2 * size]);
    t.check("new_authority", before[2 * size..3 * size] != after[2 * size..3 * size]);
    t.check("same_chip", before[3 * size..] == after[3 * size..]);
    Ok(())
}

/// LAUNCH_START with the files of `sevctl session --name NAME`.
fn start(vm: &Vm, name: &str) -> Result<Answer> {
    let decode = |suffix: &str| -> Result<Vec<u8>> {
        Ok(BASE64_STANDARD.decode(fs::read(file(&format!("{name}_{suffix}.b64")))?)?)
    };
    let (certificate, session) = (decode("godh")?, decode("session")?);
    Ok(vm.launch_start(&mut kvm_sev_launch_start {
        policy: POLICY,
        dh_uaddr: certificate.as_ptr() as u64,
        dh_len: certificate.len() as u32,
        session_uaddr: session.as_ptr() as u64,
        session_len: session.len() as u32,
        ..Default::default()
    }))
}

fn launch(t: &mut Test) -> Result<()> {
    export(t, "chain")?;
    let policy = POLICY.to_string();
    succeeds(t, "session", &["session", "--name", "vm", &file("chain"), &policy])?;
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    t.case("start", start(&vm, "vm")?, Answer::OK);
    vm.load(guest::copy());
    let digest = sha256(&vm.memory.read(0, guest::LAUNCHED.end));
    vm.encrypt(guest::LAUNCHED)?;
    let measurement = BASE64_STANDARD.encode(vm.measurement()?);
    let build = tenant::build()?;
    let computed = succeeds(
        t,
        "measurement",
        &[
            "measurement",
            "build",
            "--api-major",
            &build.version.major.to_string(),
            "--api-minor",
            &build.version.minor.to_string(),
            "--build-id",
            &build.build.to_string(),
            "--policy",
            &policy,
            "--tik",
            &file("vm_tik.bin"),
            "--launch-digest",
            &BASE64_STANDARD.encode(digest),
            "--launch-measure-blob",
            &measurement,
        ],
    )?;
    t.check("same_measurement", computed.trim() == measurement);
    let secret = b"what sevctl told the guest";
    fs::write(file("secret.txt"), secret)?;
    succeeds(
        t,
        "secret",
        &[
            "secret",
            "build",
            "--tik",
            &file("vm_tik.bin"),
            "--tek",
            &file("vm_tek.bin"),
            "--launch-measure-blob",
            &measurement,
            "--secret",
            &format!("{ENTRY}:{}", file("secret.txt")),
            &file("secret.header"),
            &file("secret.payload"),
        ],
    )?;
    let (header, payload) = (fs::read(file("secret.header"))?, fs::read(file("secret.payload"))?);
    let page = vm.memory.addr() + guest::SECRET;
    let answer = vm.launch_secret(&mut kvm_sev_launch_secret {
        hdr_uaddr: header.as_ptr() as u64,
        hdr_len: header.len() as u32,
        guest_uaddr: page,
        guest_len: payload.len() as u32,
        trans_uaddr: payload.as_ptr() as u64,
        trans_len: payload.len() as u32,
        ..Default::default()
    });
    t.case("inject", answer, Answer::OK);
    t.case("finish", vm.launch_finish(), Answer::OK);
    let plain = Mapping::anonymous(PAGE)?;
    t.case("decrypt", vm.dbg_decrypt(page, plain.addr(), payload.len() as u32), Answer::OK);
    let table = plain.read(0, payload.len());
    // The table of secrets begins with its identifier, first three fields little-endian.
    let guid = u128::from_str_radix(&TABLE.replace('-', ""), 16)?.to_be_bytes();
    t.check("table_begins", table[..4] == [guid[3], guid[2], guid[1], guid[0]]);
    t.check("secret_in_table", table.windows(secret.len()).any(|window| window == secret));
    Ok(())
}

/// A session is for one PDH: after a rotation it is worth nothing.
fn session_of_another_platform(t: &mut Test) -> Result<()> {
    export(t, "chain")?;
    let policy = POLICY.to_string();
    succeeds(t, "session", &["session", "--name", "old", &file("chain"), &policy])?;
    succeeds(t, "rotate", &["rotate"])?;
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    t.firmware_case("start", start(&vm, "old")?);
    t.contexts(0)?;
    t.check("state_unread", vm.guest_status(&mut Default::default()) != Answer::OK);
    Ok(())
}
