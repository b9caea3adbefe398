// SPDX-License-Identifier: GPL-2.0-or-later
//! Layouts of SNP command buffers and of what they point to, as plain data.
//!
//! Sources: Linux `include/linux/psp-sev.h`, `arch/x86/include/asm/sev.h`,
//! `include/uapi/linux/{psp-sev,sev-guest}.h`; virtee/sev `src/measurement/idblock_types.rs`,
//! `src/firmware/guest/types`; coconut-svsm `kernel/src/sev/secrets_page.rs`,
//! `cpuarch/src/snp_cpuid.rs`. unspecified: ACTIVATE_EX, the output of GUEST_STATUS, the inside of
//! a hashstick.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::layouts;

layouts! {
    /// PLATFORM_STATUS, PAGE_RECLAIM, PAGE_UNSMASH, GCTX_CREATE, DECOMMISSION: one address.
    Address(8) { address: U64, }
    /// INIT_EX.
    InitEx(64) {
        flags: U32, reserved1: U32, list_address: U64, max_snp_asid: U16, reserved2: [u8; 46],
    }
    /// Head of the range list of INIT_EX.
    RangeList(8) { num_elements: U32, reserved: U32, }
    /// An element of the range list.
    Range(16) { base: U64, page_count: U32, reserved: U32, }
    /// SHUTDOWN_EX.
    ShutdownEx(8) { length: U32, flags: U32, }
    /// FEATURE_INFO.
    FeatureInfo(16) { length: U32, ecx_in: U32, address: U64, }
    /// The output of PLATFORM_STATUS.
    PlatformStatus(32) {
        api_major: u8, api_minor: u8, state: u8, is_rmp_initialized: u8, build: U32,
        flags: U32, guest_count: U32, current_tcb: [u8; 8], reported_tcb: [u8; 8],
    }

    /// CONFIG.
    Config(64) { reported_tcb: [u8; 8], flags: U32, reserved: [u8; 52], }
    /// COMMIT.
    Commit(4) { length: U32, }
    /// VLEK_LOAD.
    VlekLoad(16) { length: U32, version: u8, reserved: [u8; 3], address: U64, }
    /// A wrapped VLEK hashstick.
    Hashstick(432) {
        iv: [u8; 12], reserved1: U32, wrapped: [u8; 384], tcb: [u8; 8], reserved2: U64,
        tag: [u8; 16],
    }

    /// ACTIVATE.
    Activate(12) { gctx_address: U64, asid: U32, }
    /// ACTIVATE_EX.
    ActivateEx(32) {
        length: U32, reserved: U32, gctx_address: U64, asid: U32, num_ids: U32, ids_address: U64,
    }
    /// GUEST_STATUS.
    GuestStatus(16) { gctx_address: U64, address: U64, }
    /// The output of GUEST_STATUS.
    Status(16) { policy: U64, asid: U32, state: u8, reserved: [u8; 3], }
    /// LAUNCH_START.
    LaunchStart(48) {
        gctx_address: U64, policy: U64, ma_gctx_address: U64, flags: U32, desired_tsc_khz: U32,
        gosvw: [u8; 16],
    }
    /// LAUNCH_UPDATE.
    LaunchUpdate(32) {
        gctx_address: U64, flags: U32, reserved1: U32, address: U64, reserved2: u8,
        vmpl1_perms: u8, vmpl2_perms: u8, vmpl3_perms: u8, reserved3: U32,
    }
    /// LAUNCH_FINISH.
    LaunchFinish(64) {
        gctx_address: U64, id_block_address: U64, id_auth_address: U64, flags: U64,
        host_data: [u8; 32],
    }
    /// DBG_DECRYPT and DBG_ENCRYPT.
    Debug(24) { gctx_address: U64, src_address: U64, dst_address: U64, }
    /// GUEST_REQUEST.
    GuestRequest(24) { gctx_address: U64, request_address: U64, response_address: U64, }

    /// The ID block.
    IdBlock(96) {
        launch_digest: [u8; 48], family_id: [u8; 16], image_id: [u8; 16], version: U32,
        guest_svn: U32, policy: U64,
    }
    /// A signature in the ID authentication information, as in certificates.
    Signature(512) { r: [u8; 72], s: [u8; 72], reserved: [u8; 368], }
    /// A P-384 key in the ID authentication information, as in certificates.
    PublicKey(1028) { curve: U32, x: [u8; 72], y: [u8; 72], reserved: [u8; 880], }
    /// The ID authentication information.
    IdAuth(4096) {
        id_key_algo: U32, auth_key_algo: U32, reserved1: [u8; 56], id_block_signature: Signature,
        id_key: PublicKey, reserved2: [u8; 60], id_key_signature: Signature,
        author_key: PublicKey, reserved3: [u8; 892],
    }

    /// The secrets page.
    Secrets(4096) {
        version: U32, imi_en: U32, fms: U32, reserved1: U32, gosvw: [u8; 16],
        vmpck: [[u8; 32]; 4], os_area: [u8; 96], vmsa_tweak_bitmap: [u8; 64],
        svsm: [u8; 32], tsc_factor: U32, reserved2: [u8; 3740],
    }
    /// A function in the CPUID page and in MSG_CPUID_REQ.
    CpuidFunction(48) {
        eax_in: U32, ecx_in: U32, xcr0_in: U64, xss_in: U64, eax: U32, ebx: U32, ecx: U32,
        edx: U32, reserved: U64,
    }
    /// The table of functions in the CPUID page and in MSG_CPUID_REQ.
    CpuidTable(3088) {
        count: U32, reserved1: U32, reserved2: U64, functions: [CpuidFunction; 64],
    }

    /// Header of a guest message.
    MessageHeader(96) {
        authtag: [u8; 32], sequence: U64, reserved1: [u8; 8], algorithm: u8, header_version: u8,
        header_size: U16, kind: u8, version: u8, size: U16, reserved2: U32, vmpck: u8,
        reserved3: [u8; 35],
    }
    /// MSG_REPORT_REQ.
    ReportRequest(96) { report_data: [u8; 64], vmpl: U32, key_select: U32, reserved: [u8; 24], }
    /// MSG_REPORT_RSP.
    ReportResponse(1216) { status: U32, size: U32, reserved: [u8; 24], report: Report, }
    /// The attestation report, version 3.
    Report(1184) {
        version: U32, guest_svn: U32, policy: U64, family_id: [u8; 16], image_id: [u8; 16],
        vmpl: U32, signature_algo: U32, current_tcb: [u8; 8], platform_info: U64, key_info: U32,
        reserved1: U32, report_data: [u8; 64], measurement: [u8; 48], host_data: [u8; 32],
        id_key_digest: [u8; 48], author_key_digest: [u8; 48], report_id: [u8; 32],
        report_id_ma: [u8; 32], reported_tcb: [u8; 8], family: u8, model: u8, stepping: u8,
        reserved2: [u8; 21], chip_id: [u8; 64], committed_tcb: [u8; 8], current_build: u8,
        current_minor: u8, current_major: u8, reserved3: u8, committed_build: u8,
        committed_minor: u8, committed_major: u8, reserved4: u8, launch_tcb: [u8; 8],
        reserved5: [u8; 168], signature: Signature,
    }
    /// MSG_KEY_REQ.
    KeyRequest(32) {
        root_key_select: U32, reserved: U32, guest_field_select: U64, vmpl: U32, guest_svn: U32,
        tcb_version: [u8; 8],
    }
    /// MSG_KEY_RSP.
    KeyResponse(64) { status: U32, reserved: [u8; 28], key: [u8; 32], }
    /// MSG_TSC_INFO_RSP.
    TscInfoResponse(128) {
        status: U32, reserved1: U32, scale: U64, offset: U64, factor: U32, reserved2: [u8; 100],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    /// Offsets that gcc computes from Linux 7.2 `include/linux/psp-sev.h` and
    /// `arch/x86/include/asm/sev.h`, and those of google/go-sev-guest `abi/abi.go`.
    #[test]
    fn offsets_are_those_of_the_sources() {
        for (ours, theirs) in [
            (offset_of!(InitEx, list_address), 8),
            (offset_of!(InitEx, max_snp_asid), 16),
            (offset_of!(FeatureInfo, address), 8),
            (offset_of!(PlatformStatus, guest_count), 12),
            (offset_of!(PlatformStatus, current_tcb), 16),
            (offset_of!(LaunchStart, flags), 24),
            (offset_of!(LaunchStart, gosvw), 32),
            (offset_of!(LaunchUpdate, address), 16),
            (offset_of!(LaunchUpdate, vmpl1_perms), 25),
            (offset_of!(LaunchFinish, flags), 24),
            (offset_of!(LaunchFinish, host_data), 32),
            (offset_of!(Secrets, vmpck), 32),
            (offset_of!(Secrets, vmsa_tweak_bitmap), 256),
            (offset_of!(Secrets, svsm), 320),
            (offset_of!(MessageHeader, algorithm), 48),
            (offset_of!(MessageHeader, kind), 52),
            (offset_of!(MessageHeader, vmpck), 60),
            (offset_of!(Report, measurement), 0x90),
            (offset_of!(Report, reported_tcb), 0x180),
            (offset_of!(Report, chip_id), 0x1a0),
            (offset_of!(Report, launch_tcb), 0x1f0),
            (offset_of!(Report, signature), 0x2a0),
        ] {
            assert_eq!(ours, theirs);
        }
    }
}
