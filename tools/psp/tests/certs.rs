// SPDX-License-Identifier: GPL-2.0-or-later
//! The certificate chain, judged by the `sev` crate (OpenSSL), and its ownership.

mod common;

use common::*;
use sev::certs::sev::ca::Chain as CaChain;
use sev::certs::sev::sev::{Certificate as SevCert, Chain as PlatformChain, Usage};
use sev::certs::sev::{Chain, Signer, Verifiable};
use sev::parser::{Decoder, Encoder};
use sevfw::crypto::ca;
use sevfw::crypto::cert::Certificate;
use sevfw::status::Status;
use sevfw::wire;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// Any of our structures as the `sev` crate reads it.
fn foreign(cert: &Certificate) -> SevCert {
    SevCert::decode(&mut cert.as_bytes(), ()).unwrap()
}

fn bytes(cert: &SevCert) -> Vec<u8> {
    let mut bytes = Vec::new();
    cert.encode(&mut bytes, ()).unwrap();
    bytes
}

fn chain(psp: &mut Psp) -> Chain {
    let (pdh, [pek, oca, cek]) = psp.export();
    let ask_ark = ca::ask_ark().unwrap();
    Chain {
        ca: CaChain::decode(&mut ask_ark.as_slice(), ()).unwrap(),
        sev: PlatformChain {
            pdh: foreign(&pdh),
            pek: foreign(&pek),
            oca: foreign(&oca),
            cek: foreign(&cek),
        },
    }
}

fn csr(psp: &mut Psp) -> Certificate {
    let mut cmd = wire::Buffer::new_zeroed();
    let (status, answer) = psp.run("PEK_CSR", &cmd);
    assert_eq!((status, answer.len.get()), (Status::INVALID_LENGTH, 2084));
    (cmd.address, cmd.len) = (U64::new(BUF), answer.len);
    psp.ok("PEK_CSR", &cmd).unwrap();
    psp.machine.read(BUF)
}

fn import(psp: &mut Psp, pek: &[u8], oca: &[u8]) -> Outcome {
    psp.machine.put(BUF, pek);
    psp.machine.put(BUF2, oca);
    let cmd = wire::PekCertImport {
        pek_address: U64::new(BUF),
        pek_len: U32::new(2084),
        reserved: U32::ZERO,
        oca_address: U64::new(BUF2),
        oca_len: U32::new(2084),
    };
    psp.ok("PEK_CERT_IMPORT", &cmd).map(|_| ())
}

#[test]
fn the_chain_verifies_up_to_our_root() {
    let mut psp = Psp::ready("");
    let chain = chain(&mut psp);
    chain.verify().unwrap();
    // The same judge refuses what is not right.
    let mut other = Psp::ready("chip=other,seed=07");
    let mut mixed = self::chain(&mut other);
    mixed.sev.pdh = chain.sev.pdh;
    assert!(mixed.verify().is_err());
}

#[test]
fn export_tells_the_lengths() {
    let mut psp = Psp::ready("");
    let cmd = wire::PdhCertExport::new_zeroed();
    let (status, answer) = psp.run("PDH_CERT_EXPORT", &cmd);
    assert_eq!(status, Status::INVALID_LENGTH);
    assert_eq!((answer.pdh_len.get(), answer.chain_len.get()), (2084, 6252));
}

#[test]
fn an_owner_takes_over_and_pek_gen_gives_back() {
    let mut psp = Psp::ready("");
    let before = chain(&mut psp);
    let (mut oca, owner) = SevCert::generate(Usage::OCA).unwrap();
    owner.sign(&mut oca).unwrap();
    let mut pek = foreign(&csr(&mut psp));
    owner.sign(&mut pek).unwrap();
    import(&mut psp, &bytes(&pek), &bytes(&oca)).unwrap();
    assert_eq!(psp.status().flags.get() & 1, 1);

    let after = chain(&mut psp);
    after.verify().unwrap();
    assert_eq!(after.sev.oca, oca);
    assert_ne!(after.sev.pdh, before.sev.pdh);
    assert_eq!(
        import(&mut psp, &bytes(&pek), &bytes(&oca)),
        Err(Status::ALREADY_OWNED)
    );

    // Persistent.
    psp.plain("SHUTDOWN").unwrap();
    psp.init(true).unwrap();
    assert_eq!(chain(&mut psp).sev.oca, oca);
    psp.plain("PDH_GEN").unwrap();
    chain(&mut psp).verify().unwrap();

    psp.plain("PEK_GEN").unwrap();
    assert_eq!(psp.status().flags.get() & 1, 0);
    let own = chain(&mut psp);
    own.verify().unwrap();
    assert_ne!(own.sev.oca, oca);
    assert_ne!(own.sev.pek, after.sev.pek);
}

