// SPDX-License-Identifier: GPL-2.0-or-later
//! SNP LAUNCH_FINISH: arguments, ID blocks, vCPUs, and what can be tried again.
//!
//! Firmware compares the digest of an ID block with its own: the digests here are computed by
//! the crate `sev` from the image that is launched.

use std::process::ExitCode;

use anyhow::{Context, Result};
use kvm_bindings::*;
use nix::errno::Errno::{EFAULT, EINVAL};
use sev::measurement::snp::SnpLaunchDigest;
use sev_vm::bad::{Addresses, KERNEL, read_only};
use sev_vm::cmd::{Answer, issue, status};
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::PAGE;
use sev_vm::snp::{PageType, Snp, features, policy};
use sev_vm::snp_identity::Owner;
use sev_vm::snp_image::{self, Imaged};
use sev_vm::vm::addr_of;

/// Firmware's status for a signature that does not verify.
const BAD_SIGNATURE: u32 = 0xa;
const INVALID_PARAM: u32 = 0x16;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("pointers", pointers),
            ("fields", fields),
            ("order", order),
            ("digests", digests),
            ("identity", identity),
            ("bad_identity", bad_identity),
            ("identity_pointers", identity_pointers),
            ("retry", retry),
            ("retry_with_vcpus", retry_with_vcpus),
            ("vcpu_fails", vcpu_fails),
            ("vcpu_state", vcpu_state),
            ("debugged", debugged),
        ],
    )
}

fn finish() -> kvm_sev_snp_launch_finish {
    kvm_sev_snp_launch_finish::default()
}

fn pointers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::started(&host, policy::DEFAULT)?;
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_snp_launch_finish>()) {
        let answer = vm.command(sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH, address);
        t.case(name, answer, Answer::refused(EFAULT));
    }
    let argument = read_only(&[0; size_of::<kvm_sev_snp_launch_finish>()])?;
    let answer = vm.command(sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH, argument.addr());
    t.case("read_only", answer, Answer::OK);
    Ok(())
}

fn fields(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::started(&host, policy::DEFAULT)?;
    for bit in 0..16 {
        let mut argument = kvm_sev_snp_launch_finish { flags: 1 << bit, ..finish() };
        t.case(
            &format!("flag_{bit}"),
            vm.snp_launch_finish(&mut argument),
            Answer::refused(EINVAL),
        );
    }
    for (name, argument) in [
        ("padding", kvm_sev_snp_launch_finish { pad0: [1; 3], pad1: [1; 4], ..finish() }),
        ("host_data", kvm_sev_snp_launch_finish { host_data: [0xff; 32], ..finish() }),
        ("vcek_disabled", kvm_sev_snp_launch_finish { vcek_disabled: 1, ..finish() }),
        ("vcek_disabled_2", kvm_sev_snp_launch_finish { vcek_disabled: 2, ..finish() }),
        // Without a block the rest of it is not looked at.
        (
            "no_block",
            kvm_sev_snp_launch_finish {
                auth_key_en: 1,
                id_block_uaddr: 1,
                id_auth_uaddr: 1,
                ..finish()
            },
        ),
    ] {
        let vm = Snp::started(&host, policy::DEFAULT)?;
        let mut argument = argument;
        t.record(name, vm.snp_launch_finish(&mut argument));
    }
    Ok(())
}

fn order(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::initialised(&host)?;
    t.case("before_start", vm.snp_launch_finish(&mut finish()), Answer::refused(EINVAL));
    let vm = vm.start(policy::DEFAULT)?;
    t.case("nothing_loaded", vm.snp_launch_finish(&mut finish()), Answer::OK);
    let twice = Answer::firmware(status::INVALID_GUEST_STATE);
    t.case("twice", vm.snp_launch_finish(&mut finish()), twice);
    let vm = Snp::launched(&host, policy::DEFAULT, guest::idle(), &[[0; 4]; 2])?;
    let again = vm.snp_launch_finish(&mut finish());
    t.check("twice_with_vcpus_refused", !again.is_ok());
    t.record("twice_with_vcpus", again);
    t.contexts(2)
}

