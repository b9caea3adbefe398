// SPDX-License-Identifier: GPL-2.0-or-later
//! What SNP_INIT_EX, SNP_CONFIG and SNP_VLEK_LOAD set up, as PLATFORM_STATUS and reports show it.

mod common;

use common::request::Channel;
use common::snp::*;
use common::*;
use sevfw::platform::identity::Chip;
use sevfw::snp::config::Vlek;
use sevfw::snp::wire;
use sevfw::status::Status;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

const ASID: u32 = 5;
const TCB: [u8; 8] = [3, 0, 0, 0, 0, 0, 10, 0];
const OLDER: [u8; 8] = [2, 0, 0, 0, 0, 0, 9, 0];

fn status(psp: &mut Psp) -> wire::PlatformStatus {
    psp.rmpupdate(OUT, FIRMWARE);
    psp.at("SNP_PLATFORM_STATUS", OUT).unwrap();
    psp.machine.read(OUT)
}

fn config(psp: &mut Psp, tcb: [u8; 8], flags: u32) -> Outcome {
    let mut cmd = wire::Config::new_zeroed();
    (cmd.reported_tcb, cmd.flags) = (tcb, U32::new(flags));
    psp.ok("SNP_CONFIG", &cmd).map(|_| ())
}

fn init_ex(psp: &mut Psp, flags: u32, max_snp_asid: u16) -> Outcome {
    let mut cmd = wire::InitEx::new_zeroed();
    (cmd.flags, cmd.max_snp_asid) = (U32::new(flags), U16::new(max_snp_asid));
    psp.ok("SNP_INIT_EX", &cmd).map(|_| ())
}

#[test]
fn config_is_reported() {
    let mut psp = Psp::new("");
    assert_eq!(
        config(&mut psp, TCB, 0),
        Err(Status::INVALID_PLATFORM_STATE)
    );
    psp.plain("SNP_INIT").unwrap();
    psp.snp_flush();
    for (tcb, flags) in [([3, 0, 0, 0, 0, 0, 11, 0], 0), (TCB, 4), (TCB, 1 << 31)] {
        assert_eq!(config(&mut psp, tcb, flags), Err(Status::INVALID_PARAM));
    }
    let mut cmd = wire::Config::new_zeroed();
    cmd.reserved[51] = 1;
    assert_eq!(psp.run("SNP_CONFIG", &cmd).0, Status::INVALID_PARAM);

    let mut channel = Channel::of_running(&mut psp, ASID);
    let before = channel.report(&mut psp, [1; 64]).unwrap().report;
    assert_eq!((before.reported_tcb, before.key_info.get()), (TCB, 0));
    assert_ne!(before.chip_id, [0; 64]);
    config(&mut psp, OLDER, 1).unwrap();
    let now = status(&mut psp);
    assert_eq!((now.current_tcb, now.reported_tcb), (TCB, OLDER));
    assert_eq!(now.flags.get() & 3, 1);
    let masked = channel.report(&mut psp, [1; 64]).unwrap().report;
    assert_eq!((masked.reported_tcb, masked.chip_id), (OLDER, [0; 64]));
    assert_ne!(masked.signature.r, [0; 72]);
    config(&mut psp, [0; 8], 2).unwrap();
    let unsigned = channel.report(&mut psp, [1; 64]).unwrap().report;
    assert_eq!(unsigned.key_info.get(), 2 | (7 << 2));
    assert_eq!(
        (unsigned.reported_tcb, unsigned.signature.r),
        (TCB, [0; 72])
    );
}

#[test]
fn commit_has_nothing_to_do() {
    let mut psp = Psp::new("");
    let length = U32::new(4);
    psp.ok("SNP_COMMIT", &wire::Commit { length }).unwrap();
    let length = U32::new(5);
    let bad = psp.run("SNP_COMMIT", &wire::Commit { length }).0;
    assert_eq!(bad, Status::INVALID_LENGTH);
}

