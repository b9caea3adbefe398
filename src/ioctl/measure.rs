// SPDX-License-Identifier: GPL-2.0
//! `KVM_SEV_LAUNCH_MEASURE`: what the guest's owner compares with what they expect.

use kernel::prelude::*;

use super::arg::Request;
use super::Call;
use crate::ffi::bindings::kvm_sev_launch_measure;
use crate::kvm::user;
use crate::psp::{optional, Blob, LaunchMeasure};

/// Writes the measurement to `uaddr`, and its length to `len`.
///
/// A `len` of 0 asks for the length: it is stored, and the error is still the firmware's, EIO with
/// status INVALID_LEN. Errors: ENOTTY; EFAULT; EINVAL for more than 16 KiB; ENOMEM; EBADF before the
/// launch started; EIO.
pub(super) fn measure(call: &Call<'_>, request: &mut Request) -> Result {
    let context = call.sev()?.context();
    let mut params: kvm_sev_launch_measure = request.data()?;
    let asks_for_length = params.len == 0;
    let blob = if asks_for_length || params.uaddr == 0 {
        None
    } else {
        Some(Blob::zeroed(params.len)?)
    };

    let mut needed = 0;
    let mut result = context.launched().and_then(|launched| {
        let mut command = LaunchMeasure::new(launched.handle(), optional(&blob));
        let result = if blob.is_none() {
            launched.channel().query(&mut command, &mut request.status)
        } else {
            launched.channel().issue(&mut command, &mut request.status)
        };
        needed = command.len();
        result
    });

    if !asks_for_length {
        result?;
        if let Some(blob) = blob {
            result = user::write_bytes(params.uaddr, blob.as_slice());
        }
    }
    params.len = needed;
    request.store(&params)?;
    result
}
