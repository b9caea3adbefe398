// SPDX-License-Identifier: GPL-2.0-or-later
//! Platform states, lengths, and the persistent state.

mod common;

use common::*;
use sevfw::firmware::Event;
use sevfw::status::Status;
use sevfw::wire;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

const PLATFORM: &[&str] = &[
    "INIT",
    "SHUTDOWN",
    "PLATFORM_RESET",
    "PLATFORM_STATUS",
    "PEK_GEN",
    "PEK_CSR",
    "PEK_CERT_IMPORT",
    "PDH_CERT_EXPORT",
    "PDH_GEN",
    "DF_FLUSH",
    "DOWNLOAD_FIRMWARE",
    "GET_ID",
];

/// Which of the commands are refused for the platform's state.
fn refused(prepare: impl Fn(&mut Psp)) -> Vec<&'static str> {
    let refuses = |name: &&&str| {
        let mut psp = Psp::new("");
        prepare(&mut psp);
        psp.machine.put(CMD, &[0; 64]);
        psp.plain(name) == Err(Status::INVALID_PLATFORM_STATE)
    };
    PLATFORM.iter().filter(refuses).copied().collect()
}

/// The table of AMDESE/sev-tool `src/sevapi.h`, SEV_PLATFORM_STATE.
#[test]
fn platform_states_allow_what_the_manual_says() {
    assert_eq!(
        refused(|_| {}),
        [
            "SHUTDOWN",
            "PEK_GEN",
            "PEK_CSR",
            "PEK_CERT_IMPORT",
            "PDH_CERT_EXPORT",
            "PDH_GEN",
            "DF_FLUSH"
        ]
    );
    assert_eq!(
        refused(|psp| psp.init(false).unwrap()),
        ["INIT", "PLATFORM_RESET", "DOWNLOAD_FIRMWARE"]
    );
    assert_eq!(
        refused(|psp| {
            psp.init(false).unwrap();
            psp.launch_start(0).unwrap();
        }),
        [
            "INIT",
            "PLATFORM_RESET",
            "PEK_GEN",
            "PEK_CSR",
            "PEK_CERT_IMPORT",
            "DOWNLOAD_FIRMWARE"
        ]
    );
}

#[test]
fn status_follows_init_launch_and_shutdown() {
    let mut psp = Psp::new("");
    let seen = |psp: &mut Psp| {
        let status = psp.status();
        (status.state, status.flags.get(), status.guest_count.get())
    };
    assert_eq!(seen(&mut psp), (0, 0, 0));
    psp.init(true).unwrap();
    assert_eq!(seen(&mut psp), (1, 0x100, 0));
    let first = psp.launch_start(0).unwrap();
    psp.launch_start(0).unwrap();
    assert_eq!(seen(&mut psp), (2, 0x100, 2));
    psp.on("DECOMMISSION", first).unwrap();
    assert_eq!(seen(&mut psp), (2, 0x100, 1));
    psp.plain("SHUTDOWN").unwrap();
    assert_eq!(seen(&mut psp), (0, 0, 0));
    psp.init(false).unwrap();
    assert_eq!(seen(&mut psp), (1, 0, 0));
}

#[test]
fn init_checks_its_buffer_and_the_cores() {
    let mut psp = Psp::new("");
    let with = |change: fn(&mut wire::Init)| {
        let mut cmd = init(true);
        change(&mut cmd);
        cmd
    };
    for (cmd, status) in [
        (with(|c| c.flags = 3.into()), Status::INVALID_PARAM),
        (with(|c| c.reserved = 1.into()), Status::INVALID_PARAM),
        (with(|c| c.tmr_len = 0xfffff.into()), Status::INVALID_LENGTH),
        (
            with(|c| c.tmr_address = (TMR + 4096).into()),
            Status::INVALID_ADDRESS,
        ),
        (
            with(|c| c.tmr_address = (1 << 40).into()),
            Status::INVALID_ADDRESS,
        ),
    ] {
        assert_eq!(psp.run("INIT", &cmd).0, status);
    }
    psp.machine.state().msrs.insert((1, 0xc001_0010), 0);
    assert_eq!(psp.init(true), Err(Status::INVALID_CONFIG));
    psp.machine.state().msrs.remove(&(1, 0xc001_0010));
    assert_eq!(psp.init(true), Err(Status::HWERROR_PLATFORM));
    psp.machine.state().msrs.insert((1, 0xc001_0010), 1 << 23);
    // Without ES the region is ignored.
    assert_eq!(
        psp.run(
            "INIT",
            &with(|c| (c.flags, c.tmr_len) = (0.into(), 0.into()))
        )
        .0,
        Status::SUCCESS
    );
}

