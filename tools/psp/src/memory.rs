// SPDX-License-Identifier: GPL-2.0-or-later
//! Checked access to system memory. Nothing else in the firmware touches a host address.

use std::cell::Cell;
use std::rc::Rc;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::asid::Asid;
use crate::host::Host;
use crate::snp::rmp::{Entry, PageState};
use crate::status::{Result, Status};

/// Bytes of a page. Memory is moved page by page, so that no length in a command sizes an
/// allocation.
pub const PAGE: usize = 4096;
const OFFSET_MASK: u64 = PAGE as u64 - 1;

/// A system physical address, the C-bit removed. As that is one of the upper 32 bits, the end of
/// a region of up to 4 GiB can be computed without wrapping around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spa(u64);

impl Spa {
    /// The address as a number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Whether the address is a multiple of `align`, a power of two.
    pub fn is_aligned(self, align: u64) -> bool {
        self.0 & align.wrapping_sub(1) == 0
    }

    /// `Ok(self)` if aligned, else INVALID_ADDRESS.
    pub fn aligned(self, align: u64) -> Result<Spa> {
        if self.is_aligned(align) {
            Ok(self)
        } else {
            Err(Status::INVALID_ADDRESS)
        }
    }

    /// The nearest lower multiple of `align`, a power of two.
    pub fn align_down(self, align: u64) -> Spa {
        Spa(self.0 & !align.wrapping_sub(1))
    }

    /// The distance from the start of the page.
    pub fn page_offset(self) -> u64 {
        self.0 & OFFSET_MASK
    }

    /// The address `bytes` further on.
    pub fn offset(self, bytes: u64) -> Result<Spa> {
        self.0
            .checked_add(bytes)
            .map(Spa)
            .ok_or(Status::INVALID_ADDRESS)
    }
}

/// The pieces of a region, none of which crosses a page.
pub fn pages(start: Spa, len: u32) -> impl Iterator<Item = (Spa, usize)> {
    let end = start.0.saturating_add(len.into());
    let mut at = start.0;
    core::iter::from_fn(move || {
        let next = (at | OFFSET_MASK).saturating_add(1).min(end);
        let piece = (Spa(at), next.saturating_sub(at) as usize);
        at = next;
        (piece.1 > 0).then_some(piece)
    })
}

/// System memory as the firmware sees it. What cannot be accessed is INVALID_ADDRESS.
///
/// While SNP is initialised, the firmware writes nothing but pages in the Firmware state
/// ([`Status::INVALID_PAGE_STATE`]) and, by [`Memory::write_owned`], pages whose state the caller
/// has checked. Source: Linux `sev-dev.c`, snp_map_cmd_buf_desc.
pub struct Memory {
    host: Rc<dyn Host>,
    c_bit: u32,
    snp: Cell<bool>,
}

impl Memory {
    /// Memory of `host`, whose page tables carry the C-bit at bit `c_bit`.
    pub fn new(host: Rc<dyn Host>, c_bit: u32) -> Self {
        let snp = Cell::new(false);
        Self { host, c_bit, snp }
    }

    /// SNP is initialised, or not any more.
    pub fn set_snp(&self, initialized: bool) {
        self.snp.set(initialized);
    }

    /// The RMP entry of the page at `spa`.
    pub fn rmp_get(&self, spa: Spa) -> Result<[u64; 2]> {
        self.host
            .rmp_get(spa.0)
            .map_err(|_| Status::INVALID_ADDRESS)
    }

    /// Replaces the RMP entry of the page at `spa`.
    pub fn rmp_set(&self, spa: Spa, entry: [u64; 2]) -> Result {
        self.host
            .rmp_set(spa.0, entry)
            .map_err(|_| Status::HWERROR_PLATFORM)
    }

