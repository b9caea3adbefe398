// SPDX-License-Identifier: GPL-2.0-or-later
//! A firmware command fails: EIO, the status for the user, nothing held, and the next try
//! works. Also which commands each step issues.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use kvm_bindings::*;
use nix::errno::Errno::EBUSY;
use sev_vm::cmd::{Answer, issue, status};
use sev_vm::guest;
use sev_vm::host::{EncryptionLeaf, Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{GuestMemory, Mapping, PAGE};
use sev_vm::psp::LogEntry;
use sev_vm::vm::{Vm, addr_of};

const INJECTED: u32 = status::HWERROR_PLATFORM;
const AREA: usize = guest::PRIVATE as usize;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("start", start),
            ("update", update),
            ("launch_steps", launch_steps),
            ("debug", debug),
            ("recycling", recycling),
            ("commands_of_a_launch", commands_of_a_launch),
            ("commands_of_debug", commands_of_debug),
        ],
    )
}

/// The injected failure as the user sees it.
fn failed(status: u32) -> Answer {
    Answer::firmware(status)
}

/// LAUNCH_START makes a context and binds it; either can fail.
fn start(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for command in ["LAUNCH_START", "ACTIVATE"] {
        for status in [INJECTED, status::RESOURCE_LIMIT, status::INVALID_PLATFORM_STATE] {
            let vm = Vm::sev(&host)?;
            t.psp.fail(command, 1, status)?;
            let answer = vm.launch_start(&mut kvm_sev_launch_start::default());
            t.case(&format!("{command}_{status:x}"), answer, failed(status));
            t.contexts(0)?;
            let answer = vm.launch_start(&mut kvm_sev_launch_start::default());
            t.case(&format!("{command}_{status:x}_retry"), answer, Answer::OK);
            t.contexts(1)?;
        }
    }
    Ok(())
}

/// LAUNCH_UPDATE_DATA of pages that are not neighbours is several commands; any can fail.
fn update(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::started(&host, 0)?;
    let update = |uaddr: u64, len: usize| {
        let len = len as u32;
        vm.launch_update_data(&mut kvm_sev_launch_update_data { uaddr, len, ..Default::default() })
    };
    t.psp.fail("LAUNCH_UPDATE_DATA", 1, INJECTED)?;
    t.case("first", update(vm.memory.addr(), PAGE), failed(INJECTED));
    t.case("first_retry", update(vm.memory.addr(), PAGE), Answer::OK);
    // Of two pages in both orders, one order at least is not contiguous.
    let file = GuestMemory::new(2 * PAGE)?;
    file.fill(1);
    let (mut scattered, mut failures, mut retries) = (0, 0, 0);
    for swapped in [false, true] {
        let window = file.two_pages(swapped)?;
        let before = t.psp.counters()?.count("LAUNCH_UPDATE_DATA");
        let answer = update(window.addr(), 2 * PAGE);
        ensure!(answer.is_ok(), "LAUNCH_UPDATE_DATA: {answer}");
        if t.psp.counters()?.count("LAUNCH_UPDATE_DATA") - before == 1 {
            continue;
        }
        scattered += 1;
        t.psp.fail("LAUNCH_UPDATE_DATA", 2, INJECTED)?;
        failures += u32::from(update(window.addr(), 2 * PAGE) == failed(INJECTED));
        retries += u32::from(update(window.addr(), 2 * PAGE) == Answer::OK);
    }
    t.check("scattered", scattered >= 1);
    t.check("second_command_failed", failures == scattered);
    t.check("second_command_retry", retries == scattered);
    Ok(())
}

