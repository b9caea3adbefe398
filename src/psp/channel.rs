// SPDX-License-Identifier: GPL-2.0
//! How a command reaches the firmware: through the PSP driver, which serialises them.
//!
//! A command that the firmware refuses is reported in the kernel log with its name and the name of
//! the status, as a number helps nobody; the report is rate-limited, as users can provoke it.

#![allow(unsafe_code)]

use kernel::prelude::*;

use super::command::Command;
use super::status::FwStatus;
use crate::ffi::bindings;
use crate::kvm::file::SevDevice;
use crate::kvm::log;
use crate::trace::{self, Stopwatch};

/// On whose behalf a command is issued.
#[derive(Clone, Copy)]
pub(crate) enum Channel<'a> {
    /// A process that proved its right by opening /dev/sev.
    Device(&'a SevDevice),
    /// The kernel itself: what must work whatever a process did with its files.
    Kernel,
}

impl Channel<'_> {
    /// Issues `command` and waits for the firmware. May sleep, takes the PSP driver's mutex.
    ///
    /// `status` becomes the firmware's answer if the firmware was reached, and is left alone
    /// otherwise. The buffer of `command` holds the firmware's output even after a failure.
    ///
    /// Errors: EIO if the firmware refused, EBADF if the file is not /dev/sev, ENODEV without PSP,
    /// EBUSY and ETIMEDOUT if it does not answer.
    pub(crate) fn issue<C: Command>(self, command: &mut C, status: &mut FwStatus) -> Result {
        let result = self.query(command, status);

        if result == Err(EIO) && log::allowed() {
            pr_err!("SEV: {} failed: {}\n", C::NAME, *status);
        }
        result
    }

    /// Like [`Channel::issue`], for a command whose failure is an answer, not an error.
    pub(crate) fn query<C: Command>(self, command: &mut C, status: &mut FwStatus) -> Result {
        // The driver's "no status" is to leave the variable alone.
        let mut code = status.code() as i32;
        let buffer = command.as_buffer();
        let stopwatch = Stopwatch::for_command();

        let ret = match self {
            // SAFETY: The file is referenced, the buffer is the one of this command by the
            // contract of `Command`, and both outlive the call.
            Channel::Device(dev) => unsafe {
                bindings::sev_issue_cmd_external_user(dev.as_ptr(), C::ID, buffer, &mut code)
            },
            // SAFETY: As above.
            Channel::Kernel => unsafe { bindings::sev_do_cmd(C::ID as i32, buffer, &mut code) },
        };
        *status = FwStatus::new(code as u32);
        let result = match ret {
            0 => Ok(()),
            _ => kernel::error::to_result(ret),
        };
        if let Some(stopwatch) = stopwatch {
            let status = (status.code(), status.name().unwrap_or("unknown"));
            trace::command(C::NAME, command.guest(), status, result, &stopwatch);
        }
        result
    }
}

/// How much of the firmware is started.
#[derive(Clone, Copy)]
pub(crate) enum Init {
    /// Only what must happen before any guest exists; the legacy part may wait.
    Probe {
        /// Number of ASIDs, from 1 on, whose guests' ciphertext is hidden from the host.
        hidden: u32,
    },
    /// All.
    Complete,
}

/// Starts the firmware if nobody did so yet. Errors as [`Channel::issue`].
pub(crate) fn platform_init(init: Init, status: &mut FwStatus) -> Result {
    let (probe, hidden) = match init {
        Init::Probe { hidden } => (true, hidden),
        Init::Complete => (false, 0),
    };
    let mut args = bindings::sev_platform_init_args {
        probe,
        max_snp_asid: hidden,
        ..Default::default()
    };
    // SAFETY: `args` is initialised and outlives the call.
    let result = kernel::error::to_result(unsafe { bindings::sev_platform_init(&mut args) });
    *status = FwStatus::new(args.error as u32);
    result
}

/// Stops the firmware; all guests must be gone.
pub(crate) fn platform_shutdown() {
    // SAFETY: No requirements; the driver takes its own lock.
    unsafe { bindings::sev_platform_shutdown() }
}

/// Whether the firmware can hide the ciphertext of SEV-SNP guests from the host.
pub(crate) fn can_hide_ciphertext() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::sev_is_snp_ciphertext_hiding_supported() }
}

/// The bits that the firmware knows in policies of SEV-SNP guests.
pub(crate) fn snp_policy_bits() -> u64 {
    // SAFETY: No requirements.
    unsafe { bindings::sev_get_snp_policy_bits() }
}

/// The VM types (`KVM_X86_*_VM`, as bits) that the firmware can run as it was initialised.
pub(crate) fn supported_vm_types() -> u32 {
    // SAFETY: No requirements.
    unsafe { bindings::sev_firmware_supported_vm_types() as u32 }
}
