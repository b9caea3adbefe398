// SPDX-License-Identifier: GPL-2.0
//! The MSR protocol: what a guest can say through the GHCB MSR alone, before it has a GHCB or when
//! it cannot use it. Pure: no kernel dependencies.
//!
//! Bits 11:0 are a code, the others belong to it. Code 0 is no request: the value is then the
//! address of the GHCB.
//!
//! Source: the GHCB specification, "GHCB MSR protocol"; include/asm/sev-common.h.

use super::psc::PageState;
use crate::ffi::bindings as b;

/// Bits of the code.
const CODE: u64 = 0xfff;
/// Position of what follows the code.
const DATA: u32 = 12;
/// The page that is to be converted, and position of what it is to become.
const GFN: u64 = 0xf_ffff_ffff_f000;
const PSC_OPERATION: u32 = 52;

/// A register that CPUID returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CpuidRegister {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// What only an SEV-SNP guest can want.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SnpRequest {
    /// Where to put the GHCB.
    PreferredGhcb,
    /// The GHCB will be at this address.
    RegisterGhcb(u64),
    /// That a page become private or shared; `None` for anything else.
    PageState { gfn: u64, state: Option<PageState> },
}

/// What the guest wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// Versions of the protocol, and the position of the C-bit.
    SevInfo,
    /// One register of a CPUID leaf.
    Cpuid {
        function: u32,
        register: CpuidRegister,
    },
    /// To sleep until another vCPU starts this one.
    ApResetHold,
    /// What the hypervisor can do.
    HvFeatures,
    /// For SEV-SNP guests.
    Snp(SnpRequest),
    /// To end, and why.
    Terminate { set: u8, reason: u8 },
    /// Something that nobody defined.
    Unknown,
}

impl Request {
    /// `None` if the value is the address of a GHCB.
    pub(crate) fn decode(value: u64) -> Option<Self> {
        // The codes have 12 bits.
        Some(match (value & CODE) as u32 {
            0 => return None,
            b::GHCB_MSR_SEV_INFO_REQ => Request::SevInfo,
            b::GHCB_MSR_CPUID_REQ => Request::Cpuid {
                function: (value >> b::GHCB_MSR_CPUID_FUNC_POS) as u32,
                register: match (value >> b::GHCB_MSR_CPUID_REG_POS) & 3 {
                    0 => CpuidRegister::Eax,
                    1 => CpuidRegister::Ebx,
                    2 => CpuidRegister::Ecx,
                    _ => CpuidRegister::Edx,
                },
            },
            b::GHCB_MSR_AP_RESET_HOLD_REQ => Request::ApResetHold,
            b::GHCB_MSR_HV_FT_REQ => Request::HvFeatures,
            b::GHCB_MSR_PREF_GPA_REQ => Request::Snp(SnpRequest::PreferredGhcb),
            b::GHCB_MSR_REG_GPA_REQ => Request::Snp(SnpRequest::RegisterGhcb(value & !CODE)),
            b::GHCB_MSR_PSC_REQ => Request::Snp(SnpRequest::PageState {
                gfn: (value & GFN) >> DATA,
                state: PageState::decode((value >> PSC_OPERATION) & 0xf),
            }),
            b::GHCB_MSR_TERM_REQ => Request::Terminate {
                set: ((value >> b::GHCB_MSR_TERM_REASON_SET_POS) & 0xf) as u8,
                reason: ((value >> b::GHCB_MSR_TERM_REASON_POS) & 0xff) as u8,
            },
            _ => Request::Unknown,
        })
    }
}

/// The answer to [`Request::SevInfo`], and the value after a reset.
pub(crate) fn sev_info(max_version: u16, min_version: u16, c_bit: u8) -> u64 {
    (u64::from(max_version) << 48)
        | (u64::from(min_version) << 32)
        | (u64::from(c_bit) << 24)
        | u64::from(b::GHCB_MSR_SEV_INFO_RESP)
}

/// The answer to [`Request::Cpuid`]; which register it was stays in there.
pub(crate) fn cpuid(request: u64, value: u32) -> u64 {
    let kept = request & 0xffff_ffff & !CODE;
    (u64::from(value) << b::GHCB_MSR_CPUID_VALUE_POS) | kept | u64::from(b::GHCB_MSR_CPUID_RESP)
}

/// The answer to [`Request::ApResetHold`]: not 0 if another vCPU started this one.
pub(crate) fn ap_reset_hold(started: bool) -> u64 {
    (u64::from(started) << DATA) | u64::from(b::GHCB_MSR_AP_RESET_HOLD_RESP)
}

/// The answer to [`Request::HvFeatures`].
pub(crate) fn hv_features(features: u64) -> u64 {
    (features << DATA) | u64::from(b::GHCB_MSR_HV_FT_RESP)
}

/// The answer to [`SnpRequest::PreferredGhcb`]: anywhere.
pub(crate) fn no_preferred_ghcb() -> u64 {
    !CODE | u64::from(b::GHCB_MSR_PREF_GPA_RESP)
}

/// The answer to [`SnpRequest::RegisterGhcb`].
pub(crate) fn registered_ghcb(gpa: u64) -> u64 {
    (gpa & !CODE) | u64::from(b::GHCB_MSR_REG_GPA_RESP)
}

/// The answer to [`SnpRequest::PageState`].
pub(crate) fn page_state(done: bool) -> u64 {
    let error = if done { 0 } else { 1 << 63 };
    error | u64::from(b::GHCB_MSR_PSC_RESP)
}