fn launch_steps(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::started(&host, 0)?;
    vm.load(guest::idle());
    vm.encrypt(guest::LAUNCHED)?;
    let mut status = kvm_sev_guest_status { handle: 1, policy: 2, state: 3 };
    t.psp.fail("GUEST_STATUS", 1, INJECTED)?;
    t.case("status", vm.guest_status(&mut status), failed(INJECTED));
    let untouched = (status.handle, status.policy, status.state) == (1, 2, 3);
    t.check("status_untouched", untouched);
    let mut blob = [7u8; 48];
    let uaddr = addr_of(&mut blob);
    let mut measure = kvm_sev_launch_measure { uaddr, len: 48, ..Default::default() };
    t.psp.fail("LAUNCH_MEASURE", 1, INJECTED)?;
    t.case("measure", vm.launch_measure(&mut measure), failed(INJECTED));
    t.check("measure_untouched", blob == [7; 48] && measure.len == 48);
    t.case("measure_retry", vm.launch_measure(&mut measure), Answer::OK);
    let mut text = [0u8; 64];
    let (text, guest) = (addr_of(&mut text), vm.memory.addr() + guest::SECRET);
    let mut secret = kvm_sev_launch_secret {
        hdr_uaddr: text,
        hdr_len: 52,
        guest_uaddr: guest,
        guest_len: 16,
        trans_uaddr: text,
        trans_len: 16,
        ..Default::default()
    };
    t.psp.fail("LAUNCH_SECRET", 1, INJECTED)?;
    t.case("secret", vm.launch_secret(&mut secret), failed(INJECTED));
    t.psp.fail("LAUNCH_FINISH", 1, INJECTED)?;
    t.case("finish", vm.launch_finish(), failed(INJECTED));
    t.case("finish_retry", vm.launch_finish(), Answer::OK);
    Ok(())
}

/// Unaligned DBG_ENCRYPT reads, changes and writes: either command can fail.
fn debug(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::started(&host, 0)?;
    vm.memory.write(AREA, &[0x33; PAGE]);
    vm.encrypt(AREA..AREA + PAGE)?;
    let area = vm.memory.addr() + AREA as u64;
    let buffer = Mapping::anonymous(PAGE)?;
    buffer.fill(0x44);
    for len in [16, 5] {
        t.psp.fail("DBG_DECRYPT", 1, INJECTED)?;
        let answer = vm.dbg_decrypt(area, buffer.addr(), len);
        t.case(&format!("decrypt_{len}"), answer, failed(INJECTED));
        t.check(&format!("decrypt_{len}_untouched"), buffer.read(0, PAGE) == [0x44; PAGE]);
        t.psp.fail("DBG_ENCRYPT", 1, INJECTED)?;
        let answer = vm.dbg_encrypt(buffer.addr(), area, len);
        t.case(&format!("encrypt_{len}"), answer, failed(INJECTED));
    }
    t.psp.fail("DBG_DECRYPT", 1, INJECTED)?;
    let answer = vm.dbg_encrypt(buffer.addr(), area + 3, 5);
    t.case("encrypt_5_reading", answer, failed(INJECTED));
    let out = Mapping::anonymous(PAGE)?;
    t.case("decrypt_all", vm.dbg_decrypt(area, out.addr(), PAGE as u32), Answer::OK);
    t.check("guest_untouched", out.read(0, PAGE) == [0x33; PAGE]);
    Ok(())
}

/// DF_FLUSH fails while ASIDs are recycled: no ASID is handed out, the next try may succeed.
fn recycling(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let init = |vm: &kvm_ioctls::VmFd| {
        let mut argument = kvm_sev_init::default();
        issue(vm, sev_cmd_id_KVM_SEV_INIT2, addr_of(&mut argument), host.sev_fd())
    };
    let mut vms = Vec::new();
    for _ in 0..EncryptionLeaf::read().sev_asids() {
        let vm = host.create_vm(VmType::Sev)?;
        ensure!(init(&vm).is_ok(), "an ASID for each");
        vms.push(vm);
    }
    vms.clear();
    // Every ASID is dirty now, unless a flush came in between; use up what is clean.
    let flushes = t.psp.counters()?.flushes();
    t.psp.fail_flush(INJECTED)?;
    let refusal = loop {
        let vm = host.create_vm(VmType::Sev)?;
        let answer = init(&vm);
        vms.push(vm);
        if !answer.is_ok() {
            break answer;
        }
    };
    t.case("flush_failed", refusal, Answer::refused(EBUSY));
    let asked = t.psp.counters()?.flushes() - flushes;
    t.value("flushes", asked, 1);
    let vm = vms.pop().expect("the one refused");
    t.case("retry", init(&vm), Answer::OK_KEPT);
    Ok(())
}

