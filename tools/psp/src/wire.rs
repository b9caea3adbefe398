// SPDX-License-Identifier: GPL-2.0-or-later
//! Layouts of the command buffers and of the blobs they point to, as plain data. Those of SNP:
//! [`crate::snp::wire`].
//!
//! Sources: Linux `include/linux/psp-sev.h`, `include/uapi/linux/psp-sev.h`; AMDESE/sev-tool
//! `src/sevapi.h` for COPY, ACTIVATE_EX, the packet header, the session and the report.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::status::{Result, Status};

macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident($size:literal) { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        #[allow(missing_docs)] // field names are the manual's
        pub struct $name { $(pub $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

pub(crate) use layouts;

layouts! {
    /// INIT.
    Init(20) { flags: U32, reserved: U32, tmr_address: U64, tmr_len: U32, }
    /// INIT_EX.
    InitEx(36) {
        length: U32, flags: U32, tmr_address: U64, tmr_len: U32, reserved: U32,
        nv_address: U64, nv_len: U32,
    }
    /// PLATFORM_STATUS (all output).
    PlatformStatus(12) {
        api_major: u8, api_minor: u8, state: u8, flags: U32, build: u8, guest_count: U32,
    }
    /// PEK_CSR, GET_ID and DOWNLOAD_FIRMWARE: one buffer.
    Buffer(12) { address: U64, len: U32, }
    /// PEK_CERT_IMPORT.
    PekCertImport(28) {
        pek_address: U64, pek_len: U32, reserved: U32, oca_address: U64, oca_len: U32,
    }
    /// PDH_CERT_EXPORT.
    PdhCertExport(28) {
        pdh_address: U64, pdh_len: U32, reserved: U32, chain_address: U64, chain_len: U32,
    }
    /// Commands that only name a guest.
    Handle(4) { handle: U32, }
    /// ACTIVATE.
    Activate(8) { handle: U32, asid: U32, }
    /// ACTIVATE_EX.
    ActivateEx(24) { length: U32, handle: U32, asid: U32, num_ids: U32, ids_address: U64, }
    /// GUEST_STATUS.
    GuestStatus(13) { handle: U32, policy: U32, asid: U32, state: u8, }
    /// COPY.
    Copy(24) { handle: U32, length: U32, src_address: U64, dst_address: U64, }
    /// LAUNCH_START and RECEIVE_START.
    Start(36) {
        handle: U32, policy: U32, cert_address: U64, cert_len: U32, reserved: U32,
        session_address: U64, session_len: U32,
    }
    /// LAUNCH_UPDATE_DATA, LAUNCH_UPDATE_VMSA and LAUNCH_MEASURE.
    Region(20) { handle: U32, reserved: U32, address: U64, len: U32, }
    /// LAUNCH_SECRET, SEND_UPDATE_* and RECEIVE_UPDATE_*. Linux declares SEND_UPDATE_VMSA without
    /// the first reserved field, and never issues it.
    Packet(52) {
        handle: U32, reserved1: U32, hdr_address: U64, hdr_len: U32, reserved2: U32,
        guest_address: U64, guest_len: U32, reserved3: U32, trans_address: U64, trans_len: U32,
    }
    /// ATTESTATION.
    Attestation(36) { handle: U32, reserved: U32, address: U64, mnonce: [u8; 16], len: U32, }
    /// SEND_START.
    SendStart(68) {
        handle: U32, policy: U32, pdh_address: U64, pdh_len: U32, reserved1: U32,
        plat_address: U64, plat_len: U32, reserved2: U32, amd_address: U64, amd_len: U32,
        reserved3: U32, session_address: U64, session_len: U32,
    }
    /// DBG_DECRYPT and DBG_ENCRYPT.
    Debug(28) { handle: U32, reserved: U32, src_address: U64, dst_address: U64, len: U32, }

    /// The session blob of LAUNCH_START, SEND_START and RECEIVE_START.
    Session(128) {
        nonce: [u8; 16], wrap_tk: [u8; 32], wrap_iv: [u8; 16], wrap_mac: [u8; 32],
        policy_mac: [u8; 32],
    }
    /// The output of LAUNCH_MEASURE.
    Measurement(48) { measure: [u8; 32], mnonce: [u8; 16], }
    /// The header of a secret or migration packet.
    PacketHeader(52) { flags: U32, iv: [u8; 16], mac: [u8; 32], }
    /// The output of ATTESTATION.
    Report(208) {
        mnonce: [u8; 16], launch_digest: [u8; 32], policy: U32, sig_usage: U32, sig_algo: U32,
        reserved: U32, sig_r: [u8; 72], sig_s: [u8; 72],
    }
}

/// Reserved fields must be zero, else INVALID_PARAM.
pub fn must_be_zero(fields: &[U32]) -> Result {
    if fields.iter().all(|field| field.get() == 0) {
        Ok(())
    } else {
        Err(Status::INVALID_PARAM)
    }
}

/// A length that has exactly one right value, else INVALID_LENGTH.
pub fn exact_len<T>(len: U32) -> Result {
    if len.get() as usize == size_of::<T>() {
        Ok(())
    } else {
        Err(Status::INVALID_LENGTH)
    }
}

/// The size of a structure as a length field.
pub fn len_of<T>() -> U32 {
    U32::new(u32::try_from(size_of::<T>()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    /// Offsets that gcc computes from Linux 7.2 `include/linux/psp-sev.h`.
    #[test]
    fn offsets_are_those_of_the_kernel_header() {
        for (ours, linux) in [
            (offset_of!(InitEx, tmr_address), 8),
            (offset_of!(InitEx, nv_address), 24),
            (offset_of!(InitEx, nv_len), 32),
            (offset_of!(PlatformStatus, flags), 3),
            (offset_of!(PlatformStatus, build), 7),
            (offset_of!(PekCertImport, oca_address), 16),
            (offset_of!(PdhCertExport, chain_address), 16),
            (offset_of!(PdhCertExport, chain_len), 24),
            (offset_of!(GuestStatus, state), 12),
            (offset_of!(Start, cert_address), 8),
            (offset_of!(Start, session_address), 24),
            (offset_of!(Region, address), 8),
            (offset_of!(Region, len), 16),
            (offset_of!(Packet, hdr_address), 8),
            (offset_of!(Packet, guest_address), 24),
            (offset_of!(Packet, trans_address), 40),
            (offset_of!(SendStart, pdh_address), 8),
            (offset_of!(SendStart, plat_address), 24),
            (offset_of!(SendStart, amd_address), 40),
            (offset_of!(SendStart, session_address), 56),
            (offset_of!(Debug, dst_address), 16),
            (offset_of!(Debug, len), 24),
            (offset_of!(Attestation, mnonce), 16),
            (offset_of!(Attestation, len), 32),
        ] {
            assert_eq!(ours, linux);
        }
    }
}
