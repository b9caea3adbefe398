// SPDX-License-Identifier: GPL-2.0-or-later
//! What holds for every `KVM_MEMORY_ENCRYPT_OP` command: the command block, unknown ids, VMs
//! that are not SEV, descriptors that are not `/dev/sev`.

use std::process::ExitCode;

use anyhow::Result;
use kvm_bindings::*;
use nix::errno::Errno::{self, EBADF, EFAULT, EINVAL, ENOTTY};
use sev_vm::bad::{self, Addresses, Descriptors};
use sev_vm::cmd::{Answer, issue_at};
use sev_vm::guest;
use sev_vm::host::{Host, VmType, open_sev};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::vm::{Vm, addr_of, guest_state};

use std::os::fd::AsRawFd;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("command_block", command_block),
            ("unknown_ids", unknown_ids),
            ("not_sev", not_sev),
            ("not_initialised", not_initialised),
            ("not_started", not_started),
            ("descriptors", descriptors),
            ("device_file", device_file),
            ("not_served", not_served),
        ],
    )
}

/// Commands that work on a SEV guest's context, with the size of their argument.
const GUEST_COMMANDS: [(&str, sev_cmd_id, usize); 8] = [
    ("launch_start", sev_cmd_id_KVM_SEV_LAUNCH_START, size_of::<kvm_sev_launch_start>()),
    (
        "launch_update_data",
        sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_DATA,
        size_of::<kvm_sev_launch_update_data>(),
    ),
    ("launch_measure", sev_cmd_id_KVM_SEV_LAUNCH_MEASURE, size_of::<kvm_sev_launch_measure>()),
    ("launch_secret", sev_cmd_id_KVM_SEV_LAUNCH_SECRET, size_of::<kvm_sev_launch_secret>()),
    ("launch_finish", sev_cmd_id_KVM_SEV_LAUNCH_FINISH, 0),
    ("guest_status", sev_cmd_id_KVM_SEV_GUEST_STATUS, size_of::<kvm_sev_guest_status>()),
    ("dbg_decrypt", sev_cmd_id_KVM_SEV_DBG_DECRYPT, size_of::<kvm_sev_dbg>()),
    ("dbg_encrypt", sev_cmd_id_KVM_SEV_DBG_ENCRYPT, size_of::<kvm_sev_dbg>()),
];

/// Commands of guests that are not plain SEV, and of migration.
const OTHER_COMMANDS: [(&str, sev_cmd_id); 9] = [
    ("launch_update_vmsa", sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA),
    ("send_start", sev_cmd_id_KVM_SEV_SEND_START),
    ("send_update_data", sev_cmd_id_KVM_SEV_SEND_UPDATE_DATA),
    ("send_finish", sev_cmd_id_KVM_SEV_SEND_FINISH),
    ("send_cancel", sev_cmd_id_KVM_SEV_SEND_CANCEL),
    ("receive_start", sev_cmd_id_KVM_SEV_RECEIVE_START),
    ("receive_finish", sev_cmd_id_KVM_SEV_RECEIVE_FINISH),
    ("get_attestation_report", sev_cmd_id_KVM_SEV_GET_ATTESTATION_REPORT),
    ("snp_launch_start", sev_cmd_id_KVM_SEV_SNP_LAUNCH_START),
];

/// Siblings of the above that answer differently on a VM that is not theirs.
const ODD_COMMANDS: [(&str, sev_cmd_id); 3] = [
    ("receive_update_data", sev_cmd_id_KVM_SEV_RECEIVE_UPDATE_DATA),
    ("snp_launch_update", sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE),
    ("snp_enable_req_certs", sev_cmd_id_KVM_SEV_NR_MAX),
];

