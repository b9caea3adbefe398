// SPDX-License-Identifier: GPL-2.0-or-later
//! SNP guests at work: the MSR protocol, registration of GHCBs, private and shared pages,
//! page state changes by the MSR, termination.

use std::process::ExitCode;

use anyhow::Result;
use sev_vm::cmd::Answer;
use sev_vm::es::kept_vm;
use sev_vm::ghcb::{self, Ghcb, exit};
use sev_vm::host::{EncryptionLeaf, Host};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::PAGE;
use sev_vm::snp_guest::{
    AREA, Actor, BUFFERS, Exception, MEMORY, PRIVATE, Reply, SHARED, SHARED_VIEW, Setup, Vmm,
    answer, ghcb_of, set_private,
};
use sev_vm::snp_guest_program::Command;
use sev_vm::snp_guest_rmp::no_page_of_guests;

const VALUE: u64 = 0x1122_3344_5566_7788;
const PAGE_LEN: u64 = PAGE as u64;
/// Requests of the MSR protocol (asm/sev-common.h), in the low 12 bits.
mod request {
    pub const SEV_INFO: u64 = 0x002;
    pub const CPUID: u64 = 0x004;
    pub const PREFERRED_GPA: u64 = 0x010;
    pub const REGISTER_GPA: u64 = 0x012;
    pub const PSC: u64 = 0x014;
    pub const VMPL: u64 = 0x016;
    pub const FEATURES: u64 = 0x080;
    pub const TERMINATE: u64 = 0x100;
}
/// Page state change by the MSR: operation.
const TO_PRIVATE: u64 = 1 << 52;
const TO_SHARED: u64 = 2 << 52;
/// Its answers.
const PSC_DONE: u64 = 0x015;
const PSC_FAILED: u64 = (1 << 63) | 0x015;
/// SEV, SEV-ES and SNP in SEV_STATUS.
const STATUS: u64 = 7;

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("identity", identity),
            ("msr_protocol", msr_protocol),
            ("registration", registration),
            ("hello", hello),
            ("private_memory", private_memory),
            ("implicit_conversion", implicit_conversion),
            ("psc_msr", psc_msr),
            ("psc_msr_refused", psc_msr_refused),
            ("psc_msr_operations", psc_msr_operations),
            ("terminate", terminate),
            ("hidden_registers", hidden_registers),
            ("no_page_of_guests", no_page_of_guests),
        ],
    )
}

fn identity(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup::default().launch(&host)?;
    let mut vcpu = guest.actor(0);
    let status = vcpu.command(Command::ReadMsr, [0xc001_0131, 0, 0])?;
    t.value("sev_status", status.results[0] & STATUS, STATUS);
    t.observe("sev_status.outcome", &status);
    let leaf = vcpu.command(Command::Cpuid, [0, 0, 0])?;
    t.check("cpuid", leaf.exception == Some(Exception { vector: 29, code: 0x72 }));
    Ok(())
}

/// Every request that SNP guests have, and some that nobody has.
fn msr_protocol(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup::default().launch(&host)?;
    let mut vcpu = guest.actor(0);
    let c_bit = u64::from(EncryptionLeaf::read().c_bit);
    let cpuid = |leaf: u64, register: u64| (leaf << 32) | (register << 30) | request::CPUID;
    // Version 2, which is the least for SNP, to 1.
    let info = (2 << 48) | (1 << 32) | (c_bit << 24) | 1;
    for (name, value, expected) in [
        ("sev_info", request::SEV_INFO, info),
        ("preferred_gpa", request::PREFERRED_GPA, !0xfff | 0x011),
        ("preferred_gpa_high", (VALUE << 12) | request::PREFERRED_GPA, !0xfff | 0x011),
        // SNP and AP creation.
        ("features", request::FEATURES, (3 << 12) | 0x081),
        ("features_high", (VALUE << 12) | request::FEATURES, (3 << 12) | 0x081),
        ("register", ghcb_of(0) | request::REGISTER_GPA, ghcb_of(0) | 0x013),
        ("register_none", !0xfff | request::REGISTER_GPA, !0xfff | 0x013),
        // No answer is an error.
        ("vmpl", (1 << 32) | request::VMPL, (1 << 32) | request::VMPL),
        ("unknown", (VALUE << 12) | 0x123, (VALUE << 12) | 0x123),
    ] {
        let outcome = vcpu.msr(value)?;
        t.value(name, format!("{:#x}", outcome.results[0]), format!("{expected:#x}"));
        t.check(&format!("{name}.quiet"), outcome.quiet());
    }
    // AuthenticAMD
    for (register, text) in [(1, b"Auth"), (2, b"cAMD"), (3, b"enti")] {
        let outcome = vcpu.msr(cpuid(0, register))?;
        let value = (u64::from(u32::from_le_bytes(*text)) << 32) | (register << 30) | 0x005;
        t.value(
            &format!("cpuid_{register}"),
            format!("{:#x}", outcome.results[0]),
            format!("{value:#x}"),
        );
    }
    Ok(())
}

