// SPDX-License-Identifier: GPL-2.0-or-later
//! Guest requests: messages between an SNP guest and the firmware that KVM carries.
//!
//! The guest copies its secrets page into shared memory, so that the test, in the place of the
//! guest's software, can write and read messages. Which status firmware gives for a message
//! that it refuses is not specified; those are for the comparison of modules.

mod extended;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;
use sev_vm::es::kept_vm;
use sev_vm::ghcb::{self, Field, Ghcb, exit};
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::PAGE;
use sev_vm::snp::policy;
use sev_vm::snp_guest::{Actor, BUFFERS, MEMORY, PRIVATE, Setup, answer};
use sev_vm::snp_guest_message::{
    Channel, CpuidRow, HEADER, cpuid_request, field, key_request, kind, report_request, status,
};
use sev_vm::snp_guest_request::{self, COPIED, REQUEST, RESPONSE, ask, carry, launched};
use sev_vm::snp_guest_rmp::no_page_of_guests;

const PAGE_LEN: u64 = PAGE as u64;
/// Pages for certificates.
const CERTIFICATES: u64 = BUFFERS.start + 2 * PAGE_LEN;
/// Statuses in `Info2` that are KVM's: in the upper half.
const TOO_FEW_PAGES: u64 = 1 << 32;
const BUSY: u64 = 2 << 32;
const FAILED: u64 = 0xffff_ffff << 32;

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("cpuid", cpuid),
            ("key", key),
            ("report", report),
            ("channels", channels),
            ("sequence", sequence),
            ("tampered", tampered),
            ("other_messages", other_messages),
            ("addresses", addresses),
            ("not_backed", not_backed),
            ("firmware_fails", firmware_fails),
            ("extended", extended::extended),
            ("certificates", extended::certificates),
            ("certificates_refused", extended::certificates_refused),
            ("requests_disabled", requests_disabled),
            ("no_page_of_guests", no_page_of_guests),
        ],
    )
}

/// Records that a page is refused by firmware, and the answer's page left alone.
fn refused(t: &mut Test, vcpu: &mut Actor, case: &str, page: &[u8]) -> Result<()> {
    let (outcome, (first, second)) = carry(vcpu, page)?;
    t.observe(case, format!("{first:x}:{second:x} {}", outcome.exits()));
    t.check(
        &format!("{case}.refused"),
        first == 0 && second != 0 && second >> 32 == 0 && outcome.quiet(),
    );
    Ok(())
}

fn cpuid(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut guest, mut channel) = launched(&host, Setup::default())?;
    let mut vcpu = guest.actor(0);
    // SAFETY: every x86-64 CPU has CPUID.
    let leaf = unsafe { std::arch::x86_64::__cpuid_count(0, 0) };
    let values = [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx];
    let row = CpuidRow { leaf: [0, 0], state: [0, 0], values };
    let request = cpuid_request(&[row]);
    let answer = ask(&mut vcpu, &mut channel, kind::CPUID, &request)?;
    t.value("host_values", status(&answer)?, 0);
    t.check("same_values", answer[16..] == request[16..]);
    // The TSC-deadline timer, which SNP guests cannot trust.
    let deadline = CpuidRow { leaf: [1, 0], values: [0, 0, 1 << 24, 0], ..row };
    let request = cpuid_request(&[row, deadline]);
    let answer = ask(&mut vcpu, &mut channel, kind::CPUID, &request)?;
    t.check("other_values.refused", status(&answer)? != 0);
    t.observe("other_values", format!("{:#x}", status(&answer)?));
    Ok(())
}