/// Firmware's digest is the crate's, for any number of vCPUs, content and features.
fn digests(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let owner = Owner::new()?;
    let offered = host.sev_attr(u64::from(KVM_X86_SEV_VMSA_FEATURES))?;
    for (seed, vcpus, vmsa_features) in [
        (0, 0, 0),
        (0, 1, 0),
        (0, 2, 0),
        (0, 4, 0),
        (0x55, 0, 0),
        (0x55, 1, 0),
        (0, 1, features::DEBUG_SWAP),
        (0, 1, features::SECURE_TSC),
        (0x55, 3, offered),
    ] {
        let name = format!("{seed}_{vcpus}_{vmsa_features:#x}");
        if vmsa_features & !offered != 0 {
            t.observe(&name, "not offered");
            continue;
        }
        let digest = snp_image::digest(seed, vcpus, vmsa_features)?;
        t.observe(&name, format!("digest={}", digest.get_hex_ld()));
        let identity = owner.identify(digest, policy::DEFAULT)?;
        let guest = Imaged::load(&host, policy::DEFAULT, seed, vcpus, vmsa_features)?;
        let answer = guest.snp.snp_launch_finish(&mut identity.finish(false));
        t.case(&format!("{name}_accepted"), answer, Answer::OK);
        // A vCPU more than the owner knows of, or another image.
        for (other, seed, vcpus) in [("one_more", seed, vcpus + 1), ("another", seed ^ 1, vcpus)] {
            let guest = Imaged::load(&host, policy::DEFAULT, seed, vcpus, vmsa_features)?;
            let answer = guest.snp.snp_launch_finish(&mut identity.finish(false));
            t.case(&format!("{name}_{other}"), answer, Answer::firmware(status::BAD_MEASUREMENT));
        }
    }
    Ok(())
}

/// The digest of every image here.
fn expected() -> Result<SnpLaunchDigest> {
    snp_image::digest(1, 0, 0)
}

fn load(host: &Host) -> Result<Imaged> {
    Imaged::load(host, policy::DEFAULT, 1, 0, 0)
}

fn identity(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let identity = Owner::new()?.identify(expected()?, policy::DEFAULT)?;
    for (name, author) in [("without_author", false), ("with_author", true)] {
        let answer = load(&host)?.snp.snp_launch_finish(&mut identity.finish(author));
        t.case(name, answer, Answer::OK);
    }
    // Flags of KVM's are bytes of any value.
    let mut argument =
        kvm_sev_snp_launch_finish { id_block_en: 0x80, auth_key_en: 0xff, ..identity.finish(true) };
    t.case("flags_of_any_value", load(&host)?.snp.snp_launch_finish(&mut argument), Answer::OK);
    Ok(())
}

