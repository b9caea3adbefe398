// SPDX-License-Identifier: GPL-2.0-or-later
//! SNP LAUNCH_UPDATE: types of pages, ranges, what has to be private, and what is left of a
//! request that ends early.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use kvm_bindings::*;
use nix::errno::Errno::{EFAULT, EINVAL};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use sev_vm::bad::{Addresses, Descriptors, KERNEL, NON_CANONICAL, read_only};
use sev_vm::cmd::{Answer, issue, status};
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{GuestMemory, Mapping, PAGE};
use sev_vm::snp::{PageType, Snp, policy};
use sev_vm::vm::{Vm, addr_of};

/// A private page that nothing else is about.
const AREA: usize = guest::PRIVATE as usize;
/// An error of KVM's after which `error` is written, though firmware has none.
const BEFORE_FIRMWARE: Answer = Answer::firmware(0);

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("types", types),
            ("fields", fields),
            ("lengths", lengths),
            ("source", source),
            ("null_source", null_source),
            ("pointers", pointers),
            ("not_private", not_private),
            ("slots", slots),
            ("end_of_slot", end_of_slot),
            ("twice", twice),
            ("order", order),
            ("failures", failures),
            ("descriptors", descriptors),
            ("whole_memory", whole_memory),
            ("signal", signal),
        ],
    )
}

fn started(host: &Host) -> Result<Snp> {
    Snp::started(host, policy::DEFAULT)
}

/// Records an answer and what is left of the request: pages, and how far it came.
fn left(
    t: &mut Test,
    case: &str,
    before: &kvm_sev_snp_launch_update,
    after: &kvm_sev_snp_launch_update,
) {
    let (pages, uaddr) =
        (after.gfn_start - before.gfn_start, after.uaddr.wrapping_sub(before.uaddr));
    t.observe(
        &format!("{case}_left"),
        format!("done={pages} uaddr=+{uaddr:#x} len={:#x} type={}", after.len, after.type_),
    );
}

/// LAUNCH_UPDATE with what is left of it.
fn update(
    t: &mut Test,
    case: &str,
    vm: &Vm,
    argument: kvm_sev_snp_launch_update,
    expected: Answer,
) -> kvm_sev_snp_launch_update {
    let mut after = argument;
    t.case(case, vm.snp_launch_update(&mut after), expected);
    left(t, case, &argument, &after);
    after
}

fn types(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = started(&host)?;
    for (number, (name, kind)) in PageType::ALL.into_iter().enumerate() {
        let at = AREA + number * 4 * PAGE;
        let one = update(t, name, &vm, vm.update_of(kind, at..at + PAGE), Answer::OK_KEPT);
        t.value(&format!("{name}_len"), one.len, 0);
        let range = at + PAGE..at + 3 * PAGE;
        let two =
            update(t, &format!("{name}_two"), &vm, vm.update_of(kind, range), Answer::OK_KEPT);
        t.value(&format!("{name}_two_len"), two.len, 0);
    }
    for number in (0..=u8::MAX).filter(|n| !PageType::ALL.iter().any(|(_, k)| *k as u8 == *n)) {
        let argument =
            kvm_sev_snp_launch_update { type_: number, ..vm.update_of(PageType::Normal, 0..PAGE) };
        t.case(
            &format!("{number}"),
            vm.snp_launch_update(&mut argument.clone()),
            Answer::refused(EINVAL),
        );
    }
    // The host keeps its copy; it is not encrypted in place.
    let source = vm.memory.read(AREA, PAGE);
    t.check("source_is_kept", source == vec![0; PAGE]);
    Ok(())
}

fn fields(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = started(&host)?;
    let good = vm.update_of(PageType::Normal, AREA..AREA + PAGE);
    for bit in 0..16 {
        let argument = kvm_sev_snp_launch_update { flags: 1 << bit, ..good };
        update(t, &format!("flag_{bit}"), &vm, argument, Answer::refused(EINVAL));
    }
    let argument = kvm_sev_snp_launch_update { pad0: 1, pad1: 1, pad2: [1; 4], ..good };
    update(t, "padding", &vm, argument, Answer::OK_KEPT);
    Ok(())
}

