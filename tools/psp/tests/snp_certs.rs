// SPDX-License-Identifier: GPL-2.0-or-later
//! The certificates of the keys that sign attestation reports, with the `sev` crate and OpenSSL as
//! their readers.

mod common;

use std::process::Command;

use common::request::Channel;
use common::*;
use openssl::x509::X509;
use serde_json::Value;
use sev::certs::snp::{Certificate, Chain, Verifiable};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;
use sevfw::snp::wire;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

const ASID: u32 = 5;
const TCB: [u8; 8] = [3, 0, 0, 0, 0, 0, 10, 0];
const OLDER: [u8; 8] = [2, 0, 0, 0, 0, 0, 9, 0];

fn report(psp: &mut Psp, channel: &mut Channel, key_select: u32) -> AttestationReport {
    let mut request = wire::ReportRequest::new_zeroed();
    (request.report_data, request.key_select) = ([7; 64], U32::new(key_select));
    let response: wire::ReportResponse = channel.ask(psp, 5, &request).unwrap();
    assert_eq!(response.status.get(), 0);
    AttestationReport::from_bytes(response.report.as_bytes()).unwrap()
}

fn ask(psp: &mut Psp, request: &str) -> Value {
    let reply = psp.fw.control(request);
    serde_json::from_str(&reply).unwrap_or_else(|_| panic!("{request}: {reply}"))
}

fn chain(certs: &Value, signer: &str, key: &str) -> Chain {
    let pem = |name: &str| certs[name].as_str().unwrap().as_bytes().to_vec();
    Chain::from_pem(&pem("ark"), &pem(signer), &pem(key)).unwrap()
}

fn set_tcb(psp: &mut Psp, tcb: [u8; 8]) {
    let mut cmd = wire::Config::new_zeroed();
    cmd.reported_tcb = tcb;
    psp.ok("SNP_CONFIG", &cmd).unwrap();
}

#[test]
fn a_report_leads_to_the_root_of_its_chip_and_tcb_version() {
    let mut psp = Psp::snp("chip=a");
    let mut channel = Channel::of_running(&mut psp, ASID);
    let first = report(&mut psp, &mut channel, 0);
    let certs = ask(&mut psp, "certs");
    assert_eq!(certs, ask(&mut psp, "certs"));
    assert!(certs["vlek"].is_null());
    let now = chain(&certs, "ask", "vcek");
    (&now, &first).verify().unwrap();
    // ASVK is a signing key of that root, but not of VCEKs.
    let other = chain(&certs, "asvk", "vcek");
    other.ca.verify().unwrap();
    other.verify().unwrap_err();
    (&other, &first).verify().unwrap_err();
    // Another TCB version, another key.
    set_tcb(&mut psp, OLDER);
    let older = chain(&ask(&mut psp, "certs"), "ask", "vcek");
    older.verify().unwrap();
    assert_eq!(older.ca.ark, now.ca.ark);
    (&older, &first).verify().unwrap_err();
    let second = report(&mut psp, &mut channel, 0);
    (&older, &second).verify().unwrap();
    (&now, &second).verify().unwrap_err();
    // Another chip, another key.
    let mut foreign = Psp::snp("chip=b");
    let foreign = chain(&ask(&mut foreign, "certs"), "ask", "vcek");
    foreign.verify().unwrap();
    (&foreign, &first).verify().unwrap_err();
}

#[test]
fn every_signed_byte_of_a_report_counts() {
    let mut psp = Psp::snp("");
    let mut channel = Channel::of_running(&mut psp, ASID);
    let bytes = report(&mut psp, &mut channel, 0).to_bytes().unwrap();
    let chain = chain(&ask(&mut psp, "certs"), "ask", "vcek");
    for at in [
        0x08,
        0x50,
        0x8f,
        0x90,
        0xbf,
        0x180,
        0x1a0,
        0x2a0,
        0x2a0 + 72,
    ] {
        let mut damaged = bytes;
        damaged[at] ^= 1;
        let damaged = AttestationReport::from_bytes(&damaged).unwrap();
        (&chain, &damaged).verify().unwrap_err();
    }
}

