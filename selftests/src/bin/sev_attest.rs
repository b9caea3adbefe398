// SPDX-License-Identifier: GPL-2.0-or-later
//! GET_ATTESTATION_REPORT, and the report itself by the crate `sev`.

use std::process::ExitCode;

use anyhow::{Result, anyhow, ensure};
use kvm_bindings::*;
use nix::errno::Errno::{EBADF, EFAULT, EINVAL, ENOTTY};
use openssl::bn::BigNum;
use openssl::ecdsa::EcdsaSig;
use openssl::sha::sha256;
use sev::certs::sev::Verifiable;
use sev::firmware::host::LegacyAttestationReport;
use sev_vm::bad::{self, Addresses, KERNEL, NON_CANONICAL};
use sev_vm::cmd::{Answer, status};
use sev_vm::context::Kind;
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::tenant;
use sev_vm::vm::{Vm, addr_of, policy};

const REPORT: u32 = sev_cmd_id_KVM_SEV_GET_ATTESTATION_REPORT;
/// Bytes of a report (sev-tool, `attestation_report`).
const LEN: u32 = 208;
/// Longest blob that the PSP driver copies for the user.
const BLOB_MAX: u32 = 0x4000;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[("lengths", lengths), ("pointers", pointers), ("states", states), ("report", report)],
    )
}

fn ask(vm: &Vm, argument: &mut kvm_sev_attestation_report) -> Answer {
    vm.command(REPORT, addr_of(argument))
}

fn measured(host: &Host) -> Result<Vm> {
    let vm = Vm::started(host, 0)?;
    vm.load(guest::idle());
    vm.encrypt(guest::LAUNCHED)?;
    vm.measurement()?;
    Ok(vm)
}

fn lengths(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = measured(&host)?;
    let blob = Mapping::anonymous(2 * BLOB_MAX as usize)?;
    let too_short = Answer::firmware(status::INVALID_LEN);
    // Length 0 asks for the length, whatever the address.
    for (name, uaddr) in [("null", 0), ("blob", blob.addr()), ("kernel", KERNEL)] {
        let mut argument = kvm_sev_attestation_report { uaddr, ..Default::default() };
        t.case(&format!("query_{name}"), ask(&vm, &mut argument), too_short);
        t.value(&format!("query_{name}_len"), argument.len, LEN);
    }
    for len in [1, LEN - 1] {
        blob.fill(0x55);
        let mut argument =
            kvm_sev_attestation_report { uaddr: blob.addr(), len, ..Default::default() };
        t.case(&format!("{len}"), ask(&vm, &mut argument), too_short);
        t.value(&format!("{len}_len"), argument.len, len);
        t.check(&format!("{len}_untouched"), blob.read(0, 256) == [0x55; 256]);
    }
    for len in [LEN, LEN + 1, PAGE as u32, BLOB_MAX] {
        blob.fill(0x55);
        let mut argument =
            kvm_sev_attestation_report { uaddr: blob.addr(), len, ..Default::default() };
        t.case(&format!("{len}"), ask(&vm, &mut argument), Answer::OK);
        t.value(&format!("{len}_len"), argument.len, LEN);
        // All that was asked for is written: zeroes after the report.
        let rest = blob.read(LEN as usize, (len - LEN) as usize);
        t.check(&format!("{len}_zero_after"), rest.iter().all(|byte| *byte == 0));
        t.check(&format!("{len}_no_more"), blob.read(len as usize, 16) == [0x55; 16]);
    }
    for len in [BLOB_MAX + 1, 1 << 31, u32::MAX] {
        let mut argument =
            kvm_sev_attestation_report { uaddr: blob.addr(), len, ..Default::default() };
        t.case(&format!("{len:x}"), ask(&vm, &mut argument), Answer::refused(EINVAL));
    }
    Ok(())
}

fn pointers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = measured(&host)?;
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_attestation_report>()) {
        t.case(&format!("argument_{name}"), vm.command(REPORT, address), Answer::refused(EFAULT));
    }
    let read_only = bad::read_only(&[0; 64])?;
    let late = Answer { fw: status::INVALID_LEN, ..Answer::refused(EFAULT) };
    t.case("argument_read_only", vm.command(REPORT, read_only.addr()), late);
    let late = Answer { fw: 0, ..Answer::refused(EFAULT) };
    for (name, uaddr) in [
        ("unmapped", addresses.unmapped()),
        ("tail_unmapped", addresses.unmapped() - 100),
        ("kernel", KERNEL),
        ("non_canonical", NON_CANONICAL),
        ("read_only", read_only.addr()),
        ("wraps", u64::MAX - 10),
    ] {
        let mut argument = kvm_sev_attestation_report { uaddr, len: LEN, ..Default::default() };
        t.case(name, ask(&vm, &mut argument), late);
    }
    // A length without an address: firmware gets neither.
    let mut argument = kvm_sev_attestation_report { len: LEN, ..Default::default() };
    t.case("null", ask(&vm, &mut argument), Answer::firmware(status::INVALID_LEN));
    Ok(())
}