/// The same request, the same key; anything else, another one.
fn key(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut guest, mut channel) = launched(&host, Setup::default())?;
    let mut vcpu = guest.actor(0);
    let mut get = |vcpu: &mut Actor, request: &[u8]| -> Result<(u32, Vec<u8>)> {
        let answer = ask(vcpu, &mut channel, kind::KEY, request)?;
        ensure!(answer.len() == 64, "an answer of {} bytes", answer.len());
        Ok((status(&answer)?, answer[32..].to_vec()))
    };
    let (ok, first) = get(&mut vcpu, &key_request(0, 1, 0))?;
    t.value("status", ok, 0);
    t.check("not_zero", first.iter().any(|byte| *byte != 0));
    t.check("again", get(&mut vcpu, &key_request(0, 1, 0))?.1 == first);
    t.check("other_fields", get(&mut vcpu, &key_request(0, 9, 0))?.1 != first);
    t.check("other_vmpl", get(&mut vcpu, &key_request(0, 1, 2))?.1 != first);
    for (name, request) in [
        ("no_agent", key_request(1, 1, 0)),
        ("root_key", key_request(2, 1, 0)),
        ("fields", key_request(0, 1 << 63, 0)),
        ("vmpl", key_request(0, 1, 4)),
    ] {
        let (status, key) = get(&mut vcpu, &request)?;
        t.check(&format!("{name}.refused"), status != 0 && key.iter().all(|byte| *byte == 0));
        t.observe(name, format!("{status:#x}"));
    }
    // Another guest's key is another one if the policy is mixed in.
    let setup = Setup { policy: policy::DEFAULT | policy::DEBUG, ..Setup::default() };
    let (mut other, mut channel) = launched(&host, setup)?;
    let answer = ask(&mut other.actor(0), &mut channel, kind::KEY, &key_request(0, 1, 0))?;
    t.check("other_guest", answer[32..] != first);
    Ok(())
}

fn report(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut measurements = Vec::new();
    for policy in [policy::DEFAULT, policy::DEFAULT | policy::DEBUG] {
        let (mut guest, mut channel) = launched(&host, Setup { policy, ..Setup::default() })?;
        let mut vcpu = guest.actor(0);
        let data = std::array::from_fn(|i| i as u8 ^ 0x5a);
        for vmpl in [0, 3] {
            let bytes = snp_guest_request::report(&mut vcpu, &mut channel, data, vmpl)?;
            let report = AttestationReport::from_bytes(&bytes)?;
            t.check("data", report.report_data[..] == data);
            t.value("vmpl", report.vmpl, vmpl);
            t.value("policy", format!("{:#x}", report.policy.0), format!("{policy:#x}"));
            t.check("host_data", report.host_data.iter().all(|byte| *byte == 0));
            measurements.push(report.measurement.to_vec());
        }
        let answer = ask(&mut vcpu, &mut channel, kind::REPORT, &report_request(data, 4))?;
        t.check("vmpl_4.refused", status(&answer)? != 0);
        t.observe("vmpl_4", format!("{:#x}", status(&answer)?));
    }
    t.check("measured", measurements[0].iter().any(|byte| *byte != 0));
    t.check("same_measurement", measurements.iter().all(|other| *other == measurements[0]));
    Ok(())
}

/// Each VMPL has a key and a sequence number of its own.
fn channels(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut guest, _) = launched(&host, Setup::default())?;
    let mut vcpu = guest.actor(0);
    let secrets = vcpu.memory.read(COPIED as usize, PAGE);
    let mut all = (0..4).map(|n| Channel::new(&secrets, n)).collect::<Result<Vec<_>>>()?;
    for round in 0..2 {
        for (vmpl, channel) in all.iter_mut().enumerate() {
            let request = key_request(0, 1, 3);
            let answer = ask(&mut vcpu, channel, kind::KEY, &request)?;
            t.value(&format!("{round}.vmpl_{vmpl}"), status(&answer)?, 0);
        }
    }
    // Keys for a more privileged VMPL.
    let answer = ask(&mut vcpu, &mut all[2], kind::KEY, &key_request(0, 1, 1))?;
    t.check("upwards.refused", status(&answer)? != 0);
    Ok(())
}

/// Sequence numbers: none can be used twice, left out or wrapped around.
fn sequence(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut guest, mut channel) = launched(&host, Setup::default())?;
    let mut vcpu = guest.actor(0);
    let request = key_request(0, 1, 0);
    for (name, number) in
        [("zero", 0), ("two", 2), ("three", 3), ("half", (1 << 32) | 1), ("highest", u64::MAX)]
    {
        let page = channel.seal_as(number, kind::KEY, 1, &request)?;
        refused(t, &mut vcpu, name, &page)?;
    }
    let page = channel.seal(kind::KEY, &request)?;
    ask(&mut vcpu, &mut channel, kind::KEY, &request)?;
    refused(t, &mut vcpu, "replayed", &page)?;
    // A refusal uses no number up.
    let answer = ask(&mut vcpu, &mut channel, kind::KEY, &request)?;
    t.value("next", status(&answer)?, 0);
    t.value("used", channel.sequence, 4);
    Ok(())
}