/// A GHCB that is not registered is of no use, whatever it holds.
fn registration(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup::default().launch(&host)?;
    let mut vcpu = guest.actor(0);
    let features = Ghcb::request(exit::HV_FEATURES, 0, 0);
    let not_registered = (ghcb::answer::MALFORMED, 1);
    let case = |t: &mut Test, vcpu: &mut Actor, name: &str, expected| -> Result<()> {
        let (outcome, page) = vcpu.vmgexit(&features)?;
        t.value(name, format!("{:?}", answer(&page)), format!("{expected:?}"));
        t.check(&format!("{name}.quiet"), outcome.quiet());
        Ok(())
    };
    case(t, &mut vcpu, "none", not_registered)?;
    vcpu.msr(BUFFERS.start | request::REGISTER_GPA)?;
    case(t, &mut vcpu, "another", not_registered)?;
    vcpu.register()?;
    case(t, &mut vcpu, "this", (ghcb::answer::DONE, 3))?;
    // A registered GHCB outside shared memory, and outside memory.
    for (name, gpa) in [("private", PRIVATE.start), ("outside", MEMORY), ("far", 1 << 45)] {
        let outcome = vcpu.msr(gpa | request::REGISTER_GPA)?;
        t.value(&format!("{name}.answer"), outcome.results[0], gpa | 0x013);
        let outcome = vcpu.msr(gpa)?;
        t.observe(&format!("{name}.exit"), outcome);
    }
    case(t, &mut vcpu, "changed", not_registered)?;
    vcpu.register()?;
    case(t, &mut vcpu, "again", (ghcb::answer::DONE, 3))?;
    Ok(())
}

/// Port output by a GHCB, and what else an ES guest can do.
fn hello(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup::default().launch(&host)?;
    let mut vcpu = guest.actor(0);
    vcpu.register()?;
    let out = |byte: u8| {
        let info = ghcb::ioio::info(0x3f8, 1, 0);
        Ghcb::request(exit::IOIO, info, 0).with(ghcb::Field::Rax, byte.into())
    };
    for byte in *b"snp" {
        let (outcome, page) = vcpu.vmgexit(&out(byte))?;
        t.value("out", format!("{} {:?}", outcome.exits(), answer(&page)), "out:3f8 (0, 0)".into());
    }
    let leaf = Ghcb::request(exit::CPUID, 0, 0).with(ghcb::Field::Rax, 0).with(ghcb::Field::Rcx, 0);
    let (_, page) = vcpu.vmgexit(&leaf)?;
    t.value("cpuid", page.get(ghcb::Field::Rbx), u32::from_le_bytes(*b"Auth").into());
    let (_, page) = vcpu.vmgexit(&Ghcb::request(exit::HV_FEATURES, 0, 0))?;
    t.value("features", format!("{:?}", answer(&page)), format!("{:?}", (0, 3)));
    Ok(())
}

