// SPDX-License-Identifier: GPL-2.0-or-later
//! RECEIVE_*, the order of all commands of a transfer, and a guest that runs on elsewhere.
//!
//! With `--role certificates|send|receive FILE` one end of a transfer between two machines
//! (`migrate`).

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::*;
use nix::errno::Errno::{EBADF, EFAULT, EINVAL, ENOMEM, ENOTTY};
use serde::{Deserialize, Serialize};
use sev_vm::bad::{Addresses, KERNEL};
use sev_vm::cmd::{Answer, status};
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::other;
use sev_vm::state::context_rows;
use sev_vm::transfer::{
    ARGUMENTS, Certificates, HEADER_LEN, Packet, SESSION_LEN, VALUE, send_argument, sender,
};
use sev_vm::vm::{Vm, guest_state, policy};

const SHARED: usize = guest::SHARED.start as usize;
const PRIVATE: u64 = guest::PRIVATE;
const BLOB_MAX: u32 = 0x4000;
const WRONG_STATE: Answer = Answer::firmware(status::INVALID_GUEST_STATE);

fn main() -> ExitCode {
    if let Some((role, arguments)) = other::role() {
        return other::exit_code(end(&role, &arguments));
    }
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("order", order),
            ("states", states),
            ("receive_start", receive_start),
            ("receive_data", receive_data),
            ("runs_on_elsewhere", runs_on_elsewhere),
        ],
    )
}

/// SEND_* and RECEIVE_* of a guest in every state.
fn order(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let to = Certificates::own()?;
    let started = Vm::started(&host, 0)?;
    let mut running = sender(&host)?;
    running.vcpus[0].run_to_halt()?;
    let sent = sender(&host)?;
    sent.send_to(&to)?;
    t.case("finish", sent.send_finish(), Answer::OK);
    let packet = Packet { header: vec![0; 52], data: vec![0; PAGE] };
    for (name, vm) in [("launching", &started), ("running", &running), ("sent", &sent)] {
        t.case(&format!("{name}_send_finish"), vm.send_finish(), WRONG_STATE);
        t.case(&format!("{name}_send_cancel"), vm.send_cancel(), WRONG_STATE);
        t.case(&format!("{name}_receive_finish"), vm.receive_finish(), WRONG_STATE);
        t.case(&format!("{name}_receive_data"), vm.receive_page(0, &packet), WRONG_STATE);
    }
    let mut session = [0; SESSION_LEN as usize];
    let answer = sent.send_start(&mut send_argument(&to, &mut session));
    t.case("sent_again", answer, WRONG_STATE);
    // Cancelled, the guest runs on here, and can be sent once more.
    running.send_to(&to)?;
    running.send_page(PRIVATE as usize)?;
    t.case("cancel", running.send_cancel(), Answer::OK);
    running.memory.write_u64(SHARED, 0);
    running.vcpus[0].run_to_halt()?;
    t.check("runs_on", running.memory.read_u64(SHARED) == VALUE);
    running.send_to(&to)?;
    let plain = Vm::bare(&host, VmType::Default)?;
    let fresh = Vm::sev(&host)?;
    for (name, vm, errno) in [("plain", &plain, ENOTTY), ("fresh", &fresh, EBADF)] {
        t.case(&format!("{name}_send_finish"), vm.send_finish(), Answer::refused(errno));
        t.case(&format!("{name}_send_cancel"), vm.send_cancel(), Answer::refused(errno));
        t.case(&format!("{name}_receive_finish"), vm.receive_finish(), Answer::refused(errno));
        let errno = if name == "plain" { EINVAL } else { errno };
        t.case(&format!("{name}_receive"), vm.receive_page(0, &packet), Answer::refused(errno));
    }
    Ok(())
}