fn lengths(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = started(&host)?;
    let good = vm.update_of(PageType::Normal, AREA..AREA + PAGE);
    for len in [0, 1, 16, 4095, 4097, PAGE as u64 + 16, u64::MAX, (1 << 63) | 1] {
        let argument = kvm_sev_snp_launch_update { len, ..good };
        update(t, &format!("{len:#x}"), &vm, argument, Answer::refused(EINVAL));
    }
    for offset in [1, 8, 16, 2048, 4095] {
        for (name, kind) in PageType::ALL {
            let argument = kvm_sev_snp_launch_update {
                uaddr: good.uaddr + offset,
                type_: kind as u8,
                gfn_start: good.gfn_start + 1 + offset,
                ..good
            };
            // Zeroes have no source.
            if kind != PageType::Zero {
                update(
                    t,
                    &format!("uaddr_{offset}_{name}"),
                    &vm,
                    argument,
                    Answer::refused(EINVAL),
                );
            }
        }
    }
    let zeroes =
        kvm_sev_snp_launch_update { uaddr: 5, ..vm.update_of(PageType::Zero, AREA..AREA + PAGE) };
    let after = update(t, "zeroes_from_odd", &vm, zeroes, Answer::OK_KEPT);
    t.value("zeroes_leave_uaddr", after.uaddr, 5);
    Ok(())
}

/// Memory that cannot be read, or, for CPUID values, not written.
fn source(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = started(&host)?;
    let addresses = Addresses::new()?;
    let hole = addresses.unmapped();
    let read_only = read_only(&[0; PAGE])?;
    for (name, kind) in PageType::ALL.into_iter().filter(|(_, kind)| *kind != PageType::Zero) {
        for (place, uaddr) in [
            ("unmapped", hole),
            ("kernel", KERNEL),
            ("non_canonical", NON_CANONICAL),
            ("last", !0 - 4095),
        ] {
            let argument =
                kvm_sev_snp_launch_update { uaddr, ..vm.update_of(kind, AREA..AREA + PAGE) };
            update(t, &format!("{name}_{place}"), &vm, argument, BEFORE_FIRMWARE);
        }
        // The first page is there, the second is not: half of it is done.
        let argument = kvm_sev_snp_launch_update {
            uaddr: hole - PAGE as u64,
            ..vm.update_of(kind, AREA..AREA + 2 * PAGE)
        };
        let after = update(t, &format!("{name}_tail"), &vm, argument, Answer::OK_KEPT);
        t.value(&format!("{name}_tail_len"), after.len, PAGE as u64);
        vm.punch(AREA..AREA + PAGE)?;
        let argument = kvm_sev_snp_launch_update {
            uaddr: read_only.addr(),
            ..vm.update_of(kind, AREA..AREA + PAGE)
        };
        let expected = if kind == PageType::Cpuid { BEFORE_FIRMWARE } else { Answer::OK_KEPT };
        update(t, &format!("{name}_read_only"), &vm, argument, expected);
        vm.punch(AREA..AREA + PAGE)?;
    }
    Ok(())
}

/// Address 0 is no source. The C module takes that for a bug of its own and warns, which fails any
/// run: only ours is asked.
fn null_source(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = started(&host)?;
    if host.is_ours() {
        for (name, kind) in PageType::ALL.into_iter().filter(|(_, kind)| *kind != PageType::Zero) {
            let null =
                kvm_sev_snp_launch_update { uaddr: 0, ..vm.update_of(kind, AREA..AREA + PAGE) };
            update(t, name, &vm, null, Answer::refused(EINVAL));
        }
    }
    let null =
        kvm_sev_snp_launch_update { uaddr: 0, ..vm.update_of(PageType::Zero, AREA..AREA + PAGE) };
    update(t, "zero", &vm, null, Answer::OK_KEPT);
    Ok(())
}

