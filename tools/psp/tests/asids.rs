// SPDX-License-Identifier: GPL-2.0-or-later
//! Handles, contexts and ASIDs.

mod common;

use common::*;
use sevfw::firmware::Event;
use sevfw::status::Status;
use sevfw::wire;
use zerocopy::FromZeros;
use zerocopy::little_endian::{U32, U64};

#[test]
fn activation_checks_guest_range_and_owner() {
    let mut psp = Psp::ready("min-asid=100,asids=509");
    let sev = psp.launch_start(0).unwrap();
    let es = psp.launch_start(4).unwrap();
    for asid in [0, 1, 99, 510, u32::MAX] {
        assert_eq!(psp.activate(sev, asid), Err(Status::INVALID_ASID), "{asid}");
    }
    for asid in [0, 100, 509, 510] {
        assert_eq!(psp.activate(es, asid), Err(Status::INVALID_ASID), "{asid}");
    }
    assert_eq!(psp.activate(es + 1, 100), Err(Status::INVALID_GUEST));
    assert_eq!(psp.activate(0, 100), Err(Status::INVALID_GUEST));
    psp.activate(sev, 509).unwrap();
    psp.activate(es, 99).unwrap();
    assert_eq!(psp.activate(sev, 508), Err(Status::ACTIVE));
    let other = psp.launch_start(0).unwrap();
    assert_eq!(psp.activate(other, 509), Err(Status::ASID_OWNED));
    assert_eq!(psp.guest_status(sev).unwrap().asid.get(), 509);
    assert_eq!(psp.guest_status(es).unwrap().policy.get(), 4);
    assert_eq!(psp.guest_status(other).unwrap().asid.get(), 0);
    let keys: Vec<u32> = psp.machine.look().keys.keys().copied().collect();
    assert_eq!(keys, [99, 509]);
}

#[test]
fn a_guest_is_deactivated_before_it_is_decommissioned() {
    let mut psp = Psp::ready("");
    let handle = psp.launch_start(0).unwrap();
    assert_eq!(psp.on("DEACTIVATE", handle), Err(Status::INACTIVE));
    psp.activate(handle, 100).unwrap();
    assert_eq!(psp.on("DECOMMISSION", handle), Err(Status::ACTIVE));
    psp.on("DEACTIVATE", handle).unwrap();
    assert!(psp.machine.look().keys.is_empty());
    psp.on("DECOMMISSION", handle).unwrap();
    let other = psp.launch_start(0).unwrap();
    assert_ne!(other, handle);
    for name in ["DECOMMISSION", "DEACTIVATE", "LAUNCH_FINISH", "SEND_CANCEL"] {
        assert_eq!(psp.on(name, handle), Err(Status::INVALID_GUEST), "{name}");
    }
    assert_eq!(psp.guest_status(handle).err(), Some(Status::INVALID_GUEST));
}

#[test]
fn reuse_of_an_asid_takes_wbinvd_everywhere_and_df_flush() {
    let mut psp = Psp::new("");
    psp.init(true).unwrap();
    let handle = psp.launch_start(0).unwrap();
    // After INIT nothing is flushed.
    assert_eq!(psp.activate(handle, 100), Err(Status::DFFLUSH_REQUIRED));
    assert_eq!(psp.plain("DF_FLUSH"), Err(Status::WBINVD_REQUIRED));
    psp.flush().unwrap();
    psp.activate(handle, 100).unwrap();
    psp.plain("DF_FLUSH").unwrap();

    psp.wbinvd();
    psp.on("DEACTIVATE", handle).unwrap();
    assert_eq!(psp.activate(handle, 100), Err(Status::DFFLUSH_REQUIRED));
    assert_eq!(psp.plain("DF_FLUSH"), Err(Status::WBINVD_REQUIRED));
    psp.fw.event(Event::Wbinvd(1));
    assert_eq!(psp.plain("DF_FLUSH"), Err(Status::WBINVD_REQUIRED));
    // Another ASID is not affected.
    psp.activate(handle, 101).unwrap();
    psp.on("DEACTIVATE", handle).unwrap();
    psp.fw.event(Event::Wbinvd(0));
    assert_eq!(psp.plain("DF_FLUSH"), Err(Status::WBINVD_REQUIRED));
    psp.fw.event(Event::Wbinvd(1));
    psp.plain("DF_FLUSH").unwrap();
    psp.activate(handle, 100).unwrap();
}

