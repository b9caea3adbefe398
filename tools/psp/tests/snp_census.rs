// SPDX-License-Identifier: GPL-2.0-or-later
//! The control request that walks the RMP.

mod common;

use common::snp::*;
use common::*;
use sevfw::status::Status;
use zerocopy::IntoBytes;

const ASID: u32 = 5;

#[test]
fn pages_are_counted_by_state() {
    let mut psp = Psp::new("");
    assert_eq!(psp.fw.control("rmp"), "{}", "SNP is not initialised");
    let mut psp = Psp::snp("");
    let before = psp.fw.control("rmp");
    assert!(
        !before.contains("Guest") && !before.contains("Context"),
        "{before}"
    );
    psp.snp_launching(GCTX, ASID, POLICY);
    psp.rmpupdate(GUEST, pre_guest(ASID.into(), 0x10_0000));
    let launching = psp.fw.control("rmp");
    assert!(launching.contains(r#""Context":1"#), "{launching}");
    assert!(launching.contains(r#""PreGuest":1"#), "{launching}");
    psp.snp_update(GCTX, page::NORMAL, GUEST).unwrap();
    let loaded = psp.fw.control("rmp");
    assert!(loaded.contains(r#""GuestValid":1"#), "{loaded}");
    assert!(!loaded.contains("PreGuest"), "{loaded}");
}

#[test]
fn pages_are_counted_after_shutdown_too() {
    let mut psp = Psp::snp("");
    psp.rmpupdate(GUEST, HV_FIXED);
    psp.rmpupdate(BUF2, RECLAIM);
    psp.plain("SNP_SHUTDOWN").unwrap();
    assert_eq!(psp.fw.control("rmp"), r#"{"HvFixed":1,"Reclaim":1}"#);
}

/// RMP_CFG of a table in segments.
fn rmp_cfg(shift: u64) -> u64 {
    (shift << 8) | 1
}

/// The table of segments follows the bookkeeping; every core has it.
fn segmented(psp: &Psp, entries: [u64; 2], cfg: u64) {
    const BASE: u64 = 0x70_0000;
    let mut state = psp.machine.state();
    for core in 0..CORES {
        state.msrs.insert((core, 0xc001_0132), BASE);
        state.msrs.insert((core, 0xc001_0133), 0);
        state.msrs.insert((core, 0xc001_0136), cfg);
    }
    drop(state);
    psp.machine.put(BASE + (16 << 10), entries.as_bytes());
}

#[test]
fn pages_are_counted_by_segment() {
    let mut psp = Psp::new("");
    segmented(&psp, [0x80_0000 | 1, 0x90_0000 | 1], rmp_cfg(30));
    psp.plain("SNP_INIT").unwrap();
    psp.rmpupdate(GUEST, HV_FIXED);
    assert_eq!(psp.fw.control("rmp"), r#"{"HvFixed":1}"#);
    // The machine has no memory in the second segment.
    segmented(&psp, [0, 0x90_0000 | 1], rmp_cfg(30));
    assert_eq!(psp.fw.control("rmp"), "{}");
}

#[test]
fn segments_must_be_the_same_on_every_core() {
    for (core, cfg) in [(0, rmp_cfg(30)), (1, rmp_cfg(31)), (1, 0)] {
        let mut psp = Psp::new("");
        segmented(&psp, [1, 0], rmp_cfg(30));
        psp.machine.state().msrs.insert((core, 0xc001_0136), cfg);
        let expected = match core {
            0 => Ok(()),
            _ => Err(Status::INVALID_CONFIG),
        };
        assert_eq!(psp.plain("SNP_INIT"), expected);
    }
    for cfg in [0, 1, rmp_cfg(29), rmp_cfg(41)] {
        let mut psp = Psp::new("");
        segmented(&psp, [1, 0], cfg);
        assert_eq!(psp.plain("SNP_INIT"), Err(Status::INVALID_CONFIG));
    }
}
