// SPDX-License-Identifier: GPL-2.0-or-later
//! DBG_DECRYPT, DBG_ENCRYPT, COPY and ATTESTATION.

mod common;

use common::*;
use p384::ecdsa::signature::hazmat::PrehashVerifier;
use sevfw::status::Status;
use sevfw::wire;
use sha2::{Digest, Sha256};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

fn dbg(psp: &mut Psp, name: &str, handle: u32, src: u64, dst: u64, len: u32) -> Outcome {
    let mut cmd = wire::Debug::new_zeroed();
    (cmd.handle, cmd.len) = (U32::new(handle), U32::new(len));
    (cmd.src_address, cmd.dst_address) = (U64::new(src), U64::new(dst));
    psp.ok(name, &cmd).map(|_| ())
}

fn copy(psp: &mut Psp, handle: u32, src: u64, dst: u64, len: u32) -> Outcome {
    let mut cmd = wire::Copy::new_zeroed();
    (cmd.handle, cmd.length) = (U32::new(handle), U32::new(len));
    (cmd.src_address, cmd.dst_address) = (U64::new(src), U64::new(dst));
    psp.ok("COPY", &cmd).map(|_| ())
}

#[test]
fn debugging_reads_and_writes_guest_memory() {
    let mut psp = Psp::ready("");
    let handle = psp.running(0, 100, 0x42);
    assert!(psp.machine.get(GUEST, 4096) != [0x42; 4096]);
    dbg(&mut psp, "DBG_DECRYPT", handle, GUEST, BUF, 4096).unwrap();
    assert!(psp.machine.get(BUF, 4096) == [0x42; 4096]);
    psp.machine.put(BUF, &[0x99; 32]);
    dbg(&mut psp, "DBG_ENCRYPT", handle, BUF, GUEST + 16, 32).unwrap();
    let seen = psp.machine.get_guest(100, GUEST, 64);
    assert_eq!(
        seen,
        [[0x42; 16], [0x99; 16], [0x99; 16], [0x42; 16]].concat()
    );
}

#[test]
fn debugging_obeys_policy_binding_and_alignment() {
    let mut psp = Psp::ready("");
    let closed = psp.running(1, 100, 1);
    let open = psp.running(0, 101, 1);
    for name in ["DBG_DECRYPT", "DBG_ENCRYPT"] {
        assert_eq!(
            dbg(&mut psp, name, closed, GUEST, BUF, 16),
            Err(Status::POLICY_FAILURE)
        );
        assert_eq!(
            dbg(&mut psp, name, 99, GUEST, BUF, 16),
            Err(Status::INVALID_GUEST)
        );
        for (src, dst, len, status) in [
            (GUEST, BUF, 0, Status::INVALID_LENGTH),
            (GUEST, BUF, 17, Status::INVALID_LENGTH),
            (GUEST + 1, BUF, 16, Status::INVALID_ADDRESS),
            (GUEST, BUF + 8, 16, Status::INVALID_ADDRESS),
            (u64::MAX - 15, BUF, 32, Status::INVALID_ADDRESS),
            (GUEST, RAM as u64, 16, Status::INVALID_ADDRESS),
        ] {
            assert_eq!(dbg(&mut psp, name, open, src, dst, len), Err(status));
        }
    }
    psp.on("DEACTIVATE", open).unwrap();
    assert_eq!(
        dbg(&mut psp, "DBG_DECRYPT", open, GUEST, BUF, 16),
        Err(Status::INACTIVE)
    );
}

#[test]
fn copy_moves_plaintext_even_where_regions_overlap() {
    let mut psp = Psp::ready("");
    let handle = psp.running(1, 100, 0);
    let text: Vec<u8> = (0..0x4000u32).map(|i| (i / 16) as u8).collect();
    for (src, dst) in [
        (GUEST, GUEST + 0x8000),
        (GUEST, GUEST + 0x800),
        (GUEST + 0x800, GUEST),
        (GUEST, GUEST + 0x1000),
        (GUEST, GUEST),
    ] {
        psp.machine.put_guest(100, src, &text);
        copy(&mut psp, handle, src, dst, 0x4000).unwrap();
        assert!(
            psp.machine.get_guest(100, dst, 0x4000) == text,
            "{src:#x} {dst:#x}"
        );
    }
    assert_eq!(
        copy(&mut psp, handle, GUEST, GUEST, 8),
        Err(Status::INVALID_LENGTH)
    );
    assert_eq!(
        copy(&mut psp, handle, GUEST + 8, GUEST, 16),
        Err(Status::INVALID_ADDRESS)
    );
}

/// The report is signed with the exported PEK and carries the digest of what was launched.
#[test]
fn attestation_is_signed_by_pek() {
    let mut psp = Psp::ready("");
    let handle = psp.running(1, 100, 0x33);
    let mut cmd = wire::Attestation::new_zeroed();
    cmd.handle = U32::new(handle);
    let (status, answer) = psp.run("ATTESTATION", &cmd);
    assert_eq!((status, answer.len.get()), (Status::INVALID_LENGTH, 208));
    (cmd.address, cmd.len, cmd.mnonce) = (U64::new(BUF), U32::new(208), [7; 16]);
    psp.ok("ATTESTATION", &cmd).unwrap();
    let report: wire::Report = psp.machine.read(BUF);
    assert_eq!(report.mnonce, [7; 16]);
    assert_eq!(report.launch_digest, Sha256::digest([0x33; 4096])[..]);
    assert_eq!(report.policy.get(), 1);
    assert_eq!((report.sig_usage.get(), report.sig_algo.get()), (0x1002, 2));
    let (_, [pek, _, _]) = psp.export();
    let be = |field: [u8; 72]| -> [u8; 48] {
        let mut bytes: [u8; 48] = field[..48].try_into().unwrap();
        bytes.reverse();
        bytes
    };
    let signature =
        p384::ecdsa::Signature::from_scalars(be(report.sig_r), be(report.sig_s)).unwrap();
    let key = p384::ecdsa::VerifyingKey::from(pek.ec_key().unwrap());
    let verify = |bytes: &[u8]| {
        key.verify_prehash(&Sha256::digest(bytes), &signature)
            .is_ok()
    };
    assert!(verify(&report.as_bytes()[..52]));
    assert!(!verify(&report.as_bytes()[..51]));

    let launching = psp.launch_start(0).unwrap();
    cmd.handle = U32::new(launching);
    assert_eq!(psp.run("ATTESTATION", &cmd).0, Status::INVALID_GUEST_STATE);
}
