// SPDX-License-Identifier: GPL-2.0-or-later
//! As `sev_nth_psp`, for SEV-SNP: the first, the second, ... firmware command of every ioctl, of guest
//! requests and of closing VMs fails; and then also every command after it, one at a time: those
//! with which KVM clears up.
//!
//! A page that SNP_PAGE_RECLAIM does not return is lost, and so is a guest that SNP_DECOMMISSION
//! does not let go, with its ASID. Nothing else is: what may be missing follows from the firmware's own
//! log. At the end the module is loaded anew. With `--single` only one command fails at a time.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno::EIO;
use sev_vm::cmd::{Answer, status};
use sev_vm::es::kept_vm;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Function, Test};
use sev_vm::psp::LogEntry;

#[path = "sev_nth/call.rs"]
mod call;
#[path = "sev_nth/held.rs"]
mod held;
#[path = "sev_nth/snp.rs"]
mod snp;
#[path = "sev_nth/snp_exit.rs"]
mod snp_exit;

use held::{Held, Lost};
use snp::{Call, IN_PART, Subject};

const INJECTED: u32 = status::HWERROR_PLATFORM;
/// Firmware's word.
const REFUSED: Answer = Answer::firmware(INJECTED);
/// No context for the guest, and firmware's word.
const NO_CONTEXT: Answer = Answer { errno: nix::libc::ENOTTY, fw: INJECTED };
/// The guest is told, userspace is not asked.
const TOLD: Answer = Answer { errno: 0, fw: INJECTED };
/// Nobody is told.
const DONE: Answer = Answer::OK_KEPT;

/// Tests by the names of calls, each with its answers when the first, second, ... of its commands
/// fails.
macro_rules! rows {
    ($($module:ident::$name:ident: [$($answer:ident)*];)*) => {
        &[$((stringify!($name), |t| each(t, &$module::$name, &[$($answer),*]))),*]
    };
}

const ROWS: &[(&str, Function)] = rows! {
    snp::INIT2: [];
    snp::REQ_CERTS: [];
    snp::CREATE_VCPU: [];
    snp::LAUNCH_START: [NO_CONTEXT REFUSED REFUSED];
    snp::UPDATE_NORMAL: [REFUSED];
    snp::UPDATE_ZERO: [REFUSED];
    snp::UPDATE_UNMEASURED: [REFUSED];
    snp::UPDATE_SECRETS: [REFUSED];
    snp::UPDATE_CPUID: [REFUSED];
    snp::UPDATE_MANY: [REFUSED IN_PART IN_PART];
    snp::LAUNCH_FINISH: [REFUSED];
    snp::LAUNCH_FINISH_VCPUS: [REFUSED REFUSED REFUSED];
    snp::LAUNCH_FINISH_ID: [REFUSED];
    snp::LAUNCH_FINISH_AUTHOR: [REFUSED];
    snp::ATTRIBUTES: [];
    snp::PRE_FAULT: [];
    snp::PUNCH: [];
    snp::RUN: [];
    snp_exit::GUEST_REQUEST: [TOLD];
    snp_exit::EXT_GUEST_REQUEST: [TOLD];
    snp_exit::EXT_GUEST_REQUEST_CERTS: [TOLD];
    snp_exit::AP_CREATE: [];
    snp_exit::AP_RUN: [];
    snp::CLOSE_INITIALISED: [DONE];
    snp::CLOSE_STARTED: [DONE DONE DONE];
    snp::CLOSE_RAN: [DONE DONE DONE];
};