fn command_block(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let plain = Vm::bare(&host, VmType::Default)?;
    // Upstream: a null block asks whether SEV is there at all.
    t.case("null_is_a_probe", issue_at(&plain.fd, 0), Answer::OK_KEPT);
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_cmd>()).iter().skip(1) {
        t.case(name, issue_at(&plain.fd, *address), Answer::refused(EFAULT));
    }
    // The block is written back even by a command that failed; that failure wins.
    let vm = Vm::started(&host, 0)?;
    for (name, id) in [
        ("read_only_finish", sev_cmd_id_KVM_SEV_LAUNCH_FINISH),
        ("read_only_init", sev_cmd_id_KVM_SEV_INIT),
    ] {
        let block = kvm_sev_cmd { id, sev_fd: host.sev_fd() as u32, ..Default::default() };
        let map = bad::read_only(&block_bytes(&block))?;
        t.case(name, issue_at(&vm.fd, map.addr()), Answer::refused(EFAULT));
    }
    // ... but not by a command that does not exist.
    let block = kvm_sev_cmd { id: 23, ..Default::default() };
    let map = bad::read_only(&block_bytes(&block))?;
    t.case("read_only_unknown", issue_at(&vm.fd, map.addr()), Answer::refused(EINVAL));
    // An unaligned block is as good as any.
    let map = Mapping::anonymous(PAGE)?;
    let mut status = kvm_sev_guest_status::default();
    let block = kvm_sev_cmd {
        id: sev_cmd_id_KVM_SEV_GUEST_STATUS,
        data: addr_of(&mut status),
        sev_fd: host.sev_fd() as u32,
        ..Default::default()
    };
    map.write(3, &block_bytes(&block));
    t.case("unaligned", issue_at(&vm.fd, map.addr() + 3), Answer::OK_KEPT);
    t.value("unaligned_state", status.state, guest_state::LAUNCHING);
    Ok(())
}

fn block_bytes(block: &kvm_sev_cmd) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(block.id.to_ne_bytes());
    bytes.extend(block.pad0.to_ne_bytes());
    bytes.extend(block.data.to_ne_bytes());
    bytes.extend(block.error.to_ne_bytes());
    bytes.extend(block.sev_fd.to_ne_bytes());
    bytes
}

