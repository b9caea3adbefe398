// SPDX-License-Identifier: GPL-2.0-or-later
//! Counters, injected faults and the log, through the control protocol.

mod common;

use common::*;
use serde_json::{Value, json};
use sevfw::status::Status;

fn ask(psp: &mut Psp, request: &str) -> Value {
    let reply = psp.fw.control(request);
    serde_json::from_str(&reply).unwrap_or_else(|_| panic!("{request}: {reply}"))
}

#[test]
fn counters_count() {
    let mut psp = Psp::ready("");
    ask(&mut psp, "reset-counters");
    let first = psp.launch_start(0).unwrap();
    let second = psp.launch_start(0).unwrap();
    psp.activate(first, 5).unwrap_err();
    psp.activate(first, 6).unwrap_err();
    psp.activate(first, 100).unwrap();
    psp.activate(second, 101).unwrap();
    psp.on("DEACTIVATE", second).unwrap();
    psp.on("DECOMMISSION", second).unwrap();
    psp.fw.command(0x7f, 0);
    assert_eq!(
        ask(&mut psp, "counters"),
        json!({
            "commands": {
                "LAUNCH_START": 2, "ACTIVATE": 4, "DEACTIVATE": 1, "DECOMMISSION": 1,
                "UNKNOWN": 1
            },
            "failures": {"ACTIVATE/INVALID_ASID": 2, "UNKNOWN/INVALID_COMMAND": 1},
            "contexts": 1,
            "contexts_max": 2,
            "asids_bound": 1,
            "dirty_asids": 1
        })
    );
    ask(&mut psp, "reset-counters");
    assert_eq!(
        ask(&mut psp, "counters"),
        json!({
            "commands": {}, "failures": {}, "contexts": 1, "contexts_max": 1,
            "asids_bound": 1, "dirty_asids": 1
        })
    );
}

#[test]
fn a_fault_hits_the_nth_command_once_and_instead_of_it() {
    let mut psp = Psp::ready("");
    ask(&mut psp, "fault cmd=LAUNCH_START n=2 status=HWERROR_UNSAFE");
    psp.launch_start(0).unwrap();
    psp.plain("NOP").unwrap();
    assert_eq!(psp.launch_start(0), Err(Status::HWERROR_UNSAFE));
    assert_eq!(psp.status().guest_count.get(), 1);
    psp.launch_start(0).unwrap();

    ask(&mut psp, "fault cmd=any n=1 status=0x7b");
    assert_eq!(psp.plain("NOP"), Err(Status(0x7b)));
    psp.plain("NOP").unwrap();
    assert_eq!(ask(&mut psp, "counters")["failures"]["NOP/0x7b"], 1);

    // Linux's names work too.
    ask(
        &mut psp,
        "fault cmd=FACTORY_RESET n=1 status=RESOURCE_LIMIT",
    );
    assert_eq!(psp.plain("PLATFORM_RESET"), Err(Status::RESOURCE_LIMIT));

    ask(&mut psp, "fault cmd=NOP n=1 status=INACTIVE");
    ask(&mut psp, "clear-faults");
    psp.plain("NOP").unwrap();
}

#[test]
fn a_delay_lets_the_command_happen() {
    let mut psp = Psp::ready("");
    ask(&mut psp, "fault cmd=NOP n=2 delay=1500");
    let reply = |psp: &mut Psp| {
        let reply = psp.fw.command(0xe, 0);
        (reply.status, reply.delay_us)
    };
    assert_eq!(reply(&mut psp), (Status::SUCCESS, 0));
    assert_eq!(reply(&mut psp), (Status::SUCCESS, 1500));
    assert_eq!(reply(&mut psp), (Status::SUCCESS, 0));
    ask(&mut psp, "fault cmd=NOP n=1 delay=10");
    ask(&mut psp, "fault cmd=any n=1 delay=7");
    ask(&mut psp, "fault cmd=any n=1 status=ACTIVE");
    assert_eq!(reply(&mut psp), (Status::ACTIVE, 17));
}

#[test]
fn the_log_is_in_order() {
    let mut psp = Psp::new("");
    assert!(psp.fw.control("log").starts_with("error: "));
    psp.init(true).unwrap();
    ask(&mut psp, "log-start");
    psp.plain("DF_FLUSH").unwrap_err();
    psp.flush().unwrap();
    assert_eq!(
        ask(&mut psp, "log"),
        json!([
            {"cmd": "DF_FLUSH", "status": "WBINVD_REQUIRED"},
            {"cmd": "DF_FLUSH", "status": "SUCCESS"}
        ])
    );
    ask(&mut psp, "log-start");
    assert_eq!(ask(&mut psp, "log"), json!([]));
}

#[test]
fn bad_requests_say_what_is_wrong() {
    let mut psp = Psp::new("");
    for (request, part) in [
        ("", "unknown request"),
        ("count", "count"),
        ("counters now", "counters now"),
        ("fault cmd=FLY n=1 delay=1", "FLY"),
        ("fault cmd=NOP n=1", "want"),
    ] {
        let reply = psp.fw.control(request);
        assert!(
            reply.starts_with("error: ") && reply.contains(part),
            "{reply}"
        );
    }
    let arm = |psp: &mut Psp| psp.fw.control("fault cmd=NOP n=9 delay=1");
    let refused = (0..2000)
        .map(|_| arm(&mut psp))
        .find(|r| r.starts_with("error"));
    assert!(refused.unwrap().contains("clear-faults"));
}