/// Every field of the header, the tag and the payload with a bit flipped.
fn tampered(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut guest, mut channel) = launched(&host, Setup::default())?;
    let mut vcpu = guest.actor(0);
    let page = channel.seal(kind::KEY, &key_request(0, 1, 0))?;
    for (name, at) in [
        ("tag", field::TAG),
        ("tag_end", field::TAG + 15),
        ("sequence", field::SEQUENCE),
        ("algorithm", field::ALGORITHM),
        ("header_version", field::HEADER_VERSION),
        ("header_size", field::HEADER_SIZE),
        ("type", field::TYPE),
        ("version", field::VERSION),
        ("size", field::SIZE),
        ("size_high", field::SIZE + 1),
        ("key", field::KEY),
        ("header_end", HEADER - 1),
        ("payload", HEADER),
        ("payload_end", HEADER + 31),
    ] {
        let mut page = page.clone();
        page[at] ^= 0x10;
        refused(t, &mut vcpu, name, &page)?;
    }
    for (name, byte) in [("zeroes", 0), ("ones", 0xff)] {
        refused(t, &mut vcpu, name, &[byte; PAGE])?;
    }
    // None of this did any harm.
    let answer = ask(&mut vcpu, &mut channel, kind::KEY, &key_request(0, 1, 0))?;
    t.value("after_all", status(&answer)?, 0);
    Ok(())
}

/// Types of messages that do not exist or that this guest may not send, and wrong lengths.
fn other_messages(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut guest, mut channel) = launched(&host, Setup::default())?;
    let mut vcpu = guest.actor(0);
    for number in (0..20).chain([0x7f, 0x80, 0xff]) {
        for len in [0, 1, 31, 32, 96, 128, 0xfa0] {
            let page = channel.seal_as(channel.sequence + 1, number, 1, &vec![0; len])?;
            let (outcome, (first, second)) = carry(&mut vcpu, &page)?;
            let name = format!("type_{number}.len_{len}");
            t.check(&format!("{name}.quiet"), outcome.quiet() && first == 0);
            if (number == kind::KEY && len == 32) || (number == kind::TSC_INFO && len == 128) {
                t.check(&format!("{name}.answered"), second == 0);
            }
            let text = if second == 0 {
                let answer = channel.open(number, &vcpu.memory.read(RESPONSE as usize, PAGE))?;
                format!("status {:#x}", status(&answer)?)
            } else {
                format!("refused {second:#x}")
            };
            t.observe(&name, text);
        }
    }
    Ok(())
}

/// Addresses that are no two pages.
fn addresses(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut guest, mut channel) = launched(&host, Setup::default())?;
    let mut vcpu = guest.actor(0);
    let page = channel.seal(kind::KEY, &key_request(0, 1, 0))?;
    vcpu.memory.write(REQUEST as usize, &page);
    let expected = format!("{:?}", (ghcb::answer::MALFORMED, ghcb::answer::INVALID_INPUT));
    for (way, code) in [("plain", exit::GUEST_REQUEST), ("extended", exit::EXT_GUEST_REQUEST)] {
        for (name, request, response) in [
            ("request_unaligned", REQUEST + 1, RESPONSE),
            ("request_half", REQUEST + 0x800, RESPONSE),
            ("response_unaligned", REQUEST, RESPONSE + 8),
            ("both_unaligned", REQUEST + 4, RESPONSE + 4),
            ("equal", REQUEST, REQUEST),
            ("both_zero", 0, 0),
            ("both_nowhere", MEMORY, MEMORY),
            ("highest", u64::MAX, REQUEST),
        ] {
            let ghcb = Ghcb::request(code, request, response);
            let ghcb = ghcb.with(Field::Rax, CERTIFICATES).with(Field::Rbx, 1);
            let (outcome, after) = vcpu.vmgexit(&ghcb)?;
            t.value(&format!("{way}.{name}"), format!("{:?}", answer(&after)), expected.clone());
            t.check(&format!("{way}.{name}.quiet"), outcome.quiet());
        }
    }
    let answer = ask(&mut vcpu, &mut channel, kind::KEY, &key_request(0, 1, 0))?;
    t.value("after_all", status(&answer)?, 0);
    Ok(())
}

