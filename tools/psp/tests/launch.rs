// SPDX-License-Identifier: GPL-2.0-or-later
//! Launches, with the `sev` crate as the guest owner.

mod common;

use common::*;
use sev::certs::sev::sev::Certificate as SevCert;
use sev::firmware::host::{Build, Version};
use sev::launch::sev::{HeaderFlags, Measurement, Policy, PolicyFlags, Start};
use sev::parser::{Decoder, Encoder};
use sev::session::{Initialized, Session};
use sevfw::firmware::{API, BUILD};
use sevfw::status::Status;
use sevfw::wire;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// The crate's `Policy::from(u32)` splits the minimum version into nibbles, so it is spelled out.
fn owner(policy: u32) -> Session<Initialized> {
    let [_, _, major, minor] = policy.to_le_bytes();
    let policy = Policy {
        flags: PolicyFlags::from_bits_retain(policy as u16),
        minfw: Version { major, minor },
    };
    Session::try_from(policy).unwrap()
}

fn pdh(psp: &mut Psp) -> SevCert {
    SevCert::decode(&mut psp.export().0.as_bytes(), ()).unwrap()
}

/// LAUNCH_START with what the guest owner sent.
fn attended(psp: &mut Psp, start: &Start, policy: u32) -> Outcome<u32> {
    let mut cert = Vec::new();
    start.cert.encode(&mut cert, ()).unwrap();
    let session = start.session;
    let session = [
        &session.nonce[..],
        &session.wrap_tk,
        &session.wrap_iv,
        &session.wrap_mac,
        &session.policy_mac,
    ]
    .concat();
    psp.machine.put(BUF, &cert);
    psp.machine.put(BUF2, &session);
    psp.ok("LAUNCH_START", &start_cmd(policy))
        .map(|cmd| cmd.handle.get())
}

fn start_cmd(policy: u32) -> wire::Start {
    wire::Start {
        handle: U32::ZERO,
        policy: U32::new(policy),
        cert_address: U64::new(BUF),
        cert_len: U32::new(2084),
        reserved: U32::ZERO,
        session_address: U64::new(BUF2),
        session_len: U32::new(128),
    }
}

fn build() -> Build {
    let [major, minor] = API;
    Build {
        version: Version { major, minor },
        build: BUILD,
    }
}

fn packet(handle: u32, len: u32) -> wire::Packet {
    let mut cmd = wire::Packet::new_zeroed();
    cmd.handle = U32::new(handle);
    (cmd.hdr_address, cmd.hdr_len) = (U64::new(BUF), U32::new(52));
    (cmd.guest_address, cmd.guest_len) = (U64::new(GUEST + 0x800), U32::new(len));
    (cmd.trans_address, cmd.trans_len) = (U64::new(BUF2), U32::new(len));
    cmd
}