#[test]
fn a_vlek_has_a_chain_of_its_own() {
    let mut psp = Psp::snp("chip=a");
    let mut channel = Channel::of_running(&mut psp, ASID);
    for bad in ["hashstick", "hashstick a b", "hashstick é"] {
        assert!(psp.fw.control(bad).starts_with("error: "), "{bad}");
    }
    let digits = ask(&mut psp, "hashstick a-provider");
    let digits = digits["hashstick"].as_str().unwrap();
    let bytes: Vec<u8> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect();
    psp.machine.put(BUF2, &bytes);
    let mut load = wire::VlekLoad::new_zeroed();
    (load.length, load.address) = (U32::new(16), U64::new(BUF2));
    psp.ok("SNP_VLEK_LOAD", &load).unwrap();
    let certs = ask(&mut psp, "certs");
    let (vcek, vlek) = (chain(&certs, "ask", "vcek"), chain(&certs, "asvk", "vlek"));
    let loaded = report(&mut psp, &mut channel, 0);
    (&vlek, &loaded).verify().unwrap();
    (&vcek, &loaded).verify().unwrap_err();
    let own = report(&mut psp, &mut channel, 1);
    (&vcek, &own).verify().unwrap();
    (&vlek, &own).verify().unwrap_err();
    chain(&certs, "ask", "vlek").verify().unwrap_err();
}

/// A certificate as OpenSSL prints it, whose versions differ in blanks.
fn text(pem: &Value) -> String {
    let x509 = X509::from_pem(pem.as_str().unwrap().as_bytes()).unwrap();
    String::from_utf8(x509.to_text().unwrap())
        .unwrap()
        .replace(" = ", "=")
}

#[test]
fn certificates_say_whose_they_are() {
    let mut psp = Psp::snp("");
    let certs = ask(&mut psp, "certs");
    let vcek = text(&certs["vcek"]);
    for part in [
        "CN=SEV-VCEK",
        "CN=SEV-Milan",
        "ASN1 OID: secp384r1",
        "Salt Length: 0x30",
        "Milan-B1",
        "1.3.6.1.4.1.3704.1.3.8",
        "1.3.6.1.4.1.3704.1.4",
    ] {
        assert!(vcek.contains(part), "{part}: {vcek}");
    }
    assert!(!vcek.contains("1.3.6.1.4.1.3704.1.5"));
    assert!(text(&certs["ark"]).contains("CA:TRUE"));
    assert!(text(&certs["ask"]).contains("CA:TRUE, pathlen:0"));
    assert!(text(&certs["asvk"]).contains("CN=SEV-VLEK-Milan"));
    // The identifier and the TCB version, as they are encoded in the certificate.
    let der = X509::from_pem(certs["vcek"].as_str().unwrap().as_bytes());
    let der = der.unwrap().to_der().unwrap();
    let holds = |bytes: &[u8]| der.windows(bytes.len()).any(|window| window == bytes);
    let mut channel = Channel::of_running(&mut psp, ASID);
    let chip = report(&mut psp, &mut channel, 0).chip_id.to_vec();
    assert!(holds(&[&[4, 64][..], &chip].concat()));
    for (part, svn) in [(1, TCB[0]), (2, TCB[1]), (3, TCB[6]), (8, TCB[7])] {
        let oid = [0x2b, 6, 1, 4, 1, 0x9c, 0x78, 1, 3, part];
        assert!(holds(&[&oid[..], &[4, 3, 2, 1, svn]].concat()), "{part}");
    }
    // No certificates for what has another layout of TCB versions.
    let mut turin = Psp::snp("fms=b00f21");
    assert!(turin.fw.control("certs").starts_with("error: "));
}

#[test]
fn the_key_service_has_the_same_certificates() {
    let ca = |arguments: &[&str]| -> Vec<u8> {
        let program = env!("CARGO_BIN_EXE_sevfw-ca");
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        output.stdout
    };
    let mut psp = Psp::snp("chip=a");
    let certs = ask(&mut psp, "certs");
    let pem = |name: &str| certs[name].as_str().unwrap();
    for (kind, signer) in [("vcek", "ask"), ("vlek", "asvk")] {
        let chain = String::from_utf8(ca(&["chain", kind])).unwrap();
        assert_eq!(chain, [pem(signer), pem("ark")].concat());
    }
    let vcek = Certificate::from_pem(pem("vcek").as_bytes()).unwrap();
    assert_eq!(ca(&["vcek", "3.0.10.0", "a"]), vcek.to_der().unwrap());
    assert_ne!(ca(&["vcek", "2.0.10.0", "a"]), vcek.to_der().unwrap());
    assert_ne!(ca(&["vcek", "3.0.10.0"]), vcek.to_der().unwrap());
    let vlek = Certificate::from_der(&ca(&["vlek", "3.0.10.0", "me"])).unwrap();
    Chain {
        vek: vlek,
        ..chain(&certs, "asvk", "vcek")
    }
    .verify()
    .unwrap();
    let hashstick = ask(&mut psp, "hashstick me")["hashstick"].clone();
    let bytes = ca(&["hashstick", "3.0.10.0", "me", "a"]);
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hashstick, digits.concat());
}
