// SPDX-License-Identifier: GPL-2.0-or-later
//! SEND_START and SEND_UPDATE_DATA: length queries and arguments.

use std::process::ExitCode;

use anyhow::Result;
use kvm_bindings::*;
use nix::errno::Errno::{EBADF, EFAULT, EINVAL, ENOMEM, ENOTTY};
use sev_vm::bad::{self, Addresses, KERNEL};
use sev_vm::cmd::{Answer, status};
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::transfer::{Certificates, HEADER_LEN, SESSION_LEN, send_argument, sender};
use sev_vm::vm::{Vm, guest_state, policy};

const PRIVATE: u64 = guest::PRIVATE;
const BLOB_MAX: u32 = 0x4000;
const WRONG_STATE: Answer = Answer::firmware(status::INVALID_GUEST_STATE);
const TOO_SHORT: Answer = Answer::firmware(status::INVALID_LEN);

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("send_start", send_start),
            ("send_start_lengths", send_start_lengths),
            ("send_data", send_data),
        ],
    )
}

/// What KVM checks, what firmware checks; the guest is none the worse for it.
fn send_start(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let to = Certificates::own()?;
    let mut session = [0; SESSION_LEN as usize];
    let good = send_argument(&to, &mut session);
    let plain = Vm::bare(&host, VmType::Default)?;
    t.case("plain", plain.send_start(&mut good.clone()), Answer::refused(ENOTTY));
    t.case("initialised", Vm::sev(&host)?.send_start(&mut good.clone()), Answer::refused(EBADF));
    let launching = Vm::started(&host, 0)?;
    t.case("launching", launching.send_start(&mut good.clone()), WRONG_STATE);
    let vm = sender(&host)?;
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_send_start>()) {
        let answer = vm.command(sev_cmd_id_KVM_SEV_SEND_START, address);
        t.case(&format!("argument_{name}"), answer, Answer::refused(EFAULT));
    }
    let far = addresses.unmapped();
    type Change = fn(&mut kvm_sev_send_start, u64);
    let refused: [(&str, Change, _); 14] = [
        ("no_pdh", |a, _| a.pdh_cert_uaddr = 0, EINVAL),
        ("no_pdh_len", |a, _| a.pdh_cert_len = 0, EINVAL),
        ("no_session", |a, _| a.session_uaddr = 0, EINVAL),
        ("long_session", |a, _| a.session_len = BLOB_MAX + 1, EINVAL),
        ("longest_session", |a, _| a.session_len = u32::MAX, EINVAL),
        ("no_platform", |a, _| a.plat_certs_uaddr = 0, EINVAL),
        ("no_platform_len", |a, _| a.plat_certs_len = 0, EINVAL),
        ("no_amd", |a, _| a.amd_certs_uaddr = 0, EINVAL),
        ("no_amd_len", |a, _| a.amd_certs_len = 0, EINVAL),
        ("long_pdh", |a, _| a.pdh_cert_len = BLOB_MAX + 1, EINVAL),
        ("long_platform", |a, _| a.plat_certs_len = 1 << 31, EINVAL),
        ("long_amd", |a, _| a.amd_certs_len = u32::MAX, EINVAL),
        ("pdh_unmapped", |a, far| a.pdh_cert_uaddr = far, EFAULT),
        ("platform_kernel", |a, _| a.plat_certs_uaddr = KERNEL, EFAULT),
    ];
    for (name, change, errno) in refused {
        let mut argument = good;
        change(&mut argument, far);
        t.case(name, vm.send_start(&mut argument), Answer::refused(errno));
    }
    let zeroes = vec![0; to.platform.len()];
    for (name, change) in [
        ("zero_pdh", (|a, zeroes| a.pdh_cert_uaddr = zeroes) as Change),
        ("zero_platform", |a, zeroes| a.plat_certs_uaddr = zeroes),
        ("short_pdh", |a, _| a.pdh_cert_len -= 1),
        ("short_platform", |a, _| a.plat_certs_len -= 1),
    ] {
        let mut argument = good;
        change(&mut argument, zeroes.as_ptr() as u64);
        t.firmware_case(name, vm.send_start(&mut argument));
    }
    t.value("still_running", vm.state()?, guest_state::RUNNING);
    let bound = Vm::started(&host, policy::NO_SEND)?;
    bound.launch(guest::idle())?;
    t.case(
        "no_send",
        bound.send_start(&mut good.clone()),
        Answer::firmware(status::POLICY_FAILURE),
    );
    // A policy that lets it go is told.
    let other = Vm::started(&host, policy::NO_KEY_SHARING)?;
    other.launch(guest::idle())?;
    let mut argument = good;
    t.case("with_policy", other.send_start(&mut argument), Answer::OK);
    t.value("with_policy_told", argument.policy, policy::NO_KEY_SHARING);
    // Firmware has started the session when the blob turns out not to be writable.
    let read_only = bad::read_only(&[0; 128])?;
    let mut argument = kvm_sev_send_start { session_uaddr: read_only.addr(), ..good };
    let late = Answer { fw: 0, ..Answer::refused(EFAULT) };
    t.case("read_only_session", vm.send_start(&mut argument), late);
    t.case("cancel", vm.send_cancel(), Answer::OK);
    let mut argument = good;
    t.case("good", vm.send_start(&mut argument), Answer::OK);
    t.value("policy", argument.policy, 0);
    Ok(())
}