/// The whole attended launch: the owner recomputes the measurement from his own plaintext and
/// sends a secret that only the guest can read.
#[test]
fn the_owner_accepts_the_measurement_and_the_guest_gets_the_secret() {
    let mut psp = Psp::ready("");
    let policy = 0x0001_0001; // no debugging, API 1.0 or newer
    let session = owner(policy);
    let start = session.start_pdh(pdh(&mut psp)).unwrap();
    let handle = attended(&mut psp, &start, policy).unwrap();
    psp.activate(handle, 101).unwrap();

    // Regions that do not begin or end at pages, in two commands.
    let image: Vec<u8> = (0..0x2350u32).map(|i| (i * 7) as u8).collect();
    psp.machine.put(GUEST + 0x10, &image);
    for (at, len) in [(0, 0x1230), (0x1230, 0x1120)] {
        psp.region("LAUNCH_UPDATE_DATA", handle, GUEST + 0x10 + at, len)
            .unwrap();
    }
    assert!(psp.machine.get(GUEST + 0x10, image.len()) != image);
    assert!(psp.machine.get_guest(101, GUEST + 0x10, image.len()) == image);
    assert_eq!(
        psp.guest_status(handle).unwrap().state,
        guest_state::LUPDATE
    );

    let (status, answer) = psp.run("LAUNCH_MEASURE", &region(handle, 0, 0));
    assert_eq!((status, answer.len.get()), (Status::INVALID_LENGTH, 48));
    assert_eq!(
        psp.guest_status(handle).unwrap().state,
        guest_state::LUPDATE
    );
    let measured = psp.measure(handle).unwrap();
    assert_eq!(
        psp.guest_status(handle).unwrap().state,
        guest_state::LSECRET
    );

    let mut session = session.measure().unwrap();
    session.update_data(&image).unwrap();
    let session = session
        .verify(
            build(),
            Measurement {
                measure: measured.measure,
                mnonce: measured.mnonce,
            },
        )
        .unwrap();
    let text = b"sixteen byte keysixteen byte key";
    let secret = session.secret(HeaderFlags::default(), text).unwrap();
    let header = [&[0; 4], &secret.header.iv[..], &secret.header.mac].concat();
    psp.machine.put(BUF, &header);
    psp.machine.put(BUF2, &secret.ciphertext);

    let cmd = packet(handle, 32);
    let variant = |change: fn(&mut wire::Packet)| {
        let mut cmd = cmd;
        change(&mut cmd);
        cmd
    };
    for (bad, status) in [
        (variant(|c| c.hdr_len = 51.into()), Status::INVALID_LENGTH),
        (variant(|c| c.guest_len = 16.into()), Status::INVALID_LENGTH),
        (variant(|c| c.trans_len = 16.into()), Status::INVALID_LENGTH),
        (variant(|c| c.guest_address += 8), Status::INVALID_ADDRESS),
        (variant(|c| c.trans_address += 1), Status::BAD_MEASUREMENT),
        (variant(|c| c.reserved2 = 1.into()), Status::INVALID_PARAM),
        (
            variant(|c| (c.guest_len, c.trans_len) = (16.into(), 16.into())),
            Status::BAD_MEASUREMENT,
        ),
    ] {
        assert_eq!(psp.run("LAUNCH_SECRET", &bad).0, status);
    }
    for byte in 4..52 {
        let mut damaged = header.clone();
        damaged[byte] ^= 1;
        psp.machine.put(BUF, &damaged);
        assert_eq!(psp.run("LAUNCH_SECRET", &cmd).0, Status::BAD_MEASUREMENT);
    }
    psp.machine.put(BUF, &[1, 0, 0, 0]);
    assert_eq!(psp.run("LAUNCH_SECRET", &cmd).0, Status::UNSUPPORTED);
    psp.machine.put(BUF, &header);
    psp.ok("LAUNCH_SECRET", &cmd).unwrap();
    assert_eq!(psp.machine.get_guest(101, GUEST + 0x800, 32), text);
    psp.on("LAUNCH_FINISH", handle).unwrap();
    assert_eq!(
        psp.guest_status(handle).unwrap().state,
        guest_state::RUNNING
    );
    assert_eq!(
        psp.run("LAUNCH_SECRET", &cmd).0,
        Status::INVALID_GUEST_STATE
    );
}

/// Another session with the same keys, so that one launch can be judged several times.
fn same_keys(session: &Session<Initialized>, policy: u32) -> Session<Initialized> {
    let mut copy = owner(policy);
    copy.tik.copy_from_slice(&session.tik);
    copy
}

#[test]
fn the_measurement_covers_data_vmsa_policy_and_version() {
    let mut psp = Psp::ready("");
    let session = owner(4);
    let start = session.start_pdh(pdh(&mut psp)).unwrap();
    let handle = attended(&mut psp, &start, 4).unwrap();
    psp.activate(handle, 7).unwrap();
    psp.machine.put(GUEST, &[1; 4096]);
    psp.machine.put(GUEST + 4096, &[2; 4096]);
    psp.region("LAUNCH_UPDATE_DATA", handle, GUEST, 4096)
        .unwrap();
    psp.region("LAUNCH_UPDATE_VMSA", handle, GUEST + 4096, 4096)
        .unwrap();
    let wire::Measurement { measure, mnonce } = psp.measure(handle).unwrap();
    let judge = |policy, parts: [u8; 2], build| {
        let mut session = same_keys(&session, policy).measure().unwrap();
        parts.map(|part| session.update_data(&[part; 4096]).unwrap());
        let blob = Measurement { measure, mnonce };
        session.verify(build, blob).is_ok()
    };
    assert!(judge(4, [1, 2], build()));
    assert!(!judge(4, [1, 1], build()));
    assert!(!judge(4, [2, 1], build()));
    assert!(!judge(5, [1, 2], build()));
    let mut older = build();
    older.build -= 1;
    assert!(!judge(4, [1, 2], older));
}

