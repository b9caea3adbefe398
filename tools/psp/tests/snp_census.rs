// SPDX-License-Identifier: GPL-2.0-or-later
//! The control request that walks the RMP.

mod common;

use common::snp::*;
use common::*;

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
