// SPDX-License-Identifier: GPL-2.0-or-later
//! LAUNCH_SECRET: packets made by the crate `sev`.

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use kvm_bindings::*;
use nix::errno::Errno::{EFAULT, EINVAL, ENOMEM};
use sev_vm::bad::{Addresses, KERNEL};
use sev_vm::cmd::{Answer, status};
use sev_vm::guest::{self, Program};
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::tenant::{self, Owner, Packet, Verdict, VerifiedSession};
use sev_vm::vm::Vm;

const SECRET: &[u8; 32] = b"the guest owner's disk key, 32 B";
const BLOB_MAX: u32 = 0x4000;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("injected", injected),
            ("read_by_guest", read_by_guest),
            ("tampered", tampered),
            ("lengths", lengths),
            ("pointers", pointers),
            ("not_contiguous", not_contiguous),
            ("states", states),
        ],
    )
}

/// A measured guest and the session of its owner, who has accepted the measurement.
fn verified(host: &Host, program: Program) -> Result<(Vm, VerifiedSession)> {
    let owner = Owner::prepare(0)?;
    let vm = Vm::sev(host)?;
    let answer = owner.launch_start(&vm, 0);
    ensure!(answer.is_ok(), "LAUNCH_START with a session: {answer}");
    vm.load(program);
    let launched = vm.memory.read(0, guest::LAUNCHED.end);
    vm.encrypt(guest::LAUNCHED)?;
    match owner.verify(tenant::build()?, &[&launched], &vm.measurement()?)? {
        Verdict::Genuine(session) => Ok((vm, session)),
        Verdict::Tampered => bail!("the owner rejects the measurement"),
    }
}

/// LAUNCH_SECRET of `packet` with a changed argument.
fn inject_changed(vm: &Vm, packet: &Packet, change: &dyn Fn(&mut kvm_sev_launch_secret)) -> Answer {
    let mut argument = packet.argument(secret_page(vm));
    change(&mut argument);
    vm.launch_secret(&mut argument)
}

fn secret_page(vm: &Vm) -> u64 {
    vm.memory.addr() + guest::SECRET
}

fn injected(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (vm, session) = verified(&host, guest::idle())?;
    let packet = Packet::new(&session, SECRET)?;
    t.case("inject", vm.launch_secret(&mut packet.argument(secret_page(&vm))), Answer::OK);
    let seen = vm.memory.read(guest::SECRET as usize, SECRET.len());
    t.check("host_sees_ciphertext", seen != SECRET);
    let decrypted = Mapping::anonymous(PAGE)?;
    t.case("decrypt", vm.dbg_decrypt(secret_page(&vm), decrypted.addr(), 32), Answer::OK);
    t.check("is_the_secret", decrypted.read(0, 32) == SECRET);
    // A second one, in the middle of a page and over the page's end.
    let packet = Packet::new(&session, SECRET)?;
    let middle = secret_page(&vm) + 64;
    t.case("second", vm.launch_secret(&mut packet.argument(middle)), Answer::OK);
    t.case("second_decrypt", vm.dbg_decrypt(middle, decrypted.addr(), 32), Answer::OK);
    t.check("second_is_the_secret", decrypted.read(0, 32) == SECRET);
    Ok(())
}

fn read_by_guest(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut vm, session) = verified(&host, guest::copy())?;
    let packet = Packet::new(&session, SECRET)?;
    t.case("inject", vm.launch_secret(&mut packet.argument(secret_page(&vm))), Answer::OK);
    t.case("finish", vm.launch_finish(), Answer::OK);
    vm.add_vcpu(&host, [guest::SHARED.start, guest::SECRET, SECRET.len() as u64, 0])?;
    vm.vcpus[0].run_to_halt()?;
    let copied = vm.memory.read(guest::SHARED.start as usize, SECRET.len());
    t.check("guest_reads_it", copied == SECRET);
    Ok(())
}

/// The MAC covers flags, IV, lengths, data and measurement.
fn tampered(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (vm, session) = verified(&host, guest::idle())?;
    // Header: flags (4), IV (16), MAC (32).
    for (name, byte) in [("iv_first", 4), ("iv_last", 19), ("mac_first", 20), ("mac_last", 51)] {
        let mut packet = Packet::new(&session, SECRET)?;
        packet.header_mut()[byte] ^= 1;
        let answer = vm.launch_secret(&mut packet.argument(secret_page(&vm)));
        t.case(name, answer, Answer::firmware(status::BAD_MEASUREMENT));
    }
    let mut packet = Packet::new(&session, SECRET)?;
    packet.ciphertext_mut()[31] ^= 1;
    let answer = vm.launch_secret(&mut packet.argument(secret_page(&vm)));
    t.case("data", answer, Answer::firmware(status::BAD_MEASUREMENT));
    let (_other, foreign) = verified(&host, guest::copy())?;
    let packet = Packet::new(&foreign, SECRET)?;
    let answer = vm.launch_secret(&mut packet.argument(secret_page(&vm)));
    t.case("other_session", answer, Answer::firmware(status::BAD_MEASUREMENT));
    t.check(
        "memory_untouched",
        vm.memory.read(guest::SECRET as usize, PAGE).iter().all(|b| *b == 0),
    );
    Ok(())
}

