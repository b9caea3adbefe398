// SPDX-License-Identifier: GPL-2.0
//! The arguments of a command: read once, written back once.

use kernel::prelude::*;

use crate::ffi::bindings::kvm_sev_cmd;
use crate::kvm::user::{self, UserStruct};
use crate::psp::FwStatus;

/// A `struct kvm_sev_cmd`.
pub(super) struct Request {
    argp: u64,
    cmd: kvm_sev_cmd,
    /// Becomes `kvm_sev_cmd.error`; what userspace passed stays if the firmware is not asked.
    pub(super) status: FwStatus,
}

impl Request {
    /// EFAULT.
    pub(super) fn read(argp: u64) -> Result<Self> {
        let cmd: kvm_sev_cmd = user::read(argp)?;

        Ok(Self {
            argp,
            cmd,
            status: FwStatus::new(cmd.error),
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.cmd.id
    }

    /// The descriptor of /dev/sev.
    pub(super) fn sev_fd(&self) -> u32 {
        self.cmd.sev_fd
    }

    /// The command's own structure. EFAULT.
    pub(super) fn data<T: UserStruct>(&self) -> Result<T> {
        user::read(self.cmd.data)
    }

    /// Writes the command's own structure back. EFAULT.
    pub(super) fn store<T: UserStruct>(&self, value: &T) -> Result {
        user::write(self.cmd.data, value)
    }

    /// EFAULT.
    pub(super) fn write_back(mut self) -> Result {
        self.cmd.error = self.status.code();
        user::write(self.argp, &self.cmd)
    }
}