fn send_start_lengths(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let to = Certificates::own()?;
    let vm = sender(&host)?;
    let mut session = [0x55; SESSION_LEN as usize];
    // Only the length is looked at.
    let mut query = kvm_sev_send_start::default();
    t.case("query", vm.send_start(&mut query), TOO_SHORT);
    t.value("query_len", query.session_len, SESSION_LEN);
    for len in [1, SESSION_LEN - 1] {
        let mut argument = send_argument(&to, &mut session);
        argument.session_len = len;
        t.case(&format!("{len}"), vm.send_start(&mut argument), TOO_SHORT);
        t.value(&format!("{len}_len"), argument.session_len, SESSION_LEN);
        t.check(&format!("{len}_untouched"), session == [0x55; SESSION_LEN as usize]);
    }
    let read_only = bad::read_only(&[0; size_of::<kvm_sev_send_start>()])?;
    let answer = vm.command(sev_cmd_id_KVM_SEV_SEND_START, read_only.addr());
    let late = Answer { fw: status::INVALID_LEN, ..Answer::refused(EFAULT) };
    t.case("query_read_only", answer, late);
    // A longer buffer is filled with zeroes.
    let mut long = vec![0x55; 4096];
    let mut argument = send_argument(&to, &mut long);
    t.case("long", vm.send_start(&mut argument), Answer::OK);
    t.value("long_len", argument.session_len, SESSION_LEN);
    t.check("long_rest", long[SESSION_LEN as usize..].iter().all(|byte| *byte == 0));
    Ok(())
}

fn send_data(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = sender(&host)?;
    let mut query = kvm_sev_send_update_data::default();
    t.case("query_before_start", vm.send_update_data(&mut query), WRONG_STATE);
    vm.send_to(&Certificates::own()?)?;
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_send_update_data>()) {
        let answer = vm.command(sev_cmd_id_KVM_SEV_SEND_UPDATE_DATA, address);
        t.case(&format!("argument_{name}"), answer, Answer::refused(EFAULT));
    }
    let buffers = Mapping::anonymous(3 * PAGE)?;
    let good = kvm_sev_send_update_data {
        hdr_uaddr: buffers.addr(),
        hdr_len: HEADER_LEN,
        guest_uaddr: vm.memory.addr() + PRIVATE,
        guest_len: PAGE as u32,
        trans_uaddr: buffers.addr() + PAGE as u64,
        trans_len: PAGE as u32,
        ..Default::default()
    };
    type Change = fn(&mut kvm_sev_send_update_data);
    for (name, change) in [
        ("query_both", (|a| (a.hdr_len, a.trans_len) = (0, 0)) as Change),
        ("query_header", |a| a.hdr_len = 0),
        ("query_data", |a| a.trans_len = 0),
    ] {
        let mut argument = good;
        change(&mut argument);
        t.case(name, vm.send_update_data(&mut argument), TOO_SHORT);
        t.value(&format!("{name}_header"), argument.hdr_len, HEADER_LEN);
        // KVM does not tell firmware how much is to be sent.
        t.value(&format!("{name}_data"), argument.trans_len, 0);
    }
    for (name, change) in [
        ("no_header", (|a| a.hdr_uaddr = 0) as Change),
        ("no_data", |a| a.trans_uaddr = 0),
        ("no_guest", |a| a.guest_uaddr = 0),
        ("no_guest_len", |a| a.guest_len = 0),
        ("over_a_page", |a| a.guest_len += 16),
        ("longest", |a| a.guest_len = u32::MAX),
        ("two_pages", |a| (a.guest_uaddr, a.guest_len) = (a.guest_uaddr + 4080, 32)),
    ] {
        let mut argument = good;
        change(&mut argument);
        t.case(name, vm.send_update_data(&mut argument), Answer::refused(EINVAL));
    }
    for (name, change) in [
        ("short_header", (|a| a.hdr_len -= 1) as Change),
        ("short_data", |a| a.trans_len -= 16),
        ("odd_length", |a| a.guest_len = 15),
        ("unaligned", |a| (a.guest_uaddr, a.guest_len) = (a.guest_uaddr + 1, 16)),
    ] {
        let mut argument = good;
        change(&mut argument);
        t.firmware_case(name, vm.send_update_data(&mut argument));
    }
    let mut argument = kvm_sev_send_update_data { guest_uaddr: addresses.unmapped(), ..good };
    let answer = vm.send_update_data(&mut argument);
    t.case("unmapped_guest", answer, Answer::refused(ENOMEM));
    let read_only = bad::read_only(&[0; PAGE])?;
    let late = Answer { fw: 0, ..Answer::refused(EFAULT) };
    let mut argument = kvm_sev_send_update_data { hdr_uaddr: read_only.addr(), ..good };
    t.case("header_read_only", vm.send_update_data(&mut argument), late);
    let mut argument = kvm_sev_send_update_data { trans_uaddr: read_only.addr(), ..good };
    t.case("data_read_only", vm.send_update_data(&mut argument), late);
    for len in [16, 4096] {
        let mut argument = kvm_sev_send_update_data { guest_len: len, ..good };
        t.case(&format!("{len}"), vm.send_update_data(&mut argument), Answer::OK);
    }
    Ok(())
}
