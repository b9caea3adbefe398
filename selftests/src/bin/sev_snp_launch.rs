// SPDX-License-Identifier: GPL-2.0-or-later
//! SNP LAUNCH_START: arguments, every bit of the policy, a second one, and firmware that fails.

use std::process::ExitCode;

use anyhow::Result;
use kvm_bindings::*;
use nix::errno::Errno::{EFAULT, EINVAL};
use sev_vm::bad::{Addresses, Descriptors, read_only};
use sev_vm::cmd::{Answer, issue, status};
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::psp::LogEntry;
use sev_vm::snp::{KVM_X86_SNP_POLICY_BITS, Snp, policy, start};
use sev_vm::vm::addr_of;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("good", good),
            ("pointers", pointers),
            ("fields", fields),
            ("bits", bits),
            ("pairs", pairs),
            ("versions", versions),
            ("twice", twice),
            ("descriptors", descriptors),
            ("failures", failures),
            ("commands", commands),
        ],
    )
}

fn good(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::initialised(&host)?;
    t.contexts(0)?;
    t.case("start", vm.snp_launch_start(&mut start(policy::DEFAULT)), Answer::OK);
    t.contexts(1)?;
    let other = Snp::initialised(&host)?;
    t.case("another", other.snp_launch_start(&mut start(policy::DEFAULT)), Answer::OK);
    t.contexts(2)?;
    drop(vm);
    t.contexts(1)?;
    drop(other);
    t.contexts(0)
}

fn pointers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::initialised(&host)?;
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_snp_launch_start>()) {
        let answer = vm.command(sev_cmd_id_KVM_SEV_SNP_LAUNCH_START, address);
        t.case(name, answer, Answer::refused(EFAULT));
    }
    t.contexts(0)?;
    // Nothing is written back.
    let mut bytes = [0u8; size_of::<kvm_sev_snp_launch_start>()];
    bytes[..8].copy_from_slice(&policy::DEFAULT.to_le_bytes());
    let argument = read_only(&bytes)?;
    let answer = vm.command(sev_cmd_id_KVM_SEV_SNP_LAUNCH_START, argument.addr());
    t.case("read_only", answer, Answer::OK);
    Ok(())
}

/// What becomes of LAUNCH_START of a new VM.
fn answer_to(host: &Host, argument: kvm_sev_snp_launch_start) -> Result<Answer> {
    let vm = Snp::initialised(host)?;
    Ok(vm.snp_launch_start(&mut argument.clone()))
}

fn fields(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let good = start(policy::DEFAULT);
    for bit in 0..16 {
        let argument = kvm_sev_snp_launch_start { flags: 1 << bit, ..good };
        t.case(&format!("flag_{bit}"), answer_to(&host, argument)?, Answer::refused(EINVAL));
    }
    let argument = kvm_sev_snp_launch_start { gosvw: [0xff; 16], ..good };
    t.case("workarounds", answer_to(&host, argument)?, Answer::OK);
    let argument = kvm_sev_snp_launch_start { pad0: [0xff; 6], pad1: [u64::MAX; 4], ..good };
    t.case("padding", answer_to(&host, argument)?, Answer::OK);
    Ok(())
}

/// Every bit, in addition to what has to be there, and each of those left out.
fn bits(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let served = host.sev_attr(KVM_X86_SNP_POLICY_BITS)?;
    for bit in 0..64 {
        let bits = 1u64 << bit;
        let answer = answer_to(&host, start(policy::DEFAULT | bits))?;
        if served & bits == 0 {
            t.case(&format!("{bit}"), answer, Answer::refused(EINVAL));
        } else if policy::DEFAULT & bits != 0 || bits & (policy::DEBUG | policy::SINGLE_SOCKET) != 0
        {
            t.case(&format!("{bit}"), answer, Answer::OK);
        } else {
            // Whether this machine can do it is for firmware to say.
            t.record(&format!("{bit}"), answer);
        }
        t.contexts(0)?;
    }
    t.case("none", answer_to(&host, start(0))?, Answer::refused(EINVAL));
    t.case("all", answer_to(&host, start(u64::MAX))?, Answer::refused(EINVAL));
    t.case(
        "all_served",
        answer_to(&host, start(served))?,
        Answer::firmware(status::POLICY_FAILURE),
    );
    let answer = answer_to(&host, start(policy::SMT))?;
    t.case("without_reserved_one", answer, Answer::refused(EINVAL));
    t.record("without_smt", answer_to(&host, start(policy::RESERVED_ONE))?);
    Ok(())
}

/// Every two of the bits above the version that KVM lets through.
fn pairs(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let served = host.sev_attr(KVM_X86_SNP_POLICY_BITS)?;
    let bits: Vec<u32> = (16..64).filter(|bit| served & (1 << bit) != 0).collect();
    t.check("some", bits.len() > 3);
    for (number, first) in bits.iter().enumerate() {
        for second in &bits[number + 1..] {
            let policy = policy::RESERVED_ONE | (1 << first) | (1 << second);
            t.record(&format!("{first}_{second}"), answer_to(&host, start(policy))?);
        }
    }
    t.contexts(0)
}

