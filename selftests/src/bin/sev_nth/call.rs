// SPDX-License-Identifier: GPL-2.0-or-later
//! An ioctl, an exit or a close in a state in which it succeeds.

use anyhow::Result;
use nix::errno::Errno;
use sev_vm::cmd::Answer;
use sev_vm::host::{Host, VmType};

/// What it is about is a matter of the files beside this one.
pub struct Call<S> {
    /// Makes the state.
    pub prepare: fn(&Host) -> Result<S>,
    /// Does it.
    pub act: fn(&Host, &mut S) -> Answer,
    /// Its answer when nothing fails.
    pub expected: Answer,
    /// Firmware commands that it issues then, according to the kernel's documentation.
    #[allow(dead_code, reason = "the test of allocations does not care")]
    pub commands: u32,
    /// Its errors when there is no memory.
    #[allow(dead_code, reason = "the tests of firmware commands do not care")]
    pub out_of_memory: &'static [Errno],
    /// SEV charges that the stock module keeps for good when it succeeds.
    #[allow(dead_code, reason = "the tests of firmware commands do not care")]
    pub stock_keeps: u64,
    /// What the host has to offer.
    pub kind: VmType,
}

impl<S> Call<S> {
    /// One that has no more errors than usual, and leaves the error field alone if no firmware is asked.
    pub const fn new(
        kind: VmType,
        prepare: fn(&Host) -> Result<S>,
        act: fn(&Host, &mut S) -> Answer,
        commands: u32,
    ) -> Self {
        let expected = if commands == 0 { Answer::OK_KEPT } else { Answer::OK };
        Self { prepare, act, expected, commands, out_of_memory: ENOMEM, stock_keeps: 0, kind }
    }
}

/// The usual error of those.
pub const ENOMEM: &[Errno] = &[Errno::ENOMEM];

/// What a call is made on.
pub trait Subject {
    /// The guest was left in the midst of an exit.
    #[allow(dead_code, reason = "the tests of firmware commands do not care")]
    fn in_exit(&self) -> bool;
}
