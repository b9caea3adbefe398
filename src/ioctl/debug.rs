// SPDX-License-Identifier: GPL-2.0
//! `KVM_SEV_DBG_DECRYPT` and `KVM_SEV_DBG_ENCRYPT`: guest memory for a debugger, if the policy
//! allows it.
//!
//! The firmware works on multiples of 16 bytes at addresses that are multiples of 16. Anything else
//! goes through a page of the kernel's: decrypted there as a whole, and for encryption changed there
//! and written back as a whole.

use kernel::prelude::*;

use super::arg::Request;
use super::Call;
use crate::ffi::bindings::kvm_sev_dbg;
use crate::hw::addr::{PspAddr, UserRange, PAGE_SIZE};
use crate::hw::blocks::{pieces, Blocks, Piece};
use crate::kvm::host;
use crate::kvm::pin::{PinFor, Pinned};
use crate::kvm::user;
use crate::psp::{Blob, DbgDecrypt, DbgEncrypt, FwStatus};
use crate::rejection::{Because, Outcome, Reason};
use crate::vm::{EncContext, Launched};

/// Guest memory at `src_uaddr` to plaintext at `dst_uaddr`. Errors: see [`transfer`].
pub(super) fn decrypt(call: &Call<'_>, request: &mut Request) -> Outcome {
    transfer(call, request, Direction::Decrypt)
}

/// Plaintext at `src_uaddr` to guest memory at `dst_uaddr`. Errors: see [`transfer`].
pub(super) fn encrypt(call: &Call<'_>, request: &mut Request) -> Outcome {
    transfer(call, request, Direction::Encrypt)
}

#[derive(Clone, Copy)]
enum Direction {
    Decrypt,
    Encrypt,
}

/// Errors: ENOTTY; EFAULT; EINVAL for empty or wrapping ranges and an address of 0; ENOMEM; EBADF
/// before the launch started; EIO if the firmware refuses, e.g. by policy.
fn transfer(call: &Call<'_>, request: &mut Request, direction: Direction) -> Outcome {
    let context = call.context()?;
    let params: kvm_sev_dbg = request.data()?;
    let len = u64::from(params.len);

    if params.src_uaddr == 0 || params.dst_uaddr == 0 {
        return Err(EINVAL.because(Reason::NoAddress));
    }
    let bad = EINVAL.because(Reason::Range);
    let src = UserRange::new(params.src_uaddr, len).ok_or(bad)?;
    let dst = UserRange::new(params.dst_uaddr, len).ok_or(bad)?;

    for piece in pieces(src, dst) {
        let memory = Memory::pin(context, piece)?;

        memory.transfer(context.launched()?, direction, &mut request.status)?;
    }
    Ok(())
}

/// The memory of a piece of the transfer.
struct Memory {
    piece: Piece,
    src: PspAddr,
    dst: PspAddr,
    /// Keep the addresses valid.
    _pinned: (Pinned, Pinned),
}

impl Memory {
    fn pin(context: &EncContext, piece: Piece) -> Outcome<Self> {
        let src = context.pin(piece.src, PinFor::Read)?;
        let dst = context.pin(piece.dst, PinFor::Write)?;

        // The firmware reads and writes memory, not caches; what a cache holds of the destination
        // would hide what it wrote.
        src.flush_caches();
        dst.flush_caches();
        let apart = EINVAL.because(Reason::NotContiguous);
        Ok(Self {
            piece,
            src: src.contiguous().ok_or(apart)?,
            dst: dst.contiguous().ok_or(apart)?,
            _pinned: (src, dst),
        })
    }

    fn transfer(
        &self,
        launched: &Launched,
        direction: Direction,
        status: &mut FwStatus,
    ) -> Outcome {
        let (src, dst) = (self.src, self.dst);

        if self.piece.is_aligned() {
            // At most a page.
            let len = self.piece.len() as u32;
            match direction {
                Direction::Decrypt => decrypt_blocks(launched, src, dst, len, status),
                Direction::Encrypt => encrypt_blocks(launched, src, dst, len, status),
            }?;
            return Ok(());
        }

        let guest = match direction {
            Direction::Decrypt => Blocks::around(src, self.piece.len()),
            Direction::Encrypt => Blocks::around(dst, self.piece.len()),
        };

        // While the RMP is active the firmware owns whole pages during the command.
        let room = if host::has_rmp() {
            PAGE_SIZE as u32
        } else {
            guest.len
        };
        let mut bounce = Blob::zeroed(room)?;
        let plain = bounce.address();

        decrypt_blocks(launched, guest.start, plain, guest.len, status)?;
        let bytes = bounce.as_mut_slice().get_mut(guest.inner()).ok_or(EINVAL)?;
        match direction {
            Direction::Decrypt => user::write_bytes(self.piece.dst.start(), bytes)?,
            Direction::Encrypt => {
                user::read_bytes(self.piece.src.start(), bytes)?;
                encrypt_blocks(launched, plain, guest.start, guest.len, status)?;
            }
        }
        Ok(())
    }
}

fn decrypt_blocks(
    launched: &Launched,
    guest: PspAddr,
    plain: PspAddr,
    len: u32,
    status: &mut FwStatus,
) -> Result {
    let mut command = DbgDecrypt::new(launched.handle(), guest, plain, len);
    launched.channel().issue(&mut command, status)
}

fn encrypt_blocks(
    launched: &Launched,
    plain: PspAddr,
    guest: PspAddr,
    len: u32,
    status: &mut FwStatus,
) -> Result {
    let mut command = DbgEncrypt::new(launched.handle(), plain, guest, len);
    launched.channel().issue(&mut command, status)
}