#[test]
fn ciphertext_hiding_splits_the_asids() {
    let mut psp = Psp::new("");
    assert_eq!(init_ex(&mut psp, 1, 7), Err(Status::INVALID_PARAM));
    assert_eq!(init_ex(&mut psp, 9, 0), Err(Status::INVALID_PARAM));
    assert_eq!(init_ex(&mut psp, 9, 100), Err(Status::INVALID_PARAM));
    init_ex(&mut psp, 1 | 4 | 8, 7).unwrap();
    psp.snp_flush();
    assert_eq!(status(&mut psp).flags.get(), 8 | 0x10 | 0x20 | 0x40);
    // A policy that insists on both is honoured.
    psp.gctx_create(GCTX).unwrap();
    psp.snp_start(GCTX, POLICY | (3 << 23)).unwrap();
    assert_eq!(psp.snp_activate(GCTX, 8), Err(Status::INVALID_ASID));
    psp.snp_activate(GCTX, 7).unwrap();
    psp.rmpupdate(GUEST, pre_guest(7, 0));
    psp.snp_update(GCTX, page::SECRETS, GUEST).unwrap();
    psp.snp_finish(GCTX).unwrap();
    let mut channel = Channel::new(&psp, GCTX, 7, GUEST, 0);
    let report = channel.report(&mut psp, [0; 64]).unwrap().report;
    assert_eq!(report.platform_info.get(), 0x18);
    // SEV-ES guests have the rest.
    let mut cmd = init(true);
    cmd.tmr_len = U32::new(2 << 20);
    psp.ok("INIT", &cmd).unwrap();
    psp.flush().unwrap();
    psp.rmpupdate(CMD, FIRMWARE);
    let handle = psp.launch_start(4).unwrap();
    assert_eq!(psp.activate(handle, 7), Err(Status::INVALID_ASID));
    psp.activate(handle, 8).unwrap();
    // It ends with SHUTDOWN.
    psp.plain("SHUTDOWN").unwrap();
    psp.snp_flush();
    psp.plain("SNP_SHUTDOWN").unwrap();
    assert!(psp.machine.look().keys.is_empty());
    assert_eq!(psp.rmp(GCTX), RECLAIM);
    psp.at("SNP_PLATFORM_STATUS", BUF).unwrap();
    let down: wire::PlatformStatus = psp.machine.read(BUF);
    assert_eq!((down.flags.get(), down.guest_count.get()), (8 | 0x20, 0));
}

#[test]
fn a_vlek_signs_unless_vcek_is_asked_for() {
    let mut psp = Psp::snp("chip=a");
    let mut channel = Channel::of_running(&mut psp, ASID);
    let mut load = wire::VlekLoad::new_zeroed();
    (load.length, load.address) = (U32::new(16), U64::new(BUF2));
    let hashstick = |chip, tcb| {
        let vlek = Vlek::of("provider").unwrap();
        let hashstick = vlek.wrap(&Chip::new(chip), tcb).unwrap();
        hashstick.as_bytes().to_vec()
    };
    let load_with = |psp: &mut Psp, bytes: &[u8]| {
        psp.machine.put(BUF2, bytes);
        psp.run("SNP_VLEK_LOAD", &load).0
    };
    let good = hashstick("a", &TCB);
    let foreign = load_with(&mut psp, &hashstick("b", &TCB));
    assert_eq!(foreign, Status::BAD_MEASUREMENT);
    let newer = load_with(&mut psp, &hashstick("a", &[4, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(newer, Status::INVALID_PARAM);
    let mut damaged = good.clone();
    damaged[100] ^= 1;
    assert_eq!(load_with(&mut psp, &damaged), Status::BAD_MEASUREMENT);
    assert_eq!(status(&mut psp).flags.get() & 4, 0);
    let mut ask = |psp: &mut Psp, key_select| -> wire::ReportResponse {
        let mut request = wire::ReportRequest::new_zeroed();
        request.key_select = U32::new(key_select);
        channel.ask(psp, 5, &request).unwrap()
    };
    let invalid_key = u32::from(Status::INVALID_KEY.0);
    assert_eq!(ask(&mut psp, 2).status.get(), invalid_key);
    assert_eq!(load_with(&mut psp, &good), Status::SUCCESS);
    assert_eq!(status(&mut psp).flags.get() & 4, 4);
    for (select, signer) in [(0, 1), (1, 0), (2, 1)] {
        let response = ask(&mut psp, select);
        assert_eq!(response.status.get(), 0);
        assert_eq!(response.report.key_info.get() >> 2, signer);
    }
    let invalid = u32::from(Status::INVALID_PARAM.0);
    assert_eq!(ask(&mut psp, 3).status.get(), invalid);
}
