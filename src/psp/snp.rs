// SPDX-License-Identifier: GPL-2.0
//! The commands of SEV-SNP. A guest is known by the page in which the firmware keeps its context.
//!
//! Source: include/linux/psp-sev.h, `enum sev_cmd` and `struct sev_data_snp_*`.

#![allow(unsafe_code)]

use super::command::commands;
use crate::ffi::bindings as b;
use crate::hw::addr::PspAddr;
use crate::hw::asid::Asid;

commands! {
    /// State of the SNP firmware, written to a page that the firmware owns.
    SnpPlatformStatus = sev_cmd_SEV_CMD_SNP_PLATFORM_STATUS, "SNP_PLATFORM_STATUS",
        sev_data_snp_addr.address;
    /// Makes a page of the firmware's a guest context.
    SnpGctxCreate = sev_cmd_SEV_CMD_SNP_GCTX_CREATE, "SNP_GCTX_CREATE", sev_data_snp_addr.address;
    /// Binds a guest to an ASID and installs its key.
    SnpActivate = sev_cmd_SEV_CMD_SNP_ACTIVATE, "SNP_ACTIVATE", sev_data_snp_activate.gctx_paddr;
    /// Frees a guest's ASID, and forgets the guest.
    SnpDecommission = sev_cmd_SEV_CMD_SNP_DECOMMISSION, "SNP_DECOMMISSION", sev_data_snp_addr.address;
    /// A guest can be loaded.
    SnpLaunchStart = sev_cmd_SEV_CMD_SNP_LAUNCH_START, "SNP_LAUNCH_START",
        sev_data_snp_launch_start.gctx_paddr;
    /// Encrypts a page in place and adds it to the measurement.
    SnpLaunchUpdate = sev_cmd_SEV_CMD_SNP_LAUNCH_UPDATE, "SNP_LAUNCH_UPDATE",
        sev_data_snp_launch_update.gctx_paddr;
    /// The guest may run.
    SnpLaunchFinish = sev_cmd_SEV_CMD_SNP_LAUNCH_FINISH, "SNP_LAUNCH_FINISH",
        sev_data_snp_launch_finish.gctx_paddr;
    /// Takes a page from firmware or guest; the host can then make it its own by RMPUPDATE.
    SnpPageReclaim = sev_cmd_SEV_CMD_SNP_PAGE_RECLAIM, "SNP_PAGE_RECLAIM",
        sev_data_snp_page_reclaim.paddr;
    /// Guest memory to plaintext.
    SnpDbgDecrypt = sev_cmd_SEV_CMD_SNP_DBG_DECRYPT, "SNP_DBG_DECRYPT", sev_data_snp_dbg.gctx_paddr;
    /// An encrypted message of a guest's, and the answer to it.
    SnpGuestRequest = sev_cmd_SEV_CMD_SNP_GUEST_REQUEST, "SNP_GUEST_REQUEST",
        sev_data_snp_guest_request.gctx_paddr;
}

impl SnpPlatformStatus {
    /// `out`: a page that the firmware owns.
    pub(crate) fn new(out: PspAddr) -> Self {
        Self(b::sev_data_snp_addr { address: out.get() })
    }
}

impl SnpGctxCreate {
    /// `gctx`: a page that the firmware owns.
    pub(crate) fn new(gctx: PspAddr) -> Self {
        Self(b::sev_data_snp_addr {
            address: gctx.get(),
        })
    }
}

impl SnpActivate {
    pub(crate) fn new(gctx: PspAddr, asid: Asid) -> Self {
        Self(b::sev_data_snp_activate {
            gctx_paddr: gctx.get(),
            asid: asid.get(),
        })
    }
}

impl SnpDecommission {
    pub(crate) fn new(gctx: PspAddr) -> Self {
        Self(b::sev_data_snp_addr {
            address: gctx.get(),
        })
    }
}

impl SnpLaunchStart {
    /// `tsc_khz`: what the guest's TSC is to run at, if it has one of its own.
    pub(crate) fn new(gctx: PspAddr, policy: u64, tsc_khz: Option<u32>, gosvw: [u8; 16]) -> Self {
        Self(b::sev_data_snp_launch_start {
            gctx_paddr: gctx.get(),
            policy,
            desired_tsc_khz: tsc_khz.unwrap_or(0),
            gosvw,
            ..Default::default()
        })
    }
}

