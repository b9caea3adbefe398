// SPDX-License-Identifier: GPL-2.0-or-later
//! SNP is shut down and initialised again: whose the pages of the IOMMUs are.

mod common;

use common::snp::*;
use common::*;
use sevfw::snp::wire;
use sevfw::status::Status;
use zerocopy::FromZeros;
use zerocopy::little_endian::{U32, U64};

/// An event log of 8 KiB and a completion-wait store.
const LOG: u64 = 0x50_0000;
const STORE: u64 = 0x51_0000;
const PAGES: [u64; 3] = [LOG, LOG + 0x1000, STORE];
const IOMMU: u32 = 1;
const X86: u32 = 2;

fn with_iommu(config: &str) -> Psp {
    let psp = Psp::new(config);
    psp.machine.state().iommu = vec![(LOG, 0x2000), (STORE, 0x1000)];
    psp
}

fn entries(psp: &Psp) -> Vec<[u64; 2]> {
    PAGES.iter().map(|page| psp.rmp(*page)).collect()
}

/// SNP_INIT_EX with the flags and a list of ranges.
fn init_ex(psp: &mut Psp, flags: u32, ranges: &[(u64, u32)]) -> Outcome {
    let mut list = vec![];
    list.extend((ranges.len() as u64).to_le_bytes());
    for (base, pages) in ranges {
        list.extend(base.to_le_bytes());
        list.extend(u64::from(*pages).to_le_bytes());
    }
    psp.machine.put(BUF, &list);
    let mut cmd = wire::InitEx::new_zeroed();
    (cmd.flags, cmd.list_address) = (U32::new(flags), U64::new(BUF));
    psp.ok("SNP_INIT_EX", &cmd).map(|_| ())
}

fn shutdown_ex(psp: &mut Psp, flags: u32) -> Outcome {
    let mut cmd = wire::ShutdownEx::new_zeroed();
    (cmd.length, cmd.flags) = (U32::new(8), U32::new(flags));
    psp.ok("SNP_SHUTDOWN_EX", &cmd).map(|_| ())
}

#[test]
fn what_an_iommu_writes_is_the_firmwares_until_shutdown() {
    let mut psp = with_iommu("");
    for _ in 0..3 {
        psp.plain("SNP_INIT").unwrap();
        psp.snp_flush();
        assert_eq!(entries(&psp), [FIRMWARE; 3]);
        // Its neighbours are not.
        assert_eq!(psp.rmp(LOG - 0x1000), [0; 2]);
        assert_eq!(psp.rmp(LOG + 0x2000), [0; 2]);
        shutdown_ex(&mut psp, IOMMU).unwrap();
        assert_eq!(entries(&psp), [RECLAIM; 3]);
    }
    assert!(!psp.machine.look().snp_disabled);
    // A host that has not taken them back: they are the firmware's again, with the same table.
    init_ex(&mut psp, 0, &[]).unwrap();
    assert_eq!(entries(&psp), [FIRMWARE; 3]);
}

#[test]
fn pages_stay_with_the_firmware_if_the_iommus_go_on() {
    for command in ["SNP_SHUTDOWN", "SNP_SHUTDOWN_EX"] {
        let mut psp = with_iommu("");
        psp.plain("SNP_INIT").unwrap();
        match command {
            "SNP_SHUTDOWN" => psp.plain(command).unwrap(),
            _ => shutdown_ex(&mut psp, 0).unwrap(),
        }
        assert_eq!(entries(&psp), [FIRMWARE; 3]);
        init_ex(&mut psp, 0, &[]).unwrap();
        assert_eq!(entries(&psp), [FIRMWARE; 3]);
    }
}

#[test]
fn a_page_that_the_host_took_back_stays_the_hosts() {
    let mut psp = with_iommu("");
    psp.plain("SNP_INIT").unwrap();
    psp.at("SNP_PAGE_RECLAIM", LOG).unwrap();
    psp.rmpupdate(LOG, [0; 2]);
    shutdown_ex(&mut psp, IOMMU).unwrap();
    assert_eq!(entries(&psp), [[0; 2], RECLAIM, RECLAIM]);
}