fn bad_identity(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let owner = Owner::new()?;
    // A byte that is changed after it was signed: offset, with the author's key, status.
    let (block, auth) = (0, PAGE);
    for (name, at, author, status) in [
        ("digest", block, false, BAD_SIGNATURE),
        ("family", block + 0x30, false, BAD_SIGNATURE),
        ("image", block + 0x40, false, BAD_SIGNATURE),
        ("version", block + 0x50, false, INVALID_PARAM),
        ("svn", block + 0x54, false, BAD_SIGNATURE),
        ("policy", block + 0x58, false, BAD_SIGNATURE),
        ("algorithm", auth, false, INVALID_PARAM),
        ("author_algorithm", auth + 4, true, INVALID_PARAM),
        ("signature_r", auth + 0x40, false, BAD_SIGNATURE),
        ("signature_s", auth + 0x88, false, BAD_SIGNATURE),
        ("key_curve", auth + 0x240, false, BAD_SIGNATURE),
        ("key", auth + 0x244, false, BAD_SIGNATURE),
        ("key_signature", auth + 0x680, true, BAD_SIGNATURE),
        ("author_key", auth + 0x884, true, BAD_SIGNATURE),
    ] {
        let identity = owner.identify(expected()?, policy::DEFAULT)?;
        let byte = identity.memory.read(at, 1)[0];
        identity.memory.write(at, &[byte ^ 4]);
        let guest = load(&host)?;
        let answer = guest.snp.snp_launch_finish(&mut identity.finish(author));
        t.case(name, answer, Answer::firmware(status));
        identity.memory.write(at, &[byte]);
        let answer = guest.snp.snp_launch_finish(&mut identity.finish(author));
        t.case(&format!("{name}_then_good"), answer, Answer::OK);
    }
    // What concerns the author is not looked at without its key.
    let identity = owner.identify(expected()?, policy::DEFAULT)?;
    identity.memory.write(auth + 0x680, &[0; 0x200]);
    let answer = load(&host)?.snp.snp_launch_finish(&mut identity.finish(false));
    t.case("author_not_used", answer, Answer::OK);
    // Signed, but about another guest.
    let other = owner.identify(expected()?, policy::DEFAULT | policy::DEBUG)?;
    let answer = load(&host)?.snp.snp_launch_finish(&mut other.finish(true));
    t.case("another_policy", answer, Answer::firmware(status::POLICY_FAILURE));
    let other = owner.identify(SnpLaunchDigest::default(), policy::DEFAULT)?;
    let answer = load(&host)?.snp.snp_launch_finish(&mut other.finish(true));
    t.case("another_digest", answer, Answer::firmware(status::BAD_MEASUREMENT));
    // Keys of somebody else.
    let (mine, yours) =
        (owner.sign(&[0; 96])?, Owner::new()?.identify(expected()?, policy::DEFAULT)?);
    let keys = mine.memory.read(PAGE, PAGE);
    yours.memory.write(PAGE, &keys);
    let answer = load(&host)?.snp.snp_launch_finish(&mut yours.finish(true));
    t.case("another_owner", answer, Answer::firmware(BAD_SIGNATURE));
    Ok(())
}

fn identity_pointers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let identity = Owner::new()?.identify(expected()?, policy::DEFAULT)?;
    let addresses = Addresses::new()?;
    let hole = addresses.unmapped();
    let guest = load(&host)?;
    let asked = t.psp.counters()?.count("SNP_LAUNCH_FINISH");
    for (name, address, errno) in [
        ("null", 0, EINVAL),
        ("unmapped", hole, EFAULT),
        ("tail_unmapped", hole - 48, EFAULT),
        ("kernel", KERNEL, EFAULT),
        ("wraps", u64::MAX - 8, EFAULT),
    ] {
        let mut block = identity.finish(false);
        block.id_block_uaddr = address;
        let answer = guest.snp.snp_launch_finish(&mut block);
        t.case(&format!("block_{name}"), answer, Answer::refused(errno));
        let mut auth = identity.finish(false);
        auth.id_auth_uaddr = address;
        let answer = guest.snp.snp_launch_finish(&mut auth);
        t.case(&format!("auth_{name}"), answer, Answer::refused(errno));
    }
    let asked = t.psp.counters()?.count("SNP_LAUNCH_FINISH") - asked;
    t.value("firmware_asked", asked, 0);
    t.case("then", guest.snp.snp_launch_finish(&mut identity.finish(false)), Answer::OK);
    Ok(())
}

/// Firmware refuses, the guest is still being launched: more can be loaded, and it can be
/// tried again.
fn retry(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::started(&host, policy::DEFAULT)?;
    for status in [status::HWERROR_PLATFORM, status::POLICY_FAILURE, status::BAD_MEASUREMENT] {
        t.psp.fail("SNP_LAUNCH_FINISH", 1, status)?;
        let answer = vm.snp_launch_finish(&mut finish());
        t.case(&format!("{status:#x}"), answer, Answer::firmware(status));
        t.contexts(1)?;
    }
    vm.update(PageType::Zero, 0..PAGE).context("after a failure")?;
    t.case("retry", vm.snp_launch_finish(&mut finish()), Answer::OK);
    Ok(())
}

