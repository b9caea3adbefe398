// SPDX-License-Identifier: GPL-2.0-or-later
//! The first, the second, ... firmware command of every ioctl fails: the user is told so, the call
//! has left nothing behind, and works when it is repeated.

use std::process::ExitCode;

use anyhow::Result;
use sev_vm::cmd::{Answer, status};
use sev_vm::es::kept_vm;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};

#[path = "sev_nth/call.rs"]
mod call;
#[path = "sev_nth/calls.rs"]
mod calls;
#[path = "sev_nth/es.rs"]
mod es;
#[path = "sev_nth/held.rs"]
mod held;
#[path = "sev_nth/transfer.rs"]
mod transfer;
#[path = "sev_nth/vmgexit.rs"]
mod vmgexit;

use calls::Call;
use held::Held;

const INJECTED: u32 = status::HWERROR_PLATFORM;

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(env!("CARGO_BIN_NAME"), tests!(each))
}

/// How many commands were made to fail.
fn injected(t: &mut Test) -> Result<u64> {
    let failures = t.psp.counters()?.failures;
    Ok(failures
        .iter()
        .filter(|(name, _)| name.ends_with("/HWERROR_PLATFORM"))
        .map(|(_, n)| n)
        .sum())
}

fn each(t: &mut Test, call: &Call) -> Result<()> {
    let host = Host::open()?;
    if !host.offers(call.kind) {
        t.note(format_args!("SKIP: no {:?} VMs here", call.kind));
        return Ok(());
    }
    let free = Held::now(t.psp)?;
    for n in 1.. {
        let mut subject = (call.prepare)(&host)?;
        let (before, count) = (Held::now(t.psp)?, injected(t)?);
        t.psp.fail("any", n, INJECTED)?;
        let answer = (call.act)(&host, &mut subject);
        t.psp.clear_faults()?;
        if injected(t)? == count {
            t.case("none_failed", answer, call.expected);
            t.value("commands", n - 1, call.commands);
            return Ok(());
        }
        t.case(&format!("{n}_failed"), answer, Answer::firmware(INJECTED));
        let held = Held::now(t.psp)?;
        t.check(&format!("{n}_held"), held == before);
        t.case(&format!("{n}_repeated"), (call.act)(&host, &mut subject), call.expected);
        drop(subject);
        let held = Held::now(t.psp)?;
        t.check(&format!("{n}_released"), held == free);
    }
    Ok(())
}
