// SPDX-License-Identifier: GPL-2.0
//! `KVM_SEV_LAUNCH_SECRET`: the guest's owner sends a secret to the measured guest.

use kernel::prelude::*;

use super::arg::Request;
use super::Call;
use crate::ffi::bindings::kvm_sev_launch_secret;
use crate::hw::addr::UserRange;
use crate::kvm::pin::PinFor;
use crate::psp::{Blob, Buffer, LaunchSecret};
use crate::rejection::{Because, Outcome, Reason};

/// Decrypts a packet of the owner's into guest memory.
///
/// Errors: ENOTTY; EFAULT; EINVAL for an empty or wrapping range, one that is not physically
/// contiguous, and for packets that are empty or over 16 KiB; ENOMEM; EBADF before the launch
/// started; EIO if the firmware refuses.
pub(super) fn inject(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = call.context()?;
    let params: kvm_sev_launch_secret = request.data()?;
    let range = UserRange::new(params.guest_uaddr, u64::from(params.guest_len))
        .ok_or(EINVAL.because(Reason::Range))?;
    let memory = context.pin(range, PinFor::Write)?;

    // The host's plaintext must not be written back over the guest's ciphertext.
    memory.flush_caches();

    let target = memory
        .contiguous()
        .ok_or(EINVAL.because(Reason::NotContiguous))?;
    let packet = Blob::from_user(params.trans_uaddr, params.trans_len)?;
    let header = Blob::from_user(params.hdr_uaddr, params.hdr_len)?;

    let launched = context.launched()?;
    let mut command = LaunchSecret::new(
        launched.handle(),
        Buffer::new(target, params.guest_len),
        header.buffer(),
        packet.buffer(),
    );
    launched
        .channel()
        .issue(&mut command, &mut request.status)?;
    Ok(())
}