/// As before, when vCPUs have been measured already.
fn retry_with_vcpus(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Snp::started(&host, policy::DEFAULT)?;
    vm.prepare(&host, guest::idle(), &[[0; 4]; 2])?;
    t.psp.fail("SNP_LAUNCH_FINISH", 1, status::HWERROR_PLATFORM)?;
    let answer = vm.snp_launch_finish(&mut finish());
    t.case("fails", answer, Answer::firmware(status::HWERROR_PLATFORM));
    let measured = t.psp.counters()?.count("SNP_LAUNCH_UPDATE");
    t.record("retry", vm.snp_launch_finish(&mut finish()));
    let measured = t.psp.counters()?.count("SNP_LAUNCH_UPDATE") - measured;
    t.value("measured_again", measured, 0);
    // The owner's idea of the guest comes too late, but it comes.
    let owner = Owner::new()?;
    let guest = Imaged::load(&host, policy::DEFAULT, 3, 2, 0)?;
    let wrong = owner.identify(SnpLaunchDigest::default(), policy::DEFAULT)?;
    let answer = guest.snp.snp_launch_finish(&mut wrong.finish(false));
    t.case("wrong_digest", answer, Answer::firmware(status::BAD_MEASUREMENT));
    let right = owner.identify(snp_image::digest(3, 2, 0)?, policy::DEFAULT)?;
    t.record("right_digest", guest.snp.snp_launch_finish(&mut right.finish(false)));
    t.contexts(2)
}

/// A vCPU's save area is refused by firmware: the first, the second.
fn vcpu_fails(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for failing in 1..=3 {
        let mut vm = Snp::started(&host, policy::DEFAULT)?;
        vm.prepare(&host, guest::idle(), &[[0; 4]; 3])?;
        t.psp.fail("SNP_LAUNCH_UPDATE", failing, status::HWERROR_PLATFORM)?;
        let answer = vm.snp_launch_finish(&mut finish());
        t.case(&format!("{failing}"), answer, Answer::firmware(status::HWERROR_PLATFORM));
        t.record(&format!("{failing}_retry"), vm.snp_launch_finish(&mut finish()));
        t.contexts(1)?;
    }
    Ok(())
}

/// vCPUs in the wrong state.
fn vcpu_state(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Snp::started(&host, policy::DEFAULT)?;
    vm.prepare(&host, guest::idle(), &[[0; 4]])?;
    let debug = kvm_guest_debug { control: KVM_GUESTDBG_ENABLE, ..Default::default() };
    t.record("debug", Answer::from_result(vm.vcpus[0].fd().set_guest_debug(&debug)));
    t.record("debugged", vm.snp_launch_finish(&mut finish()));
    t.record(
        "not_debug",
        Answer::from_result(vm.vcpus[0].fd().set_guest_debug(&Default::default())),
    );
    t.record("then", vm.snp_launch_finish(&mut finish()));
    // A vCPU that comes later has no save area in the guest.
    t.record(
        "later",
        Answer::from_result(vm.add_bare_vcpu().map_err(|_| kvm_ioctls::Error::last())),
    );
    if vm.vcpus.len() > 1 {
        let regs = vm.vcpus[1].fd().get_regs();
        t.record("later_regs", Answer::from_result(regs));
    }
    let regs = vm.vcpus[0].fd().get_regs();
    t.record("regs", Answer::from_result(regs));
    Ok(())
}

/// A guest that is being debugged is refused before anybody looks at the descriptor.
fn debugged(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Snp::started(&host, policy::DEFAULT)?;
    vm.vm.add_vcpu(&host, [0; 4])?;
    let finish_with = |vm: &Snp, sev_fd| {
        let data = addr_of(&mut finish());
        issue(&vm.vm.fd, sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH, data, sev_fd)
    };
    let debug = |control| kvm_guest_debug { control, ..Default::default() };
    let answer = vm.vm.vcpus[0].fd().set_guest_debug(&debug(KVM_GUESTDBG_ENABLE));
    t.case("debug", Answer::from_result(answer), Answer::OK_KEPT);
    t.case("no_device", finish_with(&vm, -1), Answer::refused(EINVAL));
    t.case("device", finish_with(&vm, host.sev_fd()), Answer::refused(EINVAL));
    let answer = vm.vm.vcpus[0].fd().set_guest_debug(&debug(0));
    t.case("no_debug", Answer::from_result(answer), Answer::OK_KEPT);
    let answer = finish_with(&vm, -1);
    t.check("no_device_any_more", !answer.is_ok());
    t.record("no_device_any_more.answer", answer);
    t.case("finish", finish_with(&vm, host.sev_fd()), Answer::OK);
    Ok(())
}
