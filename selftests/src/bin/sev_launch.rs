// SPDX-License-Identifier: GPL-2.0-or-later
//! LAUNCH_START, LAUNCH_UPDATE_DATA, LAUNCH_FINISH and GUEST_STATUS.

use std::process::ExitCode;

use anyhow::{Context, Result};
use kvm_bindings::*;
use nix::errno::Errno::{EFAULT, EINVAL, ENOMEM};
use sev_vm::bad::{self, Addresses, KERNEL, NON_CANONICAL};
use sev_vm::cmd::{Answer, status};
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::state::{pinned_pages, total_pages};
use sev_vm::vm::{Vm, guest_state, policy};

/// Longest blob that the PSP driver copies from the user.
const BLOB_MAX: u32 = 0x4000;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("start", start),
            ("start_pointers", start_pointers),
            ("start_blobs", start_blobs),
            ("start_twice", start_twice),
            ("start_unwritable_result", start_unwritable_result),
            ("start_policy", start_policy),
            ("start_shared_key", start_shared_key),
            ("update", update),
            ("update_pointers", update_pointers),
            ("update_lengths", update_lengths),
            ("update_alignment", update_alignment),
            ("states", states),
            ("status_pointers", status_pointers),
        ],
    )
}

fn start(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let mut argument = kvm_sev_launch_start { pad0: 7, pad1: 9, ..Default::default() };
    t.case("start", vm.launch_start(&mut argument), Answer::OK);
    t.check("handle_given", argument.handle != 0);
    let mut status = kvm_sev_guest_status::default();
    t.case("status", vm.guest_status(&mut status), Answer::OK);
    t.value("status_policy", status.policy, 0);
    t.value("status_state", status.state, guest_state::LAUNCHING);
    t.check("status_handle", status.handle == argument.handle);
    t.contexts(1)?;
    Ok(())
}

fn start_pointers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_launch_start>()) {
        let answer = vm.command(sev_cmd_id_KVM_SEV_LAUNCH_START, address);
        t.case(name, answer, Answer::refused(EFAULT));
    }
    t.case("then_good", vm.launch_start(&mut kvm_sev_launch_start::default()), Answer::OK);
    Ok(())
}

/// The owner's certificate and session: lengths and addresses that KVM checks, content that
/// firmware checks.
fn start_blobs(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let addresses = Addresses::new()?;
    let blob = Mapping::anonymous(2 * BLOB_MAX as usize)?;
    let good = blob.addr();
    let cases = [
        ("len_0", good, 0, EINVAL),
        ("len_over_limit", good, BLOB_MAX + 1, EINVAL),
        ("len_2g", good, 1 << 31, EINVAL),
        ("len_max", good, u32::MAX, EINVAL),
        ("unmapped", addresses.unmapped(), 16, EFAULT),
        ("tail_unmapped", addresses.unmapped() - 8, 16, EFAULT),
        ("kernel", KERNEL, 16, EFAULT),
        ("non_canonical", NON_CANONICAL, 16, EFAULT),
        ("wraps", u64::MAX - 7, 16, EFAULT),
    ];
    for (name, uaddr, len, errno) in cases {
        let mut dh = kvm_sev_launch_start { dh_uaddr: uaddr, dh_len: len, ..Default::default() };
        t.case(&format!("dh_{name}"), vm.launch_start(&mut dh), Answer::refused(errno));
        let mut session =
            kvm_sev_launch_start { session_uaddr: uaddr, session_len: len, ..Default::default() };
        t.case(&format!("session_{name}"), vm.launch_start(&mut session), Answer::refused(errno));
    }
    let mut zeroes = kvm_sev_launch_start {
        dh_uaddr: good,
        dh_len: BLOB_MAX,
        session_uaddr: good,
        session_len: BLOB_MAX,
        ..Default::default()
    };
    t.firmware_case("content_zero", vm.launch_start(&mut zeroes));
    // Without an address the length is not looked at.
    let mut no_address =
        kvm_sev_launch_start { dh_len: 5, session_len: u32::MAX, ..Default::default() };
    t.case("len_without_address", vm.launch_start(&mut no_address), Answer::OK);
    Ok(())
}

/// A second LAUNCH_START gets a context, but the ASID is taken: the new context has to go.
fn start_twice(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::started(&host, policy::NO_SEND)?;
    let answer = vm.launch_start(&mut kvm_sev_launch_start::default());
    t.case("second", answer, Answer::firmware(status::ASID_OWNED));
    t.contexts(1)?;
    let mut status = kvm_sev_guest_status::default();
    t.case("status", vm.guest_status(&mut status), Answer::OK);
    t.value("status_policy", status.policy, policy::NO_SEND);
    vm.load(guest::idle());
    vm.encrypt(guest::LAUNCHED)?;
    vm.measurement()?;
    t.case("finish", vm.launch_finish(), Answer::OK);
    Ok(())
}

