// SPDX-License-Identifier: GPL-2.0
//! `KVM_SEV_INIT` and `KVM_SEV_INIT2`: a VM becomes a SEV VM.

use kernel::prelude::*;

use super::arg::Request;
use super::Call;
use crate::ffi::bindings::kvm_sev_init;
use crate::kvm::VmType;
use crate::psp::{platform_init, FwStatus};
use crate::vm::{EncContext, SevVm};

/// `KVM_SEV_INIT`, for VMs of the default type. Errors: see [`initialise`]; EINVAL for other VMs.
pub(super) fn init(call: &Call<'_>, request: &mut Request) -> Result {
    if call.vm.vm_type() != VmType::Default {
        return Err(EINVAL);
    }
    initialise(call, &kvm_sev_init::default(), &mut request.status)
}

/// `KVM_SEV_INIT2`, for VMs of the SEV types. Errors: see [`initialise`]; EINVAL for other VMs and
/// when done twice; EFAULT.
pub(super) fn init2(call: &Call<'_>, request: &mut Request) -> Result {
    if !call.vm.awaits_init2() || call.vm.vm_type() != VmType::Sev {
        return Err(EINVAL);
    }
    initialise(call, &request.data()?, &mut request.status)
}

/// Errors: EINVAL if there are vCPUs, for features that plain SEV has not, or when done twice;
/// ENOTTY without ASIDs for plain SEV; EBUSY without free ones or over the cgroup's limit; ENOMEM;
/// EIO and others if the firmware does not start.
fn initialise(call: &Call<'_>, params: &kvm_sev_init, status: &mut FwStatus) -> Result {
    if call.vm.has_vcpus()
        || params.flags != 0
        || params.vmsa_features != 0
        || params.ghcb_version != 0
        || call.vm.sev().is_some()
    {
        return Err(EINVAL);
    }

    let lease = call.platform.asids().lease()?;
    let mut firmware = FwStatus::success();
    let state = platform_init(false, &mut firmware)
        .and_then(|()| EncContext::new(lease, call.platform.registry()))
        .and_then(SevVm::new)
        .inspect_err(|_| *status = firmware)?;

    call.vm.inhibit_apicv();
    call.vm.attach(state).map_err(|_| EINVAL)?;
    call.vm.publish_sev();
    Ok(())
}
