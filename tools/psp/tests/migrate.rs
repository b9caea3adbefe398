// SPDX-License-Identifier: GPL-2.0-or-later
//! SEND and RECEIVE between two platforms.

mod common;

use common::*;
use sevfw::crypto::ca;
use sevfw::crypto::cert::Certificate;
use sevfw::status::Status;
use sevfw::wire;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// Where the certificates of the other platform are put.
const PDH: u64 = 0x50_000;
const CHAIN: u64 = 0x52_000;
const AMD: u64 = 0x54_000;

fn send_start_cmd(handle: u32) -> wire::SendStart {
    let mut cmd = wire::SendStart::new_zeroed();
    cmd.handle = U32::new(handle);
    (cmd.pdh_address, cmd.pdh_len) = (U64::new(PDH), U32::new(2084));
    (cmd.plat_address, cmd.plat_len) = (U64::new(CHAIN), U32::new(3 * 2084));
    (cmd.amd_address, cmd.amd_len) = (U64::new(AMD), U32::new(3200));
    (cmd.session_address, cmd.session_len) = (U64::new(BUF), U32::new(128));
    cmd
}

fn give_certs(psp: &mut Psp, target: &mut Psp) {
    let (pdh, chain) = target.export();
    psp.machine.put(PDH, pdh.as_bytes());
    psp.machine.put(CHAIN, chain.as_bytes());
    psp.machine.put(AMD, &ca::ask_ark().unwrap());
}

fn receive_start(psp: &mut Psp, pdh: &Certificate, session: &[u8], policy: u32) -> Outcome<u32> {
    psp.machine.put(BUF, pdh.as_bytes());
    psp.machine.put(BUF2, session);
    let mut cmd = wire::Start::new_zeroed();
    cmd.policy = U32::new(policy);
    (cmd.cert_address, cmd.cert_len) = (U64::new(BUF), U32::new(2084));
    (cmd.session_address, cmd.session_len) = (U64::new(BUF2), U32::new(128));
    psp.ok("RECEIVE_START", &cmd).map(|cmd| cmd.handle.get())
}

fn packet(handle: u32, guest: u64, len: u32) -> wire::Packet {
    let mut cmd = wire::Packet::new_zeroed();
    cmd.handle = U32::new(handle);
    (cmd.hdr_address, cmd.hdr_len) = (U64::new(BUF), U32::new(52));
    (cmd.guest_address, cmd.guest_len) = (U64::new(guest), U32::new(len));
    (cmd.trans_address, cmd.trans_len) = (U64::new(BUF2), U32::new(len));
    cmd
}

/// Sends one packet: header and data.
fn send(psp: &mut Psp, name: &str, handle: u32, guest: u64, len: u32) -> (Vec<u8>, Vec<u8>) {
    psp.ok(name, &packet(handle, guest, len)).unwrap();
    (
        psp.machine.get(BUF, 52),
        psp.machine.get(BUF2, len as usize),
    )
}

fn receive(psp: &mut Psp, name: &str, handle: u32, at: u64, hdr: &[u8], data: &[u8]) -> Status {
    psp.machine.put(BUF, hdr);
    psp.machine.put(BUF2, data);
    psp.run(name, &packet(handle, at, data.len() as u32)).0
}

fn run_status(psp: &mut Psp, cmd: &wire::SendStart) -> Status {
    psp.run("SEND_START", cmd).0
}

