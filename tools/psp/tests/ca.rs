// SPDX-License-Identifier: GPL-2.0-or-later
//! `sevfw-ca`, with the `sev` crate as the reader of its output.

mod common;

use std::process::Command;

use common::*;
use sev::certs::sev::Verifiable;
use sev::certs::sev::ca::Chain;
use sev::certs::sev::sev::Certificate as SevCert;
use sev::parser::Decoder;
use zerocopy::IntoBytes;

fn ca(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_sevfw-ca"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn what_it_prints_belongs_to_the_firmware_of_that_chip() {
    let ask_ark = ca(&["ask-ark"]);
    let chain = Chain::decode(&mut ask_ark.as_slice(), ()).unwrap();
    let ask = chain.verify().unwrap();
    for (arguments, config) in [(&["cek"][..], ""), (&["cek", "b"], "chip=b")] {
        let bytes = ca(arguments);
        let cek = SevCert::decode(&mut bytes.as_slice(), ()).unwrap();
        (ask, &cek).verify().unwrap();
        let (_, [_, _, exported]) = Psp::ready(config).export();
        assert_eq!(print(bytes.as_slice()), print(exported.as_bytes()));
    }
    let id = String::from_utf8(ca(&["id", "b"])).unwrap();
    assert_eq!(id.trim().len(), 128);
    assert_ne!(id.into_bytes(), ca(&["id"]));
}

#[test]
fn other_arguments_are_refused_with_the_usage() {
    for arguments in [&[][..], &["ark"], &["cek", "a", "b"], &["ask-ark", "x"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_sevfw-ca"))
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains("usage"));
    }
}
