// SPDX-License-Identifier: GPL-2.0-or-later
//! A stand-in for AMD's key distribution service on this machine alone, so that clients which
//! ask `https://kdsintf.amd.com` need no change and no network.
//!
//! Name resolution is by `/etc/hosts`, trust by a certificate authority made for the occasion.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslAcceptor, SslMethod, SslStream};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name};

const NAME: &str = "kdsintf.amd.com";

/// Starts the service for one chip: `GET /cek/id/IDENTIFIER` is answered with `certificate`.
/// Returns once it listens. `authority` is written for clients to trust (`SSL_CERT_FILE`).
pub fn serve(identifier: &str, certificate: Vec<u8>, authority: &Path) -> Result<()> {
    fs::create_dir_all("/etc")?;
    fs::write("/etc/hosts", format!("127.0.0.1 localhost {NAME}\n"))?;
    fs::write("/etc/nsswitch.conf", "hosts: files\n")?;
    let (key, x509) = own_certificate()?;
    fs::write(authority, x509.to_pem()?)?;
    let mut acceptor = SslAcceptor::mozilla_intermediate(SslMethod::tls_server())?;
    acceptor.set_private_key(&key)?;
    acceptor.set_certificate(&x509)?;
    let acceptor = Arc::new(acceptor.build());
    let listener = TcpListener::bind(("127.0.0.1", 443)).context("listen on port 443")?;
    let path = format!("/cek/id/{identifier}");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is its own problem; it will report it.
            let answered = acceptor.accept(stream).map(|tls| answer(tls, &path, &certificate));
            if let Ok(Err(error)) = answered {
                println!("# note key service: {error:#}");
            }
        }
    });
    Ok(())
}

fn answer(tls: SslStream<TcpStream>, path: &str, certificate: &[u8]) -> Result<()> {
    let mut tls = BufReader::new(tls);
    let mut request = String::new();
    tls.read_line(&mut request)?;
    let mut header = String::new();
    while tls.read_line(&mut header)? > 2 {
        header.clear();
    }
    let wanted = request.split(' ').nth(1) == Some(path);
    let (status, body) = if wanted { ("200 OK", certificate) } else { ("404 Not Found", &[][..]) };
    let tls = tls.get_mut();
    write!(tls, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len())?;
    write!(tls, "Connection: close\r\n\r\n")?;
    tls.write_all(body)?;
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
