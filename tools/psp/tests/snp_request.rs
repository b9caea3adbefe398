// SPDX-License-Identifier: GPL-2.0-or-later
//! Guest messages and ID blocks.

mod common;

use common::request::Channel;
use common::snp::*;
use common::*;
use sevfw::crypto::cert::le_extend;
use sevfw::crypto::ecc::PrivateKey;
use sevfw::snp::wire;
use sevfw::status::Status;
use sha2::{Digest, Sha384};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

const ASID: u32 = 5;
/// The ID block and its authentication information.
const ID_BLOCK: u64 = BUF;
const ID_AUTH: u64 = BUF2;

/// A guest that has its secrets page.
fn launching(psp: &mut Psp, policy: u64) -> Channel {
    psp.snp_launching(GCTX, ASID, policy);
    psp.rmpupdate(GUEST, pre_guest(ASID.into(), 0));
    psp.snp_update(GCTX, page::SECRETS, GUEST).unwrap();
    Channel::new(psp, GCTX, ASID, GUEST, 0)
}

#[test]
fn only_the_next_authentic_message_of_a_running_guest_is_answered() {
    let mut psp = Psp::snp("");
    let mut channel = launching(&mut psp, POLICY);
    let request = wire::ReportRequest::new_zeroed();
    let header = channel.header(5, 96);
    let good = channel.seal(header, request.as_bytes());
    assert_eq!(
        channel.send(&mut psp, &good),
        Err(Status::INVALID_GUEST_STATE)
    );
    psp.snp_finish(GCTX).unwrap();
    for at in [0, 15, 52, 53, 96, 96 + 95] {
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        assert_eq!(
            channel.send(&mut psp, &damaged),
            Err(Status::BAD_MEASUREMENT),
            "{at}"
        );
    }
    let changes: [fn(&mut wire::MessageHeader); 7] = [
        |header| header.algorithm = 2,
        |header| header.header_version = 2,
        |header| header.header_size += 1,
        |header| header.size = 4001.into(),
        |header| header.vmpck = 4,
        |header| header.sequence += 1,
        |header| header.kind = 99,
    ];
    for change in changes {
        let mut header = channel.header(5, 96);
        change(&mut header);
        let page = channel.seal(header, request.as_bytes());
        assert_eq!(channel.send(&mut psp, &page), Err(Status::INVALID_PARAM));
    }
    // Failures do not consume the sequence number; an answer does.
    assert_eq!(channel.report(&mut psp, [7; 64]).unwrap().status.get(), 0);
    assert_eq!(channel.send(&mut psp, &good), Err(Status::INVALID_PARAM));
    // The answer goes to a firmware page only.
    psp.rmpupdate(OUT, RECLAIM);
    let cmd = wire::GuestRequest {
        gctx_address: U64::new(GCTX),
        request_address: U64::new(BUF),
        response_address: U64::new(OUT),
    };
    let header = channel.header(5, 96);
    psp.machine
        .put(BUF, &channel.seal(header, request.as_bytes()));
    assert_eq!(
        psp.run("SNP_GUEST_REQUEST", &cmd).0,
        Status::INVALID_PAGE_STATE
    );
}

#[test]
fn a_vmpl_speaks_for_itself_and_those_below() {
    let mut psp = Psp::snp("");
    launching(&mut psp, POLICY);
    psp.snp_finish(GCTX).unwrap();
    let mut channel = Channel::new(&psp, GCTX, ASID, GUEST, 2);
    for (vmpl, ok) in [(0, false), (1, false), (2, true), (3, true), (4, false)] {
        let mut request = wire::ReportRequest::new_zeroed();
        request.vmpl = U32::new(vmpl);
        let response: wire::ReportResponse = channel.ask(&mut psp, 5, &request).unwrap();
        assert_eq!(response.status.get() == 0, ok);
        assert_eq!(response.size.get(), if ok { 1184 } else { 0 });
        let mut request = wire::KeyRequest::new_zeroed();
        request.vmpl = U32::new(vmpl);
        let response: wire::KeyResponse = channel.ask(&mut psp, 3, &request).unwrap();
        assert_eq!(response.status.get() == 0, ok);
        assert_eq!(response.key != [0; 32], ok);
    }
}

