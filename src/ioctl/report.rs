// SPDX-License-Identifier: GPL-2.0
//! `KVM_SEV_LAUNCH_MEASURE` and `KVM_SEV_GET_ATTESTATION_REPORT`: what the guest's owner compares
//! with what they expect.
//!
//! Both write to `uaddr`, and the length to `len`. A `len` of 0 asks for the length: it is stored,
//! and the error is still the firmware's, EIO with status INVALID_LEN.

use super::arg::Request;
use super::Call;
use crate::ffi::bindings::{kvm_sev_attestation_report, kvm_sev_launch_measure};
use crate::kvm::user;
use crate::psp::{optional, AttestationReport, Blob, Buffer, Handle, LaunchMeasure, Reports};
use crate::rejection::{Outcome, Rejection};
use crate::vm::{EncContext, State};

/// The measurement of what was loaded, for the guest's owner.
///
/// Errors: ENOTTY; EFAULT; EINVAL for more than 16 KiB; ENOMEM; EBADF before the launch started; EIO.
pub(super) fn measure(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = call.context()?;
    let mut params: kvm_sev_launch_measure = request.data()?;
    let answer = ask(
        context,
        request,
        (params.uaddr, params.len),
        LaunchMeasure::new,
    )?;

    if answer.result.is_ok() {
        context.enter(State::Secret);
    }
    params.len = answer.len;
    request.store(&params)?;
    answer.result
}

/// The same, signed by the platform, at any time. Errors: as [`measure`].
pub(super) fn attest(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = call.context()?;
    let mut params: kvm_sev_attestation_report = request.data()?;
    let answer = ask(
        context,
        request,
        (params.uaddr, params.len),
        |handle, out| AttestationReport::new(handle, params.mnonce, out),
    )?;

    params.len = answer.len;
    request.store(&params)?;
    answer.result
}

/// What userspace is told, with the length in both cases.
struct Answer {
    len: u32,
    result: Outcome,
}

/// Has a report written to `target`, an address and a length. An error is returned at once if
/// nothing but it is to be told.
fn ask<C: Reports>(
    context: &EncContext,
    request: &mut Request,
    target: (u64, u32),
    command: impl FnOnce(Handle, Buffer) -> C,
) -> Outcome<Answer> {
    let (uaddr, len) = target;
    let asks_for_length = len == 0;
    let blob = if asks_for_length || uaddr == 0 {
        None
    } else {
        Some(Blob::zeroed(len)?)
    };

    let mut needed = 0;
    let mut result = context.launched().and_then(|launched| {
        let mut command = command(launched.handle(), optional(&blob));
        let result = if blob.is_none() {
            launched.channel().query(&mut command, &mut request.status)
        } else {
            launched.channel().issue(&mut command, &mut request.status)
        };
        needed = command.needed();
        Ok(result?)
    });

    if !asks_for_length {
        result?;
        if let Some(blob) = blob {
            result = user::write_bytes(uaddr, blob.as_slice()).map_err(Rejection::from);
        }
    }
    Ok(Answer {
        len: needed,
        result,
    })
}
