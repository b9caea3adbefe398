// SPDX-License-Identifier: GPL-2.0-or-later
//! GHCB requests: every exit code, with fields missing, wrong or out of range.
//!
//! What the protocol (AMD publication 56421) says is asserted; what it leaves open is
//! recorded, for the comparison of modules.

use std::process::ExitCode;

use anyhow::Result;
use sev_vm::es::{Setup, kept_vm};
use sev_vm::ghcb::{BUFFER, FIELDS, Field, Ghcb, answer, exit, ioio};
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::step::{GHCB, NO_EXIT, Stepper, done, refused};

const SCRATCH: u64 = GHCB + BUFFER as u64;
const MMIO: u64 = guest::MMIO.start;
const OUT: u64 = ioio::info(0x3f8, 1, 0);
const IN: u64 = ioio::info(0x3f8, 1, ioio::IN);
const OUTS: u64 = ioio::info(0x3f8, 1, ioio::STRING | ioio::REP);
const INS: u64 = OUTS | ioio::IN;

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("every_code", every_code),
            ("missing_fields", missing_fields),
            ("usage", usage),
            ("versions", versions),
            ("terminate", terminate),
            ("snp_only", snp_only),
            ("wide_codes", wide_codes),
        ],
    )
}

/// A well-formed request for each event, with every field that it needs.
fn well_formed() -> Vec<(&'static str, Ghcb, &'static [Field])> {
    use Field::*;
    let request = |code, info1, info2, fields: &'static [Field]| {
        fields.iter().fold(Ghcb::request(code, info1, info2), |ghcb, field| {
            ghcb.with(*field, if *field == Scratch { SCRATCH } else { 0 })
        })
    };
    let list: [(_, _, _, _, &'static [Field]); 19] = [
        ("write_dr7", exit::WRITE_DR7, 0, 0, &[Rax]),
        ("rdpmc", exit::RDPMC, 0, 0, &[Rcx]),
        ("cpuid", exit::CPUID, 0, 0, &[Rax, Rcx]),
        ("out", exit::IOIO, OUT, 0, &[Rax]),
        ("in", exit::IOIO, IN, 0, &[]),
        ("outs", exit::IOIO, OUTS, 1, &[Scratch]),
        ("ins", exit::IOIO, INS, 1, &[Scratch]),
        ("rdmsr", exit::MSR, 0, 0, &[Rcx]),
        ("wrmsr", exit::MSR, 1, 0, &[Rcx, Rax, Rdx]),
        ("vmmcall", exit::VMMCALL, 0, 0, &[Rax, Cpl]),
        ("wbinvd", exit::WBINVD, 0, 0, &[]),
        ("monitor", exit::MONITOR, 0, 0, &[Rax, Rcx, Rdx]),
        ("mwait", exit::MWAIT, 0, 0, &[Rax, Rcx]),
        ("mmio_read", exit::MMIO_READ, MMIO, 8, &[Scratch]),
        ("mmio_write", exit::MMIO_WRITE, MMIO, 8, &[Scratch]),
        ("nmi_complete", exit::NMI_COMPLETE, 0, 0, &[]),
        ("reset_hold", exit::AP_RESET_HOLD, 0, 0, &[]),
        ("jump_table", exit::AP_JUMP_TABLE, 1, 0, &[]),
        ("features", exit::HV_FEATURES, 0, 0, &[]),
    ];
    list.map(|(name, code, info1, info2, fields)| {
        (name, request(code, info1, info2, fields), fields)
    })
    .to_vec()
}

/// Exit codes 0 to 0x403 and those of the protocol, with parameters of zero and with all
/// fields valid. Whatever is not for a guest to ask has to be refused.
fn every_code(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let own = (0x8000_0000..0x8000_0020).chain(0x8000_fff8..0x8001_0000);
    let codes: Vec<u64> = (0..=0x410).chain(own).chain([0xf000_0000, 0xffff_ffff]).collect();
    for version in [1, 2] {
        let mut guest = Stepper::new(&host, Setup::version(version))?;
        let mut unknown = 0;
        for code in &codes {
            let bare = guest.step(&Ghcb::request(*code, 0, 0))?;
            let valid = FIELDS.iter().fold(Ghcb::empty(), |ghcb, field| ghcb.with(*field, 0));
            let full =
                guest.step(&valid.with(Field::ExitCode, *code).with(Field::Scratch, SCRATCH))?;
            let refusal = (answer::MALFORMED, answer::INVALID_EVENT);
            if bare.answer() == refusal && full.answer() == refusal {
                unknown += u64::from(bare.exits == NO_EXIT && full.exits == NO_EXIT);
                continue;
            }
            t.observe(&format!("v{version}.{code:x}.bare"), bare);
            t.observe(&format!("v{version}.{code:x}.full"), full);
        }
        t.observe(&format!("v{version}.unknown"), unknown);
    }
    Ok(())
}

