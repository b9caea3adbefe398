// SPDX-License-Identifier: GPL-2.0
//! `KVM_SEV_INIT`, `KVM_SEV_ES_INIT` and `KVM_SEV_INIT2`: a VM becomes a SEV VM.

use core::ops::RangeInclusive;

use kernel::prelude::*;

use super::arg::Request;
use super::Call;
use crate::ffi::bindings::{
    kvm_sev_init,
    KVM_SEV_CONST_SVM_SEV_FEAT_SECURE_TSC as SECURE_TSC,
    KVM_SEV_CONST_SVM_SEV_FEAT_SNP_ACTIVE as SNP_ACTIVE, //
};
use crate::ghcb::{SNP_VERSION, VERSIONS};
use crate::hw::kind::Kind;
use crate::kvm::VmType;
use crate::psp::{platform_init, FwStatus, Init};
use crate::rejection::{Because, Outcome, Reason};
use crate::vm::{Binding, GuestParams, SevVm};

/// `KVM_SEV_INIT`, for VMs of the default type. Errors: see [`initialise`]; EINVAL for other VMs.
pub(super) fn init(call: &Call<'_>, request: &mut Request) -> Outcome {
    if call.vm.vm_type() != VmType::Default {
        return Err(EINVAL.because(Reason::VmType));
    }
    initialise(call, GuestParams::Sev, &mut request.status)
}

/// `KVM_SEV_ES_INIT`, for VMs of the default type; the guest is not offered more than the first
/// version of the protocol.
///
/// Errors: ENOTTY if SEV-ES is not available; else as [`init`].
pub(super) fn es_init(call: &Call<'_>, request: &mut Request) -> Outcome {
    if !call.platform.serves(Kind::SevEs) {
        return Err(ENOTTY.because(Reason::NotAvailable));
    }
    if call.vm.vm_type() != VmType::Default {
        return Err(EINVAL.because(Reason::VmType));
    }
    let params = GuestParams::SevEs {
        vmsa_features: 0,
        ghcb_version: *VERSIONS.start(),
    };
    initialise(call, params, &mut request.status)
}

/// `KVM_SEV_INIT2`, for VMs of the SEV types. Errors: see [`initialise`]; EINVAL for other VMs, when
/// done twice, and for what a guest of the type cannot have; EFAULT.
pub(super) fn init2(call: &Call<'_>, request: &mut Request) -> Outcome {
    let VmType::Encrypted(kind) = call.vm.vm_type() else {
        return Err(EINVAL.because(Reason::VmType));
    };
    if !call.vm.awaits_init2() {
        return Err(EINVAL.because(Reason::Initialised));
    }
    let params = decode(kind, &request.data()?, call.platform.vmsa_features())?;
    initialise(call, params, &mut request.status)
}

/// Guests without a GHCB have no version of its protocol: 0.
const NO_VERSION: RangeInclusive<u16> = 0..=0;

/// EINVAL for flags, features and versions that do not exist or are not available.
fn decode(kind: Kind, wanted: &kvm_sev_init, available: u64) -> Outcome<GuestParams> {
    if wanted.flags != 0 {
        return Err(EINVAL.because(Reason::Flags));
    }
    let features = |available: u64| {
        if wanted.vmsa_features & !available != 0 {
            return Err(EINVAL.because(Reason::VmsaFeatures));
        }
        Ok(wanted.vmsa_features)
    };
    let version = |available: RangeInclusive<u16>| match wanted.ghcb_version {
        0 => Ok(*VERSIONS.end()),
        version if available.contains(&version) => Ok(version),
        _ => Err(EINVAL.because(Reason::GhcbVersion)),
    };

    match kind {
        Kind::Sev => {
            features(0)?;
            version(NO_VERSION)?;
            Ok(GuestParams::Sev)
        }
        Kind::SevEs => Ok(GuestParams::SevEs {
            vmsa_features: features(available & !SECURE_TSC)?,
            ghcb_version: version(VERSIONS)?,
        }),
        Kind::Snp => Ok(GuestParams::Snp {
            vmsa_features: features(available)? | SNP_ACTIVE,
            ghcb_version: version(SNP_VERSION..=*VERSIONS.end())?,
        }),
    }
}

/// Errors: EINVAL if there are vCPUs, or when done twice; ENOTTY without ASIDs for such guests;
/// EBUSY without free ones or over the cgroup's limit; ENOMEM; EIO and others if the firmware does
/// not start.
fn initialise(call: &Call<'_>, params: GuestParams, status: &mut FwStatus) -> Outcome {
    if call.vm.has_vcpus() {
        return Err(EINVAL.because(Reason::HasVcpus));
    }
    if call.vm.sev().is_some() {
        return Err(EINVAL.because(Reason::Initialised));
    }

    let lease = call.platform.asids().lease(params.kind())?;
    let mut firmware = FwStatus::success();
    let mut state = platform_init(Init::Complete, &mut firmware)
        .and_then(|()| SevVm::new())
        .inspect_err(|_| *status = firmware)?;
    state.bind(
        Binding::owner(lease, params, call.platform.registry())
            .inspect_err(|_| *status = firmware)?,
    );

    call.vm.become_sev(state)?;
    Ok(())
}