#[test]
fn pek_gen_changes_pek_and_pdh_and_pdh_gen_only_pdh() {
    let mut psp = Psp::ready("");
    let (pdh1, [pek1, oca1, cek1]) = psp.export();
    psp.plain("PDH_GEN").unwrap();
    let (pdh2, chain2) = psp.export();
    assert_ne!(print(&pdh1), print(&pdh2));
    assert_eq!(print(&[pek1, oca1, cek1]), print(&chain2));
    psp.plain("PEK_GEN").unwrap();
    let (pdh3, [pek3, _, cek3]) = psp.export();
    assert_ne!(print(&pdh2), print(&pdh3));
    assert_ne!(print(&pek1), print(&pek3));
    assert_eq!(print(&cek1), print(&cek3));
}

#[test]
fn imports_that_do_not_fit_change_nothing() {
    let mut psp = Psp::ready("");
    let before = print(&psp.export().0);
    let (mut oca, owner) = SevCert::generate(Usage::OCA).unwrap();
    let unsigned_oca = bytes(&oca);
    owner.sign(&mut oca).unwrap();
    let request = foreign(&csr(&mut psp));
    let mut pek = request;
    owner.sign(&mut pek).unwrap();
    let (_, stranger) = SevCert::generate(Usage::OCA).unwrap();
    let mut strange = request;
    stranger.sign(&mut strange).unwrap();
    let (mut other_pek, _) = SevCert::generate(Usage::PEK).unwrap();
    owner.sign(&mut other_pek).unwrap();
    let (mut not_oca, not_owner) = SevCert::generate(Usage::CEK).unwrap();
    not_owner.sign(&mut not_oca).unwrap();
    // Right signatures that claim to be of another kind of key, or of another algorithm.
    let (mut wrong_usage, mut wrong_algorithm) = (bytes(&pek), bytes(&pek));
    wrong_usage[1044] = 4;
    wrong_algorithm[1049] = 1;
    let mut wrong_version = bytes(&oca);
    wrong_version[0] = 2;
    let mut off_curve = bytes(&oca);
    off_curve[20] ^= 1;

    for (pek, oca, status) in [
        (bytes(&pek), unsigned_oca, Status::BAD_SIGNATURE),
        (bytes(&request), bytes(&oca), Status::BAD_SIGNATURE),
        (bytes(&strange), bytes(&oca), Status::BAD_SIGNATURE),
        (wrong_usage, bytes(&oca), Status::BAD_SIGNATURE),
        (wrong_algorithm, bytes(&oca), Status::BAD_SIGNATURE),
        (bytes(&other_pek), bytes(&oca), Status::INVALID_CERTIFICATE),
        (bytes(&pek), bytes(&not_oca), Status::INVALID_CERTIFICATE),
        (bytes(&pek), wrong_version, Status::INVALID_CERTIFICATE),
        (bytes(&pek), off_curve, Status::INVALID_CERTIFICATE),
    ] {
        assert_eq!(import(&mut psp, &pek, &oca), Err(status));
    }
    let short = wire::PekCertImport::new_zeroed();
    assert_eq!(psp.run("PEK_CERT_IMPORT", &short).0, Status::INVALID_LENGTH);
    assert_eq!(psp.status().flags.get() & 1, 0);
    assert_eq!(print(&psp.export().0), before);
    import(&mut psp, &bytes(&pek), &bytes(&oca)).unwrap();
}
