// SPDX-License-Identifier: GPL-2.0
//! The file through which a process proves that it may use the firmware.

#![allow(unsafe_code)]

use kernel::fs::file::{File, LocalFile};
use kernel::prelude::*;
use kernel::sync::aref::ARef;

use crate::ffi::bindings;

/// A file that claims to be /dev/sev; the PSP driver checks it each time it is used.
///
/// Holding the file instead of its descriptor makes commands independent of which process issues
/// them and of what it closed since.
pub(crate) struct SevDevice(ARef<File>);

impl SevDevice {
    /// EBADF if the current process has no such descriptor.
    pub(crate) fn from_fd(fd: u32) -> Result<Self> {
        let file = LocalFile::fget(fd)?;

        // SAFETY: The current task is inside an ioctl, which looks up its own file with `fdget`;
        // it is in no `fdget_pos` section.
        Ok(Self(unsafe { LocalFile::assume_no_fdget_pos(file) }))
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::file {
        self.0.as_ptr()
    }
}