/// Pages that KVM cannot read or write, and pages of the other kind.
fn not_backed(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, request, response) in [
        ("request_outside", MEMORY, RESPONSE),
        ("request_far", 1 << 45, RESPONSE),
        ("response_outside", REQUEST, MEMORY),
        ("response_far", REQUEST, 1 << 45),
        ("request_private", PRIVATE.start, RESPONSE),
        ("response_private", REQUEST, PRIVATE.start),
        ("response_launched", REQUEST, sev_vm::guest::CODE),
        ("response_ghcb", REQUEST, sev_vm::snp_guest::ghcb_of(0)),
    ] {
        let (mut guest, mut channel) = launched(&host, Setup::default())?;
        let mut vcpu = guest.actor(0);
        let page = channel.seal(kind::KEY, &key_request(0, 1, 0))?;
        vcpu.memory.write(REQUEST as usize, &page);
        let ghcb = Ghcb::request(exit::GUEST_REQUEST, request, response);
        let (outcome, after) = vcpu.vmgexit(&ghcb)?;
        // Where the answer came over the GHCB it is ciphertext.
        if name == "response_ghcb" {
            t.observe(name, outcome.exits());
        } else {
            let (first, second) = answer(&after);
            t.observe(name, format!("{first:x}:{second:x} {}", outcome.exits()));
        }
        if !outcome.done {
            t.observe(&format!("{name}.again"), vcpu.resume()?.exits());
        }
        // Whether firmware has seen the request.
        let (outcome, (first, second)) = carry(&mut vcpu, &page)?;
        t.observe(&format!("{name}.then"), format!("{first:x}:{second:x} {}", outcome.exits()));
        // Firmware has not seen it if KVM could not read it, or read something else.
        let unseen = name.starts_with("request");
        t.value(&format!("{name}.unseen"), (first, second) == (0, 0), unseen);
        if unseen {
            let bytes = vcpu.memory.read(RESPONSE as usize, PAGE);
            t.check(&format!("{name}.opened"), channel.open(kind::KEY, &bytes).is_ok());
        }
        t.check(&format!("{name}.code_kept"), vcpu.load(sev_vm::guest::CODE)?.quiet());
    }
    Ok(())
}

/// What firmware says goes to the guest; a firmware that does not answer, to userspace.
fn firmware_fails(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut guest, mut channel) = launched(&host, Setup::default())?;
    let mut vcpu = guest.actor(0);
    let page = channel.seal(kind::KEY, &key_request(0, 1, 0))?;
    for code in [0x3, 0x16, 0x1b, 0x23] {
        t.psp.fail("SNP_GUEST_REQUEST", 1, code)?;
        let (outcome, answer) = carry(&mut vcpu, &page)?;
        let name = format!("status_{code:x}");
        t.value(&name, format!("{answer:x?}"), format!("{:x?}", (0, u64::from(code))));
        t.check(&format!("{name}.quiet"), outcome.quiet());
    }
    let answer = ask(&mut vcpu, &mut channel, kind::KEY, &key_request(0, 1, 0))?;
    t.value("after_all", status(&answer)?, 0);
    Ok(())
}

/// A guest without a page for secrets can ask, too, but has no key.
fn requests_disabled(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Setup::default().launch(&host)?;
    let mut vcpu = guest.actor(0);
    vcpu.register()?;
    let channel = Channel::new(&[0x42; 0xa0], 0)?;
    let page = channel.seal(kind::KEY, &key_request(0, 1, 0))?;
    refused(t, &mut vcpu, "wrong_key", &page)?;
    Ok(())
}
