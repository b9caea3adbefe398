// SPDX-License-Identifier: GPL-2.0-or-later
//! LAUNCH_MEASURE: lengths, pointers, and the value against the crate `sev`'s computation.

use std::process::ExitCode;

use anyhow::Result;
use kvm_bindings::*;
use nix::errno::Errno::{EFAULT, EINVAL};
use sev_vm::bad::{self, Addresses, KERNEL};
use sev_vm::cmd::{Answer, status};
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::Mapping;
use sev_vm::tenant::{self, Owner, Verdict};
use sev_vm::vm::{MEASUREMENT_LEN, Vm, addr_of, guest_state, policy};

const BLOB_MAX: u32 = 0x4000;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("length_query", length_query),
            ("lengths", lengths),
            ("pointers", pointers),
            ("genuine", genuine),
            ("tampered", tampered),
            ("chunks", chunks),
        ],
    )
}

/// Length 0 asks for the length: the command fails, and tells it.
fn length_query(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::started(&host, 0)?;
    for (name, uaddr) in [("null", 0), ("ignored_address", KERNEL)] {
        let mut query = kvm_sev_launch_measure { uaddr, ..Default::default() };
        t.case(name, vm.launch_measure(&mut query), Answer::firmware(status::INVALID_LEN));
        t.value(&format!("{name}_len"), query.len, MEASUREMENT_LEN);
    }
    t.value("state", vm.state()?, guest_state::LAUNCHING);
    Ok(())
}

fn lengths(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::started(&host, 0)?;
    let blob = Mapping::anonymous(2 * BLOB_MAX as usize)?;
    let with = |uaddr, len| kvm_sev_launch_measure { uaddr, len, ..Default::default() };
    for len in [1, 16, 47] {
        let mut short = with(blob.addr(), len);
        let answer = vm.launch_measure(&mut short);
        t.case(&format!("{len}"), answer, Answer::firmware(status::INVALID_LEN));
        t.value(&format!("{len}_len"), short.len, len);
    }
    for len in [BLOB_MAX + 1, 1 << 31, u32::MAX] {
        let mut long = with(blob.addr(), len);
        t.case(&format!("{len:x}"), vm.launch_measure(&mut long), Answer::refused(EINVAL));
    }
    let mut nowhere = with(0, MEASUREMENT_LEN);
    let answer = vm.launch_measure(&mut nowhere);
    t.case("no_address", answer, Answer::firmware(status::INVALID_LEN));
    t.value("no_address_len", nowhere.len, MEASUREMENT_LEN);
    t.check("nothing_written", blob.read(0, blob.len()).iter().all(|b| *b == 0));
    t.value("state", vm.state()?, guest_state::LAUNCHING);
    blob.fill(0xa5);
    let mut roomy = with(blob.addr(), BLOB_MAX);
    t.case("roomy", vm.launch_measure(&mut roomy), Answer::OK);
    t.value("roomy_len", roomy.len, MEASUREMENT_LEN);
    // KVM copies as much as the caller offered; what firmware did not write is zero.
    let measured = blob.read(0, blob.len());
    let tail = &measured[MEASUREMENT_LEN as usize..BLOB_MAX as usize];
    t.check("roomy_tail_is_zero", tail.iter().all(|b| *b == 0));
    t.check("beyond_untouched", measured[BLOB_MAX as usize..].iter().all(|b| *b == 0xa5));
    Ok(())
}

fn pointers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::started(&host, 0)?;
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_launch_measure>()) {
        let answer = vm.command(sev_cmd_id_KVM_SEV_LAUNCH_MEASURE, address);
        t.case(&format!("argument_{name}"), answer, Answer::refused(EFAULT));
    }
    t.value("state", vm.state()?, guest_state::LAUNCHING);
    // From here on firmware has measured: the result cannot be delivered.
    let too_late = Answer { fw: 0, ..Answer::refused(EFAULT) };
    for (name, uaddr) in [("unmapped", addresses.unmapped()), ("kernel", KERNEL)] {
        let vm = Vm::started(&host, 0)?;
        let mut argument = kvm_sev_launch_measure { uaddr, len: 48, ..Default::default() };
        t.case(&format!("result_{name}"), vm.launch_measure(&mut argument), too_late);
        t.value(&format!("result_{name}_state"), vm.state()?, guest_state::SECRET);
    }
    let mut blob = [0u8; 48];
    let fields =
        kvm_sev_launch_measure { uaddr: addr_of(&mut blob), len: 48, ..Default::default() };
    let mut bytes = fields.uaddr.to_ne_bytes().to_vec();
    bytes.extend(u64::from(fields.len).to_ne_bytes());
    let argument = bad::read_only(&bytes)?;
    let answer = vm.command(sev_cmd_id_KVM_SEV_LAUNCH_MEASURE, argument.addr());
    t.case("argument_read_only", answer, too_late);
    t.check("argument_read_only_measured", blob != [0; 48]);
    Ok(())
}

/// Launches the program `idle` with a session, after `change` was applied to guest memory; the
/// owner expects the unchanged content.
fn launch(host: &Host, change: impl FnOnce(&Vm)) -> Result<Verdict> {
    let owner = Owner::prepare(policy::NO_SEND)?;
    let vm = Vm::sev(host)?;
    let answer = owner.launch_start(&vm, policy::NO_SEND);
    anyhow::ensure!(answer.is_ok(), "LAUNCH_START with a session: {answer}");
    vm.load(guest::idle());
    let expected = vm.memory.read(0, guest::LAUNCHED.end);
    change(&vm);
    vm.encrypt(guest::LAUNCHED)?;
    owner.verify(tenant::build()?, &[&expected], &vm.measurement()?)
}

fn genuine(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    t.check("accepted", matches!(launch(&host, |_| ())?, Verdict::Genuine(_)));
    Ok(())
}

fn tampered(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, offset) in [("first", 0), ("code", guest::CODE), ("last", 0x1_ffff)] {
        let flip = |vm: &Vm| {
            let byte = vm.memory.read(offset as usize, 1)[0];
            vm.memory.write(offset as usize, &[byte ^ 1]);
        };
        let verdict = launch(&host, flip)?;
        t.check(&format!("{name}_byte_rejected"), matches!(verdict, Verdict::Tampered));
    }
    Ok(())
}

/// The digest is over the bytes in order, however many commands they came in.
fn chunks(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let at = guest::PRIVATE as usize;
    for (name, order, accepted) in [("in_order", [0, 1, 2], true), ("swapped", [1, 0, 2], false)] {
        let owner = Owner::prepare(0)?;
        let vm = Vm::sev(&host)?;
        t.case(&format!("{name}_start"), owner.launch_start(&vm, 0), Answer::OK);
        let text: Vec<u8> = (0..96).collect();
        vm.memory.write(at, &text);
        for i in order {
            vm.encrypt(at + 32 * i..at + 32 * i + 32)?;
        }
        let verdict = owner.verify(tenant::build()?, &[&text], &vm.measurement()?)?;
        t.value(&format!("{name}_accepted"), matches!(verdict, Verdict::Genuine(_)), accepted);
    }
    Ok(())
}
