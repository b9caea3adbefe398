// SPDX-License-Identifier: GPL-2.0-or-later
//! The reverse map table as a whole, read from memory.
//!
//! The table is where its MSRs say, in memory that the BIOS reserves; anybody may read it. Entries
//! have the format of family 19h models 00h to 0Fh, as in the kernel's arch/x86/virt/svm/sev.c.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::guest;
use crate::host::Host;
use crate::ktap::Test;
use crate::mem::{LARGE, Mapping, PAGE};
use crate::snp_guest::Setup;

const RMP_BASE: u64 = 0xc001_0132;
const RMP_END: u64 = 0xc001_0133;
const RMP_CFG: u64 = 0xc001_0136;
/// RMP_CFG: the table is in segments. Bits 13:8 are log2 of the bytes that one covers.
const SEGMENTED: u64 = 1;
/// The processor's own part, before the entries, or before the table of segments.
const BOOKKEEPING: u64 = 16 << 10;
const ENTRY: u64 = 16;
const ASSIGNED: u64 = 1;
/// The entry is about 2 MiB, and the others there are of no account.
const IS_LARGE: u64 = 2;
const ASID_SHIFT: u32 = 51;
const ASID_MASK: u64 = 0x3ff;

/// Address and length of the parts of the table. A segment's entry has its address, and in the low
/// 20 bits how many GiB it covers.
fn parts(memory: &File, msr: impl Fn(u64) -> Result<u64>) -> Result<Vec<(u64, u64)>> {
    let start = msr(RMP_BASE)? + BOOKKEEPING;
    // Not every processor has this register.
    let cfg = msr(RMP_CFG).unwrap_or(0);
    if cfg & SEGMENTED == 0 {
        let end = msr(RMP_END)? + 1;
        ensure!(end > start, "no reverse map table at {start:#x} to {end:#x}");
        return Ok(vec![(start, end - start)]);
    }
    let segments = Mapping::shared(memory.as_fd(), PAGE, start as i64).context("mmap /dev/mem")?;
    let full = (1u64 << ((cfg >> 8) & 0x3f)) / PAGE as u64 * ENTRY;
    let of = |entry: u64| {
        let covered = (entry & 0xf_ffff) << 30;
        (entry & !0xf_ffff, (covered / PAGE as u64 * ENTRY).min(full))
    };
    let parts = (0..PAGE).step_by(8).map(|offset| of(segments.read_u64(offset)));
    let parts: Vec<_> = parts.filter(|(_, len)| *len > 0).collect();
    ensure!(!parts.is_empty(), "no segment in the table of segments at {start:#x}");
    Ok(parts)
}

/// How many pages, of 4 KiB or 2 MiB, the table has in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rmp {
    /// Assigned to guests.
    pub guests: u64,
    /// Assigned to firmware.
    pub firmware: u64,
}

impl Rmp {
    /// Walks the table.
    pub fn walk() -> Result<Self> {
        let loaded = Command::new("modprobe").arg("msr").status().context("modprobe")?;
        ensure!(loaded.success(), "modprobe msr: {loaded}");
        let msrs = File::open("/dev/cpu/0/msr").context("/dev/cpu/0/msr")?;
        let read = |msr| -> Result<u64> {
            let mut value = [0; 8];
            msrs.read_exact_at(&mut value, msr)?;
            Ok(u64::from_le_bytes(value))
        };
        let memory = File::options().read(true).write(true).open("/dev/mem").context("/dev/mem")?;
        let mut found = Self::default();
        for (start, len) in parts(&memory, read)? {
            let len = len as usize / PAGE * PAGE;
            let part = Mapping::shared(memory.as_fd(), len, start as i64);
            found.count(&part.context("mmap /dev/mem")?, len);
        }
        Ok(found)
    }

    fn count(&mut self, part: &Mapping, len: usize) {
        let mut offset = 0;
        while offset < len {
            let entry = part.read_u64(offset);
            let is_large = entry & (ASSIGNED | IS_LARGE) == ASSIGNED | IS_LARGE;
            offset += ENTRY as usize * if is_large { LARGE / PAGE } else { 1 };
            if entry & ASSIGNED != 0 {
                match (entry >> ASID_SHIFT) & ASID_MASK {
                    0 => self.firmware += 1,
                    _ => self.guests += 1,
                }
            }
        }
    }
}

/// A test for the end of a suite: a guest's pages are in the table as long as it lives, and with
/// every VM gone no page is a guest's.
pub fn no_page_of_guests(t: &mut Test) -> Result<()> {
    let launched = Setup::default().launch(&Host::open()?)?;
    let rmp = Rmp::walk()?;
    // And the save area of its vCPU.
    t.value("one_guest", rmp.guests, (guest::LAUNCHED.len() / PAGE + 1) as u64);
    drop(launched);
    let rmp = Rmp::walk()?;
    t.value("no_guest", rmp.guests, 0);
    t.note(format!("{} entries of firmware", rmp.firmware));
    Ok(())
}
