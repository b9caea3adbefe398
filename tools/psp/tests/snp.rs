// SPDX-License-Identifier: GPL-2.0-or-later
//! The platform part of SNP, in the order in which Linux brings it up.

mod common;

use common::snp::*;
use common::*;
use sevfw::snp::wire;
use sevfw::status::Status;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

fn init_ex(psp: &mut Psp, flags: u32) -> Outcome {
    let mut cmd = wire::InitEx::new_zeroed();
    (cmd.flags, cmd.list_address) = (U32::new(flags), U64::new(BUF));
    psp.ok("SNP_INIT_EX", &cmd).map(|_| ())
}

fn put_ranges(psp: &Psp, ranges: &[(u64, u32)]) {
    let mut list = vec![];
    list.extend((ranges.len() as u32).to_le_bytes());
    list.extend([0; 4]);
    for (base, pages) in ranges {
        list.extend(base.to_le_bytes());
        list.extend(pages.to_le_bytes());
        list.extend([0; 4]);
    }
    psp.machine.put(BUF, &list);
}

#[test]
fn linux_brings_it_up_and_down() {
    let mut psp = Psp::new("");
    // Before initialisation the outputs go to ordinary memory.
    psp.at("SNP_PLATFORM_STATUS", BUF2 + 8).unwrap();
    let status: wire::PlatformStatus = psp.machine.read(BUF2 + 8);
    assert_eq!((status.api_major, status.api_minor), (1, 55));
    assert_eq!((status.state, status.is_rmp_initialized), (0, 0));
    assert_eq!(status.flags.get() & 8, 8);
    let mut info = wire::FeatureInfo::new_zeroed();
    (info.length, info.address) = (U32::new(16), U64::new(BUF2));
    psp.machine.put(BUF2, &[0xff; 16]);
    psp.ok("SNP_FEATURE_INFO", &info).unwrap();
    let features = [[0; 8].as_slice(), &[0xc, 0, 0, 0], &[0; 4]].concat();
    assert_eq!(psp.machine.get(BUF2, 16), features);

    put_ranges(&psp, &[(0x9f000, 2), (RAM as u64 - 4096, 0xffff_ffff)]);
    psp.wbinvd();
    init_ex(&mut psp, 3).unwrap();
    assert_eq!(psp.rmp(0x9f000), HV_FIXED);
    assert_eq!(psp.rmp(0xa0000), HV_FIXED);
    assert_eq!(psp.rmp(RAM as u64 - 4096), HV_FIXED);
    assert_eq!(psp.rmp(0xa1000), [0; 2]);
    assert_eq!(psp.plain("SNP_DF_FLUSH"), Err(Status::WBINVD_REQUIRED));
    psp.wbinvd();
    psp.plain("SNP_DF_FLUSH").unwrap();
    assert_eq!(init_ex(&mut psp, 3), Err(Status::INVALID_PLATFORM_STATE));

    // INIT now wants a region of 2 MiB.
    assert_eq!(psp.init(true), Err(Status::INVALID_LENGTH));
    let mut init = init(true);
    init.tmr_len = U32::new(2 << 20);
    psp.ok("INIT", &init).unwrap();
    psp.flush().unwrap();

    // Outputs go to firmware pages, which are reclaimable then.
    assert_eq!(
        psp.at("SNP_PLATFORM_STATUS", BUF2),
        Err(Status::INVALID_PAGE_STATE)
    );
    psp.rmpupdate(BUF2, FIRMWARE);
    psp.at("SNP_PLATFORM_STATUS", BUF2).unwrap();
    let status: wire::PlatformStatus = psp.machine.read(BUF2);
    // Initialised, and checked for aliases.
    assert_eq!((status.state, status.is_rmp_initialized), (1, 3));
    assert_eq!(psp.rmp(BUF2), RECLAIM);
    psp.at("SNP_PAGE_RECLAIM", BUF2).unwrap();

    psp.plain("SHUTDOWN").unwrap();
    let mut down = wire::ShutdownEx::new_zeroed();
    (down.length, down.flags) = (U32::new(8), U32::new(3));
    assert_eq!(psp.run("SNP_SHUTDOWN_EX", &down).0, Status::INVALID_PARAM);
    down.flags = U32::new(1);
    psp.ok("SNP_SHUTDOWN_EX", &down).unwrap();
    assert_eq!(
        psp.run("SNP_SHUTDOWN_EX", &down).0,
        Status::INVALID_PLATFORM_STATE
    );
    // The RMP is still there.
    init_ex(&mut psp, 0).unwrap();
}

