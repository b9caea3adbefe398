// SPDX-License-Identifier: GPL-2.0-or-later
//! Mappings of memory that somebody else writes too: a guest, the PSP, the kernel.
//!
//! Such memory is never borrowed as a slice; it is copied in and out byte by byte with
//! volatile accesses, so that a concurrent writer is a stale value and never undefined.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use anyhow::{Result, ensure};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{self, MapFlags, MmapAdvise, ProtFlags};
use nix::unistd::ftruncate;

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Bytes of a large page.
pub const LARGE: usize = 2 << 20;

const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// One `mmap()`ed range, unmapped when dropped.
///
/// # Invariants
///
/// `base..base + len` is mapped by this object alone and stays mapped as long as it lives.
pub struct Mapping {
    base: NonNull<libc::c_void>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and is only reached through
// volatile accesses of single bytes or aligned words, which threads may race on.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of private anonymous memory.
    pub fn anonymous(len: usize) -> Result<Self> {
        let length = NonZeroUsize::new(len).ok_or(nix::Error::EINVAL)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base =
            unsafe { mman::mmap_anonymous(None, length, READ_WRITE, MapFlags::MAP_PRIVATE)? };
        Ok(Self { base, len })
    }

    /// Maps `len` bytes of `fd` from `offset`, shared with every other mapping of it.
    pub fn shared(fd: BorrowedFd<'_>, len: usize, offset: i64) -> Result<Self> {
        let length = NonZeroUsize::new(len).ok_or(nix::Error::EINVAL)?;
        // SAFETY: as in `anonymous`.
        let base =
            unsafe { mman::mmap(None, length, READ_WRITE, MapFlags::MAP_SHARED, fd, offset)? };
        Ok(Self { base, len })
    }

    /// As [`Mapping::shared`] from the beginning of `fd`, at an address that a large page can have.
    pub fn shared_aligned(fd: BorrowedFd<'_>, len: usize) -> Result<Self> {
        let length = NonZeroUsize::new(len).ok_or(nix::Error::EINVAL)?;
        let room = Self::anonymous(len + LARGE)?;
        let start = room.addr() as usize;
        let address = start.next_multiple_of(LARGE);
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        // SAFETY: the range is within `room`, which nobody has accessed yet.
        let base =
            unsafe { mman::mmap(NonZeroUsize::new(address), length, READ_WRITE, flags, fd, 0)? };
        let (before, after) = (start..address, address + len..start + room.len());
        std::mem::forget(room);
        for rest in [before, after] {
            if let Some(start) = NonNull::new(rest.start as *mut libc::c_void) {
                // SAFETY: of `room`, which is gone, it is what the new mapping does not cover.
                let _ = unsafe { mman::munmap(start, rest.len()) };
            }
        }
        Ok(Self { base, len })
    }

    /// Address for the kernel: of the first byte.
    pub fn addr(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped, which no constructor allows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "outside the mapping");
        // SAFETY: `offset` is within the mapping (checked above).
        unsafe { self.base.as_ptr().cast::<u8>().add(offset) }
    }

    /// Copies `bytes` to `offset`.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: `to..to + bytes.len()` is mapped (`at` checked it).
            unsafe { to.add(i).write_volatile(*byte) };
        }
    }

    /// Copies `len` bytes from `offset`.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let from = self.at(offset, len);
        let byte = |i| {
            // SAFETY: `from..from + len` is mapped (`at` checked it).
            unsafe { from.add(i).read_volatile() }
        };
        (0..len).map(byte).collect()
    }

    /// Writes the aligned word at `offset` in one access.
    pub fn write_u64(&self, offset: usize, value: u64) {
        assert!(offset % 8 == 0, "unaligned word");
        // SAFETY: the word is mapped (`at` checked it) and aligned: the base is a page's.
        unsafe { self.at(offset, 8).cast::<u64>().write_volatile(value) };
    }

    /// Reads the aligned word at `offset` in one access.
    pub fn read_u64(&self, offset: usize) -> u64 {
        assert!(offset % 8 == 0, "unaligned word");
        // SAFETY: as in `write_u64`.
        unsafe { self.at(offset, 8).cast::<u64>().read_volatile() }
    }

    /// Writes `byte` over the whole mapping.
    pub fn fill(&self, byte: u8) {
        self.write(0, &vec![byte; self.len]);
    }

    /// Makes the mapping read-only for the rest of its life (writing it then faults).
    pub fn read_only(self) -> Result<Self> {
        // SAFETY: only this object reaches the range, and through raw pointers.
        unsafe { mman::mprotect(self.base, self.len, ProtFlags::PROT_READ)? };
        Ok(self)
    }

    /// Drops the pages at `offset..offset + len` from this mapping (`MADV_DONTNEED`).
    pub fn forget(&self, offset: usize, len: usize) -> Result<()> {
        self.advise(offset, len, MmapAdvise::MADV_DONTNEED)
    }

    /// Frees the pages at `offset..offset + len` of a shared file (`MADV_REMOVE`).
    pub fn remove(&self, offset: usize, len: usize) -> Result<()> {
        self.advise(offset, len, MmapAdvise::MADV_REMOVE)
    }

    fn advise(&self, offset: usize, len: usize, advice: MmapAdvise) -> Result<()> {
        let start = NonNull::new(self.at(offset, len).cast()).ok_or(nix::Error::EINVAL)?;
        // SAFETY: the range is mapped and never borrowed; its content may change at any time.
        unsafe { mman::madvise(start, len, advice)? };
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this object alone owns the range (invariant).
        let _ = unsafe { mman::munmap(self.base, self.len) };
    }
}