fn pointers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = started(&host)?;
    let addresses = Addresses::new()?;
    for (name, address) in addresses.unreadable(size_of::<kvm_sev_snp_launch_update>()) {
        let answer = vm.command(sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE, address);
        t.case(name, answer, Answer::refused(EFAULT));
    }
    // What is left cannot be told: the page is the guest's nevertheless.
    let mut argument = vm.update_of(PageType::Normal, AREA..AREA + PAGE);
    // SAFETY: the structure is plain integers.
    let bytes: [u8; size_of::<kvm_sev_snp_launch_update>()] =
        unsafe { std::mem::transmute(argument) };
    let map = read_only(&bytes)?;
    let answer = vm.command(sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE, map.addr());
    t.case("read_only", answer, Answer::refused(EFAULT));
    t.case("is_done", vm.snp_launch_update(&mut argument), BEFORE_FIRMWARE);
    Ok(())
}

fn not_private(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::initialised(&host)?.start(policy::DEFAULT)?;
    vm.set_private(0..guest::MEMORY, false)?;
    for (name, kind) in PageType::ALL {
        update(t, name, &vm, vm.update_of(kind, AREA..AREA + PAGE), BEFORE_FIRMWARE);
    }
    vm.set_private(AREA..AREA + 2 * PAGE, true)?;
    let range = vm.update_of(PageType::Normal, AREA - PAGE..AREA + PAGE);
    update(t, "shared_first", &vm, range, BEFORE_FIRMWARE);
    let range = vm.update_of(PageType::Normal, AREA..AREA + 4 * PAGE);
    let after = update(t, "shared_third", &vm, range, Answer::OK_KEPT);
    t.value("shared_third_len", after.len, 2 * PAGE as u64);
    // What is left is a request of its own.
    update(t, "rest", &vm, after, BEFORE_FIRMWARE);
    vm.set_private(AREA + 2 * PAGE..AREA + 4 * PAGE, true)?;
    let after = update(t, "rest_private", &vm, after, Answer::OK_KEPT);
    t.value("rest_private_len", after.len, 0);
    Ok(())
}

/// Memory that has no private half, or is none.
fn slots(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = started(&host)?;
    let page = vm.update_of(PageType::Normal, 0..PAGE);
    for (name, gfn_start) in [
        ("behind", (guest::MEMORY / PAGE) as u64),
        ("far", 1 << 36),
        ("gfn_max", u64::MAX),
        ("gfn_sign", 1 << 63),
        ("gpa_wraps", 1 << 52),
    ] {
        let argument = kvm_sev_snp_launch_update { gfn_start, ..page };
        update(t, name, &vm, argument, Answer::refused(EINVAL));
    }
    // A slot of shared memory only.
    let plain = GuestMemory::new(PAGE)?;
    let gpa = 1u64 << 30;
    let region = kvm_userspace_memory_region {
        slot: 1,
        guest_phys_addr: gpa,
        memory_size: PAGE as u64,
        userspace_addr: plain.addr(),
        ..Default::default()
    };
    // SAFETY: `plain` is mapped until the end of this function, when the VM does not run any more.
    unsafe { vm.fd.set_user_memory_region(region)? };
    let argument = kvm_sev_snp_launch_update { gfn_start: gpa / PAGE as u64, ..page };
    update(t, "no_guest_memfd", &vm, argument, Answer::refused(EINVAL));
    let private = vm.vm.set_private(gpa as usize..gpa as usize + PAGE, true);
    t.record("private_without_guest_memfd", private);
    update(t, "no_guest_memfd_private", &vm, argument, Answer::refused(EINVAL));
    // A VM without any memory.
    let empty = Vm {
        vcpus: Vec::new(),
        fd: host.create_vm(VmType::Snp)?,
        memory: GuestMemory::new(PAGE)?,
        sev_fd: host.sev_fd(),
        c_mask: 0,
    };
    let answer = empty.init2(&mut kvm_sev_init::default());
    ensure!(answer.is_ok(), "KVM_SEV_INIT2: {answer}");
    t.case(
        "empty_start",
        empty.snp_launch_start(&mut sev_vm::snp::start(policy::DEFAULT)),
        Answer::OK,
    );
    update(t, "empty", &empty, page, Answer::refused(EINVAL));
    Ok(())
}