#[test]
fn derived_keys_follow_from_what_is_selected() {
    let mut psp = Psp::snp("");
    let mut key = |policy, select: u64| {
        let mut channel = launching(&mut psp, policy);
        psp.snp_finish(GCTX).unwrap();
        let mut request = wire::KeyRequest::new_zeroed();
        request.guest_field_select = U64::new(select);
        let response: wire::KeyResponse = channel.ask(&mut psp, 3, &request).unwrap();
        psp.at("SNP_DECOMMISSION", GCTX).unwrap();
        psp.snp_flush();
        (response.status.get(), response.key)
    };
    let debug = POLICY | (1 << 19);
    assert_eq!(key(POLICY, 0), key(debug, 0));
    assert_ne!(key(POLICY, 1), key(debug, 1));
    assert_ne!(key(POLICY, 0), key(POLICY, 1));
    assert_eq!(key(POLICY, 1 << 6).0, u32::from(Status::INVALID_PARAM.0));
}

#[test]
fn cpuid_and_tsc_requests() {
    let mut psp = Psp::snp("");
    let mut channel = launching(&mut psp, POLICY);
    psp.snp_finish(GCTX).unwrap();
    let mut table = wire::CpuidTable::new_zeroed();
    table.count = U32::new(1);
    let function = &mut table.functions[0];
    (function.eax_in, function.ecx) = (U32::new(1), U32::new(!0));
    let answer: wire::CpuidTable = channel.ask(&mut psp, 1, &table).unwrap();
    // Status and count.
    assert_eq!(answer.count.get(), u32::from(Status::INVALID_PARAM.0));
    assert_eq!(answer.reserved1.get(), 1);
    assert_eq!(answer.functions[0].ecx.get(), !(1 << 24));
    let answer: wire::TscInfoResponse = channel.ask(&mut psp, 17, &[0u8; 128]).unwrap();
    assert_eq!((answer.status.get(), answer.scale.get()), (0, 1 << 32));
}

#[test]
fn a_tsc_runs_as_the_launch_wanted() {
    const GUEST_TSC_FREQ: u32 = 0xc001_0134;
    const ONE: u64 = 1 << 32;
    for (machine_mhz, wanted_khz, scale) in [
        (None, 1_000_000, ONE),
        (Some(0), 1_000_000, ONE),
        (Some(2000), 0, ONE),
        (Some(2000), 2_000_000, ONE),
        (Some(2000), 1_000_000, ONE / 2),
        (Some(2000), 2_500_000, ONE + ONE / 4),
    ] {
        let mut psp = Psp::snp("");
        if let Some(mhz) = machine_mhz {
            let msr = (0, GUEST_TSC_FREQ);
            psp.machine.state().msrs.insert(msr, mhz);
        }
        psp.gctx_create(GCTX).unwrap();
        let mut cmd = wire::LaunchStart::new_zeroed();
        (cmd.gctx_address, cmd.policy) = (U64::new(GCTX), U64::new(POLICY));
        cmd.desired_tsc_khz = U32::new(wanted_khz);
        psp.ok("SNP_LAUNCH_START", &cmd).unwrap();
        psp.snp_activate(GCTX, ASID).unwrap();
        psp.rmpupdate(GUEST, pre_guest(ASID.into(), 0));
        psp.snp_update(GCTX, page::SECRETS, GUEST).unwrap();
        psp.snp_finish(GCTX).unwrap();
        let mut channel = Channel::new(&psp, GCTX, ASID, GUEST, 0);
        let answer: wire::TscInfoResponse = channel.ask(&mut psp, 17, &[0u8; 128]).unwrap();
        assert_eq!(answer.scale.get(), scale, "{machine_mhz:?} {wanted_khz}");
        assert_eq!((answer.status.get(), answer.offset.get()), (0, 0));
    }
}

fn public(key: &PrivateKey) -> wire::PublicKey {
    let (x, y) = key.public_coordinates();
    let mut public = wire::PublicKey::new_zeroed();
    public.curve = U32::new(2);
    (public.x, public.y) = (le_extend(&x), le_extend(&y));
    public
}

fn sign(key: &PrivateKey, message: &[u8]) -> wire::Signature {
    let (r, s) = key.sign_sha384(message);
    let mut signature = wire::Signature::new_zeroed();
    (signature.r, signature.s) = (le_extend(&r), le_extend(&s));
    signature
}

