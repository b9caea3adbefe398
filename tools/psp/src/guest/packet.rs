// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets between guest memory and the outside: secrets and migrated pages.

use core::mem::offset_of;

use zerocopy::little_endian::U32;

use super::launch::BLOCK;
use crate::asid::Asid;
use crate::memory::{Memory, PAGE, Spa};
use crate::status::{Result, Status};
use crate::wire::{self, Packet, PacketHeader};

/// Longest packet. Linux hands over blobs of up to SEV_FW_BLOB_MAX_SIZE.
const MAX_LEN: u32 = 16 * 1024;

/// A length of guest memory: a positive multiple of the encryption granule.
pub(super) fn block_len(len: U32) -> Result<u32> {
    match len.get() {
        len if len > 0 && len % BLOCK == 0 => Ok(len),
        _ => Err(Status::INVALID_LENGTH),
    }
}

/// The guest region of a packet.
fn guest_region(mem: &Memory, cmd: &Packet) -> Result<(Spa, usize)> {
    let len = block_len(cmd.guest_len)?;
    if len > MAX_LEN {
        return Err(Status::INVALID_LENGTH);
    }
    let spa = mem.spa(cmd.guest_address.get()).aligned(BLOCK.into())?;
    Ok((spa, len as usize))
}

fn check_reserved(cmd: &Packet) -> Result {
    wire::must_be_zero(&[cmd.reserved1, cmd.reserved2, cmd.reserved3])
}

/// A VMSA packet carries one page.
pub(super) fn check_vmsa(mem: &Memory, cmd: &Packet) -> Result {
    if cmd.guest_len.get() as usize != PAGE {
        return Err(Status::INVALID_LENGTH);
    }
    mem.spa(cmd.guest_address.get())
        .aligned(PAGE as u64)
        .map(|_| ())
}

/// Brings a packet in: `open` decrypts it, then it is written to guest memory. Compressed
/// packets are not supported: UNSUPPORTED.
pub(super) fn receive(
    mem: &Memory,
    cmd: &Packet,
    asid: Asid,
    open: impl FnOnce(&PacketHeader, &mut [u8]) -> Result,
) -> Result {
    check_reserved(cmd)?;
    wire::exact_len::<PacketHeader>(cmd.hdr_len)?;
    let (guest, len) = guest_region(mem, cmd)?;
    if cmd.trans_len != cmd.guest_len {
        return Err(Status::INVALID_LENGTH);
    }
    let header: PacketHeader = mem.read(mem.spa(cmd.hdr_address.get()))?;
    match header.flags.get() {
        0 => {}
        1 => return Err(Status::UNSUPPORTED),
        _ => return Err(Status::INVALID_PARAM),
    }
    let mut data = vec![0; len];
    mem.read_bytes(mem.spa(cmd.trans_address.get()), &mut data)?;
    open(&header, &mut data)?;
    mem.write_guest(guest, asid, &data)
}

/// Takes a packet out: guest memory is read, `seal` encrypts it and makes the header. With too
/// short a buffer: both lengths.
pub(super) fn send(
    mem: &Memory,
    buffer: Spa,
    cmd: &Packet,
    asid: Asid,
    seal: impl FnOnce(&mut [u8]) -> Result<PacketHeader>,
) -> Result {
    check_reserved(cmd)?;
    let hdr_size = size_of::<PacketHeader>();
    let guest_len = cmd.guest_len.get() as usize;
    mem.write_len(buffer, offset_of!(Packet, hdr_len), hdr_size)?;
    mem.write_len(buffer, offset_of!(Packet, trans_len), guest_len)?;
    if (cmd.hdr_len.get() as usize) < hdr_size || (cmd.trans_len.get() as usize) < guest_len {
        return Err(Status::INVALID_LENGTH);
    }
    let (guest, len) = guest_region(mem, cmd)?;
    let mut data = vec![0; len];
    mem.read_guest(guest, asid, &mut data)?;
    let header = seal(&mut data)?;
    mem.write(mem.spa(cmd.hdr_address.get()), &header)?;
    mem.write_bytes(mem.spa(cmd.trans_address.get()), &data)
}
