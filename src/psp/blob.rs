// SPDX-License-Identifier: GPL-2.0
//! Copies of user memory that the firmware reads, and buffers that it fills.

#![allow(unsafe_code)]

use kernel::alloc::flags::{GFP_KERNEL_ACCOUNT, __GFP_ZERO};
use kernel::prelude::*;

use super::command::Buffer;
use crate::ffi::bindings;
use crate::hw::addr::PspAddr;
use crate::kvm::user;
use crate::rejection::{Because, Outcome, Reason};

/// Largest blob that is passed to the firmware, in bytes.
const MAX: u32 = bindings::SEV_FW_BLOB_MAX_SIZE;

/// Physically contiguous memory of the kernel's, at most 16 KiB.
pub(crate) struct Blob(KVec<u8>);

impl Blob {
    /// Copies user memory. EINVAL: no address, no length, or too long; EFAULT; ENOMEM.
    pub(crate) fn from_user(address: u64, len: u32) -> Outcome<Self> {
        if address == 0 || len == 0 {
            return Err(EINVAL.because(Reason::Blob));
        }
        let mut blob = Self::zeroed(len)?;
        user::read_bytes(address, &mut blob.0)?;
        Ok(blob)
    }

    /// As [`Blob::from_user`], but an address of 0 means that there is none.
    pub(crate) fn from_user_optional(address: u64, len: u32) -> Outcome<Option<Self>> {
        if address == 0 {
            return Ok(None);
        }
        Self::from_user(address, len).map(Some)
    }

    /// Memory for output. EINVAL: too long; ENOMEM.
    pub(crate) fn zeroed(len: u32) -> Outcome<Self> {
        if len > MAX {
            return Err(EINVAL.because(Reason::Blob));
        }
        let len = len as usize;
        let mut bytes = KVec::with_capacity(len, GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;

        // SAFETY: There is room for `len` bytes, which the allocator has zeroed.
        unsafe { bytes.inc_len(len) };
        Ok(Self(bytes))
    }

    /// How the firmware is told about it.
    pub(crate) fn buffer(&self) -> Buffer {
        // At most MAX.
        Buffer::new(self.address(), self.0.len() as u32)
    }

    /// Where the blob is, for commands that take an address alone.
    pub(crate) fn address(&self) -> PspAddr {
        // SAFETY: The pointer is one of the kernel's direct map, as `KVec` uses kmalloc.
        PspAddr::new(unsafe { bindings::kvm_sev_psp_pa(self.0.as_ptr().cast()) })
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// The blob's buffer, or the one that says "none".
pub(crate) fn optional(blob: &Option<Blob>) -> Buffer {
    blob.as_ref().map_or(Buffer::default(), Blob::buffer)
}
