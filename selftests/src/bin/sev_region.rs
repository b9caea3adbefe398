// SPDX-License-Identifier: GPL-2.0-or-later
//! `KVM_MEMORY_ENCRYPT_REG_REGION` and `UNREG_REGION`: what is pinned, how much, how long.

use std::process::ExitCode;
use std::thread;

use anyhow::{Result, anyhow, ensure};
use kvm_bindings::kvm_enc_region;
use nix::errno::Errno::{EFAULT, EINVAL, ENOMEM};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sev_vm::bad::{Addresses, KERNEL, NON_CANONICAL};
use sev_vm::cmd::{Answer, regions_at};
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::state::pinned_pages;
use sev_vm::vm::Vm;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("pins", pins),
            ("twice", twice),
            ("unknown", unknown),
            ("sizes", sizes),
            ("addresses", addresses),
            ("argument", argument),
            ("unmapped_while_registered", unmapped_while_registered),
            ("dropped_with_the_vm", dropped_with_the_vm),
            ("lock_limit", lock_limit),
        ],
    )
}

fn region(addr: u64, size: usize) -> kvm_enc_region {
    kvm_enc_region { addr, size: size as u64 }
}

fn pins(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let memory = Mapping::anonymous(64 * PAGE)?;
    let before = pinned_pages()?;
    for (name, offset, size, pages) in [
        ("one_byte", 0, 1, 1),
        ("page", 0, PAGE, 1),
        ("unaligned_page", 1, PAGE, 2),
        ("two_bytes_over_a_page_end", PAGE as u64 - 1, 2, 2),
        ("all", 0, 64 * PAGE, 64),
    ] {
        let region = region(memory.addr() + offset, size);
        t.case(&format!("{name}_register"), vm.register(&region), Answer::OK_KEPT);
        t.value(&format!("{name}_pinned"), pinned_pages()? - before, pages);
        t.case(&format!("{name}_unregister"), vm.unregister(&region), Answer::OK_KEPT);
        t.value(&format!("{name}_left"), pinned_pages()? - before, 0);
    }
    Ok(())
}

/// The same region may be registered again; each registration is undone separately.
fn twice(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let memory = Mapping::anonymous(4 * PAGE)?;
    let region = region(memory.addr(), 4 * PAGE);
    let before = pinned_pages()?;
    t.case("register", vm.register(&region), Answer::OK_KEPT);
    t.case("register_again", vm.register(&region), Answer::OK_KEPT);
    t.value("pinned", pinned_pages()? - before, 8);
    t.case("unregister", vm.unregister(&region), Answer::OK_KEPT);
    t.value("pinned_once", pinned_pages()? - before, 4);
    t.case("unregister_again", vm.unregister(&region), Answer::OK_KEPT);
    t.case("unregister_third", vm.unregister(&region), Answer::refused(EINVAL));
    Ok(())
}

/// Only what was registered, exactly, can be unregistered.
fn unknown(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let memory = Mapping::anonymous(4 * PAGE)?;
    let at = memory.addr();
    t.case("none_registered", vm.unregister(&region(at, PAGE)), Answer::refused(EINVAL));
    t.case("register", vm.register(&region(at, 2 * PAGE)), Answer::OK_KEPT);
    for (name, addr, size) in [
        ("shorter", at, PAGE),
        ("longer", at, 3 * PAGE),
        ("other_start", at + PAGE as u64, 2 * PAGE),
        ("same_pages", at + 1, 2 * PAGE - 1),
        ("nothing", 0, 0),
    ] {
        t.case(name, vm.unregister(&region(addr, size)), Answer::refused(EINVAL));
    }
    let other = Vm::sev(&host)?;
    t.case("other_vm", other.unregister(&region(at, 2 * PAGE)), Answer::refused(EINVAL));
    t.case("exact", vm.unregister(&region(at, 2 * PAGE)), Answer::OK_KEPT);
    Ok(())
}

fn sizes(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let memory = Mapping::anonymous(4 * PAGE)?;
    let at = memory.addr();
    let before = pinned_pages()?;
    // Every size from 2^43 on is more pages than an int counts, or wraps around.
    for (name, size) in [
        ("0", 0),
        ("2_pow_43", 1 << 43),
        ("2_pow_63", 1 << 63),
        ("minus_1", u64::MAX),
        ("to_the_last_byte", u64::MAX - at),
    ] {
        t.case(name, vm.register(&kvm_enc_region { addr: at, size }), Answer::refused(EINVAL));
    }
    // More pages than the machine has.
    let size = 1 << 40;
    t.case("2_pow_40", vm.register(&kvm_enc_region { addr: at, size }), Answer::refused(EINVAL));
    t.case("beyond_mapping", vm.register(&region(at, 64 << 20)), Answer::refused(ENOMEM));
    t.value("pinned", pinned_pages()? - before, 0);
    Ok(())
}