#[test]
fn sessions_that_do_not_fit_are_refused() {
    let mut psp = Psp::ready("");
    let session = owner(1);
    let start = session.start_pdh(pdh(&mut psp)).unwrap();
    // Made for another policy, and for another platform.
    assert_eq!(attended(&mut psp, &start, 0), Err(Status::BAD_MEASUREMENT));
    let other = pdh(&mut Psp::ready(""));
    let foreign = owner(1).start_pdh(other).unwrap();
    assert_eq!(
        attended(&mut psp, &foreign, 1),
        Err(Status::BAD_MEASUREMENT)
    );
    // A PDH that was replaced meanwhile.
    psp.plain("PDH_GEN").unwrap();
    assert_eq!(attended(&mut psp, &start, 1), Err(Status::BAD_MEASUREMENT));

    let start = session.start_pdh(pdh(&mut psp)).unwrap();
    attended(&mut psp, &start, 1).unwrap();
    let with = |change: fn(&mut wire::Start)| {
        let mut cmd = start_cmd(1);
        change(&mut cmd);
        cmd
    };
    for (cmd, status) in [
        (with(|c| c.cert_len = 2083.into()), Status::INVALID_LENGTH),
        (with(|c| c.session_len = 127.into()), Status::INVALID_LENGTH),
        (with(|c| c.session_len = 0.into()), Status::INVALID_LENGTH),
        (
            with(|c| c.cert_address = (RAM as u64).into()),
            Status::INVALID_ADDRESS,
        ),
        (
            with(|c| c.session_address = u64::MAX.into()),
            Status::INVALID_ADDRESS,
        ),
        (with(|c| c.cert_address += 4), Status::INVALID_CERTIFICATE),
        (with(|c| c.reserved = 1.into()), Status::INVALID_PARAM),
        (with(|c| c.handle = 99.into()), Status::INVALID_GUEST),
        (
            with(|c| c.policy = 0x0200_0000.into()),
            Status::BAD_MEASUREMENT,
        ),
        (
            with(|c| c.policy = 0xff00_0001_u32.into()),
            Status::BAD_MEASUREMENT,
        ),
        (
            with(|c| c.policy = 0x0002_0001.into()),
            Status::POLICY_FAILURE,
        ),
        (with(|c| c.policy = 0x41.into()), Status::INVALID_PARAM),
    ] {
        assert_eq!(psp.run("LAUNCH_START", &cmd).0, status);
    }
    // A key of the wrong usage, one off the curve, one with more bits than the curve has.
    for (byte, value) in [(8, 2), (20, 0x5a), (20 + 48, 1)] {
        let mut cert = psp.machine.get(BUF, 2084);
        cert[byte] = value;
        psp.machine.put(BUF3, &cert);
        let mut cmd = start_cmd(1);
        cmd.cert_address = U64::new(BUF3);
        assert_eq!(psp.run("LAUNCH_START", &cmd).0, Status::INVALID_CERTIFICATE);
    }
    assert_eq!(psp.status().guest_count.get(), 1);
}

