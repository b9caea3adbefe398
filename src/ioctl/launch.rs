// SPDX-License-Identifier: GPL-2.0
//! Launching a guest: `KVM_SEV_LAUNCH_START`, `_UPDATE_DATA`, `_FINISH`, and `KVM_SEV_GUEST_STATUS`.

use kernel::prelude::*;

use super::arg::Request;
use super::Call;
use crate::ffi::bindings::{
    kvm_sev_guest_status,
    kvm_sev_launch_start,
    kvm_sev_launch_update_data, //
};
use crate::hw::addr::UserRange;
use crate::kvm::file::SevDevice;
use crate::kvm::pin::PinFor;
use crate::psp::{
    optional,
    Blob,
    Channel,
    GuestStatus,
    LaunchFinish,
    LaunchStart,
    LaunchUpdateData, //
};
use crate::rejection::{Because, Outcome, Reason};
use crate::vm::{EncContext, Guest, Launched, State};

/// Creates the guest in the firmware and binds it to the VM's ASID.
///
/// Errors: ENOTTY; EFAULT; EINVAL for a certificate or session that is empty or over 16 KiB; ENOMEM;
/// EBADF if `sev_fd` is not /dev/sev; EIO if the firmware refuses, e.g. because the VM was launched
/// before.
pub(super) fn start(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = call.context()?;
    let mut params: kvm_sev_launch_start = request.data()?;
    let dh_cert = Blob::from_user_optional(params.dh_uaddr, params.dh_len)?;
    let session = Blob::from_user_optional(params.session_uaddr, params.session_len)?;
    let device = SevDevice::from_fd(request.sev_fd())?;

    let mut command = LaunchStart::new(
        params.handle,
        params.policy,
        optional(&dh_cert),
        optional(&session),
    );
    Channel::Device(&device).issue(&mut command, &mut request.status)?;

    let guest = Guest::new(command.handle());
    adopt(context, guest, device, request, |request, handle| {
        params.handle = handle;
        request.store(&params)
    })?;
    context.enter(State::Launching);
    Ok(())
}

/// Binds a guest that the firmware just created to the VM's ASID, and gives it to the context once
/// userspace was told its handle. It is released if any of this fails.
///
/// Errors: EIO if the firmware refuses; those of `tell`; EINVAL if the context has a guest.
pub(super) fn adopt(
    context: &EncContext,
    guest: Guest,
    device: SevDevice,
    request: &mut Request,
    tell: impl FnOnce(&Request, u32) -> Result,
) -> Outcome {
    let guest = guest.activate(context.lease().clone(), &mut request.status)?;

    tell(request, guest.handle().get())?;
    context.set_launched(Launched::new(guest, device))
}

/// Encrypts memory in place and adds it to the measurement.
///
/// Errors: ENOTTY; EFAULT; EINVAL for an empty or wrapping range; ENOMEM if it cannot be pinned;
/// EBADF before the launch started; EIO if the firmware refuses, e.g. an unaligned range.
pub(super) fn update_data(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = call.context()?;
    let params: kvm_sev_launch_update_data = request.data()?;
    let range =
        UserRange::new(params.uaddr, u64::from(params.len)).ok_or(EINVAL.because(Reason::Range))?;
    let memory = context.pin(range, PinFor::Write)?;

    // The host's plaintext must not be written back over the guest's ciphertext.
    memory.flush_caches();

    let launched = context.launched()?;
    for run in memory.runs() {
        let mut command = LaunchUpdateData::new(launched.handle(), run.address, run.len);
        launched
            .channel()
            .issue(&mut command, &mut request.status)?;
    }
    Ok(())
}

/// Ends the launch: the guest may run. Errors: ENOTTY, EBADF, EIO.
pub(super) fn finish(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = call.context()?;
    let launched = context.launched()?;
    let mut command = LaunchFinish::new(launched.handle());

    launched
        .channel()
        .issue(&mut command, &mut request.status)?;
    context.enter(State::Running);
    Ok(())
}

/// Handle, policy and state of the guest. Errors: ENOTTY, EBADF, EIO, EFAULT.
pub(super) fn guest_status(call: &Call<'_>, request: &mut Request) -> Outcome {
    let launched = call.context()?.launched()?;
    let mut command = GuestStatus::new(launched.handle());

    launched
        .channel()
        .issue(&mut command, &mut request.status)?;
    request.store(&kvm_sev_guest_status {
        handle: command.handle(),
        policy: command.policy(),
        state: command.state(),
    })?;
    Ok(())
}
