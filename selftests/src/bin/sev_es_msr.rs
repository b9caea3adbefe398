// SPDX-License-Identifier: GPL-2.0-or-later
//! The GHCB MSR protocol: every request code, and data bits.
//!
//! What the protocol (AMD publication 56421) says is asserted; what it leaves open is
//! recorded, for the comparison of modules.

use std::process::ExitCode;

use anyhow::{Context, Result};
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use sev_vm::es::{Setup, kept_vm};
use sev_vm::ghcb::INFO;
use sev_vm::guest;
use sev_vm::host::{EncryptionLeaf, Host};
use sev_vm::ktap::{self, Test};
use sev_vm::step::{Digest, NO_EXIT, Stepper, stay_on_cpu};

/// Requests and their answers (publication 56421, GHCB MSR protocol).
mod code {
    pub const SEV_INFO: u64 = 0x001;
    pub const SEV_INFO_REQ: u64 = 0x002;
    pub const CPUID_REQ: u64 = 0x004;
    pub const CPUID: u64 = 0x005;
    pub const RESET_HOLD_REQ: u64 = 0x006;
    pub const RESET_HOLD: u64 = 0x007;
    pub const PREFERRED_GPA_REQ: u64 = 0x010;
    pub const REGISTER_GPA_REQ: u64 = 0x012;
    pub const PSC_REQ: u64 = 0x014;
    pub const FEATURES_REQ: u64 = 0x080;
    pub const FEATURES: u64 = 0x081;
    pub const TERMINATE: u64 = 0x100;

    pub const REQUESTS: [u64; 8] = [
        SEV_INFO_REQ,
        CPUID_REQ,
        RESET_HOLD_REQ,
        PREFERRED_GPA_REQ,
        REGISTER_GPA_REQ,
        PSC_REQ,
        FEATURES_REQ,
        TERMINATE,
    ];
}

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("negotiation", negotiation),
            ("versions", versions),
            ("every_code", every_code),
            ("data_bits", data_bits),
            ("cpuid", cpuid),
            ("reset_hold", reset_hold),
            ("features", features),
            ("terminate", terminate),
            ("snp_only", snp_only),
            ("no_ghcb", no_ghcb),
        ],
    )
}

/// The answer to SEV information requests: versions from 1 to `max`, the C-bit.
fn sev_info(max: u64) -> u64 {
    (max << 48) | (1 << 32) | (u64::from(EncryptionLeaf::read().c_bit) << 24) | code::SEV_INFO
}

fn negotiation(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (version, offered) in [(1, 1), (2, 2), (0, 2)] {
        let mut guest = Stepper::new(&host, Setup::version(version))?;
        for (name, data) in [("plain", 0), ("with_data", 0xdead_beef_f00d << 12)] {
            let outcome = guest.msr(data | code::SEV_INFO_REQ)?;
            t.check(&format!("v{version}.{name}"), outcome.msr == sev_info(offered));
            t.value(&format!("v{version}.{name}.exits"), outcome.exits, NO_EXIT.into());
        }
    }
    // KVM_SEV_ES_INIT is older than the second version.
    let mut guest = Stepper::new(&host, Setup { old: true, ..Default::default() })?;
    t.check("old", guest.msr(code::SEV_INFO_REQ)?.msr == sev_info(1));
    Ok(())
}

/// `ghcb_version` of `KVM_SEV_INIT2`: what KVM does not serve is refused.
fn versions(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for version in [3, 0x100, 0xffff] {
        t.check(&version.to_string(), Setup::version(version).start(&host).is_err());
    }
    for version in [0, 1, 2] {
        t.check(&version.to_string(), Setup::version(version).start(&host).is_ok());
    }
    Ok(())
}

/// All 4095 codes: those that are no requests leave the MSR alone and cause no exit.
fn every_code(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for version in [1, 2] {
        let mut guest = Stepper::new(&host, Setup::version(version))?;
        let mut ignored = 0;
        for code in 1..=INFO {
            let outcome = guest.msr(code)?;
            if code::REQUESTS.contains(&code) {
                t.observe(&format!("v{version}.{code:03x}"), outcome);
            } else if outcome.exits == NO_EXIT && outcome.msr == code {
                ignored += 1;
            } else {
                t.observe(&format!("v{version}.unknown_{code:03x}"), outcome);
            }
        }
        let unknown = INFO - code::REQUESTS.len() as u64;
        t.value(&format!("v{version}.ignored"), ignored, unknown);
    }
    Ok(())
}

/// Each request with single data bits and with all; unknown codes with all.
fn data_bits(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Stepper::new(&host, Setup::default())?;
    for code in code::REQUESTS {
        let mut digest = Digest::default();
        for bit in 12..64 {
            digest.add(guest.msr((1 << bit) | code)?.to_string().as_bytes());
        }
        t.observe(&format!("{code:03x}.single"), digest);
        t.observe(&format!("{code:03x}.all"), guest.msr(!INFO | code)?);
    }
    let mut ignored = 0;
    for code in (1..=INFO).filter(|code| !code::REQUESTS.contains(code)).step_by(7) {
        let outcome = guest.msr(!INFO | code)?;
        ignored += u64::from(outcome.exits == NO_EXIT && outcome.msr == !INFO | code);
    }
    t.value("ignored", ignored, (INFO - code::REQUESTS.len() as u64).div_ceil(7));
    Ok(())
}

