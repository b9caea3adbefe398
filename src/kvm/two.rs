// SPDX-License-Identifier: GPL-2.0
//! Two VMs at once: the source and the destination of an encryption context.
//!
//! Locks: `kvm->lock` of the destination → that of the source. Two tasks that work on the same VMs
//! with the roles swapped would wait for each other; so a VM takes part in one transfer at a time,
//! and whoever comes second is sent away.

#![allow(unsafe_code)]

use core::sync::atomic::{AtomicI32, Ordering};

use kernel::fs::file::{File, LocalFile};
use kernel::prelude::*;
use kernel::sync::aref::ARef;

use super::vm::{Vm, VmLocked};
use crate::ffi::bindings;
use crate::rejection::{Because, Outcome, Reason};

/// Another VM, known by its descriptor. It stays alive with the value.
pub(crate) struct VmFile(ARef<File>);

impl VmFile {
    /// EBADF if the current process has no such descriptor, or if it is not one of a VM.
    pub(crate) fn from_fd(fd: u32) -> Outcome<Self> {
        let bad = EBADF.because(Reason::SourceFd);
        let file = LocalFile::fget(fd).map_err(|_| bad)?;

        // SAFETY: The file is alive.
        if !unsafe { bindings::file_is_kvm(file.as_ptr()) } {
            return Err(bad);
        }
        // SAFETY: The current task is inside an ioctl, which looks up its own file with `fdget`;
        // it is in no `fdget_pos` section.
        Ok(Self(unsafe { LocalFile::assume_no_fdget_pos(file) }))
    }

    pub(crate) fn vm(&self) -> &Vm {
        // SAFETY: The private data of a VM's file is the VM, which lives at least as long as the
        // file; and while this module is loaded, all VMs are its.
        unsafe { Vm::from_raw((*self.0.as_ptr()).private_data.cast()) }
    }
}

/// A VM takes part in a transfer.
struct Taking<'a>(&'a AtomicI32);

impl<'a> Taking<'a> {
    /// EBUSY if it takes part in another one.
    fn part(vm: &'a Vm) -> Outcome<Self> {
        // SAFETY: The field is aligned, as long-lived as the VM, and only accessed through here.
        let flag =
            unsafe { AtomicI32::from_ptr(&raw mut (*vm.sev_info()).migration_in_progress.counter) };
        flag.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .map(|_| Self(flag))
            .map_err(|_| EBUSY.because(Reason::InTransfer))
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

/// Two different VMs, both locked. Unlocked in the order of the fields.
pub(crate) struct TwoVms<'a> {
    pub(crate) destination: VmLocked<'a>,
    pub(crate) source: VmLocked<'a>,
    _taking: [Taking<'a>; 2],
}

impl<'a> TwoVms<'a> {
    /// Errors: EINVAL if both are the same; EBUSY if one of them takes part in another transfer;
    /// EINTR if the task is being killed.
    pub(crate) fn lock(destination: &'a Vm, source: &'a Vm) -> Outcome<Self> {
        if core::ptr::eq(destination, source) {
            return Err(EINVAL.because(Reason::SameVm));
        }
        let taking = [Taking::part(destination)?, Taking::part(source)?];
        let destination = lock_killable(destination, 0)?;
        let source = lock_killable(source, 1)?;

        Ok(Self {
            destination,
            source,
            _taking: taking,
        })
    }
}

/// Takes `kvm->lock` as the lock number `depth` of its kind. EINTR if the task is being killed.
fn lock_killable(vm: &Vm, depth: u32) -> Result<VmLocked<'_>> {
    // SAFETY: The VM and with it its initialised mutex are alive.
    let ret = unsafe { bindings::kvm_sev_mutex_lock_killable(&raw mut (*vm.as_raw()).lock, depth) };
    kernel::error::to_result(ret)?;
    // SAFETY: Taken just above.
    Ok(unsafe { VmLocked::new(vm) })
}