#[test]
fn a_refused_shutdown_gives_nothing() {
    let mut psp = with_iommu("");
    psp.plain("SNP_INIT").unwrap();
    psp.snp_flush();
    psp.gctx_create(GCTX).unwrap();
    psp.snp_start(GCTX, POLICY).unwrap();
    psp.snp_activate(GCTX, 5).unwrap();
    psp.at("SNP_DECOMMISSION", GCTX).unwrap();
    assert_eq!(shutdown_ex(&mut psp, IOMMU), Err(Status::DFFLUSH_REQUIRED));
    assert_eq!(entries(&psp), [FIRMWARE; 3]);
    psp.snp_flush();
    shutdown_ex(&mut psp, IOMMU).unwrap();
    assert_eq!(entries(&psp), [RECLAIM; 3]);
}

#[test]
fn what_cannot_be_an_iommus_is_refused_and_nothing_changed() {
    let guest = pre_guest(5, 0x3000);
    for (state, error) in [
        (guest, Status::INVALID_PAGE_STATE),
        (HV_FIXED, Status::INVALID_PAGE_STATE),
        ([FIRMWARE[0] | VMSA, 0], Status::INVALID_PAGE_STATE),
        ([FIRMWARE[0] | LARGE, 0], Status::INVALID_PAGE_SIZE),
    ] {
        let mut psp = with_iommu("");
        psp.plain("SNP_INIT").unwrap();
        shutdown_ex(&mut psp, IOMMU).unwrap();
        psp.rmpupdate(STORE, state);
        assert_eq!(init_ex(&mut psp, 0, &[]), Err(error));
        assert_eq!(entries(&psp), [RECLAIM, RECLAIM, state]);
        // A new table has no such pages.
        psp.plain("SNP_INIT").unwrap();
        assert_eq!(entries(&psp), [FIRMWARE; 3]);
    }
    for (region, error) in [
        ((LOG + 8, 0x1000), Status::INVALID_ADDRESS),
        ((RAM as u64, 0x1000), Status::INVALID_ADDRESS),
        ((u64::MAX - 0xfff, u64::MAX), Status::INVALID_ADDRESS),
    ] {
        let mut psp = with_iommu("");
        psp.machine.state().iommu.push(region);
        assert_eq!(psp.plain("SNP_INIT"), Err(error));
        assert_eq!(entries(&psp), [[0; 2]; 3]);
    }
    // A list that is refused.
    let mut psp = with_iommu("");
    assert_eq!(
        init_ex(&mut psp, 3, &[(8, 1)]),
        Err(Status::INVALID_ADDRESS)
    );
    assert_eq!(entries(&psp), [[0; 2]; 3]);
    // One with the same pages leaves them to the firmware.
    init_ex(&mut psp, 3, &[(LOG, 16)]).unwrap();
    assert_eq!(entries(&psp), [FIRMWARE; 3]);
    assert_eq!(psp.rmp(LOG + 0x2000), HV_FIXED);
}

#[test]
fn the_cores_forget_snp_if_they_can() {
    let mut psp = with_iommu("");
    psp.plain("SNP_INIT").unwrap();
    for flags in [IOMMU | X86, X86, 4, 1 << 31] {
        assert_eq!(shutdown_ex(&mut psp, flags), Err(Status::INVALID_PARAM));
    }

    let mut psp = with_iommu("x86-shutdown=1");
    let mut info = wire::FeatureInfo::new_zeroed();
    (info.length, info.address) = (U32::new(16), U64::new(BUF2));
    psp.ok("SNP_FEATURE_INFO", &info).unwrap();
    assert_eq!(psp.machine.get(BUF2 + 8, 4), [0xe, 0, 0, 0]);
    psp.plain("SNP_INIT").unwrap();
    for flags in [X86, IOMMU | X86 | 4] {
        assert_eq!(shutdown_ex(&mut psp, flags), Err(Status::INVALID_PARAM));
    }
    assert!(!psp.machine.look().snp_disabled);
    shutdown_ex(&mut psp, IOMMU | X86).unwrap();
    assert!(psp.machine.look().snp_disabled);
    // There is no table until another one is made.
    assert_eq!(psp.fw.control("rmp"), "{}");
    assert_eq!(init_ex(&mut psp, 0, &[]), Err(Status::RMP_INIT_REQUIRED));
    psp.plain("SNP_INIT").unwrap();
    assert_eq!(entries(&psp), [FIRMWARE; 3]);
}