/// What the owner of a guest with this digest would give to the host.
fn identity(digest: [u8; 48], policy: u64) -> (wire::IdBlock, wire::IdAuth) {
    let [id, author] = ["id", "author"].map(|name| PrivateKey::from_secret(&[1; 32], name));
    let block = wire::IdBlock {
        launch_digest: digest,
        family_id: [2; 16],
        image_id: [3; 16],
        version: U32::new(1),
        guest_svn: U32::new(4),
        policy: U64::new(policy),
    };
    let mut auth = wire::IdAuth::new_zeroed();
    (auth.id_key_algo, auth.auth_key_algo) = (U32::new(1), U32::new(1));
    (auth.id_key, auth.author_key) = (public(&id), public(&author));
    auth.id_block_signature = sign(&id, block.as_bytes());
    auth.id_key_signature = sign(&author, auth.id_key.as_bytes());
    (block, auth)
}

fn finish(psp: &mut Psp, flags: u64, block: &wire::IdBlock, auth: &wire::IdAuth) -> Outcome {
    psp.machine.put(ID_BLOCK, block.as_bytes());
    psp.machine.put(ID_AUTH, auth.as_bytes());
    let cmd = wire::LaunchFinish {
        gctx_address: U64::new(GCTX),
        id_block_address: U64::new(ID_BLOCK),
        id_auth_address: U64::new(ID_AUTH),
        flags: U64::new(flags),
        host_data: [9; 32],
    };
    psp.ok("SNP_LAUNCH_FINISH", &cmd).map(|_| ())
}

#[test]
fn an_id_block_describes_the_guest_or_it_does_not_run() {
    let mut psp = Psp::snp("");
    // The digest of such a guest, from another one.
    let mut channel = launching(&mut psp, POLICY);
    psp.snp_finish(GCTX).unwrap();
    let digest = channel
        .report(&mut psp, [0; 64])
        .unwrap()
        .report
        .measurement;
    psp.at("SNP_DECOMMISSION", GCTX).unwrap();
    psp.snp_flush();

    let mut channel = launching(&mut psp, POLICY);
    let (block, auth) = identity(digest, POLICY);
    let mut other = digest;
    other[47] ^= 1;
    let (wrong_digest, its_auth) = identity(other, POLICY);
    let bad = finish(&mut psp, 3, &wrong_digest, &its_auth);
    assert_eq!(bad, Err(Status::BAD_MEASUREMENT));
    let (wrong_policy, its_auth) = identity(digest, POLICY | (1 << 19));
    let bad = finish(&mut psp, 3, &wrong_policy, &its_auth);
    assert_eq!(bad, Err(Status::POLICY_FAILURE));
    let bad = finish(&mut psp, 3, &block, &its_auth);
    assert_eq!(bad, Err(Status::BAD_SIGNATURE));
    let mut forged = auth;
    forged.id_key_signature = auth.id_block_signature;
    let bad = finish(&mut psp, 3, &block, &forged);
    assert_eq!(bad, Err(Status::BAD_SIGNATURE));
    let changes: [fn(&mut wire::IdAuth); 4] = [
        |auth| auth.id_key.x[0] ^= 1,
        |auth| auth.id_key.curve = U32::new(1),
        |auth| auth.id_block_signature.r = [0xff; 72],
        |auth| auth.id_block_signature.s = [0; 72],
    ];
    for change in changes {
        let mut damaged = auth;
        change(&mut damaged);
        let bad = finish(&mut psp, 1, &block, &damaged);
        assert_eq!(bad, Err(Status::BAD_SIGNATURE));
    }
    let mut unknown = auth;
    unknown.id_key_algo = U32::new(2);
    let bad = finish(&mut psp, 1, &block, &unknown);
    assert_eq!(bad, Err(Status::INVALID_PARAM));
    for flags in [2, 8, 1 << 63] {
        let bad = finish(&mut psp, flags, &block, &auth);
        assert_eq!(bad, Err(Status::INVALID_PARAM));
    }
    // All that may be repeated.
    finish(&mut psp, 7, &block, &auth).unwrap();
    let report = channel.report(&mut psp, [0; 64]).unwrap();
    assert_eq!(report.status.get(), u32::from(Status::INVALID_KEY.0));
    psp.at("SNP_DECOMMISSION", GCTX).unwrap();
    psp.snp_flush();

    let mut channel = launching(&mut psp, POLICY);
    finish(&mut psp, 3, &block, &auth).unwrap();
    let report = channel.report(&mut psp, [0; 64]).unwrap().report;
    assert_eq!((report.family_id, report.image_id), ([2; 16], [3; 16]));
    assert_eq!((report.guest_svn.get(), report.key_info.get()), (4, 1));
    assert_eq!(report.host_data, [9; 32]);
    let digest = |key: &wire::PublicKey| -> [u8; 48] { Sha384::digest(key.as_bytes()).into() };
    assert_eq!(report.id_key_digest, digest(&auth.id_key));
    assert_eq!(report.author_key_digest, digest(&auth.author_key));
}