#[test]
fn shutdown_wants_used_asids_flushed() {
    let mut psp = Psp::new("");
    psp.plain("SNP_INIT").unwrap();
    let mut init = init(true);
    init.tmr_len = U32::new(2 << 20);
    psp.ok("INIT", &init).unwrap();
    assert_eq!(psp.plain("SNP_SHUTDOWN"), Err(Status::DFFLUSH_REQUIRED));
    psp.flush().unwrap();
    psp.rmpupdate(CMD, FIRMWARE);
    let handle = psp.launch_start(0).unwrap();
    assert_eq!(
        psp.plain("SNP_SHUTDOWN"),
        Err(Status::INVALID_PLATFORM_STATE)
    );
    psp.activate(handle, 100).unwrap();
    psp.on("DEACTIVATE", handle).unwrap();
    psp.on("DECOMMISSION", handle).unwrap();
    assert_eq!(psp.plain("SNP_SHUTDOWN"), Err(Status::DFFLUSH_REQUIRED));
    psp.flush().unwrap();
    psp.plain("SNP_SHUTDOWN").unwrap();
}

#[test]
fn the_cores_must_be_prepared_alike() {
    for (core, msr, value) in [
        (1, 0xc001_0010, 0b011 << 23),
        (1, 0xc001_0010, 0b101 << 23),
        (0, 0xc001_0117, 0x1000),
        (1, 0xc001_0132, 0x10_0000),
        (0, 0xc001_0133, 0),
    ] {
        let mut psp = Psp::new("");
        psp.machine.state().msrs.insert((core, msr), value);
        assert_eq!(
            psp.plain("SNP_INIT"),
            Err(Status::INVALID_CONFIG),
            "{msr:#x}"
        );
    }
}

#[test]
fn init_ex_checks_flags_and_ranges() {
    let mut psp = Psp::new("");
    assert_eq!(init_ex(&mut psp, 0), Err(Status::RMP_INIT_REQUIRED));
    for flags in [9, 17, 33, 1 << 31] {
        assert_eq!(init_ex(&mut psp, flags), Err(Status::INVALID_PARAM));
    }
    put_ranges(&psp, &[(0x9f008, 1)]);
    assert_eq!(init_ex(&mut psp, 3), Err(Status::INVALID_ADDRESS));
    psp.machine.put(BUF, &256u32.to_le_bytes());
    assert_eq!(init_ex(&mut psp, 3), Err(Status::INVALID_PARAM));
    let mut cmd = wire::InitEx::new_zeroed();
    cmd.as_mut_bytes()[63] = 1;
    assert_eq!(psp.run("SNP_INIT_EX", &cmd).0, Status::INVALID_PARAM);
    put_ranges(&psp, &[]);
    init_ex(&mut psp, 3).unwrap();
}

#[test]
fn reclaim_is_for_pages_of_the_firmware() {
    let mut psp = Psp::new("");
    assert_eq!(
        psp.at("SNP_PAGE_RECLAIM", BUF),
        Err(Status::INVALID_PLATFORM_STATE)
    );
    psp.plain("SNP_INIT").unwrap();
    let prepared = pre_guest(5, 0x3000);
    let guest = [prepared[0] & !IMMUTABLE, 0];
    let valid = [guest[0] | VALIDATED, 0];
    let swap = [prepared[0] | VALIDATED, 0];
    let bad = Err(Status::INVALID_PAGE_STATE);
    for (state, result, after) in [
        ([0; 2], bad, [0; 2]),
        (HV_FIXED, bad, HV_FIXED),
        (guest, bad, guest),
        (valid, bad, valid),
        ([FIRMWARE[0] | VMSA, 0], bad, [FIRMWARE[0] | VMSA, 0]),
        (prepared, Ok(()), guest),
        (swap, Ok(()), valid),
        ([FIRMWARE[0] | 0x1000, 0], Ok(()), RECLAIM),
        (FIRMWARE, Ok(()), RECLAIM),
        (RECLAIM, Ok(()), RECLAIM),
    ] {
        psp.rmpupdate(BUF, state);
        assert_eq!(psp.at("SNP_PAGE_RECLAIM", BUF), result);
        assert_eq!(psp.rmp(BUF), after);
    }
    let large = [FIRMWARE[0] | LARGE, 0];
    psp.rmpupdate(BUF, large);
    assert_eq!(
        psp.at("SNP_PAGE_RECLAIM", BUF),
        Err(Status::INVALID_PAGE_SIZE)
    );
    psp.rmpupdate(BUF, RECLAIM);
    assert_eq!(psp.rmp(BUF), RECLAIM);
    assert_eq!(
        psp.at("SNP_PAGE_RECLAIM", BUF + 16),
        Err(Status::INVALID_ADDRESS)
    );
    assert_eq!(
        psp.at("SNP_PAGE_RECLAIM", RAM as u64),
        Err(Status::INVALID_ADDRESS)
    );
    assert_eq!(
        psp.at("SNP_PAGE_RECLAIM", GUEST | 1),
        Err(Status::INVALID_PAGE_SIZE)
    );
    psp.rmpupdate(GUEST, [FIRMWARE[0] | 2, 0]);
    psp.at("SNP_PAGE_RECLAIM", GUEST | 1).unwrap();
}

#[test]
fn a_firmware_without_snp_does_not_know_the_commands() {
    let mut psp = Psp::new("snp=0");
    for id in 0x81..0xe0 {
        assert_eq!(psp.fw.command(id, CMD).status, Status::INVALID_COMMAND);
    }
}