/// CPUID by the MSR: what was given to `KVM_SET_CPUID2`, with ECX = 0.
fn cpuid(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    stay_on_cpu(0)?;
    let table = host.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let mut guest = Stepper::new(&host, Setup::default())?;
    // These hold sizes and features that depend on the vCPU's state.
    let static_leaves = [0, 2, 6, 0x4000_0000, 0x4000_0001, 0x8000_0000, 0x8000_0002, 0x8000_001f];
    for leaf in static_leaves {
        let entry = table.as_slice().iter().find(|e| e.function == leaf && e.index == 0);
        let Some(entry) = entry else { continue };
        for (number, expected) in [entry.eax, entry.ebx, entry.ecx, entry.edx].iter().enumerate() {
            let request = (u64::from(leaf) << 32) | ((number as u64) << 30) | code::CPUID_REQ;
            let outcome = guest.msr(request)?;
            let answer = (u64::from(*expected) << 32) | ((number as u64) << 30) | code::CPUID;
            t.check(&format!("{leaf:x}.{number}"), outcome.msr == answer);
        }
    }
    for leaf in [1u64, 4, 7, 0xb, 0xd, 0x14, 0x1d, 0x8000_0008, 0x8fff_ffff, 0xffff_ffff] {
        for number in 0..4 {
            let request = (leaf << 32) | (number << 30) | code::CPUID_REQ;
            t.observe(&format!("other.{leaf:x}.{number}"), guest.msr(request)?);
        }
    }
    // Bits between the code and the register number are reserved.
    let outcome = guest.msr((0x8000_0000 << 32) | 0x3fff_f000 | code::CPUID_REQ)?;
    t.observe("reserved_bits", &outcome);
    let known = table.as_slice().iter().find(|e| e.function == 0x8000_0000).context("no leaf")?;
    t.check("reserved_bits.value", outcome.msr >> 32 == u64::from(known.eax));
    Ok(())
}

/// Without interrupt controllers in the kernel AP reset hold comes to userspace; nobody has
/// sent a SIPI, so the answer's data is zero.
fn reset_hold(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for version in [1, 2] {
        let mut guest = Stepper::new(&host, Setup::version(version))?;
        for data in [0, 1, 0xf_ffff_ffff_ffff] {
            let outcome = guest.msr((data << 12) | code::RESET_HOLD_REQ)?;
            let name = format!("v{version}.{data:x}");
            t.value(&format!("{name}.answer"), outcome.msr, code::RESET_HOLD);
            // KVM_EXIT_AP_RESET_HOLD
            t.value(&format!("{name}.exits"), outcome.exits, "Unsupported(32)".into());
        }
    }
    Ok(())
}

fn features(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for version in [1, 2] {
        let mut guest = Stepper::new(&host, Setup::version(version))?;
        let outcome = guest.msr((0xabc << 12) | code::FEATURES_REQ)?;
        t.check(&format!("v{version}.is_answer"), outcome.msr & INFO == code::FEATURES);
        t.observe(&format!("v{version}"), outcome);
    }
    Ok(())
}

/// KVM_SYSTEM_EVENT_SEV_TERM with the MSR's value as its only datum.
fn term(msr: u64) -> String {
    format!("system_event:6:[{msr:x}]")
}

fn terminate(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for version in [1, 2] {
        let mut guest = Stepper::new(&host, Setup::version(version))?;
        for data in [0, 1, 0x011, 0xff1, 0xf_ffff_ffff_ffff] {
            let msr = (data << 12) | code::TERMINATE;
            let outcome = guest.msr(msr)?;
            t.value(&format!("v{version}.{data:x}.exits"), outcome.exits, term(msr));
            t.check(&format!("v{version}.{data:x}.msr_kept"), outcome.msr == msr);
        }
        // A VMM may go on all the same.
        t.check(
            &format!("v{version}.alive"),
            guest.msr(code::SEV_INFO_REQ)?.msr == sev_info(version.into()),
        );
    }
    Ok(())
}

/// Requests that only SNP guests may make end the guest.
fn snp_only(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Stepper::new(&host, Setup::default())?;
    for request in [code::PREFERRED_GPA_REQ, code::REGISTER_GPA_REQ, code::PSC_REQ] {
        for data in [0, guest::SHARED.start >> 12, 0x1_0000_0000_0010, 0x20_0000_0000_0010] {
            let msr = (data << 12) | request;
            let outcome = guest.msr(msr)?;
            t.value(&format!("{request:03x}.{data:x}"), outcome.exits, term(msr));
            t.check(&format!("{request:03x}.{data:x}.msr_kept"), outcome.msr == msr);
        }
    }
    Ok(())
}

/// Addresses at which no GHCB can be: the guest gets no answer, and nothing else happens.
fn no_ghcb(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for version in [1, 2] {
        let mut guest = Stepper::new(&host, Setup::version(version))?;
        let c_mask = EncryptionLeaf::read().c_mask();
        for (name, gpa) in [
            ("zero", 0),
            ("behind_memory", guest::MEMORY as u64),
            ("mmio", guest::MMIO.start),
            ("4_gib", 1 << 32),
            ("with_c_bit", c_mask | 0x2_1000),
            ("52_bits", 0xf_ffff_ffff_f000),
            ("non_canonical", 0x8000_0000_0000 - 0x1000),
            ("highest", !INFO),
            ("sign_bit", 1 << 63),
        ] {
            let outcome = guest.msr(gpa)?;
            t.check(&format!("v{version}.{name}.msr_kept"), outcome.msr == gpa);
            t.value(&format!("v{version}.{name}.exits"), outcome.exits, NO_EXIT.into());
        }
        t.check(
            &format!("v{version}.alive"),
            guest.msr(code::SEV_INFO_REQ)?.msr == sev_info(version.into()),
        );
    }
    Ok(())
}