/// Commands by name, without those by which the PSP driver gets its buffers back from SNP
/// firmware.
fn names(log: &[LogEntry]) -> String {
    let commands = log.iter().map(|entry| entry.cmd.as_str());
    commands.filter(|name| *name != "SNP_PAGE_RECLAIM").collect::<Vec<_>>().join(",")
}

/// The firmware commands of a guest's life, in order.
fn commands_of_a_launch(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    // If ASIDs have to be flushed for another VM, that happens now.
    drop(Vm::sev(&host)?);
    let (vm, log) = t.psp.logged(|| Vm::sev(&host))?;
    t.value("init", names(&log), String::new());
    let (answer, log) =
        t.psp.logged(|| Ok(vm.launch_start(&mut kvm_sev_launch_start::default())))?;
    t.case("start_answer", answer, Answer::OK);
    t.value("start", names(&log), "LAUNCH_START,ACTIVATE".into());
    vm.load(guest::idle());
    let (_, log) = t.psp.logged(|| vm.encrypt(AREA..AREA + PAGE))?;
    t.value("update", names(&log), "LAUNCH_UPDATE_DATA".into());
    let (_, log) = t.psp.logged(|| vm.measurement())?;
    t.value("measure", names(&log), "LAUNCH_MEASURE".into());
    let (_, log) = t.psp.logged(|| Ok(vm.launch_finish()))?;
    t.value("finish", names(&log), "LAUNCH_FINISH".into());
    let (_, log) = t.psp.logged(|| vm.state())?;
    t.value("status", names(&log), "GUEST_STATUS".into());
    let (_, log) = t.psp.logged(|| {
        drop(vm);
        Ok(())
    })?;
    t.value("close", names(&log), "DEACTIVATE,DECOMMISSION".into());
    // A VM that was never started holds nothing in firmware.
    let vm = Vm::sev(&host)?;
    let (_, log) = t.psp.logged(|| {
        drop(vm);
        Ok(())
    })?;
    t.value("close_not_started", names(&log), String::new());
    Ok(())
}

fn commands_of_debug(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::started(&host, 0)?;
    vm.encrypt(AREA..AREA + 2 * PAGE)?;
    let area = vm.memory.addr() + AREA as u64;
    let buffer = Mapping::anonymous(2 * PAGE)?;
    for (name, src, len, expected) in [
        ("block", 0, 16, "DBG_DECRYPT"),
        ("unaligned", 1, 1, "DBG_DECRYPT"),
        ("across_a_page", PAGE - 16, 32, "DBG_DECRYPT,DBG_DECRYPT"),
    ] {
        let decrypt = || Ok(vm.dbg_decrypt(area + src as u64, buffer.addr() + src as u64, len));
        let (answer, log) = t.psp.logged(decrypt)?;
        t.case(&format!("decrypt_{name}_answer"), answer, Answer::OK);
        t.value(&format!("decrypt_{name}"), names(&log), expected.into());
    }
    for (name, dst, len, expected) in
        [("block", 0, 16, "DBG_ENCRYPT"), ("unaligned", 1, 1, "DBG_DECRYPT,DBG_ENCRYPT")]
    {
        let encrypt = || Ok(vm.dbg_encrypt(buffer.addr() + dst, area + dst, len));
        let (answer, log) = t.psp.logged(encrypt)?;
        t.case(&format!("encrypt_{name}_answer"), answer, Answer::OK);
        t.value(&format!("encrypt_{name}"), names(&log), expected.into());
    }
    Ok(())
}