fn lengths(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (vm, session) = verified(&host, guest::idle())?;
    let packet = Packet::new(&session, SECRET)?;
    let with = |change: &dyn Fn(&mut _)| inject_changed(&vm, &packet, change);
    let refused = Answer::refused(EINVAL);
    t.case("guest_0", with(&|a| a.guest_len = 0), refused);
    for len in [0, BLOB_MAX + 1, 1 << 31, u32::MAX] {
        t.case(&format!("header_{len:x}"), with(&|a| a.hdr_len = len), refused);
        t.case(&format!("data_{len:x}"), with(&|a| a.trans_len = len), refused);
    }
    t.firmware_case("header_51", with(&|a| a.hdr_len = 51));
    t.firmware_case("guest_16_of_32", with(&|a| a.guest_len = 16));
    t.firmware_case("guest_1", with(&|a| a.guest_len = 1));
    t.firmware_case("data_16_of_32", with(&|a| a.trans_len = 16));
    t.case("then_good", with(&|_| ()), Answer::OK);
    Ok(())
}

fn pointers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (vm, session) = verified(&host, guest::idle())?;
    let packet = Packet::new(&session, SECRET)?;
    let with = |change: &dyn Fn(&mut _)| inject_changed(&vm, &packet, change);
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_launch_secret>()) {
        let answer = vm.command(sev_cmd_id_KVM_SEV_LAUNCH_SECRET, address);
        t.case(&format!("argument_{name}"), answer, Answer::refused(EFAULT));
    }
    t.case("guest_null", with(&|a| a.guest_uaddr = 0), Answer::refused(ENOMEM));
    t.case("header_null", with(&|a| a.hdr_uaddr = 0), Answer::refused(EINVAL));
    t.case("data_null", with(&|a| a.trans_uaddr = 0), Answer::refused(EINVAL));
    for (name, address) in [("unmapped", addresses.unmapped()), ("kernel", KERNEL)] {
        let guest = with(&|a| a.guest_uaddr = address);
        t.case(&format!("guest_{name}"), guest, Answer::refused(ENOMEM));
        let header = with(&|a| a.hdr_uaddr = address);
        t.case(&format!("header_{name}"), header, Answer::refused(EFAULT));
        let data = with(&|a| a.trans_uaddr = address);
        t.case(&format!("data_{name}"), data, Answer::refused(EFAULT));
    }
    t.case("guest_wraps", with(&|a| a.guest_uaddr = u64::MAX - 15), Answer::refused(EINVAL));
    t.case("then_good", with(&|_| ()), Answer::OK);
    Ok(())
}

/// Firmware takes one range of physical memory. Two pages in one order or the other are not
/// neighbours: at least one of the two orders has to be refused.
fn not_contiguous(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (vm, session) = verified(&host, guest::idle())?;
    let file = sev_vm::mem::GuestMemory::new(2 * PAGE)?;
    file.fill(0);
    let packet = Packet::new(&session, SECRET)?;
    let mut refused = 0;
    for swapped in [false, true] {
        let window = file.two_pages(swapped)?;
        let answer = vm.launch_secret(&mut packet.argument(window.addr() + PAGE as u64 - 16));
        refused += u32::from(answer == Answer::refused(EINVAL));
        t.check(
            if swapped { "second_answer" } else { "first_answer" },
            answer == Answer::OK || answer == Answer::refused(EINVAL),
        );
    }
    t.check("one_refused", refused >= 1);
    Ok(())
}

fn states(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (vm, session) = verified(&host, guest::idle())?;
    let packet = Packet::new(&session, SECRET)?;
    let wrong = Answer::firmware(status::INVALID_GUEST_STATE);
    let launching = Vm::started(&host, 0)?;
    let mut argument = packet.argument(secret_page(&launching));
    t.case("launching", launching.launch_secret(&mut argument), wrong);
    t.case("finish", vm.launch_finish(), Answer::OK);
    t.case("running", vm.launch_secret(&mut packet.argument(secret_page(&vm))), wrong);
    Ok(())
}