/// Every event without each of its fields: "missing input". Without fields that it does not
/// need: as before.
fn missing_fields(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Stepper::new(&host, Setup::default())?;
    for (name, ghcb, fields) in well_formed() {
        let complete = guest.step(&ghcb)?;
        t.observe(name, &complete);
        t.check(&format!("{name}.accepted"), complete.answer().0 != answer::MALFORMED);
        for field in [Field::ExitCode, Field::Info1, Field::Info2].iter().chain(fields) {
            let outcome = guest.step(&ghcb.clone().without(*field))?;
            refused(t, &format!("{name}.without_{field:?}"), &outcome, answer::MISSING_INPUT);
        }
        let outcome = guest.step(&Ghcb::empty())?;
        refused(t, &format!("{name}.without_any"), &outcome, answer::MISSING_INPUT);
    }
    // CPUID leaf 0xd depends on XCR0.
    let leaf = Ghcb::request(exit::CPUID, 0, 0).with(Field::Rax, 0xd).with(Field::Rcx, 0);
    refused(t, "leaf_d", &guest.step(&leaf)?, answer::MISSING_INPUT);
    let outcome = guest.step(&leaf.with(Field::Xcr0, 7))?;
    done(t, "leaf_d_with_xcr0", &outcome, NO_EXIT);
    Ok(())
}

/// Other layouts than the one of usage 0 are refused, whatever else the page holds.
fn usage(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Stepper::new(&host, Setup::default())?;
    for usage in [1, 2, 0x100, 0x1_0000, 0x100_0000, 0x8000_0000, u32::MAX] {
        for (name, ghcb) in [
            ("features", Ghcb::request(exit::HV_FEATURES, 0, 0)),
            ("terminate", Ghcb::request(exit::TERMINATE, 0, 0)),
            ("empty", Ghcb::empty()),
        ] {
            let outcome = guest.step(&ghcb.usage(usage))?;
            refused(t, &format!("{usage:x}.{name}"), &outcome, answer::INVALID_USAGE);
        }
    }
    Ok(())
}

/// The version field of the page.
fn versions(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for offered in [1, 2] {
        let mut guest = Stepper::new(&host, Setup::version(offered))?;
        for version in [0, 1, 2, 3, 0xff, 0x100, 0xffff] {
            for (name, ghcb, _) in well_formed().into_iter().step_by(6) {
                let outcome = guest.step(&ghcb.version(version))?;
                t.observe(&format!("v{offered}.{version:x}.{name}"), outcome);
            }
        }
    }
    Ok(())
}

/// Termination goes to userspace with the MSR's value, whatever the reasons.
fn terminate(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for version in [1, 2] {
        let mut guest = Stepper::new(&host, Setup::version(version))?;
        for (info1, info2) in [(0, 0), (0xff1, 0x1234), (u64::MAX, u64::MAX)] {
            let outcome = guest.step(&Ghcb::request(exit::TERMINATE, info1, info2))?;
            done(
                t,
                &format!("v{version}.{info1:x}"),
                &outcome,
                &format!("system_event:6:[{GHCB:x}]"),
            );
        }
        let alive = guest.step(&Ghcb::request(exit::HV_FEATURES, 0, 0))?;
        done(t, &format!("v{version}.alive"), &alive, NO_EXIT);
    }
    Ok(())
}

/// Events that only SNP guests may ask for.
fn snp_only(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Stepper::new(&host, Setup::default())?;
    for code in [exit::PSC, exit::GUEST_REQUEST, exit::EXT_GUEST_REQUEST, exit::AP_CREATION] {
        for (name, info1, info2) in
            [("zero", 0, 0), ("pages", 0x1000, 0x2000), ("high", u64::MAX, 1 << 63)]
        {
            let ghcb = Ghcb::request(code, info1, info2).with(Field::Rax, 0);
            let outcome = guest.step(&ghcb.clone().with(Field::Scratch, SCRATCH))?;
            refused(t, &format!("{code:x}.{name}"), &outcome, answer::INVALID_EVENT);
            refused(
                t,
                &format!("{code:x}.{name}.bare"),
                &guest.step(&ghcb)?,
                answer::INVALID_EVENT,
            );
        }
    }
    Ok(())
}

/// Exit codes whose lower half is a good one.
fn wide_codes(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Stepper::new(&host, Setup::default())?;
    for (name, ghcb, _) in well_formed() {
        for high in [1 << 32, 1 << 63, 0xffff_ffff << 32] {
            let wide = ghcb.get(Field::ExitCode) | high;
            let outcome = guest.step(&ghcb.clone().with(Field::ExitCode, wide))?;
            refused(t, &format!("{name}.{high:x}"), &outcome, answer::INVALID_EVENT);
        }
    }
    Ok(())
}