/// A guest with every restriction that still lets it go to another genuine platform.
#[test]
fn a_guest_moves_with_its_memory_and_vmsa() {
    let policy = 0x0001_0025; // NODBG, ES, SEV, API 1.0
    let mut from = Psp::ready("chip=a");
    let mut to = Psp::ready("chip=b");
    let handle = from.running(policy, 3, 0x77);
    give_certs(&mut from, &mut to);

    let mut query = send_start_cmd(handle);
    query.session_len = U32::ZERO;
    let (status, answer) = from.run("SEND_START", &query);
    assert_eq!(
        (status, answer.session_len.get()),
        (Status::INVALID_LENGTH, 128)
    );
    let answer = from.ok("SEND_START", &send_start_cmd(handle)).unwrap();
    assert_eq!(answer.policy.get(), policy);
    let session = from.machine.get(BUF, 128);
    assert_eq!(
        from.guest_status(handle).unwrap().state,
        guest_state::SUPDATE
    );

    let (pdh, _) = from.export();
    let there = receive_start(&mut to, &pdh, &session, policy).unwrap();
    to.activate(there, 9).unwrap();
    assert_eq!(to.guest_status(there).unwrap().state, guest_state::RUPDATE);

    let mut query = packet(handle, GUEST, 4096);
    (query.hdr_len, query.trans_len) = (U32::ZERO, U32::ZERO);
    let (status, answer) = from.run("SEND_UPDATE_DATA", &query);
    assert_eq!(status, Status::INVALID_LENGTH);
    assert_eq!((answer.hdr_len.get(), answer.trans_len.get()), (52, 4096));

    let (hdr, data) = send(&mut from, "SEND_UPDATE_DATA", handle, GUEST, 4096);
    assert!(data != [0x77; 4096]);
    let (vhdr, vdata) = send(&mut from, "SEND_UPDATE_VMSA", handle, GUEST, 4096);

    // Packets are bound to their kind and content.
    let mut damaged = data.clone();
    damaged[100] ^= 1;
    let at = GUEST + 0x3000;
    for (name, hdr, data) in [
        ("RECEIVE_UPDATE_DATA", &hdr, &damaged),
        ("RECEIVE_UPDATE_DATA", &vhdr, &vdata),
        ("RECEIVE_UPDATE_DATA", &vhdr, &data),
        ("RECEIVE_UPDATE_VMSA", &hdr, &data),
    ] {
        assert_eq!(
            receive(&mut to, name, there, at, hdr, data),
            Status::BAD_MEASUREMENT
        );
    }
    assert_eq!(
        receive(&mut to, "RECEIVE_UPDATE_DATA", there, at, &hdr, &data),
        Status::SUCCESS
    );
    assert!(to.machine.get_guest(9, at, 4096) == [0x77; 4096]);
    let at = GUEST + 0x5000;
    assert_eq!(
        receive(&mut to, "RECEIVE_UPDATE_VMSA", there, at, &vhdr, &vdata),
        Status::SUCCESS
    );
    assert!(to.machine.get_guest(9, at, 4096) == [0x77; 4096]);
    assert_eq!(to.machine.look().sealed, [(at, 9)]);

    from.on("SEND_FINISH", handle).unwrap();
    to.on("RECEIVE_FINISH", there).unwrap();
    assert_eq!(from.guest_status(handle).unwrap().state, guest_state::SENT);
    assert_eq!(to.guest_status(there).unwrap().state, guest_state::RUNNING);
    assert_eq!(
        receive(&mut to, "RECEIVE_UPDATE_DATA", there, at, &hdr, &data),
        Status::INVALID_GUEST_STATE
    );

    // What is sent is only good for removal here, and can be sent on from there.
    assert_eq!(
        from.on("SEND_CANCEL", handle),
        Err(Status::INVALID_GUEST_STATE)
    );
    from.on("DEACTIVATE", handle).unwrap();
    assert_eq!(from.activate(handle, 4), Err(Status::INVALID_GUEST_STATE));
    from.on("DECOMMISSION", handle).unwrap();
    give_certs(&mut to, &mut from);
    to.ok("SEND_START", &send_start_cmd(there)).unwrap();
    to.on("SEND_CANCEL", there).unwrap();
    assert_eq!(to.guest_status(there).unwrap().state, guest_state::RUNNING);
}

#[test]
fn the_session_is_for_one_target_policy_and_source() {
    let (mut from, mut to) = (Psp::ready("chip=a"), Psp::ready("chip=b"));
    let mut third = Psp::ready("chip=c");
    let handle = from.running(0, 100, 1);
    give_certs(&mut from, &mut to);
    from.ok("SEND_START", &send_start_cmd(handle)).unwrap();
    let session = from.machine.get(BUF, 128);
    let (pdh, _) = from.export();
    let (wrong_pdh, _) = third.export();
    let refused = Err(Status::BAD_MEASUREMENT);
    assert_eq!(receive_start(&mut third, &pdh, &session, 0), refused);
    assert_eq!(receive_start(&mut to, &wrong_pdh, &session, 0), refused);
    assert_eq!(receive_start(&mut to, &pdh, &session, 1), refused);
    assert_eq!(
        receive_start(&mut to, &pdh, &session, 0x40),
        Err(Status::INVALID_PARAM)
    );
    assert_eq!(
        receive_start(&mut to, &pdh, &session, 0x00ff_0000),
        Err(Status::POLICY_FAILURE)
    );
    assert_eq!(to.status().guest_count.get(), 0);
    receive_start(&mut to, &pdh, &session, 0).unwrap();
}

#[test]
fn sending_needs_a_running_guest_whose_policy_allows_it() {
    let mut from = Psp::ready("chip=a");
    let mut to = Psp::ready("chip=b");
    give_certs(&mut from, &mut to);
    let nosend = from.running(8, 100, 1);
    assert_eq!(
        run_status(&mut from, &send_start_cmd(nosend)),
        Status::POLICY_FAILURE
    );
    let launching = from.launch_start(0).unwrap();
    assert_eq!(
        run_status(&mut from, &send_start_cmd(launching)),
        Status::INVALID_GUEST_STATE
    );
    assert_eq!(
        run_status(&mut from, &send_start_cmd(99)),
        Status::INVALID_GUEST
    );
    for name in ["SEND_FINISH", "SEND_CANCEL", "RECEIVE_FINISH"] {
        assert_eq!(from.on(name, launching), Err(Status::INVALID_GUEST_STATE));
    }
    let idle = packet(launching, GUEST, 16);
    assert_eq!(
        from.run("SEND_UPDATE_DATA", &idle).0,
        Status::INVALID_GUEST_STATE
    );
    assert_eq!(
        from.run("RECEIVE_UPDATE_DATA", &idle).0,
        Status::INVALID_GUEST_STATE
    );
}

