// SPDX-License-Identifier: GPL-2.0
//! The structures of KVM's SEV interface, read from and written to user memory.
//!
//! Each is read in one go and never again, so that a second thread cannot change what was checked.
//!
//! Source: Documentation/virt/kvm/x86/amd-memory-encryption.rst.

#![allow(unsafe_code)]

use core::mem;

use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

use crate::ffi::bindings;

/// A structure of the user interface.
///
/// # Safety
///
/// Any bytes must be a valid value, and the structure must have no padding, lest uninitialised
/// kernel memory be copied to the user.
pub(crate) unsafe trait UserStruct: Copy {}

macro_rules! user_structs {
    ($($name:ident { $($field:ident),* })*) => {$(
        // SAFETY: All fields are integers, and the assertion below shows that there is no padding.
        unsafe impl UserStruct for bindings::$name {}

        const _: () = {
            const fn size_of_field<T>(_: fn(&bindings::$name) -> &T) -> usize {
                mem::size_of::<T>()
            }
            let fields = 0 $(+ size_of_field(|s| &s.$field))*;
            assert!(fields == mem::size_of::<bindings::$name>());
        };
    )*};
}

user_structs! {
    kvm_sev_cmd { id, pad0, data, error, sev_fd }
    kvm_sev_init { vmsa_features, flags, ghcb_version, pad1, pad2 }
    kvm_sev_launch_start { handle, policy, dh_uaddr, dh_len, pad0, session_uaddr, session_len, pad1 }
    kvm_sev_launch_update_data { uaddr, len, pad0 }
    kvm_sev_launch_measure { uaddr, len, pad0 }
    kvm_sev_launch_secret {
        hdr_uaddr, hdr_len, pad0, guest_uaddr, guest_len, pad1, trans_uaddr, trans_len, pad2
    }
    kvm_sev_attestation_report { mnonce, uaddr, len, pad0 }
    kvm_sev_send_start {
        policy, pad0, pdh_cert_uaddr, pdh_cert_len, pad1, plat_certs_uaddr, plat_certs_len, pad2,
        amd_certs_uaddr, amd_certs_len, pad3, session_uaddr, session_len, pad4
    }
    kvm_sev_send_update_data {
        hdr_uaddr, hdr_len, pad0, guest_uaddr, guest_len, pad1, trans_uaddr, trans_len, pad2
    }
    kvm_sev_receive_start {
        handle, policy, pdh_uaddr, pdh_len, pad0, session_uaddr, session_len, pad1
    }
    kvm_sev_receive_update_data {
        hdr_uaddr, hdr_len, pad0, guest_uaddr, guest_len, pad1, trans_uaddr, trans_len, pad2
    }
    kvm_sev_guest_status { handle, policy, state }
    kvm_sev_dbg { src_uaddr, dst_uaddr, len, pad0 }
}

fn slice(addr: u64, len: usize) -> UserSlice {
    // The kernel is 64-bit: the cast loses nothing.
    UserSlice::new(UserPtr::from_addr(addr as usize), len)
}

/// Reads a structure. EFAULT if the memory cannot be read.
pub(crate) fn read<T: UserStruct>(addr: u64) -> Result<T> {
    let mut value = mem::MaybeUninit::<T>::uninit();
    // SAFETY: `T` is at least as large as itself, and `MaybeUninit<u8>` needs no initialisation.
    let bytes =
        unsafe { core::slice::from_raw_parts_mut(value.as_mut_ptr().cast(), mem::size_of::<T>()) };

    slice(addr, bytes.len()).reader().read_raw(bytes)?;
    // SAFETY: All bytes were written, and any bytes are a valid `T`.
    Ok(unsafe { value.assume_init() })
}

/// Writes a structure. EFAULT if the memory cannot be written.
pub(crate) fn write<T: UserStruct>(addr: u64, value: &T) -> Result {
    // SAFETY: A `UserStruct` has no padding, so all of its bytes are initialised.
    let bytes =
        unsafe { core::slice::from_raw_parts((&raw const *value).cast(), mem::size_of::<T>()) };

    write_bytes(addr, bytes)
}

/// Reads exactly `out.len()` bytes. EFAULT if the memory cannot be read.
pub(crate) fn read_bytes(addr: u64, out: &mut [u8]) -> Result {
    slice(addr, out.len()).reader().read_slice(out)
}

/// Writes bytes. EFAULT if the memory cannot be written.
pub(crate) fn write_bytes(addr: u64, bytes: &[u8]) -> Result {
    slice(addr, bytes.len()).writer().write_slice(bytes)
}
