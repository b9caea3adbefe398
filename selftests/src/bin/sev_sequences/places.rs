// SPDX-License-Identifier: GPL-2.0-or-later
//! Memory that operations name: every place is at the same virtual address, and has the same
//! physical layout, in each run on the same machine.
//!
//! | name | what it is |
//! |---|---|
//! | `a` to `f` | a VM's memory each, one physically contiguous 2 MiB page |
//! | `patch` | 16 pages in an order in which only some are physically contiguous |
//! | `out`, `hdr`, `trans`, `sess`, `cert` | buffers, each at the end of such a page |
//! | `arg` | where the arguments of commands are, likewise |
//! | `ro` | a page that cannot be written |
//! | `hole` | a page that is not mapped, after one that is |
//! | `null`, `kernel`, `noncanon`, `top` | 0, the kernel's, not canonical, the last page |

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use anyhow::{Context, Result, bail, ensure};
use nix::libc;
use nix::sys::mman::{self, MRemapFlags, MapFlags, MmapAdvise, ProtFlags};
use sev_vm::bad::{KERNEL, NON_CANONICAL};
use sev_vm::mem::PAGE;

/// VMs have the names `a` to `f`.
pub const VMS: usize = 6;
/// Bytes of a VM's memory: one huge page.
pub const GUEST: usize = 2 << 20;
/// Bytes of it that sequences use.
pub const USED: usize = 0x6_0000;
/// Order of the pages of `patch` in the huge page that they come from.
pub const PATCHWORK: [usize; 16] = [0, 1, 2, 5, 4, 3, 8, 9, 12, 14, 15, 16, 17, 18, 30, 31];

/// Huge pages to choose from: the kernel has to be booted with so many.
const POOL: usize = 192;
/// Page frames of the VMs' memory, this and every `SPACING`-th: those that the kernel takes for
/// huge pages first when it boots.
const FIRST_FRAME: u64 = 0x6000;
const SPACING: u64 = 0x400;

const BASE: usize = 0x1000_0000_0000;
const STRIDE: usize = 2 * GUEST;
const BUFFERS: [(&str, usize); 6] = [
    ("out", 4 * PAGE),
    ("hdr", PAGE),
    ("trans", 4 * PAGE),
    ("sess", PAGE),
    ("cert", 4 * PAGE),
    ("arg", PAGE),
];
/// Splits transparent huge pages; the pages stay where they are.
const SPLIT: &str = "/sys/kernel/debug/split_huge_pages";
const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

struct Place {
    name: String,
    addr: u64,
    /// Bytes that may be read and written by this program; 0 for addresses that are bad.
    len: usize,
}

/// All places, mapped for the life of the process.
pub struct Places {
    places: Vec<Place>,
}

impl Places {
    /// Maps everything.
    pub fn new() -> Result<Self> {
        let mut places = Vec::new();
        let mut add = |name: &str, addr: u64, len| {
            places.push(Place { name: name.into(), addr, len });
        };
        let mut at = BASE;
        let mut next = || {
            at += STRIDE;
            at
        };
        let pages: [usize; VMS + BUFFERS.len()] = std::array::from_fn(|_| next());
        huge_pages(next() + GUEST * POOL, &pages)?;
        let (guests, buffers) = pages.split_at(VMS);
        for (name, at) in ["a", "b", "c", "d", "e", "f"].into_iter().zip(guests) {
            add(name, *at as u64, GUEST);
        }
        for ((name, len), at) in BUFFERS.into_iter().zip(buffers) {
            add(name, (at + GUEST - len) as u64, len);
        }
        at += 2 * GUEST * POOL;
        let mut next = || {
            at += STRIDE;
            at
        };
        add("patch", patchwork(next(), next())?, PATCHWORK.len() * PAGE);
        add("ro", map(next(), PAGE, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE)?, 0);
        let before = map(next(), PAGE, READ_WRITE, MapFlags::MAP_PRIVATE)?;
        add("hole", before + PAGE as u64, 0);
        add("null", 0, 0);
        add("kernel", KERNEL, 0);
        add("noncanon", NON_CANONICAL, 0);
        add("top", u64::MAX - (PAGE as u64 - 1), 0);
        let places = Self { places };
        for place in &places.places {
            // Present from now on.
            places.write(place.addr, &vec![0; place.len]);
        }
        Ok(places)
    }

    /// Zeroes the buffers.
    pub fn clear(&self) {
        for place in &self.places[VMS..] {
            self.write(place.addr, &vec![0; place.len]);
        }
    }

    /// Zeroes as much of a VM's memory as sequences use.
    pub fn clear_guest(&self, addr: u64) {
        self.write(addr, &[0; USED]);
    }