fn addresses(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let bad = Addresses::new()?;
    let page = PAGE as u64;
    for (name, addr, size, errno) in [
        ("null", 0, page, ENOMEM),
        ("unmapped", bad.unmapped(), page, ENOMEM),
        ("tail_unmapped", bad.unmapped() - page, 2 * page, ENOMEM),
        ("kernel", KERNEL, page, ENOMEM),
        ("non_canonical", NON_CANONICAL, page, ENOMEM),
        ("wraps", u64::MAX - 4095, 2 * page, EINVAL),
        ("wraps_to_zero", u64::MAX - 4095, page, EINVAL),
        ("minus_1", u64::MAX, 1, EINVAL),
    ] {
        let answer = vm.register(&kvm_enc_region { addr, size });
        t.case(name, answer, Answer::refused(errno));
    }
    let read_only = sev_vm::bad::read_only(&[1])?;
    let region = region(read_only.addr(), PAGE);
    t.case("read_only", vm.register(&region), Answer::OK_KEPT);
    t.case("read_only_unregister", vm.unregister(&region), Answer::OK_KEPT);
    Ok(())
}

fn argument(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let bad = Addresses::new()?;
    for (name, address) in bad.unreadable(size_of::<kvm_enc_region>()) {
        let answers = regions_at(&vm.fd, address);
        t.case(&format!("register_{name}"), answers[0], Answer::refused(EFAULT));
        t.case(&format!("unregister_{name}"), answers[1], Answer::refused(EFAULT));
    }
    Ok(())
}

/// The pages stay pinned, and the region known by its address, after the mapping went.
fn unmapped_while_registered(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let before = pinned_pages()?;
    let memory = Mapping::anonymous(16 * PAGE)?;
    let region = region(memory.addr(), 16 * PAGE);
    t.case("register", vm.register(&region), Answer::OK_KEPT);
    drop(memory);
    t.value("pinned", pinned_pages()? - before, 16);
    t.case("unregister", vm.unregister(&region), Answer::OK_KEPT);
    t.value("left", pinned_pages()? - before, 0);
    Ok(())
}

fn dropped_with_the_vm(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let before = pinned_pages()?;
    let memory = Mapping::anonymous(32 * PAGE)?;
    let vm = Vm::sev(&host)?;
    for page in 0..32 {
        let addr = memory.addr() + page * PAGE as u64;
        let answer = vm.register(&region(addr, PAGE));
        ensure!(answer.is_ok(), "register page {page}: {answer}");
    }
    t.value("pinned", pinned_pages()? - before, 32);
    drop(vm);
    t.value("left", pinned_pages()? - before, 0);
    Ok(())
}

/// RLIMIT_MEMLOCK bounds what an unprivileged user can pin through one VM.
fn lock_limit(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Vm::sev(&host)?;
    let memory = Mapping::anonymous(16 * PAGE)?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    setrlimit(Resource::RLIMIT_MEMLOCK, 8 * PAGE as u64, hard)?;
    let register = |pages: usize| vm.register(&region(memory.addr(), pages * PAGE));
    let unregister = |pages: usize| vm.unregister(&region(memory.addr(), pages * PAGE));
    t.case("root_beyond", register(9), Answer::OK_KEPT);
    t.case("root_unregister", unregister(9), Answer::OK_KEPT);
    let answers = as_nobody(|| {
        [
            ("beyond", register(9), Answer::refused(ENOMEM)),
            ("at_limit", register(8), Answer::OK_KEPT),
            ("one_more", register(1), Answer::refused(ENOMEM)),
            ("unregister", unregister(8), Answer::OK_KEPT),
            ("after_unregister", register(8), Answer::OK_KEPT),
            ("unregister_again", unregister(8), Answer::OK_KEPT),
        ]
    })?;
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
    for (name, answer, expected) in answers {
        t.case(&format!("user_{name}"), answer, expected);
    }
    Ok(())
}

/// Runs `action` in a thread without privileges.
fn as_nobody<T: Send>(action: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            const NOBODY: libc::uid_t = 65534;
            // The C library would change the whole process; credentials are the thread's.
            // SAFETY: setresuid() takes three numbers and touches no memory.
            let ret = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
            ensure!(ret == 0, "setresuid: {}", std::io::Error::last_os_error());
            Ok(action())
        });
        thread.join().map_err(|_| anyhow!("the unprivileged thread panicked"))?
    })
}