fn main() -> ExitCode {
    let kept = kept_vm();
    let result = ktap::run_leaking(env!("CARGO_BIN_NAME"), ROWS);
    drop(kept);
    match reload() {
        Ok(()) => result,
        Err(error) => {
            println!("Bail out! {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is lost is back when the module, and with it the firmware, starts anew.
fn reload() -> Result<()> {
    let module = if Host::open()?.is_ours() { "rust" } else { "stock" };
    for (program, argument) in
        [("rmmod", "kvm_amd".to_owned()), ("insmod", format!("/lib/modules/kvm-amd-{module}.ko"))]
    {
        let status = Command::new(program).arg(&argument).status().context(program)?;
        ensure!(status.success(), "{program} {argument}: {status}");
    }
    Ok(())
}

/// `--single`: no second command fails, which the stock module is not made for.
fn single() -> bool {
    std::env::args().any(|argument| argument == "--single")
}

/// How many of these commands failed.
fn refused(log: &[LogEntry], command: &str) -> u64 {
    let refused = |entry: &&LogEntry| entry.cmd == command && entry.status != "SUCCESS";
    log.iter().filter(refused).count() as u64
}

/// What firmware keeps, as it says itself.
fn lost(log: &[LogEntry]) -> Lost {
    let contexts = refused(log, "SNP_DECOMMISSION");
    Lost { pages: refused(log, "SNP_PAGE_RECLAIM") + contexts, contexts }
}

/// One try of a call with some of its commands failing.
struct Try {
    subject: Subject,
    answer: Answer,
    log: Vec<LogEntry>,
    before: Held,
}

fn attempt(t: &mut Test, host: &Host, call: &Call, failing: &[u32]) -> Result<Try> {
    let mut subject = (call.prepare)(host)?;
    let before = Held::now(t.psp)?;
    for n in failing {
        t.psp.fail("any", *n, INJECTED)?;
    }
    let (answer, log) = t.psp.logged(|| Ok((call.act)(host, &mut subject)))?;
    t.psp.clear_faults()?;
    Ok(Try { subject, answer, log, before })
}

impl Try {
    /// How many commands failed.
    fn failed(&self) -> usize {
        self.log.iter().filter(|entry| entry.status == "HWERROR_PLATFORM").count()
    }
}

fn each(t: &mut Test, call: &Call, failing: &[Answer]) -> Result<()> {
    let host = Host::open()?;
    ensure!(host.offers(call.kind), "no {:?} VMs here: run this with --platform snp", call.kind);
    ensure!(call.commands == failing.len() as u32, "an answer for each command");
    let none = attempt(t, &host, call, &[])?;
    t.case("none_failed", none.answer, call.expected);
    t.value("commands", none.log.len(), failing.len());
    drop(none);

    for (n, answer) in (1..).zip(failing) {
        for m in 0..if single() { 1 } else { u32::MAX } {
            let free = Held::now(t.psp)?;
            let faults = if m == 0 { vec![n] } else { vec![n, n + m] };
            let mut tried = attempt(t, &host, call, &faults)?;
            if tried.failed() < faults.len() {
                ensure!(m != 0, "{n} commands are not issued");
                break;
            }
            let name = if m == 0 { format!("{n}") } else { format!("{n}_and_{}", n + m) };
            t.observe(&format!("{name}_log"), text(&tried.log));
            t.case(&format!("{name}_failed"), tried.answer, *answer);
            let lost = lost(&tried.log);
            if *answer != DONE {
                let held = Held::now(t.psp)?;
                complain(t, &format!("{name}_held"), &held, &tried.before, lost, true);
                let again = (call.act)(&host, &mut tried.subject);
                // Without a page of the guest's memory the VM is stopped, lest anybody use it.
                let stopped = lost.pages != 0 && refused(&tried.log, "SNP_LAUNCH_UPDATE") != 0;
                let expected = if stopped { Answer::refused(EIO) } else { call.expected };
                t.case(&format!("{name}_repeated"), again, expected);
            }
            drop(tried);
            let held = Held::now(t.psp)?;
            complain(t, &format!("{name}_released"), &held, &free, lost, false);
        }
    }
    Ok(())
}

fn complain(t: &mut Test, case: &str, held: &Held, before: &Held, lost: Lost, alive: bool) {
    let right = held.lacks(before, lost, alive);
    if !right {
        t.note(format_args!("{case}: before: {before}; after: {held}; lost: {lost:?}"));
    }
    t.check(case, right);
}

fn text(log: &[LogEntry]) -> String {
    let words: Vec<_> = log.iter().map(|e| format!("{}={}", e.cmd, e.status)).collect();
    words.join(",")
}