    /// Whether the firmware may write a region.
    fn check_writable(&self, spa: Spa, len: usize) -> Result {
        if !self.snp.get() {
            return Ok(());
        }
        let len = u32::try_from(len).map_err(|_| Status::INVALID_ADDRESS)?;
        for (page, _) in pages(spa, len) {
            if Entry::covering(self, page)?.state() != PageState::Firmware {
                return Err(Status::INVALID_PAGE_STATE);
            }
        }
        Ok(())
    }

    /// The address in a command buffer. Drivers set the C-bit when the host encrypts its own
    /// memory (Linux `__psp_pa`); it is not part of the address.
    pub fn spa(&self, raw: u64) -> Spa {
        Spa(raw & !1u64.checked_shl(self.c_bit).unwrap_or(0))
    }

    fn read_through(&self, spa: Spa, asid: u32, buf: &mut [u8]) -> Result {
        self.host
            .mem_read(spa.0, asid, buf)
            .map_err(|_| Status::INVALID_ADDRESS)
    }

    fn write_through(&self, spa: Spa, asid: u32, data: &[u8]) -> Result {
        self.host
            .mem_write(spa.0, asid, data)
            .map_err(|_| Status::INVALID_ADDRESS)
    }

    /// Reads bytes as the bus sees them.
    pub fn read_bytes(&self, spa: Spa, buf: &mut [u8]) -> Result {
        self.read_through(spa, 0, buf)
    }

    /// Writes bytes as the bus sees them.
    pub fn write_bytes(&self, spa: Spa, data: &[u8]) -> Result {
        self.check_writable(spa, data.len())?;
        self.write_through(spa, 0, data)
    }

    /// Writes bytes through the key of `asid`, or as the bus sees them, to a page whose state the
    /// caller has checked.
    pub fn write_owned(&self, spa: Spa, asid: Option<Asid>, data: &[u8]) -> Result {
        self.write_through(spa, asid.map_or(0, Asid::get), data)
    }

    /// Reads guest memory through the key of `asid`.
    pub fn read_guest(&self, spa: Spa, asid: Asid, buf: &mut [u8]) -> Result {
        self.read_through(spa, asid.get(), buf)
    }

    /// Writes guest memory through the key of `asid`.
    pub fn write_guest(&self, spa: Spa, asid: Asid, data: &[u8]) -> Result {
        self.check_writable(spa, data.len())?;
        self.write_through(spa, asid.get(), data)
    }

    /// Makes a page of guest memory a VMSA.
    pub fn seal_vmsa(&self, spa: Spa, asid: Asid) -> Result {
        self.host
            .vmsa_seal(spa.0, asid.get())
            .map_err(|_| Status::INVALID_ADDRESS)
    }

    /// Reads a plain-data structure.
    pub fn read<T: FromBytes + FromZeros + IntoBytes>(&self, spa: Spa) -> Result<T> {
        let mut value = T::new_zeroed();
        self.read_bytes(spa, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes a plain-data structure.
    pub fn write<T: IntoBytes + Immutable>(&self, spa: Spa, value: &T) -> Result {
        self.write_bytes(spa, value.as_bytes())
    }

    /// Writes a length back into the field at `offset` of a command buffer.
    pub fn write_len(&self, buffer: Spa, offset: usize, len: usize) -> Result {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.write_bytes(buffer.offset(offset as u64)?, &len.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_region_page_by_page() {
        let pieces = |start, len| -> Vec<_> {
            pages(Spa(start), len)
                .map(|(spa, size)| (spa.get(), size))
                .collect()
        };
        assert_eq!(pieces(0x1000, 0), []);
        assert_eq!(pieces(0x1000, 4096), [(0x1000, 4096)]);
        assert_eq!(pieces(0x1ff0, 16), [(0x1ff0, 16)]);
        assert_eq!(pieces(0x1ff0, 17), [(0x1ff0, 16), (0x2000, 1)]);
        assert_eq!(
            pieces(0x1ff0, 0x2020),
            [(0x1ff0, 16), (0x2000, 4096), (0x3000, 4096), (0x4000, 16)]
        );
    }
}