/// A range that goes beyond its slot is cut off there.
fn end_of_slot(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in PageType::ALL {
        let vm = started(&host)?;
        let end = guest::MEMORY;
        let source = Mapping::anonymous(8 * PAGE)?;
        let argument = kvm_sev_snp_launch_update {
            uaddr: source.addr(),
            ..vm.update_of(kind, end - 2 * PAGE..end + 3 * PAGE)
        };
        let after = update(t, name, &vm, argument, Answer::OK_KEPT);
        t.value(&format!("{name}_gfn"), after.gfn_start, (end / PAGE) as u64);
        t.value(&format!("{name}_len"), after.len, 3 * PAGE as u64);
        let advanced = if kind == PageType::Zero { 0 } else { 2 * PAGE as u64 };
        t.value(&format!("{name}_uaddr"), after.uaddr - argument.uaddr, advanced);
        update(t, &format!("{name}_rest"), &vm, after, Answer::refused(EINVAL));
    }
    let vm = started(&host)?;
    let huge = kvm_sev_snp_launch_update {
        len: 1 << 62,
        ..vm.update_of(PageType::Zero, guest::MEMORY - PAGE..guest::MEMORY)
    };
    let after = update(t, "huge", &vm, huge, Answer::OK_KEPT);
    t.value("huge_len", after.len, (1 << 62) - PAGE as u64);
    Ok(())
}

/// A page that is assigned to the guest cannot be loaded again, until it was punched out.
fn twice(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in PageType::ALL {
        let vm = started(&host)?;
        let page = vm.update_of(kind, AREA..AREA + PAGE);
        update(t, &format!("{name}_once"), &vm, page, Answer::OK_KEPT);
        for (again, other) in PageType::ALL {
            let argument = vm.update_of(other, AREA..AREA + PAGE);
            update(t, &format!("{name}_{again}"), &vm, argument, BEFORE_FIRMWARE);
        }
        // Overlapping at the end: the pages before are done.
        let overlapping = vm.update_of(kind, AREA - 2 * PAGE..AREA + 2 * PAGE);
        let after = update(t, &format!("{name}_overlap"), &vm, overlapping, Answer::OK_KEPT);
        t.value(&format!("{name}_overlap_len"), after.len, 2 * PAGE as u64);
        update(t, &format!("{name}_overlap_rest"), &vm, after, BEFORE_FIRMWARE);
        // Making it shared and private again does not free it; a hole does.
        vm.set_private(AREA..AREA + PAGE, false)?;
        vm.set_private(AREA..AREA + PAGE, true)?;
        update(t, &format!("{name}_converted"), &vm, page, BEFORE_FIRMWARE);
        vm.punch(AREA..AREA + PAGE)?;
        update(t, &format!("{name}_punched"), &vm, page, Answer::OK_KEPT);
    }
    Ok(())
}

fn order(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::bare(&host)?;
    let page = vm.update_of(PageType::Normal, AREA..AREA + PAGE);
    update(t, "before_init", &vm, page, Answer::refused(EINVAL));
    let answer = vm.init2(&mut kvm_sev_init::default());
    ensure!(answer.is_ok(), "KVM_SEV_INIT2: {answer}");
    update(t, "before_start", &vm, page, Answer::refused(EINVAL));
    let vm = vm.start(policy::DEFAULT)?;
    update(t, "after_start", &vm, page, Answer::OK_KEPT);
    vm.seal()?;
    for (name, kind) in PageType::ALL {
        let page = vm.update_of(kind, AREA + PAGE..AREA + 2 * PAGE);
        update(
            t,
            &format!("after_finish_{name}"),
            &vm,
            page,
            Answer::firmware(status::INVALID_GUEST_STATE),
        );
    }
    update(t, "after_finish_twice", &vm, page, BEFORE_FIRMWARE);
    Ok(())
}

