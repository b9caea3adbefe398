// SPDX-License-Identifier: GPL-2.0
//! Sending a guest to another platform: `KVM_SEV_SEND_START`, `_UPDATE_DATA`, `_FINISH`, `_CANCEL`.

use kernel::prelude::*;

use super::arg::Request;
use super::Call;
use crate::ffi::bindings::{kvm_sev_send_start, kvm_sev_send_update_data};
use crate::hw::addr::UserRange;
use crate::kvm::pin::PinFor;
use crate::kvm::user;
use crate::psp::{
    Blob,
    Buffer,
    Recipient,
    SendCancel,
    SendFinish,
    SendStart,
    SendUpdateData, //
};
use crate::rejection::{Because, Outcome, Reason};
use crate::vm::State;

/// Begins: the platform's certificates are checked, and a session with it is agreed upon.
///
/// A `session_len` of 0 asks for the length: it is stored, and the error is still the firmware's,
/// EIO with status INVALID_LEN. Errors: ENOTTY; EFAULT; EINVAL for certificates or a session that
/// are missing or over 16 KiB; ENOMEM; EBADF before the launch started; EIO.
pub(super) fn start(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = call.context()?;
    let mut params: kvm_sev_send_start = request.data()?;

    if params.session_len == 0 {
        let mut needed = 0;
        let result = context.launched().and_then(|launched| {
            let mut command =
                SendStart::new(launched.handle(), Recipient::default(), Buffer::default());
            let result = launched.channel().query(&mut command, &mut request.status);
            needed = command.session_len();
            Ok(result?)
        });
        params.session_len = needed;
        request.store(&params)?;
        return result;
    }

    if params.pdh_cert_uaddr == 0 || params.pdh_cert_len == 0 || params.session_uaddr == 0 {
        return Err(EINVAL.because(Reason::Blob));
    }
    let session = Blob::zeroed(params.session_len)?;
    let pdh = Blob::from_user(params.pdh_cert_uaddr, params.pdh_cert_len)?;
    let platform_certs = Blob::from_user(params.plat_certs_uaddr, params.plat_certs_len)?;
    let amd_certs = Blob::from_user(params.amd_certs_uaddr, params.amd_certs_len)?;

    // The firmware changes these, if it is asked.
    let mut answer = (0, params.session_len);
    let result = context.launched().and_then(|launched| {
        let recipient = Recipient {
            pdh: pdh.buffer(),
            platform_certs: platform_certs.buffer(),
            amd_certs: amd_certs.buffer(),
        };
        let mut command = SendStart::new(launched.handle(), recipient, session.buffer());
        let result = launched.channel().issue(&mut command, &mut request.status);
        answer = (command.policy(), command.session_len());
        Ok(result?)
    });

    if result.is_ok() {
        context.enter(State::Sending);
        user::write_bytes(params.session_uaddr, session.as_slice())?;
    }
    (params.policy, params.session_len) = answer;
    request.store(&params)?;
    result
}

/// Encrypts guest memory, within a page, for the recipient.
///
/// A `hdr_len` or `trans_len` of 0 asks for the lengths: they are stored, and the error is still the
/// firmware's, EIO with status INVALID_LEN. Errors: ENOTTY; EFAULT; EINVAL for a range that is empty
/// or crosses a page, and for buffers that are missing or over 16 KiB; ENOMEM; EBADF; EIO.
pub(super) fn update_data(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = call.context()?;
    let mut params: kvm_sev_send_update_data = request.data()?;

    if params.trans_len == 0 || params.hdr_len == 0 {
        let mut needed = (0, 0);
        let result = context.launched().and_then(|launched| {
            let none = Buffer::default();
            let mut command = SendUpdateData::new(launched.handle(), none, none, none);
            let result = launched.channel().query(&mut command, &mut request.status);
            needed = command.lengths();
            Ok(result?)
        });
        (params.hdr_len, params.trans_len) = needed;
        request.store(&params)?;
        return result;
    }

    if params.trans_uaddr == 0 || params.hdr_uaddr == 0 {
        return Err(EINVAL.because(Reason::Blob));
    }
    let range = UserRange::within_page(params.guest_uaddr, params.guest_len)
        .ok_or(EINVAL.because(Reason::CrossesPage))?;
    let memory = context.pin(range, PinFor::Read)?;
    let address = memory
        .contiguous()
        .ok_or(EINVAL.because(Reason::NotContiguous))?;
    let guest = Buffer::new(address, params.guest_len);
    let header = Blob::zeroed(params.hdr_len)?;
    let transport = Blob::zeroed(params.trans_len)?;

    let launched = context.launched()?;
    let mut command = SendUpdateData::new(
        launched.handle(),
        guest,
        header.buffer(),
        transport.buffer(),
    );
    launched
        .channel()
        .issue(&mut command, &mut request.status)?;

    user::write_bytes(params.trans_uaddr, transport.as_slice())?;
    user::write_bytes(params.hdr_uaddr, header.as_slice())?;
    Ok(())
}

/// Ends the transfer: the guest cannot run here any more. Errors: ENOTTY, EBADF, EIO.
pub(super) fn finish(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = call.context()?;
    let launched = context.launched()?;
    let mut command = SendFinish::new(launched.handle());

    launched
        .channel()
        .issue(&mut command, &mut request.status)?;
    context.enter(State::Sent);
    Ok(())
}

/// Abandons the transfer: the guest stays here. Errors: ENOTTY, EBADF, EIO.
pub(super) fn cancel(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = call.context()?;
    let launched = context.launched()?;
    let mut command = SendCancel::new(launched.handle());

    launched
        .channel()
        .issue(&mut command, &mut request.status)?;
    context.enter(State::Running);
    Ok(())
}
