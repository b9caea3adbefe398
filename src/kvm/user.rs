// SPDX-License-Identifier: GPL-2.0
//! The structures of KVM's SEV interface, read from and written to user memory.
//!
//! Each is read in one go and never again, so that a second thread cannot change what was checked.
//!
//! Source: Documentation/virt/kvm/x86/amd-memory-encryption.rst.

#![allow(unsafe_code)]

use core::mem;

use kernel::prelude::*;
use kernel::transmute::{AsBytes, FromBytes};
use kernel::uaccess::{UserPtr, UserSlice};

use crate::ffi::bindings;

/// A structure of the user interface: of integers only, and without padding, lest uninitialised
/// kernel memory be copied to the user.
pub(crate) trait UserStruct: FromBytes + AsBytes {}

macro_rules! user_structs {
    ($($name:ident { $($field:ident),* $(,)? })*) => {$(
        impl UserStruct for bindings::$name {}

        // SAFETY: All fields are integers: any bytes are valid.
        unsafe impl FromBytes for bindings::$name {}

        // SAFETY: All fields are integers, and the assertion below shows that there is no padding.
        unsafe impl AsBytes for bindings::$name {}

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
    kvm_sev_snp_launch_start { policy, gosvw, flags, pad0, pad1 }
    kvm_sev_snp_launch_update { gfn_start, uaddr, len, type_, pad0, flags, pad1, pad2 }
    kvm_sev_snp_launch_finish {
        id_block_uaddr, id_auth_uaddr, id_block_en, auth_key_en, vcek_disabled, host_data, pad0,
        flags, pad1
    }
    kvm_sev_dbg { src_uaddr, dst_uaddr, len, pad0 }
}

fn slice(addr: u64, len: usize) -> UserSlice {
    // The kernel is 64-bit: the cast loses nothing.
    UserSlice::new(UserPtr::from_addr(addr as usize), len)
}

/// Reads a structure. EFAULT if the memory cannot be read.
pub(crate) fn read<T: UserStruct>(addr: u64) -> Result<T> {
    slice(addr, mem::size_of::<T>()).reader().read()
}

/// Writes a structure. EFAULT if the memory cannot be written.
pub(crate) fn write<T: UserStruct>(addr: u64, value: &T) -> Result {
    slice(addr, mem::size_of::<T>()).writer().write(value)
}

/// Reads exactly `out.len()` bytes. EFAULT if the memory cannot be read.
pub(crate) fn read_bytes(addr: u64, out: &mut [u8]) -> Result {
    slice(addr, out.len()).reader().read_slice(out)
}

/// Writes bytes. EFAULT if the memory cannot be written.
pub(crate) fn write_bytes(addr: u64, bytes: &[u8]) -> Result {
    slice(addr, bytes.len()).writer().write_slice(bytes)
}
