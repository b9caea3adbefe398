// SPDX-License-Identifier: GPL-2.0-or-later
//! DBG_DECRYPT and DBG_ENCRYPT: every alignment and length against a model, and bad arguments.

use std::process::ExitCode;

use anyhow::Result;
use kvm_bindings::*;
use nix::errno::Errno::{EFAULT, EINVAL, ENOMEM};
use sev_vm::bad::{self, Addresses, KERNEL, NON_CANONICAL};
use sev_vm::cmd::{Answer, status};
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::vm::{Vm, policy};

const DECRYPT: sev_cmd_id = sev_cmd_id_KVM_SEV_DBG_DECRYPT;
const ENCRYPT: sev_cmd_id = sev_cmd_id_KVM_SEV_DBG_ENCRYPT;
/// Guest pages that the tests work on.
const AREA: usize = guest::PRIVATE as usize;
const PAGES: usize = 3;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("decrypt_model", decrypt_model),
            ("encrypt_model", encrypt_model),
            ("whole_area", whole_area),
            ("arguments", arguments),
            ("pointers", pointers),
            ("partial", partial),
            ("policy_forbids", policy_forbids),
            ("states", states),
        ],
    )
}

/// A started guest with `plain` encrypted at [`AREA`].
fn encrypted(host: &Host, plain: &[u8], policy: u32) -> Result<Vm> {
    let vm = Vm::started(host, policy)?;
    vm.memory.write(AREA, plain);
    vm.encrypt(AREA..AREA + plain.len())?;
    Ok(vm)
}

fn pattern(seed: usize) -> Vec<u8> {
    (0..PAGES * PAGE).map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ seed) as u8).collect()
}

/// Offsets and lengths around every boundary that matters: 16-byte blocks and pages.
fn combinations() -> impl Iterator<Item = (usize, usize, usize)> {
    let offsets = [0, 1, 7, 15, 16, 17, PAGE - 17, PAGE - 16, PAGE - 15, PAGE - 1, PAGE];
    let lengths = [1, 2, 15, 16, 17, 31, 32, 33, 4095, 4096, 4097];
    offsets.into_iter().flat_map(move |src| {
        offsets.into_iter().flat_map(move |dst| lengths.into_iter().map(move |len| (src, dst, len)))
    })
}

/// Prints one line for all combinations: how many, and the first few that are wrong.
fn summarise(t: &mut Test, wrong: Vec<String>) {
    for line in wrong.iter().take(8) {
        t.note(line);
    }
    t.value("combinations", combinations().count(), 11 * 11 * 11);
    t.value("wrong", wrong.len(), 0);
}

fn decrypt_model(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let plain = pattern(0);
    let vm = encrypted(&host, &plain, 0)?;
    let out = Mapping::anonymous(PAGES * PAGE)?;
    let mut wrong = Vec::new();
    for (src, dst, len) in combinations() {
        out.fill(0xee);
        let from = vm.memory.addr() + (AREA + src) as u64;
        let answer = vm.dbg_decrypt(from, out.addr() + dst as u64, len as u32);
        let mut expected = vec![0xee; PAGES * PAGE];
        expected[dst..dst + len].copy_from_slice(&plain[src..src + len]);
        if answer != Answer::OK || out.read(0, out.len()) != expected {
            wrong.push(format!("src {src} dst {dst} len {len}: {answer}"));
        }
    }
    summarise(t, wrong);
    Ok(())
}

fn encrypt_model(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut model = pattern(1);
    let vm = encrypted(&host, &model, 0)?;
    let source = Mapping::anonymous(PAGES * PAGE)?;
    let out = Mapping::anonymous(PAGES * PAGE)?;
    let area = vm.memory.addr() + AREA as u64;
    let mut wrong = Vec::new();
    for (round, (src, dst, len)) in combinations().enumerate() {
        let text = pattern(round);
        source.write(src, &text[..len]);
        let answer = vm.dbg_encrypt(source.addr() + src as u64, area + dst as u64, len as u32);
        model[dst..dst + len].copy_from_slice(&text[..len]);
        let read_back = vm.dbg_decrypt(area, out.addr(), out.len() as u32);
        if answer != Answer::OK || read_back != Answer::OK || out.read(0, out.len()) != model {
            wrong.push(format!("src {src} dst {dst} len {len}: {answer}, read back {read_back}"));
        }
    }
    summarise(t, wrong);
    Ok(())
}

/// What DBG_ENCRYPT wrote is what the guest reads, and not what the host sees.
fn whole_area(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Vm::launched(&host, 0, guest::copy())?;
    let text = pattern(2)[..256].to_vec();
    let source = Mapping::anonymous(PAGE)?;
    source.write(0, &text);
    let target = vm.memory.addr() + AREA as u64;
    t.case("encrypt", vm.dbg_encrypt(source.addr(), target, 256), Answer::OK);
    t.check("host_sees_ciphertext", vm.memory.read(AREA, 256) != text);
    vm.add_vcpu(&host, [guest::SHARED.start, AREA as u64, 256, 0])?;
    vm.vcpus[0].run_to_halt()?;
    t.check("guest_reads_it", vm.memory.read(guest::SHARED.start as usize, 256) == text);
    Ok(())
}

