// SPDX-License-Identifier: GPL-2.0-or-later
//! KTAP output, and one machine-readable line per case.
//!
//! A test is a function; within it every answer of the kernel is a *case*, printed as
//! `# case BINARY.TEST.CASE ANSWER [OUTPUT]`. The lines depend on nothing but the answers, so
//! the output of one kernel module can be compared line by line with another's
//! (`compare`). A case that is not as expected fails its test, which carries on.
//!
//! After every test the system's resources have to be back at their baseline ([`Held`]).

use std::fmt::Display;
use std::process::ExitCode;

use anyhow::Result;

use crate::cmd::Answer;
use crate::psp::{Counters, Psp};
use crate::state::Held;

/// A test function.
pub type Function = fn(&mut Test<'_>) -> Result<()>;

/// One running test.
pub struct Test<'a> {
    name: String,
    wrong: u32,
    leaked_charges: u64,
    /// The emulated PSP's control port.
    pub psp: &'a mut Psp,
}

impl Test<'_> {
    /// Records an answer; it has to equal `expected`.
    pub fn case(&mut self, case: &str, answer: Answer, expected: Answer) {
        self.record(case, answer);
        if answer != expected {
            self.wrong(format!("{case}: expected {expected}, got {answer}"));
        }
    }

    /// Records a refusal by firmware whose status the specification leaves open: EIO and some
    /// status. Which one is for the comparison.
    pub fn firmware_case(&mut self, case: &str, answer: Answer) {
        self.record(case, answer);
        if answer.errno != nix::libc::EIO || answer.fw == 0 || answer.fw == crate::cmd::KEPT {
            self.wrong(format!("{case}: expected EIO and a firmware status, got {answer}"));
        }
    }

    /// Records a value that does not vary from run to run; it has to equal `expected`.
    pub fn value<T: PartialEq + Display>(&mut self, case: &str, value: T, expected: T) {
        println!("# case {}.{case} value={value}", self.name);
        if value != expected {
            self.wrong(format!("{case}: expected {expected}, got {value}"));
        }
    }

    /// Records how many guest contexts firmware holds; each has to be bound to an ASID.
    pub fn contexts(&mut self, expected: u64) -> Result<()> {
        let held = self.psp.counters()?;
        self.value("contexts", held.contexts, expected);
        self.value("asids_bound", held.asids_bound, expected);
        Ok(())
    }

    /// Records how many ASIDs were released by firmware since `before`, and that each was once.
    pub fn released(&mut self, case: &str, before: &Counters, expected: u64) -> Result<()> {
        let after = self.psp.counters()?;
        for name in ["DEACTIVATE", "DECOMMISSION"] {
            let more = after.count(name) - before.count(name);
            self.value(&format!("{case}_{}", name.to_lowercase()), more, expected);
        }
        Ok(())
    }

    /// Records that something holds.
    pub fn check(&mut self, case: &str, holds: bool) {
        self.value(case, holds, true);
    }

    /// Records an answer without an expectation of its own: the comparison is the test.
    pub fn record(&mut self, case: &str, answer: Answer) {
        println!("# case {}.{case} {answer}", self.name);
    }

    /// Records an answer of another kind without an expectation of its own.
    pub fn observe(&mut self, case: &str, answer: impl Display) {
        println!("# case {}.{case} {answer}", self.name);
    }

    /// Says that the module is known to leave `count` SEV charges behind in this test.
    pub fn leaks_charges(&mut self, count: u64) {
        self.leaked_charges += count;
    }

    /// A remark for the reader; ignored by comparisons.
    pub fn note(&self, remark: impl Display) {
        println!("# note {remark}");
    }

    fn wrong(&mut self, what: String) {
        println!("# WRONG {}: {what}", self.name);
        self.wrong += 1;
    }
}

/// Runs `tests` of binary `suite` in order, or those named on the command line (arguments that
/// begin with a dash are the suite's own).
pub fn run(suite: &str, tests: &[(&str, Function)]) -> ExitCode {
    run_all(suite, tests, true)
}

/// As [`run`], for tests after which something is held for good.
pub fn run_leaking(suite: &str, tests: &[(&str, Function)]) -> ExitCode {
    run_all(suite, tests, false)
}

fn run_all(suite: &str, tests: &[(&str, Function)], clean: bool) -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let chosen: Vec<_> = tests
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name))
        .collect();
    println!("KTAP version 1\n1..{}", chosen.len());
    let mut failed = 0;
    for (number, (name, function)) in chosen.iter().enumerate() {
        let result = run_one(&format!("{suite}.{name}"), *function, clean);
        for reason in result.iter().flat_map(|reason| reason.lines()) {
            println!("# {reason}");
        }
        let verdict = if result.is_some() { "not ok" } else { "ok" };
        println!("{verdict} {} {suite}.{name}", number + 1);
        failed += u32::from(result.is_some());
    }
    println!("{} passed, {failed} failed", chosen.len() as u32 - failed);
    let nothing_run = chosen.is_empty();
    if failed == 0 && !nothing_run { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one test; the reason if it fails.
fn run_one(name: &str, function: Function, clean: bool) -> Option<String> {
    let outcome = || -> Result<u32> {
        let mut psp = Psp::open()?;
        psp.clear_faults()?;
        let mut before = Held::now(&mut psp)?;
        let mut test = Test { name: name.to_owned(), wrong: 0, leaked_charges: 0, psp: &mut psp };
        let result = function(&mut test);
        let mut wrong = test.wrong;
        before.charged = before.charged.map(|charged| charged + test.leaked_charges);
        psp.clear_faults()?;
        let after = Held::now(&mut psp)?;
        if clean && after != before {
            println!("# LEAK {name}: before: {before}; after: {after}");
            wrong += 1;
        }
        result.map(|()| wrong)
    };
    match outcome() {
        Ok(0) => None,
        Ok(wrong) => Some(format!("{wrong} wrong")),
        Err(error) => Some(format!("stopped: {error:#}")),
    }
}
