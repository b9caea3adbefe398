// SPDX-License-Identifier: GPL-2.0-or-later
//! SNP guests from GCTX_CREATE to DECOMMISSION.

mod common;

use common::snp::*;
use common::*;
use sevfw::snp::wire;
use sevfw::status::Status;
use zerocopy::little_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

const ASID: u32 = 5;
/// The guest physical address that Linux gives to VMSAs.
const VMSA_GPA: u64 = 0xffff_ffff_f000;

fn vmsa() -> Vec<u8> {
    let mut vmsa = vec![0x5a; 4096];
    vmsa[0x3b0..0x3b8].copy_from_slice(&1u64.to_le_bytes());
    vmsa
}

#[test]
fn pages_of_every_type_become_the_guests() {
    let mut psp = Psp::snp("");
    psp.snp_launching(GCTX, ASID, POLICY);
    let pages = [
        (page::NORMAL, 0x10_0000, vec![1; 4096]),
        (page::ZERO, 0x10_1000, vec![2; 4096]),
        (page::UNMEASURED, 0x10_2000, vec![3; 4096]),
        (page::CPUID, 0x10_3000, vec![0; 4096]),
        (page::VMSA, VMSA_GPA, vmsa()),
        (page::NORMAL, 0x7f_ffff_f000, vec![4; 4096]),
        (page::SECRETS, 0x10_4000, vec![5; 4096]),
    ];
    for (i, (kind, gpa, contents)) in pages.into_iter().enumerate() {
        let spa = GUEST + i as u64 * 4096;
        psp.machine.put(spa, &contents);
        psp.rmpupdate(spa, pre_guest(ASID.into(), gpa));
        psp.snp_update(GCTX, kind, spa).unwrap();
        let vmsa = if kind == page::VMSA { VMSA } else { 0 };
        let low = ASSIGNED | VALIDATED | vmsa | (u64::from(ASID) << 51) | gpa;
        assert_eq!(psp.rmp(spa), [low, 0xf]);
        let seen = psp.machine.get_guest(ASID, spa, 4096);
        match kind {
            page::ZERO => assert_eq!(seen, [0; 4096]),
            page::SECRETS => assert_eq!(seen[..4], [3, 0, 0, 0]),
            _ => assert_eq!(seen, contents),
        }
    }
    psp.snp_finish(GCTX).unwrap();
}

#[test]
fn a_guest_from_create_to_decommission() {
    let mut psp = Psp::snp("");
    psp.gctx_create(GCTX).unwrap();
    assert_eq!(psp.snp_state(GCTX).unwrap().state, 0);
    psp.snp_start(GCTX, POLICY).unwrap();
    psp.snp_activate(GCTX, ASID).unwrap();
    assert_eq!(psp.snp_state(GCTX).unwrap().state, 1);
    psp.snp_finish(GCTX).unwrap();
    let status = psp.snp_state(GCTX).unwrap();
    assert_eq!((status.state, status.asid.get()), (2, ASID));
    assert_eq!(status.policy.get(), POLICY);
    assert_eq!(psp.rmp(GCTX), [ASSIGNED | IMMUTABLE | VMSA, 0]);
    assert_eq!(
        psp.at("SNP_PAGE_RECLAIM", GCTX),
        Err(Status::INVALID_PAGE_STATE)
    );
    psp.at("SNP_DECOMMISSION", GCTX).unwrap();
    assert!(psp.machine.look().keys.is_empty());
    assert_eq!(psp.rmp(GCTX), FIRMWARE);
    assert_eq!(psp.at("SNP_DECOMMISSION", GCTX), Err(Status::INVALID_GUEST));
    psp.at("SNP_PAGE_RECLAIM", GCTX).unwrap();
    assert_eq!(psp.rmp(GCTX), RECLAIM);

    // The ASID is dirty until flushed.
    psp.gctx_create(GCTX).unwrap();
    psp.snp_start(GCTX, POLICY).unwrap();
    assert_eq!(psp.snp_activate(GCTX, ASID), Err(Status::DFFLUSH_REQUIRED));
    assert_eq!(psp.plain("SNP_DF_FLUSH"), Err(Status::WBINVD_REQUIRED));
    psp.snp_flush();
    psp.snp_activate(GCTX, ASID).unwrap();
}