fn unknown_ids(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let plain = Vm::bare(&host, VmType::Default)?;
    let sev = Vm::started(&host, 0)?;
    let never = [23, 24, 99, 104, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    let unused = [
        sev_cmd_id_KVM_SEV_SEND_UPDATE_VMSA,
        sev_cmd_id_KVM_SEV_RECEIVE_UPDATE_VMSA,
        sev_cmd_id_KVM_SEV_CERT_EXPORT,
    ];
    for id in never.into_iter().chain(unused) {
        t.case(&format!("plain_{id:x}"), plain.command(id, 0), Answer::refused(EINVAL));
        t.case(&format!("sev_{id:x}"), sev.command(id, 0), Answer::refused(EINVAL));
    }
    Ok(())
}

/// A VM that is not SEV: refused before the argument is read.
fn not_sev(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    refuse_all(t, &Vm::bare(&host, VmType::Default)?)
}

/// A VM of type SEV before `KVM_SEV_INIT2` is not SEV yet.
fn not_initialised(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    refuse_all(t, &Vm::bare(&host, VmType::Sev)?)
}

fn refuse_all(t: &mut Test, vm: &Vm) -> Result<()> {
    for (name, id, _) in GUEST_COMMANDS {
        t.case(name, vm.command(id, 0), Answer::refused(ENOTTY));
    }
    for (name, id) in OTHER_COMMANDS {
        t.case(name, vm.command(id, 0), Answer::refused(ENOTTY));
    }
    for (name, id) in ODD_COMMANDS {
        t.case(name, vm.command(id, 0), Answer::refused(EINVAL));
    }
    let region = kvm_enc_region { addr: vm.memory.addr(), size: PAGE as u64 };
    t.case("register_region", vm.register(&region), Answer::refused(ENOTTY));
    t.case("unregister_region", vm.unregister(&region), Answer::refused(ENOTTY));
    Ok(())
}

/// Before LAUNCH_START there is no firmware context, and no descriptor to reach firmware by.
fn not_started(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let no_channel = Answer::refused(EBADF);
    let uaddr = vm.memory.addr();
    let mut update = kvm_sev_launch_update_data { uaddr, len: 16, ..Default::default() };
    t.case("launch_update_data", vm.launch_update_data(&mut update), no_channel);
    let mut blob = [0u8; 48];
    let uaddr = addr_of(&mut blob);
    let mut measure = kvm_sev_launch_measure { uaddr, len: 48, ..Default::default() };
    t.case("launch_measure", vm.launch_measure(&mut measure), no_channel);
    t.value("launch_measure_len", measure.len, 48);
    let mut query = kvm_sev_launch_measure::default();
    t.case("launch_measure_query", vm.launch_measure(&mut query), no_channel);
    t.value("launch_measure_query_len", query.len, 0);
    t.case("launch_finish", vm.launch_finish(), no_channel);
    t.case("guest_status", vm.guest_status(&mut kvm_sev_guest_status::default()), no_channel);
    let (here, there) = (vm.memory.addr(), vm.memory.addr() + PAGE as u64);
    t.case("dbg_decrypt", vm.dbg_decrypt(here, there, 16), no_channel);
    t.case("dbg_encrypt", vm.dbg_encrypt(here, there, 16), no_channel);
    let mut text = [0u8; 16];
    let text_at = addr_of(&mut text);
    let mut secret = kvm_sev_launch_secret {
        hdr_uaddr: text_at,
        hdr_len: 16,
        guest_uaddr: here,
        guest_len: 16,
        trans_uaddr: text_at,
        trans_len: 16,
        ..Default::default()
    };
    t.case("launch_secret", vm.launch_secret(&mut secret), no_channel);
    Ok(())
}

/// LAUNCH_START goes through the caller's descriptor, later commands through the one that
/// LAUNCH_START used.
fn descriptors(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Vm::sev(&host)?;
    let wrong = Descriptors::new(&host)?;
    for (name, sev_fd) in wrong.wrong() {
        vm.sev_fd = sev_fd;
        let answer = vm.launch_start(&mut kvm_sev_launch_start::default());
        t.case(&format!("start_{name}"), answer, Answer::refused(EBADF));
    }
    vm.sev_fd = vm.fd.as_raw_fd();
    let answer = vm.launch_start(&mut kvm_sev_launch_start::default());
    t.case("start_vm_fd", answer, Answer::refused(EBADF));
    vm.sev_fd = host.sev_fd();
    t.case("start", vm.launch_start(&mut kvm_sev_launch_start::default()), Answer::OK);
    for (name, sev_fd) in wrong.wrong() {
        vm.sev_fd = sev_fd;
        let answer = vm.guest_status(&mut kvm_sev_guest_status::default());
        t.case(&format!("status_{name}"), answer, Answer::OK);
    }
    Ok(())
}

/// The descriptor of LAUNCH_START is closed, or its number given to another file. Upstream
/// remembers the number.
fn device_file(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Vm::sev(&host)?;
    let own = open_sev()?;
    vm.sev_fd = own.as_raw_fd();
    t.case("start", vm.launch_start(&mut kvm_sev_launch_start::default()), Answer::OK);
    vm.load(guest::idle());
    drop(own);
    t.record("status_after_close", vm.guest_status(&mut kvm_sev_guest_status::default()));
    t.record("finish_after_close", vm.launch_finish());
    // The lowest free number is the one just closed.
    let other = std::fs::File::open("/dev/null")?;
    t.check("number_reused", other.as_raw_fd() == vm.sev_fd);
    t.record("status_after_reuse", vm.guest_status(&mut kvm_sev_guest_status::default()));
    drop(other);
    let again = open_sev()?;
    t.check("number_reopened", again.as_raw_fd() == vm.sev_fd);
    let answer = vm.guest_status(&mut kvm_sev_guest_status::default());
    t.case("status_after_reopen", answer, Answer::OK);
    Ok(())
}

/// Commands that this module may not serve yet: on a SEV guest they give a clear answer, that
/// is an error number which does not depend on chance, and leave the guest alone.
fn not_served(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::started(&host, 0)?;
    for (name, id) in OTHER_COMMANDS.into_iter().chain(ODD_COMMANDS) {
        let answer = vm.command(id, 0);
        let clear = [ENOTTY, EINVAL, EFAULT].map(|errno| Answer::refused(errno).errno);
        // SEND_FINISH, SEND_CANCEL and RECEIVE_FINISH have no argument: firmware says no.
        let by_firmware = answer.errno == Errno::EIO as i32 && answer.fw != 0;
        t.check(name, clear.contains(&answer.errno) || by_firmware);
    }
    t.value("state", vm.state()?, guest_state::LAUNCHING);
    Ok(())
}