/// Private pages are assigned when the guest touches them, and its own once it has validated
/// them; shared ones are the host's as well.
fn private_memory(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup::default().launch(&host)?;
    let mut vcpu = guest.actor(0);
    let page = PRIVATE.start;
    let untouched = vcpu.load(page)?;
    t.observe("untouched", &untouched);
    t.check("not_validated", untouched.exception == Some(Exception::NOT_VALIDATED));
    vcpu.validate(page)?;
    let again = vcpu.pvalidate(page, true)?;
    t.value("validated_twice", format!("{:?}", again.results), "[0, 1]".into());
    t.check("store", vcpu.store(page, VALUE)?.quiet());
    t.value("load", vcpu.load(page)?.results[0], VALUE);
    t.value("host_sees", vcpu.memory.read_u64(page as usize), 0);
    let rescinded = vcpu.pvalidate(page, false)?;
    t.value("rescinded", format!("{:?}", rescinded.results), "[0, 0]".into());
    t.check("gone", vcpu.load(page)?.exception == Some(Exception::NOT_VALIDATED));
    vcpu.validate(page)?;
    // Shared pages, in both directions.
    let shared = BUFFERS.start;
    t.check("shared_store", vcpu.store(shared, VALUE)?.quiet());
    t.value("host_reads", vcpu.memory.read_u64(shared as usize), VALUE);
    vcpu.memory.write_u64(shared as usize + 8, !VALUE);
    t.value("guest_reads", vcpu.load(shared + 8)?.results[0], !VALUE);
    // The launched pages were validated by firmware.
    t.check("launched", vcpu.load(sev_vm::guest::CODE)?.quiet());
    Ok(())
}

/// An access with the other C-bit than the page's attribute is a memory fault for userspace,
/// which may convert the page.
fn implicit_conversion(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup::default().launch(&host)?;
    let mut vcpu = guest.actor(0);
    for (name, address) in
        [("private_as_shared", SHARED_VIEW + PRIVATE.start), ("area_as_shared", SHARED_VIEW + AREA)]
    {
        vcpu.post(Command::Store, [address, VALUE, 0]);
        let stopped = vcpu.resume()?;
        t.observe(name, &stopped);
        t.check(&format!("{name}.stopped"), !stopped.done && stopped.exits.len() == 1);
        let again = vcpu.resume()?;
        t.check(&format!("{name}.again"), again == stopped);
        vcpu.vmm = Vmm { faults: Reply::Serve, ..Vmm::default() };
        let served = vcpu.resume()?;
        vcpu.vmm = Vmm::default();
        t.observe(&format!("{name}.served"), &served);
        let gpa = (address - SHARED_VIEW) as usize;
        t.value(&format!("{name}.host_reads"), vcpu.memory.read_u64(gpa), VALUE);
    }
    // Back to private: what the host wrote is not there.
    vcpu.vmm = Vmm { faults: Reply::Serve, ..Vmm::default() };
    let private = vcpu.load(PRIVATE.start)?;
    t.observe("shared_as_private", &private);
    t.check("not_validated", private.exception == Some(Exception::NOT_VALIDATED));
    vcpu.validate(PRIVATE.start)?;
    t.check("stored", vcpu.store(PRIVATE.start, 1)?.quiet());
    Ok(())
}

/// Page state changes by the MSR protocol: there and back.
fn psc_msr(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup::default().launch(&host)?;
    let mut vcpu = guest.actor(0);
    let page = PRIVATE.start;
    for round in 0..3 {
        vcpu.validate(page)?;
        t.check("private_store", vcpu.store(page, VALUE + round)?.quiet());
        vcpu.pvalidate(page, false)?;
        let outcome = vcpu.msr(page | TO_SHARED | request::PSC)?;
        t.value("to_shared", outcome.results[0], PSC_DONE);
        t.value("to_shared.exits", outcome.exits(), format!("map:{page:x}+1:0"));
        t.check("shared_store", vcpu.store(SHARED_VIEW + page, round)?.quiet());
        t.value("host_reads", vcpu.memory.read_u64(page as usize), round);
        let outcome = vcpu.msr(page | TO_PRIVATE | request::PSC)?;
        t.value("to_private", outcome.results[0], PSC_DONE);
        t.value("to_private.exits", outcome.exits(), format!("map:{page:x}+1:10"));
        let untouched = vcpu.load(page)?;
        t.check("not_validated", untouched.exception == Some(Exception::NOT_VALIDATED));
    }
    // A page that was private all the time keeps its content and its validation.
    vcpu.validate(page)?;
    vcpu.store(page, VALUE)?;
    vcpu.msr(page | TO_PRIVATE | request::PSC)?;
    t.value("kept", vcpu.load(page)?.results[0], VALUE);
    Ok(())
}