    fn find(&self, name: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.name == name)
    }

    /// The address of `NAME` or `NAME+OFFSET`.
    pub fn address(&self, text: &str) -> Option<u64> {
        let (name, offset) = text.split_once('+').unwrap_or((text, "0"));
        Some(self.find(name)?.addr.wrapping_add(number(offset)?))
    }

    /// The bytes from `addr` to the end of its place; 0 if it is in none that may be accessed.
    pub fn room(&self, addr: u64) -> usize {
        let room = |place: &Place| {
            let offset = addr.checked_sub(place.addr)?;
            (place.len as u64).checked_sub(offset)
        };
        self.places.iter().find_map(room).unwrap_or(0) as usize
    }

    /// Whether an address is in a VM's memory.
    pub fn is_guest(&self, addr: u64) -> bool {
        self.places[..=VMS].iter().any(|p| (p.addr..p.addr + p.len as u64).contains(&addr))
    }

    /// Start and length of the place that holds an address.
    pub fn whole(&self, addr: u64) -> Option<(u64, usize)> {
        let place = self.places.iter().find(|p| (p.addr..p.addr + p.len as u64).contains(&addr))?;
        Some((place.addr, place.len))
    }

    /// Copies `bytes` to `addr`, cut off at the end of the place.
    pub fn write(&self, addr: u64, bytes: &[u8]) {
        let len = bytes.len().min(self.room(addr));
        // SAFETY: `addr..addr + len` is mapped for good and writable (`room`), and never
        // borrowed: it is only accessed here and in `read`, by copying.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), addr as *mut u8, len) };
    }

    /// Copies `len` bytes from `addr`, cut off at the end of the place.
    pub fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len.min(self.room(addr))];
        // SAFETY: as in `write`; the vector is another object.
        unsafe {
            std::ptr::copy_nonoverlapping(addr as *const u8, bytes.as_mut_ptr(), bytes.len());
        }
        bytes
    }

    /// Page frames of the VMs' memory, which ciphertext depends on.
    pub fn physical(&self) -> Result<String> {
        let frames: Result<Vec<_>> = self.places[..VMS].iter().map(|p| frame(p.addr)).collect();
        Ok(frames?.iter().map(|frame| format!("{frame:#x}")).collect::<Vec<_>>().join(" "))
    }
}

/// A number, decimal or with 0x.
pub fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn map(at: usize, len: usize, prot: ProtFlags, flags: MapFlags) -> Result<u64> {
    let (place, length) = (NonZeroUsize::new(at), NonZeroUsize::new(len).context("nothing")?);
    // SAFETY: MAP_FIXED_NOREPLACE replaces nothing that is mapped.
    let got =
        unsafe { mman::mmap_anonymous(place, length, prot, flags | MapFlags::MAP_FIXED_NOREPLACE) };
    let got = got.with_context(|| format!("mmap {len:#x} bytes ({flags:?}; hugepages=?)"))?;
    Ok(got.as_ptr() as u64)
}

/// Page frame number.
fn frame(addr: u64) -> Result<u64> {
    let mut entry = [0; 8];
    File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, addr / PAGE as u64 * 8)?;
    let entry = u64::from_le_bytes(entry);
    ensure!(entry >> 63 == 1, "the page at {addr:#x} is not present");
    Ok(entry & ((1 << 55) - 1))
}

/// Puts one huge page to each of `places`: to the VMs', those at certain physical addresses out of
/// many, and any to the rest.
fn huge_pages(pool: usize, places: &[usize]) -> Result<()> {
    let huge = MapFlags::MAP_HUGETLB | MapFlags::MAP_PRIVATE;
    map(pool, POOL * GUEST, READ_WRITE, huge).context("boot with hugepages=192")?;
    let page = |i| pool + i * GUEST;
    for i in 0..POOL {
        // SAFETY: within the mapping just made, which nobody uses yet.
        unsafe { (page(i) as *mut u8).write_volatile(0) };
    }
    let frames: Vec<u64> = (0..POOL).map(|i| frame(page(i) as u64)).collect::<Result<_>>()?;
    let of_vm = |n| FIRST_FRAME + n as u64 * SPACING;
    let mut order: Vec<usize> = (0..VMS)
        .map(|n| {
            let found = frames.iter().position(|frame| *frame == of_vm(n));
            found.with_context(|| format!("no huge page at frame {:#x}", of_vm(n)))
        })
        .collect::<Result<_>>()?;
    let others: Vec<usize> = (0..POOL).filter(|i| !order.contains(i)).collect();
    order.extend(others);
    let (chosen, rest) = order.split_at(places.len());
    for (i, place) in chosen.iter().zip(places) {
        let flags = MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED;
        let (old, new) = (pointer(page(*i))?, pointer(*place)?);
        // SAFETY: a page of the mapping moves to a place where nothing is mapped.
        unsafe { mman::mremap(old, GUEST, GUEST, flags, Some(new))? };
    }
    for i in rest {
        // SAFETY: as above; nobody uses the rest.
        unsafe { mman::munmap(pointer(page(*i))?, GUEST)? };
    }
    Ok(())
}

fn pointer(addr: usize) -> Result<NonNull<libc::c_void>> {
    NonNull::new(addr as *mut libc::c_void).context("null")
}

/// Moves pages of the transparent huge page at `from` to `to`, in the order of [`PATCHWORK`].
fn patchwork(from: usize, to: usize) -> Result<u64> {
    map(from, GUEST, READ_WRITE, MapFlags::MAP_PRIVATE)?;
    // SAFETY: the range is the mapping just made, which nobody uses yet.
    unsafe { mman::madvise(pointer(from)?, GUEST, MmapAdvise::MADV_HUGEPAGE)? };
    for i in 0..GUEST / PAGE {
        // SAFETY: within that mapping.
        unsafe { ((from + i * PAGE) as *mut u8).write_volatile(1) };
    }
    let first = frame(from as u64)?;
    // As long as it is one folio, every page is copied when it is written after a fork.
    let range = format!("{},{from:#x},{:#x}", std::process::id(), from + GUEST);
    std::fs::write(SPLIT, range).context(SPLIT)?;
    for (i, page) in PATCHWORK.iter().enumerate() {
        if frame((from + page * PAGE) as u64)? != first + *page as u64 {
            bail!("no transparent huge page for the patchwork");
        }
        let flags = MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED;
        let (old, new) = (pointer(from + page * PAGE)?, pointer(to + i * PAGE)?);
        // SAFETY: a page of the mapping moves to a place where nothing is mapped.
        unsafe { mman::mremap(old, PAGE, PAGE, flags, Some(new))? };
    }
    Ok(to as u64)
}