/// What a page is that is given to a guest before it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum PageType {
    Normal = b::KVM_SEV_SNP_PAGE_TYPE_NORMAL,
    /// Registers of a vCPU.
    Vmsa = b::SNP_PAGE_TYPE_VMSA,
    /// Zeroes, written by the firmware.
    Zero = b::KVM_SEV_SNP_PAGE_TYPE_ZERO,
    /// Encrypted, but not measured.
    Unmeasured = b::KVM_SEV_SNP_PAGE_TYPE_UNMEASURED,
    /// Keys, written by the firmware.
    Secrets = b::KVM_SEV_SNP_PAGE_TYPE_SECRETS,
    /// What CPUID is to say; the firmware checks and corrects it.
    Cpuid = b::KVM_SEV_SNP_PAGE_TYPE_CPUID,
}

impl PageType {
    /// `None` for types that userspace cannot load.
    pub(crate) fn from_user(value: u8) -> Option<Self> {
        Some(match u32::from(value) {
            b::KVM_SEV_SNP_PAGE_TYPE_NORMAL => PageType::Normal,
            b::KVM_SEV_SNP_PAGE_TYPE_ZERO => PageType::Zero,
            b::KVM_SEV_SNP_PAGE_TYPE_UNMEASURED => PageType::Unmeasured,
            b::KVM_SEV_SNP_PAGE_TYPE_SECRETS => PageType::Secrets,
            b::KVM_SEV_SNP_PAGE_TYPE_CPUID => PageType::Cpuid,
            _ => return None,
        })
    }
}

impl SnpLaunchUpdate {
    /// `page`: 4 KiB that are assigned to the guest, and immutable.
    pub(crate) fn new(gctx: PspAddr, page: PspAddr, page_type: PageType) -> Self {
        let mut data = b::sev_data_snp_launch_update {
            gctx_paddr: gctx.get(),
            address: page.get(),
            ..Default::default()
        };
        data.set_page_type(page_type as u32);
        Self(data)
    }
}

/// How a guest's owner identifies it.
pub(crate) struct Identity {
    /// The ID block, and what authenticates it.
    pub(crate) block: PspAddr,
    pub(crate) auth: PspAddr,
    /// The latter contains the author's key.
    pub(crate) author_key: bool,
}

impl SnpLaunchFinish {
    /// `vcek_disabled`: reports must not be signed with the chip's own key.
    pub(crate) fn new(
        gctx: PspAddr,
        identity: Option<Identity>,
        vcek_disabled: bool,
        host_data: [u8; 32],
    ) -> Self {
        let mut data = b::sev_data_snp_launch_finish {
            gctx_paddr: gctx.get(),
            host_data,
            ..Default::default()
        };
        if let Some(identity) = identity {
            data.id_block_paddr = identity.block.get();
            data.id_auth_paddr = identity.auth.get();
            data.set_id_block_en(1);
            data.set_auth_key_en(identity.author_key.into());
        }
        data.set_vcek_disabled(vcek_disabled.into());
        Self(data)
    }
}

impl SnpPageReclaim {
    /// `page`: 4 KiB.
    pub(crate) fn new(page: PspAddr) -> Self {
        Self(b::sev_data_snp_page_reclaim { paddr: page.get() })
    }
}

impl SnpDbgDecrypt {
    /// `dst`: a page that the firmware owns.
    pub(crate) fn new(gctx: PspAddr, src: PspAddr, dst: PspAddr) -> Self {
        Self(b::sev_data_snp_dbg {
            gctx_paddr: gctx.get(),
            src_addr: src.get(),
            dst_addr: dst.get(),
        })
    }
}

impl SnpGuestRequest {
    /// `response`: a page that the firmware owns.
    pub(crate) fn new(gctx: PspAddr, request: PspAddr, response: PspAddr) -> Self {
        Self(b::sev_data_snp_guest_request {
            gctx_paddr: gctx.get(),
            req_paddr: request.get(),
            res_paddr: response.get(),
        })
    }
}
