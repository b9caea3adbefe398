// SPDX-License-Identifier: GPL-2.0-or-later
//! Attestation reports of SNP guests, verified by the sev crate up to the root: chip, TCB version
//! and provider decide on the key that signs.
//!
//! Some reports and the certificates that belong to them are left in `/tmp/attest/NAME` for other
//! verifiers: `report.bin`, and `ark.pem`, `ask.pem`, `vcek.pem` or `ark.pem`, `asvk.pem`,
//! `vlek.pem`. VLEK stays loaded: its test is the last one.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use sev::Generation;
use sev::certs::snp::{Chain, Verifiable};
use sev::firmware::guest::AttestationReport;
use sev::firmware::host::{Config, Firmware, MaskId, TcbVersion, WrappedVlekHashstick};
use sev::parser::ByteParser;
use sev_vm::es::kept_vm;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::psp::Certificates;
use sev_vm::snp_guest::{Setup, SnpGuest};
use sev_vm::snp_guest_message::{Channel, Key};
use sev_vm::snp_guest_request::{launched, report_by};
use sev_vm::snp_guest_rmp::no_page_of_guests;

/// Where reports and certificates are left.
const FILES: &str = "/tmp/attest";
/// Nothing, MASK_CHIP_ID and MASK_CHIP_KEY of SNP_CONFIG.
const SIGNED: u32 = 0;
const NO_CHIP: u32 = 1;
const UNSIGNED: u32 = 2;
/// Bytes of a report that its signature does not cover begin here.
const SIGNATURE: usize = 0x2a0;

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("vcek", vcek),
            ("tcb_version", tcb_version),
            ("masks", masks),
            ("vlek", vlek),
            ("no_page_of_guests", no_page_of_guests),
        ],
    )
}

/// A guest, and what it asks for.
struct Verified {
    guest: SnpGuest,
    channel: Channel,
}

impl Verified {
    fn launch(host: &Host) -> Result<Self> {
        let (guest, channel) = launched(host, Setup::default())?;
        Ok(Self { guest, channel })
    }

    fn report(&mut self, key: Key) -> Result<Vec<u8>> {
        report_by(&mut self.guest.actor(0), &mut self.channel, [0x5a; 64], 0, key)
    }
}

fn chain(certificates: &Certificates) -> Result<Chain> {
    let Certificates { ark, ask, vcek, .. } = certificates;
    Ok(Chain::from_pem(ark.as_bytes(), ask.as_bytes(), vcek.as_bytes())?)
}

fn vlek_chain(certificates: &Certificates) -> Result<Chain> {
    let Certificates { ark, asvk, vlek, .. } = certificates;
    let vlek = vlek.as_ref().context("no VLEK is loaded")?;
    Ok(Chain::from_pem(ark.as_bytes(), asvk.as_bytes(), vlek.as_bytes())?)
}

fn good(chain: &Chain, report: &[u8]) -> Result<bool> {
    let report = AttestationReport::from_bytes(report)?;
    Ok((chain, &report).verify().is_ok())
}

/// Leaves a report and certificates to other verifiers.
fn leave(name: &str, report: &[u8], files: &[(&str, &str)]) -> Result<()> {
    let place = format!("{FILES}/{name}");
    fs::create_dir_all(&place)?;
    fs::write(format!("{place}/report.bin"), report)?;
    for (file, pem) in files {
        fs::write(format!("{place}/{file}.pem"), pem)?;
    }
    Ok(())
}

fn leave_vcek(name: &str, report: &[u8], certificates: &Certificates) -> Result<()> {
    let Certificates { ark, ask, vcek, .. } = certificates;
    leave(name, report, &[("ark", ark), ("ask", ask), ("vcek", vcek)])
}

/// SNP_CONFIG: boot loader and SNP firmware of the reported TCB version; zeroes are the
/// platform's.
fn configure(boot_loader: u8, snp: u8, mask: u32) -> Result<()> {
    let tcb = TcbVersion::new(None, boot_loader, 0, snp, 0);
    Firmware::open()?.snp_set_config(Config::new(tcb, MaskId(mask)))?;
    Ok(())
}

