// SPDX-License-Identifier: GPL-2.0
//! Shared memory of a guest that is read and written in one go, on behalf of a vCPU that runs: its
//! mutex and KVM's SRCU lock are held.

#![allow(unsafe_code)]

use kernel::prelude::*;

use super::vcpu::Vcpu;
use crate::ffi::bindings as b;
use crate::hw::addr::PAGE_SIZE;
use crate::hw::page::FirmwarePage;

impl Vcpu {
    /// Copies bytes at `gpa`. May sleep. EIO if the guest has no memory there.
    pub(crate) fn read_guest(&self, gpa: u64, to: &mut [u8]) -> Result {
        // SAFETY: The VM is alive, the lock held, and the buffer as long as it says.
        let ret =
            unsafe { b::kvm_read_guest(self.vm().as_raw(), gpa, to.as_mut_ptr().cast(), to.len()) };
        if ret != 0 {
            return Err(EIO);
        }
        Ok(())
    }

    /// Copies a page to `gpa`. May sleep. EIO if the guest has no memory there.
    pub(crate) fn write_guest_page(&self, gpa: u64, from: &FirmwarePage) -> Result {
        // SAFETY: As above; the host can read what the firmware owns.
        let ret =
            unsafe { b::kvm_write_guest(self.vm().as_raw(), gpa, from.as_ptr().cast(), PAGE_SIZE) };
        if ret != 0 {
            return Err(EIO);
        }
        Ok(())
    }

    /// Clears `len` bytes at `gpa`. May sleep. EIO if the guest has no memory there.
    pub(crate) fn clear_guest(&self, gpa: u64, len: usize) -> Result {
        // SAFETY: The VM is alive, and the lock held.
        if unsafe { b::kvm_clear_guest(self.vm().as_raw(), gpa, len) } != 0 {
            return Err(EIO);
        }
        Ok(())
    }

    /// Whether a page can be at `gpa`.
    pub(crate) fn is_page_address(&self, gpa: u64) -> bool {
        // SAFETY: The vCPU is alive and ours.
        unsafe { b::kvm_sev_is_page_address(self.as_kvm_vcpu(), gpa) }
    }
}