#[test]
fn the_sev_policy_wants_a_genuine_chain() {
    let mut from = Psp::ready("chip=a");
    let mut to = Psp::ready("chip=b");
    let handle = from.running(0x20, 100, 1);
    let damage = |from: &mut Psp, at: u64, status| {
        let old = from.machine.get(at, 1);
        from.machine.put(at, &[old[0] ^ 1]);
        assert_eq!(run_status(from, &send_start_cmd(handle)), status, "{at:#x}");
        from.machine.put(at, &old);
    };
    give_certs(&mut from, &mut to);
    let (pek, cek) = (CHAIN, CHAIN + 2 * 2084);
    // Key bytes of PDH, PEK and CEK, then a signature byte of CEK and ASK, ASK's key, ARK's key.
    damage(&mut from, PDH + 20, Status::BAD_SIGNATURE);
    damage(&mut from, pek + 20, Status::INVALID_CERTIFICATE);
    damage(&mut from, cek + 20, Status::BAD_SIGNATURE);
    damage(&mut from, cek + 1052 + 8, Status::BAD_SIGNATURE);
    damage(&mut from, AMD + 64 + 1024, Status::BAD_SIGNATURE);
    damage(&mut from, AMD + 64 + 512 + 3, Status::BAD_SIGNATURE);
    damage(
        &mut from,
        AMD + 1600 + 64 + 512 + 3,
        Status::INVALID_CERTIFICATE,
    );
    damage(&mut from, AMD + 4, Status::BAD_SIGNATURE);
    damage(&mut from, AMD + 20, Status::INVALID_CERTIFICATE);
    // An even modulus.
    damage(&mut from, AMD + 64 + 512, Status::INVALID_CERTIFICATE);
    let with = |change: fn(&mut wire::SendStart)| {
        let mut cmd = send_start_cmd(handle);
        change(&mut cmd);
        cmd
    };
    for (cmd, status) in [
        (with(|c| c.pdh_len = 1.into()), Status::INVALID_LENGTH),
        (with(|c| c.plat_len = 2084.into()), Status::INVALID_LENGTH),
        (with(|c| c.amd_len = 3201.into()), Status::INVALID_LENGTH),
        (
            with(|c| c.amd_len = 1600.into()),
            Status::INVALID_CERTIFICATE,
        ),
        (with(|c| c.amd_len = 0.into()), Status::INVALID_CERTIFICATE),
        (
            with(|c| c.plat_address = u64::MAX.into()),
            Status::INVALID_ADDRESS,
        ),
        (with(|c| c.reserved3 = 9.into()), Status::INVALID_PARAM),
    ] {
        assert_eq!(run_status(&mut from, &cmd), status);
    }
    assert_eq!(
        from.guest_status(handle).unwrap().state,
        guest_state::RUNNING
    );
    assert_eq!(
        run_status(&mut from, &send_start_cmd(handle)),
        Status::SUCCESS
    );
}

/// A genuine chip that did not endorse the platform.
#[test]
fn the_sev_policy_wants_the_chips_endorsement() {
    let mut from = Psp::ready("chip=a");
    let mut to = Psp::ready("chip=b");
    let handle = from.running(0x20, 100, 1);
    give_certs(&mut from, &mut to);
    let (_, [_, _, cek]) = Psp::ready("chip=c").export();
    from.machine.put(CHAIN + 2 * 2084, cek.as_bytes());
    assert_eq!(
        run_status(&mut from, &send_start_cmd(handle)),
        Status::BAD_SIGNATURE
    );
}

/// The target's PEK carries the version of its firmware.
#[test]
fn the_minimum_version_holds_for_the_target() {
    use sev::certs::sev::Signer;
    use sev::certs::sev::sev::{Certificate as SevCert, Usage};
    use sev::parser::Encoder;

    let mut from = Psp::ready("");
    // The sev crate makes certificates of version 0.0.
    let (pek, key) = SevCert::generate(Usage::PEK).unwrap();
    let (mut pdh, _) = SevCert::generate(Usage::PDH).unwrap();
    key.sign(&mut pdh).unwrap();
    for (at, cert) in [(PDH, &pdh), (CHAIN, &pek)] {
        let mut bytes = Vec::new();
        cert.encode(&mut bytes, ()).unwrap();
        from.machine.put(at, &bytes);
    }
    let demanding = from.running(0x0001_0000, 100, 1);
    let modest = from.running(0, 101, 1);
    assert_eq!(
        run_status(&mut from, &send_start_cmd(demanding)),
        Status::POLICY_FAILURE
    );
    assert_eq!(
        run_status(&mut from, &send_start_cmd(modest)),
        Status::SUCCESS
    );
}