/// The handle cannot be written back: the guest is undone, the ASID is not clean any more.
fn start_unwritable_result(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let argument = bad::read_only(&[0; size_of::<kvm_sev_launch_start>()])?;
    let answer = vm.command(sev_cmd_id_KVM_SEV_LAUNCH_START, argument.addr());
    t.case("read_only", answer, Answer { fw: 0, ..Answer::refused(EFAULT) });
    t.contexts(0)?;
    let answer = vm.launch_start(&mut kvm_sev_launch_start::default());
    t.case("again", answer, Answer::firmware(status::DFFLUSH_REQUIRED));
    Ok(())
}

fn start_policy(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let with = |policy: u32| kvm_sev_launch_start { policy, ..Default::default() };
    // Bits 16 to 31 are the lowest firmware version that the owner accepts.
    let answer = vm.launch_start(&mut with(0xffff_0000));
    t.case("future_firmware", answer, Answer::firmware(status::POLICY_FAILURE));
    t.firmware_case("es_guest_on_sev_asid", vm.launch_start(&mut with(policy::ES)));
    t.contexts(0)?;
    let strict = policy::NO_DEBUG | policy::NO_KEY_SHARING | policy::NO_SEND;
    t.case("strict", vm.launch_start(&mut with(strict)), Answer::OK);
    let mut status = kvm_sev_guest_status::default();
    t.case("status", vm.guest_status(&mut status), Answer::OK);
    t.value("status_policy", status.policy, strict);
    Ok(())
}

/// `handle` names the guest whose key is to be shared.
fn start_shared_key(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let mut nobody = kvm_sev_launch_start { handle: 0xdead, ..Default::default() };
    t.case("unknown_handle", vm.launch_start(&mut nobody), Answer::firmware(status::INVALID_GUEST));
    t.contexts(0)?;
    Ok(())
}

/// In-place encryption: the host sees ciphertext, nothing around changes, nothing stays pinned.
fn update(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::started(&host, 0)?;
    let plain: Vec<u8> = (0..3 * PAGE).map(|i| (i * 7 + i / PAGE) as u8).collect();
    let at = guest::PRIVATE as usize;
    for (name, from, len) in [
        ("block", 32, 16),
        ("across_pages", PAGE - 16, 32),
        ("page", PAGE, PAGE),
        ("all", 0, 3 * PAGE),
    ] {
        vm.memory.write(at, &plain);
        let pinned = pinned_pages()?;
        vm.encrypt(at + from..at + from + len)?;
        t.value(&format!("{name}_pinned"), pinned_pages()? - pinned, 0);
        let after = vm.memory.read(at, plain.len());
        let differs = |i: &usize| after[*i] != plain[*i];
        let changed = (from..from + len).filter(differs).count();
        let outside = (0..from).chain(from + len..plain.len()).filter(differs).count();
        // One ciphertext byte in 256 equals the plaintext's.
        t.check(&format!("{name}_is_ciphertext"), changed > len * 3 / 4);
        t.value(&format!("{name}_changed_outside"), outside, 0);
        let decrypted = Mapping::anonymous(len)?;
        let from_addr = vm.memory.addr() + (at + from) as u64;
        let answer = vm.dbg_decrypt(from_addr, decrypted.addr(), len as u32);
        t.case(&format!("{name}_decrypt"), answer, Answer::OK);
        t.check(&format!("{name}_plaintext"), decrypted.read(0, len) == plain[from..from + len]);
    }
    // Memory that is not the guest's can be encrypted as well.
    let other = Mapping::anonymous(PAGE)?;
    let mut argument =
        kvm_sev_launch_update_data { uaddr: other.addr(), len: PAGE as u32, ..Default::default() };
    t.case("not_guest_memory", vm.launch_update_data(&mut argument), Answer::OK);
    t.check("not_guest_memory_changed", other.read(0, PAGE) != [0; PAGE]);
    Ok(())
}