#[test]
fn contexts_are_firmware_pages_only() {
    let mut psp = Psp::snp("");
    for (entry, status) in [
        ([0; 2], Status::INVALID_PAGE_STATE),
        (RECLAIM, Status::INVALID_PAGE_STATE),
        (pre_guest(5, 0), Status::INVALID_PAGE_STATE),
        ([FIRMWARE[0] | LARGE, 0], Status::INVALID_PAGE_SIZE),
    ] {
        psp.rmpupdate(GCTX, entry);
        assert_eq!(psp.at("SNP_GCTX_CREATE", GCTX), Err(status));
    }
    psp.rmpupdate(GCTX, FIRMWARE);
    assert_eq!(
        psp.at("SNP_GCTX_CREATE", GCTX + 64),
        Err(Status::INVALID_ADDRESS)
    );
    assert_eq!(
        psp.at("SNP_GCTX_CREATE", RAM as u64),
        Err(Status::INVALID_ADDRESS)
    );
    psp.gctx_create(GCTX).unwrap();
    assert_eq!(
        psp.at("SNP_GCTX_CREATE", GCTX),
        Err(Status::INVALID_PAGE_STATE)
    );
    // No context, or none at that address.
    for spa in [GCTX2, GUEST] {
        assert_eq!(psp.snp_start(spa, POLICY), Err(Status::INVALID_GUEST));
    }
    assert_eq!(
        psp.snp_start(GCTX + 64, POLICY),
        Err(Status::INVALID_ADDRESS)
    );
}

#[test]
fn every_command_has_its_guest_states() {
    let mut psp = Psp::snp("");
    psp.gctx_create(GCTX).unwrap();
    let bad = Err(Status::INVALID_GUEST_STATE);
    assert_eq!(psp.snp_activate(GCTX, ASID), bad);
    assert_eq!(psp.snp_update(GCTX, page::ZERO, GUEST), bad);
    assert_eq!(psp.snp_finish(GCTX), bad);
    psp.snp_start(GCTX, POLICY).unwrap();
    assert_eq!(psp.snp_start(GCTX, POLICY), bad);
    assert_eq!(
        psp.snp_update(GCTX, page::ZERO, GUEST),
        Err(Status::INACTIVE)
    );
    psp.snp_activate(GCTX, ASID).unwrap();
    assert_eq!(psp.snp_activate(GCTX, ASID + 1), Err(Status::ACTIVE));
    psp.snp_finish(GCTX).unwrap();
    assert_eq!(psp.snp_start(GCTX, POLICY), bad);
    assert_eq!(psp.snp_update(GCTX, page::ZERO, GUEST), bad);
    assert_eq!(psp.snp_finish(GCTX), bad);
}

#[test]
fn asids_are_those_of_es_guests_and_owned_once() {
    let mut psp = Psp::snp("");
    psp.snp_launching(GCTX, ASID, POLICY);
    psp.gctx_create(GCTX2).unwrap();
    psp.snp_start(GCTX2, POLICY).unwrap();
    for asid in [0, 100, 510, u32::MAX] {
        assert_eq!(psp.snp_activate(GCTX2, asid), Err(Status::INVALID_ASID));
    }
    assert_eq!(psp.snp_activate(GCTX2, ASID), Err(Status::ASID_OWNED));
    psp.snp_activate(GCTX2, 99).unwrap();
}