#[test]
fn the_c_bit_is_not_part_of_an_address() {
    let mut psp = Psp::new("c-bit=47");
    psp.machine.put(CMD, init(true).as_bytes());
    let buffer = CMD | (1 << 47);
    assert_eq!(psp.fw.command(1, buffer).status, Status::SUCCESS);
    assert_eq!(
        psp.fw.command(4, CMD | (1 << 51)).status,
        Status::INVALID_ADDRESS
    );
}

#[test]
fn unknown_commands_and_unreadable_buffers() {
    let mut psp = Psp::ready("");
    for id in [0, 0xf, 0x26, 0x70, 0x71, 0x8f, 0x96, 0x7ff, u32::MAX] {
        assert_eq!(
            psp.fw.command(id, CMD).status,
            Status::INVALID_COMMAND,
            "{id:#x}"
        );
    }
    for buffer in [RAM as u64 - 2, u64::MAX, u64::MAX - 2] {
        assert_eq!(psp.fw.command(4, buffer).status, Status::INVALID_ADDRESS);
        assert_eq!(psp.fw.command(0x30, buffer).status, Status::INVALID_ADDRESS);
    }
    assert_eq!(psp.plain("NOP"), Ok(()));
}

#[test]
fn id_is_the_chips_and_its_length_can_be_asked_for() {
    let id = |config| {
        let mut psp = Psp::new(config);
        let mut cmd = wire::Buffer::new_zeroed();
        let (status, answer) = psp.run("GET_ID", &cmd);
        assert_eq!((status, answer.len.get()), (Status::INVALID_LENGTH, 64));
        // The deprecated ioctl of Linux passes room for two sockets.
        (cmd.address, cmd.len) = (U64::new(BUF), U32::new(128));
        assert_eq!(psp.ok("GET_ID", &cmd).unwrap().len.get(), 64);
        psp.machine.get(BUF, 64)
    };
    assert_eq!(id("chip=a"), id("chip=a,seed=01"));
    assert_ne!(id("chip=a"), id("chip=b"));
}

#[test]
fn firmware_images_are_refused() {
    let mut psp = Psp::new("");
    assert_eq!(psp.plain("DOWNLOAD_FIRMWARE"), Err(Status::UNSUPPORTED));
    assert!(psp.machine.look().log[0].contains("cannot be replaced"));
}

#[test]
fn a_seed_makes_everything_repeatable() {
    let pdh = |config| print(&Psp::ready(config).export().0);
    assert_eq!(pdh("seed=0102"), pdh("seed=0102"));
    assert_ne!(pdh("seed=0102"), pdh("seed=0103"));
}

