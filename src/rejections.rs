// SPDX-License-Identifier: GPL-2.0
//! The last ioctls that were rejected, for people to look at.
//!
//! Locks: the one here is the last one that is taken.

use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

use crate::kvm::host::Task;
use crate::rejection::{Outcome, Reason, Rejection};
use crate::trace;

/// A rejection, and who was rejected.
struct Entry {
    number: u64,
    ioctl: &'static str,
    rejection: Rejection,
    task: Task,
}

/// How many are remembered.
const REMEMBERED: u64 = 32;

struct Last {
    /// Number `n` is at `n` modulo their count.
    entries: [Option<Entry>; REMEMBERED as usize],
    /// So many there have been.
    count: u64,
}

/// See the head of this file.
#[pin_data]
pub(crate) struct Rejections {
    #[pin]
    last: Mutex<Last>,
}

impl Rejections {
    /// ENOMEM.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let last = Last {
            entries: [const { None }; REMEMBERED as usize],
            count: 0,
        };
        Arc::pin_init(
            pin_init!(Self { last <- new_mutex!(last, "kvm_sev_rejections") }),
            GFP_KERNEL,
        )
    }

    fn note(&self, ioctl: &'static str, rejection: Rejection) {
        let task = Task::current();
        let mut last = self.last.lock();
        let number = last.count.wrapping_add(1);

        last.count = number;
        if let Some(entry) = last.entries.get_mut((number % REMEMBERED) as usize) {
            *entry = Some(Entry {
                number,
                ioctl,
                rejection,
                task,
            });
        }
    }

    /// Writes a line for each, the last one first, under a heading.
    pub(crate) fn write_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.last.lock();

        writeln!(
            f,
            " number error reason          ioctl                      pid command"
        )?;
        for age in 0..REMEMBERED {
            let number = last.count.wrapping_sub(age);
            let Some(Some(entry)) = last.entries.get((number % REMEMBERED) as usize) else {
                continue;
            };
            writeln!(
                f,
                "{:>7} {:>5} {:<15} {:<22} {:>7} {}",
                entry.number,
                entry.rejection.errno(),
                entry.rejection.reason().name(),
                entry.ioctl,
                entry.task.pid,
                entry.task.name(),
            )?;
        }
        Ok(())
    }
}

/// Lets people know why, and userspace the number. What the firmware refused, it has explained itself.
pub(crate) fn report(log: Option<&Rejections>, ioctl: &'static str, outcome: Outcome) -> Result {
    let Err(rejection) = outcome else {
        return Ok(());
    };

    if rejection.reason() != Reason::Firmware {
        trace::rejected(ioctl, rejection.reason().name(), rejection.errno());
        if let Some(log) = log {
            log.note(ioctl, rejection);
        }
    }
    Err(rejection.into())
}