/// A user address of which nothing is mapped: a page that was, and is no more.
///
/// The hole stays reserved between two kept pages, so that no later `mmap()` fills it.
pub struct Hole {
    around: Mapping,
}

impl Hole {
    /// Makes a hole of one page.
    pub fn new() -> Result<Self> {
        let around = Mapping::anonymous(3 * PAGE)?;
        let middle = NonNull::new(around.at(PAGE, PAGE).cast()).ok_or(nix::Error::EINVAL)?;
        // SAFETY: the page belongs to `around` and is never accessed through it.
        unsafe { mman::mprotect(middle, PAGE, ProtFlags::PROT_NONE)? };
        Ok(Self { around })
    }

    /// The page's address.
    pub fn addr(&self) -> u64 {
        self.around.addr() + PAGE as u64
    }

    /// The `len` bytes just before it, which are mapped.
    pub fn read_before(&self, len: usize) -> Vec<u8> {
        self.around.read(PAGE - len, len)
    }
}

/// Guest memory: a memfd, so that it can be mapped a second time.
pub struct GuestMemory {
    fd: OwnedFd,
    map: Mapping,
}

impl GuestMemory {
    /// Creates `len` bytes of zeroed memory, for a slot at a guest physical address that a large
    /// page can have: unless the addresses fit each other, KVM uses small pages.
    pub fn new(len: usize) -> Result<Self> {
        ensure!(len % PAGE == 0, "guest memory of {len} bytes is not whole pages");
        let fd = memfd_create("guest", MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&fd, len as i64)?;
        let map = Mapping::shared_aligned(fd.as_fd(), len)?;
        Ok(Self { fd, map })
    }

    /// A mapping of the first two pages, in file order or `swapped`.
    pub fn two_pages(&self, swapped: bool) -> Result<Mapping> {
        let window = Mapping::shared(self.fd.as_fd(), 2 * PAGE, 0)?;
        let page = NonZeroUsize::new(PAGE).ok_or(nix::Error::EINVAL)?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        for i in [0, 1] {
            let place = NonZeroUsize::new(window.addr() as usize + i * PAGE);
            let offset = if swapped { 1 - i } else { i } * PAGE;
            // SAFETY: the place is a page of `window`, which nobody has accessed yet.
            unsafe { mman::mmap(place, page, READ_WRITE, flags, &self.fd, offset as i64)? };
        }
        Ok(window)
    }

    /// The same memory with a descriptor and a mapping of its own.
    pub fn share(&self) -> Result<Self> {
        Self::from_fd(self.fd.try_clone()?, self.map.len())
    }

    /// The first `len` bytes of memory that somebody else has made.
    pub fn from_fd(fd: OwnedFd, len: usize) -> Result<Self> {
        let map = Mapping::shared(fd.as_fd(), len, 0)?;
        Ok(Self { fd, map })
    }

    /// The number of the memory's descriptor.
    pub fn fd_number(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// A second mapping of the same memory.
    pub fn second_view(&self) -> Result<Mapping> {
        Mapping::shared(self.fd.as_fd(), self.map.len(), 0)
    }
}

impl std::ops::Deref for GuestMemory {
    type Target = Mapping;

    fn deref(&self) -> &Mapping {
        &self.map
    }
}