#[test]
fn updates_check_state_binding_length_and_address() {
    let mut psp = Psp::ready("");
    let handle = psp.launch_start(0).unwrap();
    let update = |psp: &mut Psp, at, len| psp.region("LAUNCH_UPDATE_DATA", handle, at, len);
    assert_eq!(update(&mut psp, GUEST, 16), Err(Status::INACTIVE));
    psp.activate(handle, 100).unwrap();
    for len in [0, 1, 15, 17, u32::MAX] {
        assert_eq!(update(&mut psp, GUEST, len), Err(Status::INVALID_LENGTH));
    }
    for (at, len) in [
        (GUEST + 8, 16),
        (RAM as u64, 16),
        (u64::MAX - 15, 16),
        (u64::MAX - 31, 64),
        (GUEST, u32::MAX - 15),
    ] {
        assert_eq!(update(&mut psp, at, len), Err(Status::INVALID_ADDRESS));
    }
    assert_eq!(
        psp.region("LAUNCH_UPDATE_DATA", handle + 1, GUEST, 16),
        Err(Status::INVALID_GUEST)
    );
    assert_eq!(
        psp.region("LAUNCH_UPDATE_VMSA", handle, GUEST, 4096),
        Err(Status::POLICY_FAILURE)
    );
    let mut cmd = region(handle, GUEST, 16);
    cmd.reserved = U32::new(1);
    assert_eq!(psp.run("LAUNCH_UPDATE_DATA", &cmd).0, Status::INVALID_PARAM);
    assert_eq!(
        psp.on("LAUNCH_FINISH", handle),
        Err(Status::INVALID_GUEST_STATE)
    );
    psp.measure(handle).unwrap();
    assert_eq!(
        update(&mut psp, GUEST, 16),
        Err(Status::INVALID_GUEST_STATE)
    );
    assert_eq!(psp.measure(handle).err(), Some(Status::INVALID_GUEST_STATE));
    psp.on("LAUNCH_FINISH", handle).unwrap();
    assert_eq!(
        psp.on("LAUNCH_FINISH", handle),
        Err(Status::INVALID_GUEST_STATE)
    );
}

#[test]
fn vmsa_pages_are_whole_pages_of_es_guests() {
    let mut psp = Psp::ready("");
    let handle = psp.launch_start(4).unwrap();
    let update = |psp: &mut Psp, at, len| psp.region("LAUNCH_UPDATE_VMSA", handle, at, len);
    assert_eq!(update(&mut psp, GUEST, 4096), Err(Status::INACTIVE));
    psp.activate(handle, 1).unwrap();
    assert_eq!(update(&mut psp, GUEST, 2048), Err(Status::INVALID_LENGTH));
    assert_eq!(update(&mut psp, GUEST, 8192), Err(Status::INVALID_LENGTH));
    assert_eq!(
        update(&mut psp, GUEST + 16, 4096),
        Err(Status::INVALID_ADDRESS)
    );
    assert_eq!(psp.machine.look().sealed, []);
    psp.region("LAUNCH_UPDATE_DATA", handle, GUEST + 8192, 4096)
        .unwrap();
    update(&mut psp, GUEST, 4096).unwrap();
    assert_eq!(psp.machine.look().sealed, [(GUEST, 1)]);
}

#[test]
fn es_needs_a_platform_with_es() {
    let mut psp = Psp::new("");
    psp.init(false).unwrap();
    assert_eq!(psp.launch_start(4), Err(Status::POLICY_FAILURE));
    psp.launch_start(0).unwrap();
}

/// Guests with equal policies may share a memory key unless the policy says NOKS.
#[test]
fn key_sharing_obeys_the_policy() {
    let mut psp = Psp::ready("");
    let first = psp.running(0, 100, 0xab);
    let share = |psp: &mut Psp, handle, policy| {
        let mut cmd = wire::Start::new_zeroed();
        (cmd.handle, cmd.policy) = (U32::new(handle), U32::new(policy));
        psp.ok("LAUNCH_START", &cmd).map(|cmd| cmd.handle.get())
    };
    assert_eq!(share(&mut psp, first, 1), Err(Status::POLICY_FAILURE));
    let second = share(&mut psp, first, 0).unwrap();
    assert_ne!(second, first);
    psp.activate(second, 101).unwrap();
    assert_eq!(psp.machine.get_guest(101, GUEST, 4096), [0xab; 4096]);
    let stranger = psp.launch_start(0).unwrap();
    psp.activate(stranger, 102).unwrap();
    assert_ne!(psp.machine.get_guest(102, GUEST, 4096), [0xab; 4096]);

    let closed = psp.launch_start(2).unwrap();
    assert_eq!(share(&mut psp, closed, 2), Err(Status::POLICY_FAILURE));
    assert_eq!(share(&mut psp, 999, 0), Err(Status::INVALID_GUEST));
}