fn update_pointers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::started(&host, 0)?;
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_launch_update_data>()) {
        let answer = vm.command(sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_DATA, address);
        t.case(&format!("argument_{name}"), answer, Answer::refused(EFAULT));
    }
    let text = [0x55; 2 * PAGE];
    let read_only = bad::read_only(&text[..PAGE])?;
    let end = addresses.unmapped();
    let page = PAGE as u32;
    let asked = t.psp.counters()?.count("LAUNCH_UPDATE_DATA");
    for (name, uaddr, len, errno) in [
        ("null", 0, page, ENOMEM),
        ("unmapped", end, page, ENOMEM),
        ("tail_unmapped", end - PAGE as u64, 2 * page, ENOMEM),
        ("kernel", KERNEL, page, ENOMEM),
        ("non_canonical", NON_CANONICAL, page, ENOMEM),
        ("read_only", read_only.addr(), page, ENOMEM),
        ("wraps", u64::MAX - 4095, 2 * page, EINVAL),
    ] {
        let mut argument = kvm_sev_launch_update_data { uaddr, len, ..Default::default() };
        t.case(name, vm.launch_update_data(&mut argument), Answer::refused(errno));
    }
    let asked_after = t.psp.counters()?.count("LAUNCH_UPDATE_DATA");
    t.value("firmware_asked", asked_after - asked, 0);
    Ok(())
}

fn update_lengths(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::started(&host, 0)?;
    let uaddr = vm.memory.addr();
    let with = |len: u32| kvm_sev_launch_update_data { uaddr, len, ..Default::default() };
    t.case("0", vm.launch_update_data(&mut with(0)), Answer::refused(EINVAL));
    // More pages than the machine has are refused before any is pinned.
    let total = total_pages()?;
    for (name, len) in [("2g", 1u32 << 31), ("max", u32::MAX)] {
        let too_many = u64::from(len).div_ceil(PAGE as u64) > total;
        let errno = if too_many { EINVAL } else { ENOMEM };
        t.case(name, vm.launch_update_data(&mut with(len)), Answer::refused(errno));
    }
    for len in [1, 8, 15, 17, 4095] {
        let answer = vm.launch_update_data(&mut with(len));
        t.case(&format!("{len}"), answer, Answer::firmware(status::INVALID_LEN));
    }
    t.case("then_good", vm.launch_update_data(&mut with(16)), Answer::OK);
    Ok(())
}

fn update_alignment(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::started(&host, 0)?;
    for offset in [1, 8, 15] {
        let uaddr = vm.memory.addr() + offset;
        let mut argument = kvm_sev_launch_update_data { uaddr, len: 16, ..Default::default() };
        let answer = vm.launch_update_data(&mut argument);
        t.case(&format!("{offset}"), answer, Answer::firmware(status::INVALID_ADDRESS));
    }
    Ok(())
}

/// Every command in every state of the guest.
fn states(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let wrong = Answer::firmware(status::INVALID_GUEST_STATE);
    let vm = Vm::started(&host, 0)?;
    vm.load(guest::idle());
    let uaddr = vm.memory.addr();
    let update = || kvm_sev_launch_update_data { uaddr, len: PAGE as u32, ..Default::default() };
    t.value("after_start", vm.state()?, guest_state::LAUNCHING);
    t.case("launching_finish", vm.launch_finish(), wrong);
    t.case("launching_update", vm.launch_update_data(&mut update()), Answer::OK);
    t.value("after_update", vm.state()?, guest_state::LAUNCHING);
    vm.measurement().context("first LAUNCH_MEASURE")?;
    t.value("after_measure", vm.state()?, guest_state::SECRET);
    t.case("secret_update", vm.launch_update_data(&mut update()), wrong);
    t.case("secret_finish", vm.launch_finish(), Answer::OK);
    t.value("after_finish", vm.state()?, guest_state::RUNNING);
    t.case("running_update", vm.launch_update_data(&mut update()), wrong);
    t.case("running_finish", vm.launch_finish(), wrong);
    let mut blob = [0u8; 48];
    let uaddr = sev_vm::vm::addr_of(&mut blob);
    let mut measure = kvm_sev_launch_measure { uaddr, len: 48, ..Default::default() };
    t.case("running_measure", vm.launch_measure(&mut measure), wrong);
    t.check("running_measure_untouched", blob == [0; 48]);
    t.value("at_the_end", vm.state()?, guest_state::RUNNING);
    Ok(())
}

/// The status is fetched from firmware first, then copied out.
fn status_pointers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::started(&host, 0)?;
    let addresses = Addresses::new()?;
    let too_late = Answer { fw: 0, ..Answer::refused(EFAULT) };
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_guest_status>()) {
        t.case(name, vm.command(sev_cmd_id_KVM_SEV_GUEST_STATUS, address), too_late);
    }
    let map = bad::read_only(&[0; size_of::<kvm_sev_guest_status>()])?;
    t.case("read_only", vm.command(sev_cmd_id_KVM_SEV_GUEST_STATUS, map.addr()), too_late);
    // LAUNCH_FINISH has no argument.
    vm.measurement()?;
    let answer = vm.command(sev_cmd_id_KVM_SEV_LAUNCH_FINISH, KERNEL);
    t.case("finish_ignores_argument", answer, Answer::OK);
    Ok(())
}