/// Our module's table in debugfs follows a guest from its launch to its end elsewhere.
fn states(_: &mut Test) -> Result<()> {
    let host = Host::open()?;
    if !host.is_ours() {
        return Ok(());
    }
    let expect = |expected: &[&str]| -> Result<()> {
        let seen: Vec<_> = context_rows()?.into_iter().map(|row| row.state).collect();
        ensure!(seen == expected, "{seen:?} instead of {expected:?}");
        Ok(())
    };
    let own = Certificates::own()?;
    let from = Vm::sev(&host)?;
    expect(&["initialised"])?;
    ensure!(from.launch_start(&mut Default::default()).is_ok(), "LAUNCH_START");
    expect(&["launching"])?;
    from.load(guest::idle());
    from.encrypt(guest::LAUNCHED)?;
    from.measurement()?;
    expect(&["secret"])?;
    ensure!(from.launch_finish().is_ok(), "LAUNCH_FINISH");
    expect(&["running"])?;
    from.send_to(&own)?;
    expect(&["sending"])?;
    ensure!(from.send_cancel().is_ok(), "SEND_CANCEL");
    expect(&["running"])?;
    let (bits, session) = from.send_to(&own)?;
    let packet = from.send_page(0)?;
    ensure!(from.send_finish().is_ok(), "SEND_FINISH");
    expect(&["sent"])?;
    drop(from);
    let to = Vm::sev(&host)?;
    ensure!(to.receive_from(&own.pdh, &session, bits).is_ok(), "RECEIVE_START");
    expect(&["receiving"])?;
    ensure!(to.receive_page(0, &packet).is_ok(), "RECEIVE_UPDATE_DATA");
    ensure!(to.receive_finish().is_ok(), "RECEIVE_FINISH");
    expect(&["running"])
}

fn receive_start(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let own = Certificates::own()?;
    let from = sender(&host)?;
    let (bits, session) = from.send_to(&own)?;
    let (pdh, vm) = (&own.pdh, Vm::sev(&host)?);
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_receive_start>()) {
        let answer = vm.command(sev_cmd_id_KVM_SEV_RECEIVE_START, address);
        t.case(&format!("argument_{name}"), answer, Answer::refused(EFAULT));
    }
    let good = kvm_sev_receive_start {
        policy: bits,
        pdh_uaddr: pdh.as_ptr() as u64,
        pdh_len: pdh.len() as u32,
        session_uaddr: session.as_ptr() as u64,
        session_len: SESSION_LEN,
        ..Default::default()
    };
    type Change = fn(&mut kvm_sev_receive_start);
    for (name, change, errno) in [
        ("no_pdh", (|a| a.pdh_uaddr = 0) as Change, EINVAL),
        ("no_pdh_len", |a| a.pdh_len = 0, EINVAL),
        ("no_session", |a| a.session_uaddr = 0, EINVAL),
        ("no_session_len", |a| a.session_len = 0, EINVAL),
        ("long_pdh", |a| a.pdh_len = BLOB_MAX + 1, EINVAL),
        ("long_session", |a| a.session_len = u32::MAX, EINVAL),
        ("pdh_kernel", |a| a.pdh_uaddr = KERNEL, EFAULT),
        ("session_kernel", |a| a.session_uaddr = KERNEL, EFAULT),
    ] {
        let mut argument = good;
        change(&mut argument);
        t.case(name, vm.receive_start(&mut argument), Answer::refused(errno));
    }
    for (name, change) in [
        ("other_policy", (|a| a.policy = policy::NO_DEBUG) as Change),
        ("unknown_handle", |a| a.handle = 0xdead),
        ("short_session", |a| a.session_len -= 1),
        ("short_pdh", |a| a.pdh_len -= 1),
        ("session_as_pdh", |a| a.pdh_uaddr = a.session_uaddr),
    ] {
        let mut argument = good;
        change(&mut argument);
        t.firmware_case(name, vm.receive_start(&mut argument));
        t.contexts(1)?;
    }
    let plain = Vm::bare(&host, VmType::Default)?;
    t.case("plain", plain.receive_start(&mut good.clone()), Answer::refused(ENOTTY));
    let answer = sev_vm::cmd::issue(
        &vm.fd,
        sev_cmd_id_KVM_SEV_RECEIVE_START,
        sev_vm::vm::addr_of(&mut good.clone()),
        -1,
    );
    t.case("no_descriptor", answer, Answer::refused(EBADF));
    let mut argument = good;
    t.case("good", vm.receive_start(&mut argument), Answer::OK);
    t.check("handle", argument.handle != 0);
    t.contexts(2)?;
    t.case("twice", vm.receive_start(&mut good.clone()), Answer::firmware(status::ASID_OWNED));
    t.contexts(2)?;
    Ok(())
}