#[test]
fn debugging_is_for_guests_that_allow_it() {
    let mut psp = Psp::snp("");
    let debug = |psp: &mut Psp, name: &str, src: u64, dst: u64| {
        let cmd = wire::Debug {
            gctx_address: U64::new(GCTX),
            src_address: U64::new(src),
            dst_address: U64::new(dst),
        };
        psp.run(name, &cmd).0
    };
    psp.rmpupdate(OUT, FIRMWARE);
    launching(&mut psp, POLICY);
    for name in ["SNP_DBG_DECRYPT", "SNP_DBG_ENCRYPT"] {
        assert_eq!(debug(&mut psp, name, GUEST, GUEST), Status::POLICY_FAILURE);
    }
    psp.at("SNP_DECOMMISSION", GCTX).unwrap();
    psp.snp_flush();
    launching(&mut psp, POLICY | (1 << 19));
    psp.machine.put(BUF3, &[0x42; 4096]);
    psp.rmpupdate(BUF4, pre_guest(6, 0));
    for (src, dst, status) in [
        (BUF3, GUEST, Status::SUCCESS),
        (BUF3, BUF2, Status::INVALID_PAGE_STATE),
        (BUF3, BUF4, Status::INVALID_PAGE_OWNER),
        (BUF3 + 16, GUEST, Status::INVALID_ADDRESS),
        (BUF3, GUEST + 16, Status::INVALID_ADDRESS),
    ] {
        assert_eq!(debug(&mut psp, "SNP_DBG_ENCRYPT", src, dst), status);
    }
    assert_eq!(psp.machine.get_guest(ASID, GUEST, 4096), [0x42; 4096]);
    for (src, dst, status) in [
        (GUEST, OUT, Status::SUCCESS),
        (GUEST, BUF2, Status::INVALID_PAGE_STATE),
        (BUF2, OUT, Status::INVALID_PAGE_STATE),
        (BUF4, OUT, Status::INVALID_PAGE_OWNER),
    ] {
        assert_eq!(debug(&mut psp, "SNP_DBG_DECRYPT", src, dst), status);
    }
    assert_eq!(psp.machine.get(OUT, 4096), [0x42; 4096]);
}

#[test]
fn legacy_commands_write_firmware_pages_only() {
    let mut psp = Psp::snp("");
    let mut cmd = init(true);
    cmd.tmr_len = U32::new(2 << 20);
    psp.ok("INIT", &cmd).unwrap();
    psp.flush().unwrap();
    // The command buffer, if there is an output in it.
    assert_eq!(psp.launch_start(0), Err(Status::INVALID_PAGE_STATE));
    psp.rmpupdate(CMD, FIRMWARE);
    let handle = psp.launch_start(0).unwrap();
    psp.activate(handle, 100).unwrap();
    // Guest memory that is encrypted in place.
    let region = "LAUNCH_UPDATE_DATA";
    psp.rmpupdate(GUEST, FIRMWARE);
    assert_eq!(
        psp.region(region, handle, GUEST, 8192),
        Err(Status::INVALID_PAGE_STATE)
    );
    psp.rmpupdate(GUEST + 4096, FIRMWARE);
    psp.region(region, handle, GUEST, 8192).unwrap();
    // An output buffer.
    let measure = |psp: &mut Psp| psp.region("LAUNCH_MEASURE", handle, BUF, 48);
    assert_eq!(measure(&mut psp), Err(Status::INVALID_PAGE_STATE));
    psp.rmpupdate(BUF, FIRMWARE);
    measure(&mut psp).unwrap();
    // A large page of the firmware counts for all its parts.
    psp.rmpupdate_large(GUEST, FIRMWARE);
    let debug = wire_debug(handle, GUEST, GUEST + 4096);
    psp.ok("DBG_DECRYPT", &debug).unwrap();
}

fn wire_debug(handle: u32, src: u64, dst: u64) -> sevfw::wire::Debug {
    let mut cmd = sevfw::wire::Debug::new_zeroed();
    (cmd.handle, cmd.len) = (U32::new(handle), U32::new(4096));
    (cmd.src_address, cmd.dst_address) = (U64::new(src), U64::new(dst));
    cmd
}
