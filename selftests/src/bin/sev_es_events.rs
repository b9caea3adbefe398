// SPDX-License-Identifier: GPL-2.0-or-later
//! GHCB events that KVM answers by itself: AP jump table, hypercalls, MSRs, CPUID.

use std::process::ExitCode;

use anyhow::Result;
use sev_vm::es::{Setup, kept_vm};
use sev_vm::ghcb::{Field, Ghcb, answer, exit};
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::step::{GHCB, NO_EXIT, Stepper, done, refused, stay_on_cpu};

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[("jump_table", jump_table), ("hypercalls", hypercalls), ("msrs", msrs), ("cpuid", cpuid)],
    )
}

/// The AP jump table's address: what was stored is fetched; other requests are refused.
fn jump_table(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Stepper::new(&host, Setup::default())?;
    let request = |info1, info2| Ghcb::request(exit::AP_JUMP_TABLE, info1, info2);
    for address in [0, 0x1000, 0xdead_beef_f00d_1234, u64::MAX] {
        done(t, &format!("set_{address:x}"), &guest.step(&request(0, address))?, NO_EXIT);
        let fetched = guest.step(&request(1, 0x55))?;
        done(t, &format!("get_{address:x}"), &fetched, NO_EXIT);
        t.value(&format!("get_{address:x}.value"), fetched.answer().1, address);
    }
    for info1 in [2, 3, 1 << 32, (1 << 63) | 1, u64::MAX] {
        let outcome = guest.step(&request(info1, 0))?;
        refused(t, &format!("request_{info1:x}"), &outcome, answer::INVALID_INPUT);
    }
    t.value("kept", guest.step(&request(1, 0))?.answer().1, u64::MAX);
    Ok(())
}

/// KVM's hypercalls by VMMCALL events; one goes to userspace if that asked for it.
fn hypercalls(t: &mut Test) -> Result<()> {
    const MAP_GPA_RANGE: u64 = 12;
    const ENOSYS: u64 = -1000i64 as u64;
    const EPERM: u64 = -1i64 as u64;
    let host = Host::open()?;
    for (name, exits) in [("quiet", false), ("exits", true)] {
        let mut guest = Stepper::new(&host, Setup::default())?;
        if exits {
            guest.vm.fd.enable_cap(&kvm_bindings::kvm_enable_cap {
                cap: kvm_bindings::KVM_CAP_EXIT_HYPERCALL,
                args: [1 << MAP_GPA_RANGE, 0, 0, 0],
                ..Default::default()
            })?;
        }
        let call = |number, cpl: u64| {
            Ghcb::request(exit::VMMCALL, 0, 0)
                .with(Field::Rax, number)
                .with(Field::Cpl, cpl << 24)
                .with(Field::Rbx, 0x1000)
                .with(Field::Rcx, 2)
                .with(Field::Rdx, 0x10)
                .with(Field::Rsi, 0)
        };
        for (case, number, cpl) in [
            ("unknown", 0x1234, 0),
            ("user_mode", MAP_GPA_RANGE, 3),
            ("cpl_ff", 1, 0xff),
            ("vapic_poll", 1, 0),
            ("map_gpa_range", MAP_GPA_RANGE, 0),
        ] {
            let outcome = guest.step(&call(number, cpl))?;
            let result = match case {
                "unknown" => ENOSYS,
                "user_mode" | "cpl_ff" => EPERM,
                "vapic_poll" => 0,
                _ if exits => 0x5ec,
                _ => ENOSYS,
            };
            let to_user = exits && case == "map_gpa_range";
            let seen = if to_user { "hypercall:12:[1000, 2, 10]:1" } else { NO_EXIT };
            done(t, &format!("{name}.{case}"), &outcome, seen);
            t.value(&format!("{name}.{case}.rax"), outcome.after.get(Field::Rax), result);
        }
        for (case, rbx, rcx) in
            [("misaligned", 0x1234, 1), ("empty", 0x1000, 0), ("wrapping", !0xfff, 1 << 52)]
        {
            let ghcb = call(MAP_GPA_RANGE, 0).with(Field::Rbx, rbx).with(Field::Rcx, rcx);
            t.observe(&format!("{name}.{case}"), guest.step(&ghcb)?);
        }
        let bare =
            Ghcb::request(exit::VMMCALL, 0, 0).with(Field::Rax, MAP_GPA_RANGE).with(Field::Cpl, 0);
        t.observe(&format!("{name}.bare"), guest.step(&bare)?);
    }
    Ok(())
}

/// MSR accesses; a fault is for the guest to raise.
fn msrs(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Stepper::new(&host, Setup::default())?;
    for (name, msr, value) in [
        ("unknown", 0x1234_5678, 0),
        ("tsc_adjust", 0x3b, 0x40),
        ("pat", 0x277, 0x0007_0406_0007_0406),
        ("apic_base", 0x1b, 0xfee0_0900),
        ("debugctl", 0x1d9, 0),
        ("efer", 0xc000_0080, 0x500),
        ("star", 0xc000_0081, 0),
        ("ghcb", 0xc001_0130, GHCB),
        ("sev_status", 0xc001_0131, 0),
        ("xss", 0xda0, 0),
        ("tsc_aux", 0xc000_0103, 3),
        ("misc_enable", 0x1a0, 0),
        ("kvm_steal_time", 0x4b56_4d03, 0),
        ("smbase", 0x9e, 0),
    ] {
        for (case, write) in
            [("read", 0), ("write", 1), ("write_2", 2), ("write_high", 1 << 32), ("read_again", 0)]
        {
            let ghcb = Ghcb::request(exit::MSR, write, 0)
                .with(Field::Rcx, msr)
                .with(Field::Rax, value & 0xffff_ffff)
                .with(Field::Rdx, value >> 32);
            let outcome = guest.step(&ghcb)?;
            t.observe(&format!("{name}.{case}"), &outcome);
            if name == "unknown" && case.starts_with("read") {
                // #GP in the format of EVENTINJ: valid, type 3. There is no error code, so the
                // upper half means nothing.
                let (kind, event) = outcome.answer();
                let fault = kind == answer::EXCEPTION && event as u32 == (1 << 31) | (3 << 8) | 13;
                t.check(&format!("{name}.{case}.fault"), fault);
            }
        }
    }
    Ok(())
}

/// CPUID depends on XCR0 and XSS of the request; hostile values change nothing.
fn cpuid(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    stay_on_cpu(0)?;
    let mut guest = Stepper::new(&host, Setup::default())?;
    for (leaf, index) in
        [(0, 0), (1, 0), (7, 0), (0xd, 0), (0xd, 1), (0xd, 2), (0xd, 62), (0x8000_001f, 0)]
    {
        for (name, xcr0, xss) in [
            ("x87", 1, 0),
            ("avx", 7, 0),
            ("none", 0, 0),
            ("no_sse", 5, 0),
            ("all", u64::MAX, u64::MAX),
            ("high", (1 << 63) | 1, 1 << 63),
            ("x87_again", 1, 0),
        ] {
            let ghcb = Ghcb::request(exit::CPUID, 0, 0)
                .with(Field::Rax, leaf)
                .with(Field::Rcx, index)
                .with(Field::Xcr0, xcr0)
                .with(Field::Xss, xss);
            let outcome = guest.step(&ghcb)?;
            t.observe(&format!("{leaf:x}.{index:x}.{name}"), outcome);
        }
    }
    Ok(())
}