/// Packets are only taken as they were sent.
fn receive_data(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let own = Certificates::own()?;
    let from = sender(&host)?;
    let (bits, session) = from.send_to(&own)?;
    let packet = from.send_page(PRIVATE as usize)?;
    let vm = Vm::sev(&host)?;
    t.case("start", vm.receive_from(&own.pdh, &session, bits), Answer::OK);
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_receive_update_data>()) {
        let answer = vm.command(sev_cmd_id_KVM_SEV_RECEIVE_UPDATE_DATA, address);
        t.case(&format!("argument_{name}"), answer, Answer::refused(EFAULT));
    }
    let good = kvm_sev_receive_update_data {
        hdr_uaddr: packet.header.as_ptr() as u64,
        hdr_len: HEADER_LEN,
        guest_uaddr: vm.memory.addr() + PRIVATE,
        guest_len: PAGE as u32,
        trans_uaddr: packet.data.as_ptr() as u64,
        trans_len: PAGE as u32,
        ..Default::default()
    };
    type Change = fn(&mut kvm_sev_receive_update_data);
    for (name, change, errno) in [
        ("no_header", (|a| a.hdr_uaddr = 0) as Change, EINVAL),
        ("no_header_len", |a| a.hdr_len = 0, EINVAL),
        ("no_data", |a| a.trans_uaddr = 0, EINVAL),
        ("no_data_len", |a| a.trans_len = 0, EINVAL),
        ("no_guest", |a| a.guest_uaddr = 0, EINVAL),
        ("no_guest_len", |a| a.guest_len = 0, EINVAL),
        ("over_a_page", |a| a.guest_len += 16, EINVAL),
        ("longest", |a| a.guest_len = u32::MAX, EINVAL),
        ("two_pages", |a| a.guest_uaddr += 16, EINVAL),
        ("long_header", |a| a.hdr_len = BLOB_MAX + 1, EINVAL),
        ("long_data", |a| a.trans_len = u32::MAX, EINVAL),
        ("header_kernel", |a| a.hdr_uaddr = KERNEL, EFAULT),
        ("data_kernel", |a| a.trans_uaddr = KERNEL, EFAULT),
    ] {
        let mut argument = good;
        change(&mut argument);
        t.case(name, vm.receive_update_data(&mut argument), Answer::refused(errno));
    }
    let mut argument = kvm_sev_receive_update_data { guest_uaddr: addresses.unmapped(), ..good };
    let answer = vm.receive_update_data(&mut argument);
    t.case("unmapped_guest", answer, Answer::refused(ENOMEM));
    let forged = Answer::firmware(status::BAD_MEASUREMENT);
    for (name, part, byte) in [("data", 1, 100), ("iv", 0, 5), ("mac", 0, 40)] {
        let mut packet = packet.clone();
        [&mut packet.header, &mut packet.data][part][byte] ^= 1;
        t.case(&format!("forged_{name}"), vm.receive_page(PRIVATE as usize, &packet), forged);
    }
    t.case("good", vm.receive_page(PRIVATE as usize, &packet), Answer::OK);
    t.case("finish", vm.receive_finish(), Answer::OK);
    t.case("late", vm.receive_page(PRIVATE as usize, &packet), WRONG_STATE);
    t.case("finish_twice", vm.receive_finish(), WRONG_STATE);
    t.value("running", vm.state()?, guest_state::RUNNING);
    Ok(())
}

/// Encrypted pages that the guest has.
fn pages() -> impl Iterator<Item = usize> {
    guest::LAUNCHED.step_by(PAGE).chain([PRIVATE as usize])
}