/// The identity outlives SHUTDOWN, a machine reset and the firmware object.
#[test]
fn the_state_file_keeps_the_identity() {
    let dir = std::env::temp_dir().join(format!("sevfw-state-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("nv");
    let config = format!("state={}", file.display());
    let chain = |psp: &mut Psp| {
        let (pdh, chain) = psp.export();
        (print(&pdh), print(&chain))
    };

    let mut psp = Psp::ready(&config);
    let first = chain(&mut psp);
    psp.fw.event(Event::Reset);
    psp.init(true).unwrap();
    assert_eq!(chain(&mut psp), first);
    assert_eq!(chain(&mut Psp::ready(&config)), first);

    psp.plain("PDH_GEN").unwrap();
    let second = chain(&mut psp);
    assert_ne!(second.0, first.0);
    assert_eq!(second.1, first.1);
    assert_eq!(chain(&mut Psp::ready(&config)), second);

    // Another chip cannot use it, and a damaged file is replaced after one failure.
    let mut other = Psp::new(&format!("{config},chip=other"));
    let saved = std::fs::read(&file).unwrap();
    assert_eq!(other.init(true), Err(Status::SECURE_DATA_INVALID));
    let mut damaged = saved.clone();
    damaged[3000] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let mut psp = Psp::new(&config);
    assert_eq!(psp.init(true), Err(Status::SECURE_DATA_INVALID));
    assert_eq!(psp.init(true), Ok(()));
    assert_ne!(chain(&mut psp).1, first.1);

    std::fs::write(&file, &saved).unwrap();
    assert_eq!(chain(&mut Psp::ready(&config)), second);
    let mut psp = Psp::new(&config);
    psp.plain("PLATFORM_RESET").unwrap();
    psp.init(true).unwrap();
    assert_ne!(chain(&mut psp).1, second.1);

    std::fs::remove_dir_all(&dir).unwrap();
    let mut psp = Psp::new(&config);
    assert_eq!(psp.init(true), Err(Status::HWERROR_PLATFORM));
    assert!(psp.machine.look().log[0].contains("cannot be written"));
}

#[test]
fn init_ex_keeps_the_identity_in_the_drivers_buffer() {
    // The buffer is all ones or, from a driver without a file, all zeros.
    let mut psp = Psp::new("");
    assert_eq!(psp.machine.get(NV, 32 * 1024), [0; 32 * 1024]);
    psp.ok("INIT_EX", &init_ex()).unwrap();
    let mut psp = Psp::new("");
    psp.machine.put(NV, &[0xff; 32 * 1024]);
    let start = |psp: &mut Psp| psp.ok("INIT_EX", &init_ex()).map(|_| ());
    let pek = |psp: &mut Psp| print(&psp.export().1[0]);
    start(&mut psp).unwrap();
    let first = pek(&mut psp);
    let saved = psp.machine.get(NV, 32 * 1024);
    assert_ne!(saved, [0xff; 32 * 1024]);

    // A new machine with the saved file.
    let mut next = Psp::new("");
    next.machine.put(NV, &saved);
    start(&mut next).unwrap();
    assert_eq!(pek(&mut next), first);
    next.plain("PEK_GEN").unwrap();
    assert_ne!(next.machine.get(NV, 32 * 1024), saved);
    let second = pek(&mut next);
    assert_ne!(second, first);
    next.plain("SHUTDOWN").unwrap();
    start(&mut next).unwrap();
    assert_eq!(pek(&mut next), second);

    // INIT has a store of its own.
    next.plain("SHUTDOWN").unwrap();
    next.init(true).unwrap();
    assert_ne!(pek(&mut next), second);
    next.plain("SHUTDOWN").unwrap();

    // Damage costs one attempt, as Linux expects.
    next.machine.put(NV + 100, &[0; 4]);
    assert_eq!(start(&mut next), Err(Status::SECURE_DATA_INVALID));
    start(&mut next).unwrap();
    assert_ne!(pek(&mut next), second);
}

#[test]
fn reset_blanks_the_drivers_buffer_only_while_it_is_that() {
    let start = |psp: &mut Psp| psp.ok("INIT_EX", &init_ex()).map(|_| ());
    let pek = |psp: &mut Psp| print(&psp.export().1[0]);
    let mut psp = Psp::new("");
    psp.machine.put(NV, &[0xff; 32 * 1024]);
    start(&mut psp).unwrap();
    let (first, saved) = (pek(&mut psp), psp.machine.get(NV, 32 * 1024));
    psp.plain("SHUTDOWN").unwrap();
    psp.plain("PLATFORM_RESET").unwrap();
    assert_eq!(psp.machine.get(NV, 32 * 1024), [0xff; 32 * 1024]);
    start(&mut psp).unwrap();
    assert_ne!(pek(&mut psp), first);

    // The pages were freed and used for something else: they are left alone, and what the file
    // still holds does not come back.
    psp.plain("SHUTDOWN").unwrap();
    psp.machine.put(NV, &[0x11; 64]);
    let foreign = psp.machine.get(NV, 32 * 1024);
    psp.plain("PLATFORM_RESET").unwrap();
    assert_eq!(psp.machine.get(NV, 32 * 1024), foreign);
    psp.machine.put(NV, &saved);
    start(&mut psp).unwrap();
    assert_ne!(pek(&mut psp), first);
}

#[test]
fn init_ex_checks_its_buffer() {
    let mut psp = Psp::new("");
    psp.machine.put(NV, &[0xff; 32 * 1024]);
    let with = |change: fn(&mut wire::InitEx)| {
        let mut cmd = init_ex();
        change(&mut cmd);
        cmd
    };
    for (cmd, status) in [
        (with(|c| c.length = 35.into()), Status::INVALID_LENGTH),
        (with(|c| c.nv_len = 4096.into()), Status::INVALID_LENGTH),
        (
            with(|c| c.nv_address = (NV + 1).into()),
            Status::INVALID_ADDRESS,
        ),
        (
            with(|c| c.nv_address = (RAM as u64 - 4096).into()),
            Status::INVALID_ADDRESS,
        ),
        (with(|c| c.reserved = 1.into()), Status::INVALID_PARAM),
    ] {
        assert_eq!(psp.run("INIT_EX", &cmd).0, status);
    }
    assert_eq!(psp.run("INIT_EX", &init_ex()).0, Status::SUCCESS);
}

#[test]
fn a_machine_reset_forgets_guests_and_keys() {
    let mut psp = Psp::ready("");
    psp.running(0, 100, 1);
    assert_eq!(psp.machine.look().keys.len(), 1);
    psp.fw.event(Event::Reset);
    assert_eq!(psp.machine.look().keys.len(), 0);
    assert_eq!(psp.status().state, 0);
    psp.init(true).unwrap();
    assert_eq!(psp.status().guest_count.get(), 0);
}