/// DOMAIN: only to platforms of the same owner.
#[test]
fn the_domain_policy_wants_the_same_owner() {
    use sev::certs::sev::Signer;
    use sev::certs::sev::sev::{Certificate as SevCert, Usage};
    use sev::parser::{Decoder, Encoder};

    let (mut oca, owner) = SevCert::generate(Usage::OCA).unwrap();
    owner.sign(&mut oca).unwrap();
    let adopt = |psp: &mut Psp| {
        let mut cmd = wire::Buffer::new_zeroed();
        (cmd.address, cmd.len) = (U64::new(BUF), U32::new(2084));
        psp.ok("PEK_CSR", &cmd).unwrap();
        let mut pek = SevCert::decode(&mut psp.machine.get(BUF, 2084).as_slice(), ()).unwrap();
        owner.sign(&mut pek).unwrap();
        for (at, cert) in [(BUF, &pek), (BUF2, &oca)] {
            let mut bytes = Vec::new();
            cert.encode(&mut bytes, ()).unwrap();
            psp.machine.put(at, &bytes);
        }
        let cmd = wire::PekCertImport {
            pek_address: U64::new(BUF),
            pek_len: U32::new(2084),
            reserved: U32::ZERO,
            oca_address: U64::new(BUF2),
            oca_len: U32::new(2084),
        };
        psp.ok("PEK_CERT_IMPORT", &cmd).unwrap();
    };
    let mut from = Psp::ready("chip=a");
    let mut inside = Psp::ready("chip=b");
    let mut outside = Psp::ready("chip=c");
    adopt(&mut from);
    adopt(&mut inside);
    let handle = from.running(0x30, 100, 1);
    give_certs(&mut from, &mut outside);
    assert_eq!(
        run_status(&mut from, &send_start_cmd(handle)),
        Status::POLICY_FAILURE
    );
    // The owner's certificate beside a PEK that it did not sign.
    let (_, [_, oca, _]) = inside.export();
    from.machine.put(CHAIN + 2084, oca.as_bytes());
    assert_eq!(
        run_status(&mut from, &send_start_cmd(handle)),
        Status::BAD_SIGNATURE
    );
    give_certs(&mut from, &mut inside);
    assert_eq!(
        run_status(&mut from, &send_start_cmd(handle)),
        Status::SUCCESS
    );
}

#[test]
fn packets_check_lengths_and_addresses() {
    let (mut from, mut to) = (Psp::ready("chip=a"), Psp::ready("chip=b"));
    let handle = from.running(0, 100, 1);
    give_certs(&mut from, &mut to);
    from.ok("SEND_START", &send_start_cmd(handle)).unwrap();
    let with = |change: fn(&mut wire::Packet)| {
        let mut cmd = packet(handle, GUEST, 4096);
        change(&mut cmd);
        cmd
    };
    for (cmd, status) in [
        (with(|c| c.hdr_len = 51.into()), Status::INVALID_LENGTH),
        (with(|c| c.trans_len = 4095.into()), Status::INVALID_LENGTH),
        (with(|c| c.guest_len = 0.into()), Status::INVALID_LENGTH),
        (with(|c| c.guest_len = 24.into()), Status::INVALID_LENGTH),
        (
            with(|c| (c.guest_len, c.trans_len) = (0x8000.into(), 0x8000.into())),
            Status::INVALID_LENGTH,
        ),
        (with(|c| c.guest_address += 4), Status::INVALID_ADDRESS),
        (
            with(|c| c.guest_address = (RAM as u64).into()),
            Status::INVALID_ADDRESS,
        ),
        (
            with(|c| c.hdr_address = u64::MAX.into()),
            Status::INVALID_ADDRESS,
        ),
        (
            with(|c| c.trans_address = u64::MAX.into()),
            Status::INVALID_ADDRESS,
        ),
        (with(|c| c.reserved1 = 1.into()), Status::INVALID_PARAM),
    ] {
        assert_eq!(from.run("SEND_UPDATE_DATA", &cmd).0, status);
    }
    assert_eq!(
        from.run("SEND_UPDATE_VMSA", &with(|_| {})).0,
        Status::POLICY_FAILURE
    );
    from.on("DEACTIVATE", handle).unwrap();
    assert_eq!(
        from.run("SEND_UPDATE_DATA", &with(|_| {})).0,
        Status::INACTIVE
    );
}
