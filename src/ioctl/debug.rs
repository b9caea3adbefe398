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
use crate::kvm::pin::{PinFor, Pinned};
use crate::kvm::user;
use crate::psp::{Blob, DbgDecrypt, DbgEncrypt, FwStatus};
use crate::vm::{EncContext, Launched};

/// Bytes that the firmware encrypts at once.
const BLOCK: u64 = 16;

/// Guest memory at `src_uaddr` to plaintext at `dst_uaddr`. Errors: see [`transfer`].
pub(super) fn decrypt(call: &Call<'_>, request: &mut Request) -> Result {
    transfer(call, request, Direction::Decrypt)
}

/// Plaintext at `src_uaddr` to guest memory at `dst_uaddr`. Errors: see [`transfer`].
pub(super) fn encrypt(call: &Call<'_>, request: &mut Request) -> Result {
    transfer(call, request, Direction::Encrypt)
}

#[derive(Clone, Copy)]
enum Direction {
    Decrypt,
    Encrypt,
}

/// Errors: ENOTTY; EFAULT; EINVAL for empty or wrapping ranges and an address of 0; ENOMEM; EBADF
/// before the launch started; EIO if the firmware refuses, e.g. by policy.
fn transfer(call: &Call<'_>, request: &mut Request, direction: Direction) -> Result {
    let context = call.sev()?.context();
    let params: kvm_sev_dbg = request.data()?;
    let len = u64::from(params.len);

    if params.src_uaddr == 0 || params.dst_uaddr == 0 {
        return Err(EINVAL);
    }
    let src = UserRange::new(params.src_uaddr, len).ok_or(EINVAL)?;
    let dst = UserRange::new(params.dst_uaddr, len).ok_or(EINVAL)?;

    let mut bounce = None;
    let mut done: u64 = 0;
    while done < len {
        let piece = Piece::new(context, src, dst, done)?;
        let launched = context.launched()?;

        piece.transfer(launched, direction, &mut bounce, &mut request.status)?;
        done = done.wrapping_add(u64::from(piece.len));
    }
    Ok(())
}

/// A part of the transfer that lies in one page on each side.
struct Piece {
    src: Pinned,
    dst: Pinned,
    src_address: PspAddr,
    dst_address: PspAddr,
    len: u32,
}

impl Piece {
    /// The piece that starts `done` bytes into both ranges.
    fn new(context: &EncContext, src: UserRange, dst: UserRange, done: u64) -> Result<Self> {
        let page = PAGE_SIZE as u64;
        // Neither range wraps around, and `done` is less than their length.
        let src_start = src.start().wrapping_add(done);
        let dst_start = dst.start().wrapping_add(done);
        let len = (src.len() as u64)
            .wrapping_sub(done)
            .min(page.wrapping_sub(src_start % page))
            .min(page.wrapping_sub(dst_start % page));

        let src = UserRange::new(src_start, len).ok_or(EINVAL)?;
        let dst = UserRange::new(dst_start, len).ok_or(EINVAL)?;
        let src = context.pin(src, PinFor::Read)?;
        let dst = context.pin(dst, PinFor::Write)?;

        // The firmware reads and writes memory, not caches; what a cache holds of the destination
        // would hide what it wrote.
        src.flush_caches();
        dst.flush_caches();
        Ok(Self {
            src_address: src.contiguous().ok_or(EINVAL)?,
            dst_address: dst.contiguous().ok_or(EINVAL)?,
            src,
            dst,
            len: len as u32,
        })
    }

    fn is_aligned(&self) -> bool {
        let bits = self.src.range().start() | self.dst.range().start() | u64::from(self.len);
        bits % BLOCK == 0
    }

    fn transfer(
        &self,
        launched: &Launched,
        direction: Direction,
        bounce: &mut Option<Blob>,
        status: &mut FwStatus,
    ) -> Result {
        if self.is_aligned() {
            let (handle, len) = (launched.handle(), self.len);
            let (src, dst) = (self.src_address, self.dst_address);

            return match direction {
                Direction::Decrypt => launched
                    .channel()
                    .issue(&mut DbgDecrypt::new(handle, src, dst, len), status),
                Direction::Encrypt => launched
                    .channel()
                    .issue(&mut DbgEncrypt::new(handle, src, dst, len), status),
            };
        }

        let bounce = match bounce {
            Some(bounce) => bounce,
            // A whole page: while the RMP is active the firmware owns it during the command.
            None => bounce.insert(Blob::zeroed(PAGE_SIZE as u32)?),
        };
        match direction {
            Direction::Decrypt => self.decrypt_unaligned(launched, bounce, status),
            Direction::Encrypt => self.encrypt_unaligned(launched, bounce, status),
        }
    }

    fn decrypt_unaligned(
        &self,
        launched: &Launched,
        bounce: &Blob,
        status: &mut FwStatus,
    ) -> Result {
        let blocks = Blocks::around(self.src_address, self.len);
        let mut command =
            DbgDecrypt::new(launched.handle(), blocks.start, bounce.address(), blocks.len);

        launched.channel().issue(&mut command, status)?;
        let plaintext = bounce.as_slice().get(blocks.inner()).ok_or(EINVAL)?;
        user::write_bytes(self.dst.range().start(), plaintext)
    }

    fn encrypt_unaligned(
        &self,
        launched: &Launched,
        bounce: &mut Blob,
        status: &mut FwStatus,
    ) -> Result {
        let blocks = Blocks::around(self.dst_address, self.len);
        let (handle, address) = (launched.handle(), bounce.address());
        let mut decrypt = DbgDecrypt::new(handle, blocks.start, address, blocks.len);
        let mut encrypt = DbgEncrypt::new(handle, address, blocks.start, blocks.len);

        launched.channel().issue(&mut decrypt, status)?;
        let plaintext = bounce
            .as_mut_slice()
            .get_mut(blocks.inner())
            .ok_or(EINVAL)?;
        user::read_bytes(self.src.range().start(), plaintext)?;
        launched.channel().issue(&mut encrypt, status)
    }
}

/// The whole blocks around a piece of guest memory.
struct Blocks {
    start: PspAddr,
    /// In bytes; they do not leave the page, as pages consist of whole blocks.
    len: u32,
    /// Bytes before the piece.
    before: usize,
    /// Bytes of the piece.
    piece: usize,
}

impl Blocks {
    fn around(address: PspAddr, piece: u32) -> Self {
        let before = (address.get() % BLOCK) as u32;
        // At most a page, and two blocks.
        let len = before.wrapping_add(piece).wrapping_add(BLOCK as u32 - 1) & !(BLOCK as u32 - 1);

        Self {
            start: PspAddr::new(address.get().wrapping_sub(u64::from(before))),
            len,
            before: before as usize,
            piece: piece as usize,
        }
    }

    /// Where the piece is within the blocks.
    fn inner(&self) -> core::ops::Range<usize> {
        self.before..self.before.wrapping_add(self.piece)
    }
}