/// The n-th page fails in firmware: those before it are done, it is the host's again.
fn failures(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let failed = status::HWERROR_PLATFORM;
    for (name, kind) in PageType::ALL {
        let vm = started(&host)?;
        let range = vm.update_of(kind, AREA..AREA + 3 * PAGE);
        t.psp.fail("SNP_LAUNCH_UPDATE", 1, failed)?;
        update(t, &format!("{name}_first"), &vm, range, Answer::firmware(failed));
        t.psp.fail("SNP_LAUNCH_UPDATE", 2, failed)?;
        let after = update(t, &format!("{name}_second"), &vm, range, Answer::OK_KEPT);
        t.value(&format!("{name}_second_len"), after.len, 2 * PAGE as u64);
        let after = update(t, &format!("{name}_rest"), &vm, after, Answer::OK_KEPT);
        t.value(&format!("{name}_rest_len"), after.len, 0);
    }
    Ok(())
}

fn descriptors(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = started(&host)?;
    let wrong = Descriptors::new(&host)?;
    let good = vm.update_of(PageType::Normal, AREA..AREA + PAGE);
    for (name, number) in wrong.wrong() {
        let mut argument = good;
        let answer =
            issue(&vm.fd, sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE, addr_of(&mut argument), number);
        t.check(&format!("{name}_refused"), !answer.is_ok());
        t.record(name, answer);
        left(t, name, &good, &argument);
    }
    update(t, "then", &vm, good, Answer::OK_KEPT);
    Ok(())
}

/// 2 MiB in one go.
fn whole_memory(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in [("normal", PageType::Normal), ("zero", PageType::Zero)] {
        let vm = started(&host)?;
        vm.set_private(0..guest::MEMORY, true)?;
        let pages = t.psp.counters()?.count("SNP_LAUNCH_UPDATE");
        let after = update(t, name, &vm, vm.update_of(kind, 0..guest::MEMORY), Answer::OK_KEPT);
        t.value(&format!("{name}_len"), after.len, 0);
        let pages = t.psp.counters()?.count("SNP_LAUNCH_UPDATE") - pages;
        t.value(&format!("{name}_commands"), pages, 512);
    }
    Ok(())
}

extern "C" fn on_signal(_: i32) {}

/// A signal ends a long request early, and the rest of it can be asked for.
fn signal(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = started(&host)?;
    vm.set_private(0..guest::MEMORY, true)?;
    let action =
        SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGALRM, &action)? };
    let mut argument = vm.update_of(PageType::Normal, 0..guest::MEMORY);
    // The tenth page takes longer than until the signal.
    t.psp.request("fault cmd=SNP_LAUNCH_UPDATE n=10 delay=2000000")?;
    let notify =
        nix::sys::signal::SigevNotify::SigevSignal { signal: Signal::SIGALRM, si_value: 0 };
    let mut timer =
        Timer::new(nix::time::ClockId::CLOCK_MONOTONIC, nix::sys::signal::SigEvent::new(notify))?;
    timer.set(
        Expiration::OneShot(nix::sys::time::TimeSpec::from_duration(
            std::time::Duration::from_millis(1000),
        )),
        TimerSetTimeFlags::empty(),
    )?;
    t.case("interrupted", vm.snp_launch_update(&mut argument), Answer::OK_KEPT);
    t.check("something_is_left", argument.len > 0);
    t.check("something_is_done", argument.gfn_start > 0);
    let bytes = argument.gfn_start * PAGE as u64;
    t.check("consistent", bytes + argument.len == guest::MEMORY as u64);
    t.check("source", argument.uaddr == vm.memory.addr() + bytes);
    t.case("rest", vm.snp_launch_update(&mut argument), Answer::OK_KEPT);
    t.value("rest_len", argument.len, 0);
    Ok(())
}