fn arguments(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = encrypted(&host, &pattern(3), 0)?;
    let (a, b) = (vm.memory.addr() + AREA as u64, vm.memory.addr());
    let refused = Answer::refused(EINVAL);
    for (name, id) in [("decrypt", DECRYPT), ("encrypt", ENCRYPT)] {
        let mut case = |what: &str, src_uaddr: u64, dst_uaddr: u64, len: u32| {
            let mut argument = kvm_sev_dbg { src_uaddr, dst_uaddr, len, pad0: 0 };
            let answer = vm.command(id, sev_vm::vm::addr_of(&mut argument));
            t.case(&format!("{name}_{what}"), answer, refused);
        };
        case("len_0", a, b, 0);
        case("src_null", 0, b, 16);
        case("dst_null", a, 0, 16);
        case("src_wraps", u64::MAX - 7, b, 16);
        case("dst_wraps", a, u64::MAX - 7, 16);
        case("src_wraps_2g", u64::MAX - (1 << 30), b, 1 << 31);
    }
    Ok(())
}

fn pointers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = encrypted(&host, &pattern(4), 0)?;
    let area = vm.memory.addr() + AREA as u64;
    let addresses = Addresses::new()?;
    let buffer = Mapping::anonymous(PAGE)?;
    for (name, id) in [("decrypt", DECRYPT), ("encrypt", ENCRYPT)] {
        for (what, address) in addresses.unreadable(size_of::<kvm_sev_dbg>()) {
            let answer = vm.command(id, address);
            t.case(&format!("{name}_argument_{what}"), answer, Answer::refused(EFAULT));
        }
    }
    let bad =
        [("unmapped", addresses.unmapped()), ("kernel", KERNEL), ("non_canonical", NON_CANONICAL)];
    for (what, address) in bad {
        for len in [16, 5] {
            let refused = Answer::refused(ENOMEM);
            let case = |direction: &str| format!("{direction}_{what}_{len}");
            t.case(&case("decrypt_from"), vm.dbg_decrypt(address, buffer.addr(), len), refused);
            t.case(&case("decrypt_to"), vm.dbg_decrypt(area, address, len), refused);
            t.case(&case("encrypt_from"), vm.dbg_encrypt(address, area, len), refused);
            t.case(&case("encrypt_to"), vm.dbg_encrypt(buffer.addr(), address, len), refused);
        }
    }
    let read_only = bad::read_only(&[9; 32])?;
    let at = read_only.addr();
    t.case("decrypt_to_read_only", vm.dbg_decrypt(area, at, 16), Answer::refused(ENOMEM));
    t.case("decrypt_to_read_only_5", vm.dbg_decrypt(area, at, 5), Answer::refused(ENOMEM));
    t.case("encrypt_from_read_only", vm.dbg_encrypt(at, area, 16), Answer::OK);
    t.case("encrypt_from_read_only_5", vm.dbg_encrypt(at, area + 3, 5), Answer::OK);
    Ok(())
}

/// A long request works page by page; what was done before the failure stays done.
fn partial(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let plain = pattern(5);
    let vm = encrypted(&host, &plain, 0)?;
    let addresses = Addresses::new()?;
    let area = vm.memory.addr() + AREA as u64;
    // The page before the hole takes the first half of the request.
    let end = addresses.unmapped();
    let out = end - 64;
    t.case(
        "decrypt_off_the_end",
        vm.dbg_decrypt(area, out, 128),
        Answer { fw: 0, ..Answer::refused(ENOMEM) },
    );
    t.check("first_half_arrived", addresses.read_before_hole(64) == plain[..64]);
    for (name, len) in [("2g", 1 << 31), ("max", u32::MAX & !15), ("max_odd", u32::MAX)] {
        let answer = vm.dbg_decrypt(area, end - 4096, len);
        t.case(name, answer, Answer { fw: 0, ..Answer::refused(ENOMEM) });
    }
    Ok(())
}

fn policy_forbids(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = encrypted(&host, &pattern(6), policy::NO_DEBUG)?;
    let buffer = Mapping::anonymous(PAGE)?;
    let area = vm.memory.addr() + AREA as u64;
    let before = vm.memory.read(AREA, PAGE);
    let refused = Answer::firmware(status::POLICY_FAILURE);
    for len in [16, 5] {
        let decrypt = vm.dbg_decrypt(area, buffer.addr(), len);
        t.case(&format!("decrypt_{len}"), decrypt, refused);
        let encrypt = vm.dbg_encrypt(buffer.addr(), area, len);
        t.case(&format!("encrypt_{len}"), encrypt, refused);
    }
    t.check("nothing_read", buffer.read(0, PAGE) == [0; PAGE]);
    t.check("nothing_written", vm.memory.read(AREA, PAGE) == before);
    Ok(())
}

fn states(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = encrypted(&host, &pattern(7), 0)?;
    let buffer = Mapping::anonymous(PAGE)?;
    let area = vm.memory.addr() + AREA as u64;
    t.case("launching", vm.dbg_decrypt(area, buffer.addr(), 16), Answer::OK);
    vm.measurement()?;
    t.case("secret", vm.dbg_decrypt(area, buffer.addr(), 16), Answer::OK);
    t.case("finish", vm.launch_finish(), Answer::OK);
    t.case("running", vm.dbg_decrypt(area, buffer.addr(), 16), Answer::OK);
    Ok(())
}
