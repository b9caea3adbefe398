// SPDX-License-Identifier: GPL-2.0
//! Receiving a guest from another platform: `KVM_SEV_RECEIVE_START`, `_UPDATE_DATA`, `_FINISH`.

use kernel::prelude::*;

use super::arg::Request;
use super::launch::adopt;
use super::Call;
use crate::ffi::bindings::{kvm_sev_receive_start, kvm_sev_receive_update_data};
use crate::hw::addr::UserRange;
use crate::kvm::file::SevDevice;
use crate::kvm::pin::PinFor;
use crate::psp::{Blob, Buffer, Channel, ReceiveFinish, ReceiveStart, ReceiveUpdateData};
use crate::rejection::{Because, Outcome, Reason};
use crate::vm::{Guest, State};

/// Creates the guest in the firmware and binds it to the VM's ASID.
///
/// Errors: ENOTTY; EFAULT; EINVAL for a certificate or session that is missing or over 16 KiB;
/// ENOMEM; EBADF if `sev_fd` is not /dev/sev; EIO if the firmware refuses.
pub(super) fn start(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = call.context()?;
    let mut params: kvm_sev_receive_start = request.data()?;

    if params.session_uaddr == 0 || params.session_len == 0 {
        return Err(EINVAL.because(Reason::Blob));
    }
    let pdh = Blob::from_user(params.pdh_uaddr, params.pdh_len)?;
    let session = Blob::from_user(params.session_uaddr, params.session_len)?;
    let device = SevDevice::from_fd(request.sev_fd())?;

    let mut command =
        ReceiveStart::new(params.handle, params.policy, pdh.buffer(), session.buffer());
    Channel::Device(&device).issue(&mut command, &mut request.status)?;

    let guest = Guest::new(command.handle());
    adopt(context, guest, device, request, |request, handle| {
        params.handle = handle;
        request.store(&params)
    })?;
    context.enter(State::Receiving);
    Ok(())
}

/// Decrypts a packet to guest memory, within a page.
///
/// Errors: EINVAL if the VM is not a SEV VM, for a range that is empty or crosses a page, and for a
/// packet that is missing or over 16 KiB; EFAULT; ENOMEM; EBADF; EIO.
pub(super) fn update_data(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = call.context().map_err(|_| EINVAL.because(Reason::NotSev))?;
    let params: kvm_sev_receive_update_data = request.data()?;

    if params.trans_uaddr == 0 || params.trans_len == 0 {
        return Err(EINVAL.because(Reason::Blob));
    }
    let range = UserRange::within_page(params.guest_uaddr, params.guest_len)
        .ok_or(EINVAL.because(Reason::CrossesPage))?;
    let header = Blob::from_user(params.hdr_uaddr, params.hdr_len)?;
    let transport = Blob::from_user(params.trans_uaddr, params.trans_len)?;
    let memory = context.pin(range, PinFor::Write)?;

    // The host's plaintext must not be written back over the guest's ciphertext.
    memory.flush_caches();

    let launched = context.launched()?;
    let address = memory
        .contiguous()
        .ok_or(EINVAL.because(Reason::NotContiguous))?;
    let mut command = ReceiveUpdateData::new(
        launched.handle(),
        Buffer::new(address, params.guest_len),
        header.buffer(),
        transport.buffer(),
    );
    launched
        .channel()
        .issue(&mut command, &mut request.status)?;
    Ok(())
}

/// Ends the transfer: the guest may run. Errors: ENOTTY, EBADF, EIO.
pub(super) fn finish(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = call.context()?;
    let launched = context.launched()?;
    let mut command = ReceiveFinish::new(launched.handle());

    launched
        .channel()
        .issue(&mut command, &mut request.status)?;
    context.enter(State::Running);
    Ok(())
}
