// SPDX-License-Identifier: GPL-2.0-or-later
//! A stand-in for AMD's key distribution service on this machine alone, so that clients which
//! ask `https://kdsintf.amd.com` need no change and no network.
//!
//! `/sevfw-ca` has the certificates. Name resolution is by `/etc/hosts`, trust by a certificate authority
//! made for the occasion.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, ensure};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslAcceptor, SslMethod, SslStream};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name};
use serde::Deserialize;
use serde_json::json;

const NAME: &str = "kdsintf.amd.com";

/// Where the service listens: for everybody, and for providers.
const PORTS: [u16; 2] = [443, 444];
/// The program that has the certificates.
const AUTHORITY: &str = "/sevfw-ca";
/// Whose VLEKs it has.
const PROVIDER: &str = "a-provider";

/// The output of `/sevfw-ca`.
pub fn ask(arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(AUTHORITY).args(arguments).output().context(AUTHORITY)?;
    ensure!(output.status.success(), "sevfw-ca {arguments:?}: {output:?}");
    Ok(output.stdout)
}

/// Starts the service for this machine's chip, a Milan. Returns once it listens. `authority` is
/// written for clients to trust (`SSL_CERT_FILE`).
pub fn serve(authority: &Path) -> Result<()> {
    fs::create_dir_all("/etc")?;
    fs::write("/etc/hosts", format!("127.0.0.1 localhost {NAME}\n"))?;
    fs::write("/etc/nsswitch.conf", "hosts: files\n")?;
    let (key, x509) = own_certificate()?;
    fs::write(authority, x509.to_pem()?)?;
    let mut acceptor = SslAcceptor::mozilla_intermediate(SslMethod::tls_server())?;
    acceptor.set_private_key(&key)?;
    acceptor.set_certificate(&x509)?;
    let acceptor = Arc::new(acceptor.build());
    let chip = String::from_utf8(ask(&["id"])?)?.trim().to_owned();
    for port in PORTS {
        let listener = TcpListener::bind(("127.0.0.1", port)).context("listen")?;
        let (acceptor, chip) = (acceptor.clone(), chip.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is its own problem; it will report it.
                let answered = acceptor.accept(stream).map(|tls| answer(tls, &chip));
                if let Ok(Err(error)) = answered {
                    println!("# note key service: {error:#}");
                }
            }
        });
    }
    Ok(())
}

/// The TCB version of a query as `/sevfw-ca` takes it; parts that are missing are zero.
fn tcb(query: &str) -> String {
    let part = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.find(|(key, _)| *key == name).map_or("0", |(_, value)| value);
        value.parse().unwrap_or(u8::MAX)
    };
    let parts = ["blSPL", "teeSPL", "snpSPL", "ucodeSPL"].map(part);
    parts.map(|part| part.to_string()).join(".")
}

/// What there is at a path, for the chip of that identifier; None if nothing.
fn find(target: &str, body: &[u8], chip: &str) -> Result<Option<Vec<u8>>> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path: Vec<&str> = path.split('/').skip(1).collect();
    let ours = |id: &str| id.eq_ignore_ascii_case(chip);
    Ok(Some(match path[..] {
        ["cek", "id", id] if ours(id) => ask(&["cek"])?,
        [kind @ ("vcek" | "vlek"), "v1", "Milan", "cert_chain"] => ask(&["chain", kind])?,
        ["vcek", "v1", "Milan", id] if ours(id) => ask(&["vcek", &tcb(query)])?,
        ["vlek", "v1", "Milan", "cert"] => ask(&["vlek", &tcb(query), PROVIDER])?,
        ["vlek", "v1", "Milan", "hash_sticks"] => {
            let wanted: Chips = serde_json::from_slice(body)?;
            let hashstick = ask(&["hashstick", &tcb(query), PROVIDER])?;
            let digits: Vec<_> = hashstick.iter().map(|byte| format!("{byte:02x}")).collect();
            let digits = digits.concat();
            let found = |id: String| {
                let value = if ours(&id) { &*digits } else { "not found" };
                json!({ id: value })
            };
            let results: Vec<_> = wanted.hwids.into_iter().map(found).collect();
            serde_json::to_vec(&json!({ "results": results }))?
        }
        _ => return Ok(None),
    }))
}

/// The chips that hashsticks are wanted for.
#[derive(Deserialize)]
struct Chips {
    hwids: Vec<String>,
}

fn answer(tls: SslStream<TcpStream>, chip: &str) -> Result<()> {
    let mut tls = BufReader::new(tls);
    let mut request = String::new();
    tls.read_line(&mut request)?;
    let (mut header, mut length) = (String::new(), 0);
    while tls.read_line(&mut header)? > 2 {
        if let Some((name, value)) = header.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        }
        header.clear();
    }
    let mut body = Vec::new();
    tls.by_ref().take(length).read_to_end(&mut body)?;
    let target = request.split(' ').nth(1).unwrap_or_default();
    let found = find(target, &body, chip)?;
    let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
    let content = found.unwrap_or_default();
    let tls = tls.get_mut();
    write!(tls, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n", content.len())?;
    write!(tls, "Connection: close\r\n\r\n")?;
    tls.write_all(&content)?;
    tls.shutdown()?;
    Ok(())
}

/// A key and a self-signed certificate for [`NAME`].
fn own_certificate() -> Result<(PKey<Private>, X509)> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut name = X509Name::builder()?;
    name.append_entry_by_text("CN", NAME)?;
    let name = name.build();
    let mut x509 = X509::builder()?;
    x509.set_version(2)?;
    x509.set_serial_number(&*BigNum::from_u32(1)?.to_asn1_integer()?)?;
    x509.set_subject_name(&name)?;
    x509.set_issuer_name(&name)?;
    // The machine's clock may be anywhere.
    x509.set_not_before(&*Asn1Time::from_unix(0)?)?;
    x509.set_not_after(&*Asn1Time::days_from_now(36500)?)?;
    x509.set_pubkey(&key)?;
    x509.append_extension(BasicConstraints::new().ca().build()?)?;
    let alternative =
        SubjectAlternativeName::new().dns(NAME).build(&x509.x509v3_context(None, None))?;
    x509.append_extension(alternative)?;
    x509.sign(&key, MessageDigest::sha256())?;
    Ok((key, x509.build()))
}
