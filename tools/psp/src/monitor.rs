// SPDX-License-Identifier: GPL-2.0-or-later
//! Counters, injected faults and the command log: the firmware seen from outside the VM.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::status::Status;

/// The log stops growing here.
const LOG_LIMIT: usize = 65536;
/// At most so many faults are armed at a time.
const FAULT_LIMIT: usize = 1024;

/// What an armed fault does to its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The command is not executed and answers this.
    Fail(Status),
    /// The command is executed and takes this many microseconds.
    Delay(u32),
}

/// A fault that hits once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Command it waits for; `None`: any.
    pub command: Option<&'static str>,
    /// It hits the n-th matching command from now, n ≥ 1.
    pub n: u64,
    /// What happens then.
    pub effect: Effect,
}

/// What the armed faults say about the command at hand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Injected {
    /// Status to answer without executing.
    pub status: Option<Status>,
    /// Time to take.
    pub delay_us: u32,
}

/// An entry of the log.
#[derive(Clone, Serialize)]
pub struct LogEntry {
    cmd: &'static str,
    status: String,
}

/// All that is observed and injected.
#[derive(Default)]
pub struct Monitor {
    commands: BTreeMap<&'static str, u64>,
    failures: BTreeMap<String, u64>,
    contexts_max: usize,
    faults: Vec<Fault>,
    log: Option<Vec<LogEntry>>,
}

/// The counters, as reported.
#[derive(Serialize)]
pub struct Counters<'a> {
    commands: &'a BTreeMap<&'static str, u64>,
    failures: &'a BTreeMap<String, u64>,
    contexts: usize,
    contexts_max: usize,
    asids_bound: usize,
    dirty_asids: usize,
}

impl Monitor {
    /// Advances the faults that wait for this command and returns what they do to it. When
    /// several hit at once, the one armed first decides the status and delays add up.
    pub fn inject(&mut self, command: &'static str) -> Injected {
        let mut injected = Injected::default();
        self.faults.retain_mut(|fault| {
            if fault.command.is_some_and(|name| name != command) {
                return true;
            }
            fault.n = fault.n.saturating_sub(1);
            if fault.n > 0 {
                return true;
            }
            match fault.effect {
                Effect::Fail(status) => injected.status = injected.status.or(Some(status)),
                Effect::Delay(us) => injected.delay_us = injected.delay_us.saturating_add(us),
            }
            false
        });
        injected
    }

    /// Counts and logs a finished command.
    pub fn record(&mut self, command: &'static str, status: Status, contexts: usize) {
        let count = self.commands.entry(command).or_default();
        *count = count.saturating_add(1);
        if status != Status::SUCCESS {
            let count = self
                .failures
                .entry(format!("{command}/{status}"))
                .or_default();
            *count = count.saturating_add(1);
        }
        self.contexts_max = self.contexts_max.max(contexts);
        if let Some(log) = self.log.as_mut().filter(|log| log.len() < LOG_LIMIT) {
            log.push(LogEntry {
                cmd: command,
                status: status.to_string(),
            });
        }
    }

    /// The counters with the gauges that others own.
    pub fn counters(
        &self,
        contexts: usize,
        asids_bound: usize,
        dirty_asids: usize,
    ) -> Counters<'_> {
        Counters {
            commands: &self.commands,
            failures: &self.failures,
            contexts,
            contexts_max: self.contexts_max,
            asids_bound,
            dirty_asids,
        }
    }

    /// Sets every counter to zero, and the high-water mark to the present.
    pub fn reset_counters(&mut self, contexts: usize) {
        self.commands.clear();
        self.failures.clear();
        self.contexts_max = contexts;
    }

    /// Arms a fault; false if too many are armed.
    pub fn arm(&mut self, fault: Fault) -> bool {
        let room = self.faults.len() < FAULT_LIMIT;
        if room {
            self.faults.push(fault);
        }
        room
    }

    /// Disarms every fault.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Starts a new log.
    pub fn start_log(&mut self) {
        self.log = Some(Vec::new());
    }

    /// What was logged since [`Self::start_log`]; `None` if it was never called.
    pub fn log(&self) -> Option<&[LogEntry]> {
        self.log.as_deref()
    }
}
