// SPDX-License-Identifier: GPL-2.0-or-later
//! Extended guest requests: reports with certificates, which userspace has or has not.

use anyhow::{Result, ensure};
use nix::libc;
use sev_vm::ghcb::{self, Field, Ghcb, exit};
use sev_vm::host::Host;
use sev_vm::ktap::Test;
use sev_vm::mem::PAGE;
use sev_vm::snp_guest::{Actor, MEMORY, Outcome, Reply, Setup, SnpGuest, Vmm, answer, set_private};
use sev_vm::snp_guest_message::{Channel, key_request, kind, report_request, status};

use crate::{
    BUSY, CERTIFICATES, FAILED, PAGE_LEN, REQUEST, RESPONSE, TOO_FEW_PAGES, ask, launched,
};

/// An extended request with this page.
fn carry_extended(
    vcpu: &mut Actor,
    page: &[u8],
    certificates: u64,
    pages: u64,
) -> Result<(Outcome, Ghcb)> {
    vcpu.memory.write(REQUEST as usize, page);
    let ghcb = Ghcb::request(exit::EXT_GUEST_REQUEST, REQUEST, RESPONSE);
    vcpu.vmgexit(&ghcb.with(Field::Rax, certificates).with(Field::Rbx, pages))
}

/// Extended requests without anybody who has certificates: the table is empty.
pub fn extended(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut guest, mut channel) = launched(&host, Setup::default())?;
    let mut vcpu = guest.actor(0);
    let request = report_request([1; 64], 0);
    for (name, gpa, pages, cleared) in [
        ("one_page", CERTIFICATES, 1, 24),
        ("many_pages", CERTIFICATES, 4, 24),
        ("no_pages", CERTIFICATES, 0, 0),
        ("nowhere_no_pages", MEMORY, 0, 0),
        ("huge", CERTIFICATES, u64::MAX, 24),
    ] {
        vcpu.memory.write(CERTIFICATES as usize, &[0xaa; PAGE]);
        let page = channel.seal(kind::REPORT, &request)?;
        let (outcome, after) = carry_extended(&mut vcpu, &page, gpa, pages)?;
        t.value(name, format!("{:?}", answer(&after)), "(0, 0)".into());
        t.check(&format!("{name}.quiet"), outcome.quiet());
        let bytes = vcpu.memory.read(CERTIFICATES as usize, 32);
        let zeroes = bytes.iter().take_while(|byte| **byte == 0).count();
        t.value(&format!("{name}.cleared"), zeroes, cleared);
        let answer = channel.open(kind::REPORT, &vcpu.memory.read(RESPONSE as usize, PAGE))?;
        t.value(&format!("{name}.report"), status(&answer)?, 0);
    }
    // Other messages have no certificates.
    vcpu.memory.write(CERTIFICATES as usize, &[0xaa; PAGE]);
    let page = channel.seal(kind::KEY, &key_request(0, 1, 0))?;
    let (_, after) = carry_extended(&mut vcpu, &page, CERTIFICATES + 1, 1)?;
    t.value("key", format!("{:?}", answer(&after)), "(0, 0)".into());
    channel.open(kind::KEY, &vcpu.memory.read(RESPONSE as usize, PAGE))?;
    t.value("key.kept", vcpu.memory.read_u64(CERTIFICATES as usize), 0xaaaa_aaaa_aaaa_aaaa);
    // Certificates at bad places.
    let page = channel.seal(kind::REPORT, &request)?;
    let malformed = (ghcb::answer::MALFORMED, ghcb::answer::INVALID_INPUT);
    for (name, gpa) in [("unaligned", CERTIFICATES + 1), ("half", CERTIFICATES + 0x800)] {
        let (_, after) = carry_extended(&mut vcpu, &page, gpa, 1)?;
        t.value(name, format!("{:?}", answer(&after)), format!("{malformed:?}"));
    }
    let bare = Ghcb::request(exit::EXT_GUEST_REQUEST, REQUEST, RESPONSE);
    for (name, ghcb) in [
        ("no_rax", bare.clone().with(Field::Rbx, 1)),
        ("no_rbx", bare.clone().with(Field::Rax, CERTIFICATES)),
        ("neither", bare),
    ] {
        let (_, after) = vcpu.vmgexit(&ghcb)?;
        t.value(name, format!("{:?}", answer(&after)), format!("{malformed:?}"));
    }
    let (outcome, after) = carry_extended(&mut vcpu, &page, MEMORY, 1)?;
    t.observe("nowhere", format!("{:x?} {}", answer(&after), outcome.exits()));
    if !outcome.done {
        t.observe("nowhere.again", vcpu.resume()?.exits());
    }
    Ok(())
}

fn with_certificates(host: &Host) -> Result<(SnpGuest, Channel)> {
    launched(host, Setup { certificates: true, ..Setup::default() })
}