fn states(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut query = kvm_sev_attestation_report::default();
    let plain = Vm::bare(&host, VmType::Default)?;
    t.case("plain", ask(&plain, &mut query), Answer::refused(ENOTTY));
    let vm = Vm::bare(&host, VmType::Sev)?;
    t.case("not_initialised", ask(&vm, &mut query), Answer::refused(ENOTTY));
    // The number of no descriptor yet.
    let vm = Vm::sev(&host)?;
    t.case("initialised", ask(&vm, &mut query), Answer::refused(EBADF));
    let vm = Vm::started(&host, 0)?;
    t.firmware_case("launching", ask(&vm, &mut query));
    let vm = measured(&host)?;
    t.case("measured", ask(&vm, &mut query), Answer::firmware(status::INVALID_LEN));
    t.case("finish", vm.launch_finish(), Answer::OK);
    t.case("running", ask(&vm, &mut query), Answer::firmware(status::INVALID_LEN));
    Ok(())
}

/// The report as the owner sees it: nonce, launch digest, policy, and PEK's signature.
fn report(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let chain = tenant::firmware()?.pdh_cert_export().map_err(|e| anyhow!("{e:?}"))?;
    for (name, kind, bits) in [("sev", Kind::Sev, policy::NO_DEBUG), ("es", Kind::Es, policy::ES)] {
        let vm = kind.initialised(&host, kind.vm_type())?;
        let start =
            vm.launch_start(&mut kvm_sev_launch_start { policy: bits, ..Default::default() });
        ensure!(start.is_ok(), "LAUNCH_START: {start}");
        vm.load(guest::idle());
        let launched = vm.memory.read(guest::LAUNCHED.start, guest::LAUNCHED.len());
        vm.encrypt(guest::LAUNCHED)?;
        vm.measurement()?;
        t.case(&format!("{name}_finish"), vm.launch_finish(), Answer::OK);
        let mnonce: [u8; 16] = std::array::from_fn(|i| 3 * i as u8 + 1);
        let blob = Mapping::anonymous(PAGE)?;
        let mut argument = kvm_sev_attestation_report {
            mnonce,
            uaddr: blob.addr(),
            len: LEN,
            ..Default::default()
        };
        t.case(&format!("{name}_report"), ask(&vm, &mut argument), Answer::OK);
        let bytes = blob.read(0, LEN as usize);
        let report = parse(&bytes)?;
        t.check(&format!("{name}_nonce"), report.mnonce == mnonce);
        t.check(&format!("{name}_digest"), report.launch_digest == sha256(&launched));
        t.value(&format!("{name}_policy"), report.policy, bits);
        t.check(&format!("{name}_signature"), (&chain.pek, &report).verify().is_ok());
        t.check(&format!("{name}_not_by_pdh"), (&chain.pdh, &report).verify().is_err());
        for (part, byte) in [("nonce", 0), ("digest", 16), ("policy", 48), ("signature", 64)] {
            let mut forged = bytes.clone();
            forged[byte] ^= 1;
            let verdict = (&chain.pek, &parse(&forged)?).verify();
            t.check(&format!("{name}_forged_{part}"), verdict.is_err());
        }
    }
    Ok(())
}

/// The report as the crate has it. Firmware gives the signature as two numbers of 72 bytes,
/// little-endian (sev-tool, `ecdsa_sig`); the crate takes it for DER.
fn parse(bytes: &[u8]) -> Result<LegacyAttestationReport> {
    let mut report = LegacyAttestationReport::default();
    report.mnonce.copy_from_slice(&bytes[..16]);
    report.launch_digest.copy_from_slice(&bytes[16..48]);
    report.policy = u32::from_le_bytes(bytes[48..52].try_into()?);
    let number = |from: usize| -> Result<BigNum> {
        let mut bytes = bytes[from..from + 72].to_vec();
        bytes.reverse();
        Ok(BigNum::from_slice(&bytes)?)
    };
    let der = EcdsaSig::from_private_components(number(64)?, number(136)?)?.to_der()?;
    report.signature[..der.len()].copy_from_slice(&der);
    Ok(report)
}
