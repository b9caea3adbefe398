// SPDX-License-Identifier: GPL-2.0-or-later
//! DBG_DECRYPT, DBG_ENCRYPT, COPY.
//!
//! unspecified: the guest states that permit them. Here: every one but SENT.

use zerocopy::little_endian::{U32, U64};

use super::launch::BLOCK;
use super::packet::block_len;
use super::policy::Policy;
use crate::asid::Asid;
use crate::firmware::Firmware;
use crate::memory::{PAGE, Spa};
use crate::status::{Result, Status};
use crate::wire::{self, Debug};

/// How the bytes of one side are accessed.
#[derive(Clone, Copy)]
enum View {
    Bus,
    Guest,
}

struct Transfer {
    handle: U32,
    src: (U64, View),
    dst: (U64, View),
    len: U32,
}

fn read(fw: &Firmware, asid: Asid, view: View, spa: Spa, buf: &mut [u8]) -> Result {
    match view {
        View::Bus => fw.mem.read_bytes(spa, buf),
        View::Guest => fw.mem.read_guest(spa, asid, buf),
    }
}

fn write(fw: &Firmware, asid: Asid, view: View, spa: Spa, data: &[u8]) -> Result {
    match view {
        View::Bus => fw.mem.write_bytes(spa, data),
        View::Guest => fw.mem.write_guest(spa, asid, data),
    }
}

/// Moves bytes; overlapping regions give what a copy through a third place gives.
fn transfer(fw: &mut Firmware, job: &Transfer, allowed: fn(Policy) -> Result) -> Result {
    let guest = fw.guests.get(job.handle)?;
    guest.not_sent()?;
    allowed(guest.policy)?;
    let asid = guest.active()?;
    let len = u64::from(block_len(job.len)?);
    let src = fw.mem.spa(job.src.0.get()).aligned(BLOCK.into())?;
    let dst = fw.mem.spa(job.dst.0.get()).aligned(BLOCK.into())?;
    src.offset(len)?;
    dst.offset(len)?;
    let step = PAGE as u64;
    let pieces = len.div_ceil(step);
    let mut page = [0; PAGE];
    for i in 0..pieces {
        // In the order in which no piece is overwritten before it is read.
        let i = if dst.get() <= src.get() {
            i
        } else {
            pieces.saturating_sub(i).saturating_sub(1)
        };
        let at = i.saturating_mul(step);
        let size = len.saturating_sub(at).min(step) as usize;
        let bytes = page.get_mut(..size).ok_or(Status::HWERROR_PLATFORM)?;
        read(fw, asid, job.src.1, src.offset(at)?, bytes)?;
        write(fw, asid, job.dst.1, dst.offset(at)?, bytes)?;
    }
    Ok(())
}

fn debug(fw: &mut Firmware, buffer: Spa, from: View, to: View) -> Result {
    let cmd: Debug = fw.mem.read(buffer)?;
    wire::must_be_zero(&[cmd.reserved])?;
    let job = Transfer {
        handle: cmd.handle,
        src: (cmd.src_address, from),
        dst: (cmd.dst_address, to),
        len: cmd.len,
    };
    transfer(fw, &job, Policy::allows_debug)
}

/// DBG_DECRYPT: guest memory to host memory.
pub fn decrypt(fw: &mut Firmware, buffer: Spa) -> Result {
    debug(fw, buffer, View::Guest, View::Bus)
}

/// DBG_ENCRYPT: host memory to guest memory.
pub fn encrypt(fw: &mut Firmware, buffer: Spa) -> Result {
    debug(fw, buffer, View::Bus, View::Guest)
}

/// COPY: guest memory to another place of guest memory, for a host that moves pages.
pub fn copy(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: wire::Copy = fw.mem.read(buffer)?;
    let job = Transfer {
        handle: cmd.handle,
        src: (cmd.src_address, View::Guest),
        dst: (cmd.dst_address, View::Guest),
        len: cmd.length,
    };
    transfer(fw, &job, |_| Ok(()))
}
