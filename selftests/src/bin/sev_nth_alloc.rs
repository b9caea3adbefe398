// SPDX-License-Identifier: GPL-2.0-or-later
//! The first, the second, ... allocation of every ioctl fails: the answer is ENOMEM, or what the
//! call makes of it, unless the kernel can do without; the call has left nothing behind, and works when it is repeated.
//!
//! How many allocations there are depends on the kernel, so there is one verdict for all of them.
//! The kernel's Documentation/fault-injection/fault-injection.rst says how `fail-nth` works.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use sev_vm::cmd::KEPT;
use sev_vm::es::kept_vm;
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};

#[path = "sev_nth/call.rs"]
mod call;
#[path = "sev_nth/calls.rs"]
mod calls;
#[path = "sev_nth/close.rs"]
mod close;
#[path = "sev_nth/es.rs"]
mod es;
#[path = "sev_nth/held.rs"]
mod held;
#[path = "sev_nth/snp.rs"]
mod snp;
#[path = "sev_nth/snp_exit.rs"]
mod snp_exit;
#[path = "sev_nth/transfer.rs"]
mod transfer;
#[path = "sev_nth/vmgexit.rs"]
mod vmgexit;

use call::{Call, Subject};
use held::{Held, Lost};

const FAIL_NTH: &str = "/proc/thread-self/fail-nth";

/// Which allocations fail: those that may sleep as well, and of single pages as well. The kernel
/// need not log each.
const SETTINGS: [(&str, &str); 6] = [
    ("failslab/verbose", "0"),
    ("fail_page_alloc/verbose", "0"),
    ("failslab/ignore-gfp-wait", "N"),
    ("fail_page_alloc/ignore-gfp-wait", "N"),
    ("fail_page_alloc/ignore-gfp-highmem", "N"),
    ("fail_page_alloc/min-order", "0"),
];

fn main() -> ExitCode {
    if !Path::new(FAIL_NTH).exists() {
        println!(
            "KTAP version 1\n1..0 # SKIP this kernel does not inject faults\n0 passed, 0 failed"
        );
        return ExitCode::SUCCESS;
    }
    for (setting, value) in SETTINGS {
        let path = format!("/sys/kernel/debug/{setting}");
        if let Err(error) = fs::write(&path, value) {
            println!("Bail out! {path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    let _kept = kept_vm();
    let closing = tests!(each: close: CLOSE CLOSE_ES;);
    let snp = tests!(each:
        snp:
            INIT2 REQ_CERTS CREATE_VCPU LAUNCH_START UPDATE_NORMAL UPDATE_ZERO UPDATE_UNMEASURED
            UPDATE_SECRETS UPDATE_CPUID UPDATE_MANY LAUNCH_FINISH LAUNCH_FINISH_VCPUS
            LAUNCH_FINISH_ID LAUNCH_FINISH_AUTHOR ATTRIBUTES PRE_FAULT PUNCH RUN CLOSE_INITIALISED
            CLOSE_STARTED CLOSE_RAN;
        snp_exit:
            GUEST_REQUEST EXT_GUEST_REQUEST EXT_GUEST_REQUEST_CERTS AP_CREATE AP_RUN;
    );
    // A host with SEV-SNP is for that: the firmware's commands about other guests take more there.
    let snp_host = Host::open().is_ok_and(|host| host.offers(VmType::Snp));
    let tests = if snp_host { snp.to_vec() } else { [tests!(each), closing].concat() };
    ktap::run(env!("CARGO_BIN_NAME"), &tests)
}

/// Makes allocations of the current thread fail.
struct Failing(File);

impl Failing {
    fn open() -> Result<Self> {
        Ok(Self(OpenOptions::new().read(true).write(true).open(FAIL_NTH).context(FAIL_NTH)?))
    }

    /// Runs `action` with its `n`-th allocation failing; whether there were as many.
    fn nth<T>(&self, n: u32, action: impl FnOnce() -> T) -> Result<(T, bool)> {
        self.0.write_at(n.to_string().as_bytes(), 0)?;
        let value = action();
        let mut left = [0; 16];
        let len = self.0.read_at(&mut left, 0)?;
        self.0.write_at(b"0", 0)?;
        Ok((value, std::str::from_utf8(&left[..len])?.trim() == "0"))
    }
}

fn each<S: Subject>(t: &mut Test, call: &Call<S>) -> Result<()> {
    let host = Host::open()?;
    if !host.offers(call.kind) {
        t.note(format_args!("SKIP: no {:?} VMs here", call.kind));
        return Ok(());
    }
    let failing = Failing::open()?;
    let free = Held::now(t.psp)?;
    let (mut refused, mut survived, mut wrong) = (0, 0, 0);
    for n in 1.. {
        let mut subject = (call.prepare)(&host)?;
        let before = Held::now(t.psp)?;
        let (answer, failed) = failing.nth(n, || (call.act)(&host, &mut subject))?;
        if !failed {
            t.case("none_failed", answer, call.expected);
            if !host.is_ours() {
                t.leaks_charges(call.stock_keeps);
            }
            break;
        }
        let mut complain = |what: &str| {
            println!("# note allocation {n} failed, {answer}: {what}");
            wrong += 1;
        };
        if answer == call.expected {
            survived += 1;
        } else {
            refused += 1;
            let told = call.out_of_memory.iter().any(|errno| *errno as i32 == answer.errno);
            if !told || ![0, KEPT].contains(&answer.fw) {
                complain(&format!("not {:?}", call.out_of_memory));
            }
            let mut after = Held::now(t.psp)?;
            let in_exit = subject.in_exit();
            let again = (call.act)(&host, &mut subject);
            if again != call.expected {
                complain(&format!("repeated: {again}"));
            }
            if in_exit {
                // The GHCB stays mapped until the guest runs on.
                after = Held::now(t.psp)?;
            }
            // What was done in part stays done.
            if !after.lacks(&before, Lost::default(), true) {
                complain(&format!("left behind: before: {before}; after: {after}"));
            }
        }
        drop(subject);
        let after = Held::now(t.psp)?;
        if after != free {
            complain(&format!("not released: before: {free}; after: {after}"));
        }
    }
    t.note(format_args!("{refused} refused, {survived} survived"));
    t.value("wrong", wrong, 0);
    Ok(())
}