#[test]
fn a_core_that_was_taken_offline_owes_no_wbinvd() {
    let mut psp = Psp::ready("");
    let handle = psp.launch_start(0).unwrap();
    psp.activate(handle, 100).unwrap();
    psp.machine.state().parked = vec![1];
    psp.on("DEACTIVATE", handle).unwrap();
    assert_eq!(psp.plain("DF_FLUSH"), Err(Status::WBINVD_REQUIRED));
    psp.fw.event(Event::Wbinvd(0));
    psp.plain("DF_FLUSH").unwrap();

    // It comes back, and from then on it does.
    psp.activate(handle, 100).unwrap();
    psp.machine.state().parked.clear();
    psp.on("DEACTIVATE", handle).unwrap();
    psp.fw.event(Event::Wbinvd(0));
    assert_eq!(psp.plain("DF_FLUSH"), Err(Status::WBINVD_REQUIRED));
    // To halt now is too late.
    psp.machine.state().parked = vec![1];
    assert_eq!(psp.plain("DF_FLUSH"), Err(Status::WBINVD_REQUIRED));
}

#[test]
fn contexts_are_bounded_and_come_back() {
    let mut psp = Psp::ready("slots=3");
    let handles: Vec<u32> = (0..3).map(|_| psp.launch_start(0).unwrap()).collect();
    assert_eq!(psp.launch_start(0), Err(Status::RESOURCE_LIMIT));
    psp.on("DECOMMISSION", handles[1]).unwrap();
    psp.launch_start(0).unwrap();
    assert_eq!(psp.launch_start(0), Err(Status::RESOURCE_LIMIT));
    assert_eq!(psp.status().guest_count.get(), 3);
}

#[test]
fn a_failing_memory_controller_leaves_guest_and_asid_apart() {
    let mut psp = Psp::ready("");
    let handle = psp.launch_start(0).unwrap();
    psp.machine.state().broken_keys = true;
    assert_eq!(psp.activate(handle, 100), Err(Status::HWERROR_PLATFORM));
    assert_eq!(psp.guest_status(handle).unwrap().asid.get(), 0);
    psp.machine.state().broken_keys = false;
    psp.flush().unwrap();
    psp.activate(handle, 100).unwrap();
    psp.machine.state().broken_keys = true;
    assert_eq!(psp.on("DEACTIVATE", handle), Err(Status::HWERROR_PLATFORM));
    assert_eq!(psp.guest_status(handle).unwrap().asid.get(), 100);
}

#[test]
fn activate_ex_checks_its_list() {
    let mut psp = Psp::ready("");
    let handle = psp.launch_start(0).unwrap();
    let mut cmd = wire::ActivateEx::new_zeroed();
    cmd.length = U32::new(24);
    (cmd.handle, cmd.asid) = (U32::new(handle), U32::new(100));
    (cmd.num_ids, cmd.ids_address) = (U32::new(2), U64::new(BUF));
    let with = |change: fn(&mut wire::ActivateEx)| {
        let mut cmd = cmd;
        change(&mut cmd);
        cmd
    };
    for (bad, status) in [
        (with(|c| c.length = 23.into()), Status::INVALID_LENGTH),
        (with(|c| c.num_ids = 0.into()), Status::INVALID_PARAM),
        (with(|c| c.num_ids = 3.into()), Status::INVALID_PARAM),
        (
            with(|c| c.ids_address = u64::MAX.into()),
            Status::INVALID_ADDRESS,
        ),
        (with(|c| c.asid = 0.into()), Status::INVALID_ASID),
    ] {
        assert_eq!(psp.run("ACTIVATE_EX", &bad).0, status);
    }
    psp.ok("ACTIVATE_EX", &cmd).unwrap();
    assert_eq!(psp.guest_status(handle).unwrap().asid.get(), 100);
}

/// The demonstration's pattern: more guests, one after the other, than there are ASIDs.
#[test]
fn six_hundred_guests_share_410_asids() {
    let mut psp = Psp::ready("");
    let mut flushes = 0;
    for guest in 0..600 {
        let asid = 100 + guest % 410;
        let handle = psp.launch_start(0).unwrap();
        if psp.activate(handle, asid) == Err(Status::DFFLUSH_REQUIRED) {
            psp.flush().unwrap();
            flushes += 1;
            psp.activate(handle, asid).unwrap();
        }
        psp.on("DEACTIVATE", handle).unwrap();
        psp.on("DECOMMISSION", handle).unwrap();
    }
    assert_eq!(flushes, 1);
    assert_eq!(psp.status().state, 1);
}