/// The lowest version of the firmware's interface that the owner accepts: minor, major.
fn versions(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for version in [0x0000, 0x0100, 0x0137, 0x0138, 0x01ff, 0x0200, 0x00ff, 0xff00, 0xffff] {
        let answer = answer_to(&host, start(policy::DEFAULT | version))?;
        if version >> 8 > 1 {
            t.case(&format!("{version:#x}"), answer, Answer::firmware(status::POLICY_FAILURE));
        } else if version <= 0x0100 {
            t.case(&format!("{version:#x}"), answer, Answer::OK);
        } else {
            t.record(&format!("{version:#x}"), answer);
        }
    }
    t.contexts(0)
}

/// A VM has one context. The first stays as it was.
fn twice(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::started(&host, policy::DEFAULT)?;
    let asked = t.psp.counters()?.commands;
    for policy in [policy::DEFAULT, policy::DEFAULT | policy::DEBUG] {
        let answer = vm.snp_launch_start(&mut start(policy));
        t.case(&format!("started_{policy:#x}"), answer, Answer::refused(EINVAL));
    }
    let asked = t.psp.counters()?.commands != asked;
    t.value("firmware_asked", asked, false);
    vm.seal()?;
    let answer = vm.snp_launch_start(&mut start(policy::DEFAULT));
    t.case("finished", answer, Answer::refused(EINVAL));
    t.contexts(1)
}

/// Commands go through the descriptor that comes with them.
fn descriptors(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::initialised(&host)?;
    let wrong = Descriptors::new(&host)?;
    for (name, number) in wrong.wrong() {
        let mut argument = start(policy::DEFAULT);
        let answer =
            issue(&vm.fd, sev_cmd_id_KVM_SEV_SNP_LAUNCH_START, addr_of(&mut argument), number);
        t.check(&format!("{name}_refused"), !answer.is_ok());
        t.record(name, answer);
        t.contexts(0)?;
    }
    t.case("then", vm.snp_launch_start(&mut start(policy::DEFAULT)), Answer::OK);
    Ok(())
}

/// Each of the three commands fails: nothing is held, and the next try works.
fn failures(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for command in ["SNP_GCTX_CREATE", "SNP_LAUNCH_START", "SNP_ACTIVATE"] {
        for status in [status::HWERROR_PLATFORM, status::RESOURCE_LIMIT, status::DFFLUSH_REQUIRED] {
            let name = format!("{command}_{status:x}");
            let vm = Snp::initialised(&host)?;
            t.psp.fail(command, 1, status)?;
            let answer = vm.snp_launch_start(&mut start(policy::DEFAULT));
            t.value(&format!("{name}_status"), answer.fw, status);
            t.record(&name, answer);
            t.contexts(0)?;
            let answer = vm.snp_launch_start(&mut start(policy::DEFAULT));
            t.case(&format!("{name}_retry"), answer, Answer::OK);
            t.contexts(1)?;
        }
    }
    Ok(())
}

/// Commands by name; pages of the PSP driver's buffers are reclaimed as it likes.
fn names(log: &[LogEntry]) -> String {
    let commands = log.iter().map(|entry| entry.cmd.as_str());
    commands.filter(|name| *name != "SNP_PAGE_RECLAIM").collect::<Vec<_>>().join(",")
}

/// The firmware commands of a guest's life.
fn commands(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    drop(Snp::initialised(&host)?);
    let (mut vm, log) = t.psp.logged(|| Snp::initialised(&host))?;
    t.value("init", names(&log), String::new());
    let (answer, log) = t.psp.logged(|| Ok(vm.snp_launch_start(&mut start(policy::DEFAULT))))?;
    t.case("start_answer", answer, Answer::OK);
    t.value("start", names(&log), "SNP_GCTX_CREATE,SNP_LAUNCH_START,SNP_ACTIVATE".into());
    vm.set_private(0..1 << 21, true)?;
    let (_, log) = t.psp.logged(|| vm.update(sev_vm::snp::PageType::Normal, 0..2 * 4096))?;
    t.value("update", names(&log), "SNP_LAUNCH_UPDATE,SNP_LAUNCH_UPDATE".into());
    vm.add_vcpu(&host, [0; 4])?;
    vm.add_vcpu(&host, [0; 4])?;
    let (_, log) = t.psp.logged(|| vm.seal())?;
    let finish = "SNP_LAUNCH_UPDATE,SNP_LAUNCH_UPDATE,SNP_LAUNCH_FINISH";
    t.value("finish", names(&log), finish.into());
    let (_, log) = t.psp.logged(|| {
        drop(vm);
        Ok(())
    })?;
    t.value("close", names(&log), "SNP_DECOMMISSION".into());
    Ok(())
}