/// Userspace's answers, and a VM whose hypercalls do not exit.
fn psc_msr_refused(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup::default().launch(&host)?;
    let mut vcpu = guest.actor(0);
    let request = PRIVATE.start | TO_SHARED | request::PSC;
    for number in [1, nix::libc::EINVAL as u64, nix::libc::EAGAIN as u64, u64::MAX, 1 << 32] {
        vcpu.vmm = Vmm { hypercalls: Reply::Return(number), ..Vmm::default() };
        let outcome = vcpu.msr(request)?;
        t.observe(&format!("userspace_{number:x}"), &outcome);
        if !outcome.done {
            // The guest never gets an answer: KVM_RUN fails, and goes on when repeated.
            t.observe(&format!("userspace_{number:x}.again"), vcpu.resume()?);
        } else {
            let answer = outcome.results[0];
            t.value(&format!("userspace_{number:x}.answer"), answer, PSC_FAILED);
        }
    }
    drop(guest);
    let mut guest = Setup { hypercalls: false, ..Setup::default() }.launch(&host)?;
    let outcome = guest.actor(0).msr(request)?;
    t.value("no_exits", outcome.results[0], PSC_FAILED);
    t.check("no_exits.quiet", outcome.quiet());
    Ok(())
}

/// Every operation, and page numbers where there is nothing.
fn psc_msr_operations(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup::default().launch(&host)?;
    let mut vcpu = guest.actor(0);
    for operation in 0..16 {
        let outcome = vcpu.msr(PRIVATE.start | (operation << 52) | request::PSC)?;
        t.observe(&format!("operation_{operation}"), &outcome);
        let known = operation == 1 || operation == 2;
        let expected = if known { PSC_DONE } else { PSC_FAILED };
        t.value(&format!("operation_{operation}.answer"), outcome.results[0], expected);
    }
    for (name, gpa) in [
        ("shared", SHARED.start + 0x10000),
        ("end_of_memory", MEMORY),
        ("largest", ((1 << 52) - 1) & !0xfff),
    ] {
        for (way, operation) in [("private", TO_PRIVATE), ("shared", TO_SHARED)] {
            let outcome = vcpu.msr(gpa | operation | request::PSC)?;
            t.observe(&format!("{name}.to_{way}"), &outcome);
        }
    }
    // Bits 63:56 are reserved.
    for bit in 56..64 {
        let outcome = vcpu.msr(PRIVATE.start | TO_SHARED | request::PSC | (1 << bit))?;
        t.observe(&format!("reserved_{bit}"), &outcome);
    }
    set_private(vcpu.vm, PRIVATE.start..PRIVATE.start + PAGE_LEN, true)?;
    vcpu.validate(PRIVATE.start)?;
    Ok(())
}

/// Termination goes to userspace with the MSR's value, by both protocols.
fn terminate(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup::default().launch(&host)?;
    let mut vcpu = guest.actor(0);
    for reasons in [0, 0x1_1000, 0xff_f000] {
        let value = reasons | request::TERMINATE;
        let outcome = vcpu.msr(value)?;
        t.value("msr", outcome.exits(), format!("system_event:6:[{value:x}]"));
    }
    vcpu.register()?;
    let (outcome, page) = vcpu.vmgexit(&Ghcb::request(exit::TERMINATE, 1, 2))?;
    t.value("ghcb", outcome.exits(), format!("system_event:6:[{:x}]", ghcb_of(0)));
    t.observe("ghcb.answer", format!("{:?}", answer(&page)));
    Ok(())
}

/// Userspace neither sees nor sets registers.
fn hidden_registers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup::default().launch(&host)?;
    for when in ["launched", "ran"] {
        let mut vcpu = guest.actor(0);
        let fd = vcpu.vcpu.fd();
        t.check(&format!("{when}.get_regs"), fd.get_regs().is_err());
        t.check(&format!("{when}.set_regs"), fd.set_regs(&Default::default()).is_err());
        // These are no secret, as they are not the guest's.
        for (name, answer) in [
            ("get_fpu", Answer::from_result(fd.get_fpu())),
            ("set_fpu", Answer::from_result(fd.set_fpu(&Default::default()))),
            ("get_xsave", Answer::from_result(fd.get_xsave())),
        ] {
            t.case(&format!("{when}.{name}"), answer, Answer::OK_KEPT);
        }
        vcpu.msr(request::FEATURES)?;
    }
    Ok(())
}