/// The whole way: every page as a packet, the registers by the VMM, and the guest goes on.
fn runs_on_elsewhere(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let own = Certificates::own()?;
    let mut from = sender(&host)?;
    from.vcpus[0].run_to_halt()?;
    let to = Vm::sev(&host)?;
    let (bits, session) = from.send_to(&own)?;
    t.case("start", to.receive_from(&own.pdh, &session, bits), Answer::OK);
    let clear = [Mapping::anonymous(PAGE)?, Mapping::anonymous(PAGE)?];
    let (mut equal, mut same_ciphertext) = (0, 0);
    for at in pages() {
        let packet = from.send_page(at)?;
        let answer = to.receive_page(at, &packet);
        ensure!(answer.is_ok(), "RECEIVE_UPDATE_DATA at {at:#x}: {answer}");
        for (vm, clear) in [&from, &to].into_iter().zip(&clear) {
            let answer = vm.dbg_decrypt(vm.memory.addr() + at as u64, clear.addr(), PAGE as u32);
            ensure!(answer.is_ok(), "DBG_DECRYPT at {at:#x}: {answer}");
        }
        equal += usize::from(clear[0].read(0, PAGE) == clear[1].read(0, PAGE));
        same_ciphertext += usize::from(from.memory.read(at, PAGE) == to.memory.read(at, PAGE));
    }
    t.value("equal_pages", equal, pages().count());
    t.value("same_ciphertext", same_ciphertext, 0);
    t.case("send_finish", from.send_finish(), Answer::OK);
    t.case("receive_finish", to.receive_finish(), Answer::OK);
    let registers = registers(&mut from)?;
    drop(from);
    t.check("runs_on", runs_on(&host, to, &registers)?);
    Ok(())
}

/// The registers that a VMM has to take along.
fn registers(vm: &mut Vm) -> Result<Registers> {
    let vcpu = vm.vcpus[0].fd();
    Ok(Registers { rip: vcpu.get_regs()?.rip, regs: [vcpu.get_regs()?.rdi, vcpu.get_regs()?.rsi] })
}

/// Whether the guest goes on in `vm` with its private word.
fn runs_on(host: &Host, mut vm: Vm, from: &Registers) -> Result<bool> {
    vm.add_vcpu(host, ARGUMENTS)?;
    vm.vcpus[0].enter_at(from.rip, 0, [from.regs[0], from.regs[1], 0, 0])?;
    vm.vcpus[0].run_to_halt()?;
    Ok(vm.memory.read_u64(SHARED) == VALUE)
}

#[derive(Serialize, Deserialize)]
struct Registers {
    rip: u64,
    regs: [u64; 2],
}

/// All that goes from one machine to the other.
#[derive(Serialize, Deserialize)]
struct Parcel {
    pdh: Vec<u8>,
    policy: u32,
    session: Vec<u8>,
    packets: Vec<(usize, Packet)>,
    registers: Registers,
}

/// One end of a transfer between two machines; the first argument is the file to write or read.
fn end(role: &str, arguments: &[String]) -> Result<()> {
    let host = Host::open()?;
    let file = arguments.first().context("which file?")?;
    match role {
        "certificates" => fs::write(file, serde_json::to_vec(&Certificates::own()?)?)?,
        "send" => {
            let to: Certificates = serde_json::from_slice(&fs::read(&arguments[1])?)?;
            let mut vm = sender(&host)?;
            vm.vcpus[0].run_to_halt()?;
            let registers = registers(&mut vm)?;
            let (policy, session) = vm.send_to(&to)?;
            let packets = pages().map(|at| Ok((at, vm.send_page(at)?)));
            let packets = packets.collect::<Result<_>>()?;
            ensure!(vm.send_finish().is_ok(), "SEND_FINISH");
            let pdh = Certificates::own()?.pdh;
            fs::write(
                file,
                serde_json::to_vec(&Parcel { pdh, policy, session, packets, registers })?,
            )?;
        }
        "receive" => {
            let parcel: Parcel = serde_json::from_slice(&fs::read(file)?)?;
            let vm = Vm::sev(&host)?;
            let answer = vm.receive_from(&parcel.pdh, &parcel.session, parcel.policy);
            ensure!(answer.is_ok(), "RECEIVE_START: {answer}");
            for (at, packet) in &parcel.packets {
                let answer = vm.receive_page(*at, packet);
                ensure!(answer.is_ok(), "RECEIVE_UPDATE_DATA at {at:#x}: {answer}");
            }
            ensure!(vm.receive_finish().is_ok(), "RECEIVE_FINISH");
            ensure!(runs_on(&host, vm, &parcel.registers)?, "the guest has lost its memory");
            println!("the guest runs on");
        }
        _ => bail!("no role {role}"),
    }
    Ok(())
}
