// SPDX-License-Identifier: GPL-2.0
//! `KVM_SEV_LAUNCH_UPDATE_VMSA`: the registers that a guest starts with become part of what its
//! owner measures.

use kernel::prelude::*;

use super::arg::Request;
use super::Call;
use crate::hw::kind::Kind;
use crate::kvm::vcpus::AllVcpus;
use crate::rejection::{Because, Outcome, Reason};
use crate::vcpu;

/// Encrypts the registers of all vCPUs, in the order of their creation. Takes all their mutexes.
///
/// Errors: ENOTTY unless the guest's registers are protected; EBUSY if a vCPU is being created;
/// EINTR if the task is being killed; EINVAL if it was done before, or if the guest is being
/// debugged; EBADF before the launch started; EIO if the firmware refuses. vCPUs before the one that
/// failed are done then.
pub(super) fn update(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = call.context()?;
    if context.kind() != Kind::SevEs {
        return Err(ENOTTY.because(Reason::NotSevEs));
    }
    let vcpus = AllVcpus::lock(call.vm)?;

    for vcpu in vcpus.iter() {
        vcpu::encrypt(vcpu, context, &mut request.status)?;
    }
    Ok(())
}