/// Userspace provides certificates.
pub fn certificates(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut guest, mut channel) = with_certificates(&host)?;
    let mut vcpu = guest.actor(0);
    let request = report_request([1; 64], 0);
    for (name, gpa, pages) in [
        ("one_page", CERTIFICATES, 1),
        ("no_pages", CERTIFICATES, 0),
        ("nowhere", MEMORY, 1),
        ("huge", !0xfff, u64::MAX),
    ] {
        let page = channel.seal(kind::REPORT, &request)?;
        let (outcome, after) = carry_extended(&mut vcpu, &page, gpa, pages)?;
        t.value(name, outcome.exits(), format!("certs:{gpa:x}+{pages:x}:0"));
        t.value(&format!("{name}.answer"), format!("{:?}", answer(&after)), "(0, 0)".into());
        let answer = channel.open(kind::REPORT, &vcpu.memory.read(RESPONSE as usize, PAGE))?;
        t.value(&format!("{name}.report"), status(&answer)?, 0);
    }
    // Plain requests and other messages are none of userspace's business.
    let answer = ask(&mut vcpu, &mut channel, kind::REPORT, &request)?;
    t.value("plain", status(&answer)?, 0);
    let page = channel.seal(kind::KEY, &key_request(0, 1, 0))?;
    let (outcome, _) = carry_extended(&mut vcpu, &page, CERTIFICATES, 1)?;
    t.check("key", outcome.quiet());
    Ok(())
}

/// Userspace has too many certificates, no time, no luck, or no manners.
pub fn certificates_refused(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut guest, mut channel) = with_certificates(&host)?;
    let mut vcpu = guest.actor(0);
    let page = channel.seal(kind::REPORT, &report_request([1; 64], 0))?;
    let reply =
        |number: u64, pages| Vmm { certificates: Reply::Return(number), pages, ..Vmm::default() };
    for (name, number, pages, expected) in [
        ("too_few", libc::ENOSPC, Some(7), TOO_FEW_PAGES),
        ("too_few_same", libc::ENOSPC, None, TOO_FEW_PAGES),
        ("too_few_none", libc::ENOSPC, Some(0), TOO_FEW_PAGES),
        ("too_few_huge", libc::ENOSPC, Some(u64::MAX), TOO_FEW_PAGES),
        ("busy", libc::EAGAIN, None, BUSY),
        ("failed", libc::EIO, None, FAILED),
    ] {
        vcpu.vmm = reply(number as u64, pages);
        let (outcome, after) = carry_extended(&mut vcpu, &page, CERTIFICATES, 2)?;
        t.value(name, format!("{:x?}", answer(&after)), format!("{:x?}", (0, expected)));
        t.check(&format!("{name}.done"), outcome.done);
        if number == libc::ENOSPC {
            t.value(&format!("{name}.pages"), after.get(Field::Rbx), pages.unwrap_or(2));
        }
        t.observe(&format!("{name}.rbx"), format!("{:x}", after.get(Field::Rbx)));
    }
    let numbers = [1, libc::EINVAL, libc::ENOMEM].map(|number| number as u64);
    for number in numbers.into_iter().chain([1 << 32, u64::MAX]) {
        vcpu.vmm = reply(number, None);
        let (outcome, after) = carry_extended(&mut vcpu, &page, CERTIFICATES, 2)?;
        let name = format!("unknown_{number:x}");
        t.observe(&name, format!("{:x?} {}", answer(&after), outcome.exits()));
        if !outcome.done {
            t.observe(&format!("{name}.again"), vcpu.resume()?);
        }
    }
    vcpu.vmm = Vmm::default();
    let (_, after) = carry_extended(&mut vcpu, &page, CERTIFICATES, 2)?;
    t.value("after_all", format!("{:?}", answer(&after)), "(0, 0)".into());
    channel.open(kind::REPORT, &vcpu.memory.read(RESPONSE as usize, PAGE))?;
    // The request changes while userspace looks for certificates.
    vcpu.vmm = Vmm { certificates: Reply::Stop, ..Vmm::default() };
    let page = channel.seal(kind::REPORT, &report_request([2; 64], 0))?;
    let (outcome, _) = carry_extended(&mut vcpu, &page, CERTIFICATES, 2)?;
    ensure!(!outcome.done, "{outcome}");
    let key = channel.seal(kind::KEY, &key_request(0, 1, 0))?;
    vcpu.memory.write(REQUEST as usize, &key);
    let outcome = vcpu.resume()?;
    t.observe("changed", format!("{:x?} {}", answer(&vcpu.ghcb()), outcome.exits()));
    // The page of the answer is gone meanwhile.
    let page =
        channel.seal_as(channel.sequence + 3, kind::REPORT, 1, &report_request([2; 64], 0))?;
    carry_extended(&mut vcpu, &page, CERTIFICATES, 2)?;
    set_private(vcpu.vm, RESPONSE..RESPONSE + PAGE_LEN, true)?;
    let outcome = vcpu.resume()?;
    t.observe("response_private", format!("{:x?} {}", answer(&vcpu.ghcb()), outcome.exits()));
    Ok(())
}