fn vcek(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Verified::launch(&host)?;
    let report = guest.report(Key::Any)?;
    let certificates = t.psp.certificates()?;
    let chain = chain(&certificates)?;
    t.check("chain", chain.verify().is_ok());
    t.check("report", good(&chain, &report)?);
    t.check("vcek_asked_for", good(&chain, &guest.report(Key::Vcek)?)?);
    let parsed = AttestationReport::from_bytes(&report)?;
    let chip = Firmware::open()?.get_identifier()?;
    t.check("chip", parsed.chip_id[..] == Vec::from(chip));
    for (name, at) in [
        ("policy", 0x08),
        ("data", 0x50),
        ("measurement", 0x90),
        ("host_data", 0xc0),
        ("reported_tcb", 0x180),
        ("chip", 0x1a0),
        ("last_signed", SIGNATURE - 1),
        ("r", SIGNATURE),
        ("s", SIGNATURE + 72),
    ] {
        let mut damaged = report.clone();
        damaged[at] ^= 1;
        // What the crate cannot even parse is no good either.
        t.check(&format!("damaged_{name}"), !good(&chain, &damaged).unwrap_or(false));
    }
    // The other signing key of the same root is not this chain's.
    let pems = [&certificates.ark, &certificates.asvk, &certificates.vcek].map(|p| p.as_bytes());
    let wrong = Chain::from_pem(pems[0], pems[1], pems[2])?;
    t.check("other_signing_key", wrong.ca.verify().is_ok() && wrong.verify().is_err());
    t.check("other_signing_key.report", !good(&wrong, &report)?);
    leave_vcek("vcek", &report, &certificates)
}

/// The reported TCB version goes into the key.
fn tcb_version(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Verified::launch(&host)?;
    let (before, report) = (chain(&t.psp.certificates()?)?, guest.report(Key::Any)?);
    configure(2, 9, SIGNED)?;
    let certificates = t.psp.certificates()?;
    let (after, older) = (chain(&certificates)?, guest.report(Key::Any)?);
    t.check("same_root", before.ca.ark == after.ca.ark && before.ca.ask == after.ca.ask);
    t.check("older_chain", after.verify().is_ok());
    t.check("older_report", good(&after, &older)?);
    t.check("other_key", !good(&before, &older)? && !good(&after, &report)?);
    let parsed = AttestationReport::from_bytes(&older)?;
    let tcb = [parsed.reported_tcb.bootloader, parsed.reported_tcb.snp];
    t.value("reported", format!("{tcb:?}"), "[2, 9]".into());
    t.check("committed_is_kept", parsed.committed_tcb.snp > 9);
    leave_vcek("older", &older, &certificates)?;
    configure(0, 0, SIGNED)?;
    t.check("back", good(&before, &guest.report(Key::Any)?)?);
    Ok(())
}

/// Reports that do not name the chip, and reports without signature.
fn masks(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Verified::launch(&host)?;
    let chain = chain(&t.psp.certificates()?)?;
    configure(0, 0, NO_CHIP)?;
    let anonymous = guest.report(Key::Any)?;
    let parsed = AttestationReport::from_bytes(&anonymous)?;
    t.check("no_chip", parsed.chip_id.iter().all(|byte| *byte == 0));
    t.check("no_chip.report", good(&chain, &anonymous)?);
    configure(0, 0, UNSIGNED)?;
    let unsigned = guest.report(Key::Any)?;
    t.check("unsigned", unsigned[SIGNATURE..].iter().all(|byte| *byte == 0));
    t.check("unsigned.report", !good(&chain, &unsigned).unwrap_or(false));
    configure(0, 0, SIGNED)?;
    t.check("back", good(&chain, &guest.report(Key::Any)?)?);
    Ok(())
}

fn vlek(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Verified::launch(&host)?;
    let mut bytes = t.psp.hashstick("a-provider")?;
    let load = |bytes: &[u8]| -> Result<bool> {
        let generation = Generation::identify_host_generation()?;
        let hashstick = WrappedVlekHashstick::from_bytes_with(bytes, generation)?;
        Ok(Firmware::open()?.snp_vlek_load(hashstick).is_ok())
    };
    bytes[100] ^= 1;
    t.check("damaged_hashstick.refused", !load(&bytes)?);
    bytes[100] ^= 1;
    t.check("loaded", load(&bytes)?);
    let certificates = t.psp.certificates()?;
    let (vcek, vlek) = (chain(&certificates)?, vlek_chain(&certificates)?);
    t.check("chain", vlek.verify().is_ok());
    let report = guest.report(Key::Any)?;
    t.check("report", good(&vlek, &report)? && !good(&vcek, &report)?);
    t.check("vlek_asked_for", good(&vlek, &guest.report(Key::Vlek)?)?);
    let own = guest.report(Key::Vcek)?;
    t.check("vcek_asked_for", good(&vcek, &own)? && !good(&vlek, &own)?);
    let Certificates { ark, asvk, vlek, .. } = &certificates;
    let vlek = vlek.as_ref().context("no VLEK")?;
    leave("vlek", &report, &[("ark", ark), ("asvk", asvk), ("vlek", vlek)])
}