#[test]
fn launch_update_takes_prepared_pages_of_its_guest() {
    let mut psp = Psp::snp("");
    psp.snp_launching(GCTX, ASID, POLICY);
    let prepared = pre_guest(ASID.into(), 0x1000);
    let other = pre_guest(6, 0x1000);
    for (entry, status) in [
        ([0; 2], Status::INVALID_PAGE_STATE),
        (FIRMWARE, Status::INVALID_PAGE_STATE),
        ([prepared[0] & !IMMUTABLE, 0], Status::INVALID_PAGE_STATE),
        ([prepared[0] | VALIDATED, 0], Status::INVALID_PAGE_STATE),
        (other, Status::INVALID_PAGE_OWNER),
        ([prepared[0] | LARGE, 0], Status::INVALID_PAGE_SIZE),
    ] {
        psp.rmpupdate(GUEST, entry);
        assert_eq!(psp.snp_update(GCTX, page::NORMAL, GUEST), Err(status));
        assert_eq!(psp.rmp(GUEST), entry);
    }
    psp.rmpupdate(GUEST, prepared);
    for kind in [0, 7] {
        assert_eq!(
            psp.snp_update(GCTX, kind, GUEST),
            Err(Status::INVALID_PARAM)
        );
    }
    assert_eq!(
        psp.snp_update(GCTX, page::NORMAL, GUEST + 16),
        Err(Status::INVALID_ADDRESS)
    );
    let changes: [fn(&mut wire::LaunchUpdate); 6] = [
        |cmd| cmd.flags |= 1 << 4,
        |cmd| cmd.flags |= 1 << 5,
        |cmd| cmd.reserved1 += 1,
        |cmd| cmd.reserved2 = 1,
        |cmd| cmd.reserved3 += 1,
        |cmd| cmd.vmpl2_perms = 0x10,
    ];
    for change in changes {
        let mut cmd = update(GCTX, page::NORMAL, GUEST);
        change(&mut cmd);
        assert_eq!(psp.run("SNP_LAUNCH_UPDATE", &cmd).0, Status::INVALID_PARAM);
    }
    // A VMSA that is not one of SNP.
    psp.machine.put(GUEST, &[0; 4096]);
    assert_eq!(
        psp.snp_update(GCTX, page::VMSA, GUEST),
        Err(Status::INVALID_PARAM)
    );
    for kind in [page::VMSA, page::SECRETS, page::CPUID] {
        let mut cmd = update(GCTX, kind, GUEST);
        cmd.flags |= 1;
        assert_eq!(
            psp.run("SNP_LAUNCH_UPDATE", &cmd).0,
            Status::INVALID_PAGE_SIZE
        );
    }
    // What failed is reclaimable.
    assert_eq!(psp.rmp(GUEST), prepared);
    psp.at("SNP_PAGE_RECLAIM", GUEST).unwrap();
    assert_eq!(psp.rmp(GUEST), [prepared[0] & !IMMUTABLE, 0]);
}

#[test]
fn vmpl_permissions_go_into_the_rmp() {
    let mut psp = Psp::snp("");
    psp.snp_launching(GCTX, ASID, POLICY);
    psp.rmpupdate(GUEST, pre_guest(ASID.into(), 0));
    let mut cmd = update(GCTX, page::ZERO, GUEST);
    (cmd.vmpl1_perms, cmd.vmpl2_perms, cmd.vmpl3_perms) = (7, 3, 1);
    psp.ok("SNP_LAUNCH_UPDATE", &cmd).unwrap();
    assert_eq!(psp.rmp(GUEST)[1], 0x0103_070f);
}

#[test]
fn the_cpuid_page_is_corrected_in_the_clear() {
    let mut psp = Psp::snp("");
    psp.snp_launching(GCTX, ASID, POLICY);
    psp.rmpupdate(GUEST, pre_guest(ASID.into(), 0x2000));
    let mut table = wire::CpuidTable::new_zeroed();
    table.count = U32::new(1);
    let function = &mut table.functions[0];
    (function.eax_in, function.ecx) = (U32::new(1), U32::new(!0));
    psp.machine.put(GUEST, table.as_bytes());
    assert_eq!(
        psp.snp_update(GCTX, page::CPUID, GUEST),
        Err(Status::INVALID_PARAM)
    );
    let corrected: wire::CpuidTable = psp.machine.read(GUEST);
    assert_eq!(corrected.functions[0].ecx.get(), !(1 << 24));
    psp.snp_update(GCTX, page::CPUID, GUEST).unwrap();
    let seen = psp.machine.get_guest(ASID, GUEST, 3088);
    assert_eq!(seen, corrected.as_bytes());
}

#[test]
fn a_large_page_is_one_page() {
    let mut psp = Psp::snp("");
    psp.snp_launching(GCTX, ASID, POLICY);
    let prepared = pre_guest(ASID.into(), 0x20_0000);
    psp.rmpupdate_large(GUEST, [prepared[0], 0]);
    psp.machine.put(GUEST, &[7; 2 << 20]);
    // Part of it is not a page.
    for spa in [GUEST, GUEST + 4096] {
        assert_eq!(
            psp.snp_update(GCTX, page::NORMAL, spa),
            Err(Status::INVALID_PAGE_SIZE)
        );
    }
    let mut cmd = update(GCTX, page::NORMAL, GUEST);
    cmd.flags |= 1;
    psp.ok("SNP_LAUNCH_UPDATE", &cmd).unwrap();
    assert_eq!(psp.machine.get_guest(ASID, GUEST, 2 << 20), [7; 2 << 20]);
    assert_eq!(psp.rmp(GUEST)[0] & (LARGE | VALIDATED), LARGE | VALIDATED);
}
