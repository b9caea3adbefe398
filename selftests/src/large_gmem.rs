// SPDX-License-Identifier: GPL-2.0-or-later
//! Large pages in a guest_memfd: what the test module of that name does for this process.
//!
//! The kernel's guest_memfd has pages of 4 KiB only. `large_gmem.c` says how this is different
//! while the module is loaded.

use std::fs;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kvm_ioctls::VmFd;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::mem::{LARGE, PAGE};

const MODULE: &str = "/large_gmem.ko";
const BLOCKS: &str = "/sys/module/large_gmem/parameters/blocks";
const WHOLE: &str = "/sys/module/large_gmem/parameters/whole";

/// Loads the module, which stays.
pub fn load_module() -> Result<()> {
    if Path::new(BLOCKS).exists() {
        return Ok(());
    }
    let loaded = Command::new("insmod").arg(MODULE).status().context("insmod")?;
    ensure!(loaded.success(), "insmod {MODULE}: {loaded}");
    Ok(())
}

/// Blocks of 2 MiB for the next files of this process. To be dropped when the files are closed.
pub struct Blocks(());

impl Blocks {
    /// Gets `number` blocks.
    pub fn get(number: usize) -> Result<Self> {
        fs::write(BLOCKS, number.to_string()).with_context(|| format!("{number} to {BLOCKS}"))?;
        Ok(Self(()))
    }

    /// Gets the blocks that `range` of a guest_memfd needs, and allocates it from them.
    pub fn fill(file: &OwnedFd, range: Range<u64>) -> Result<Self> {
        let len = (range.end - range.start) as usize;
        let blocks = Self::get(len / LARGE)?;
        fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, range.start as i64, len as i64)
            .context("allocating of the guest_memfd")?;
        let given: usize = fs::read_to_string(BLOCKS)?.trim().parse()?;
        ensure!(given == len / PAGE, "{given} pages of {len:#x} bytes are of large ones");
        Ok(blocks)
    }

    /// Until they are given back, each is freed by the file as a whole, with its first page; without
    /// this, page by page.
    pub fn free_whole(&self) -> Result<()> {
        fs::write(WHOLE, "Y").with_context(|| format!("Y to {WHOLE}"))
    }

    /// Gives them back: an error if anybody has a page of theirs still.
    pub fn give_back(self) -> Result<()> {
        std::mem::forget(self);
        // A page on its way to the lists of the page cache is referenced for that: let it arrive.
        fs::write("/proc/sys/vm/drop_caches", "1")?;
        fs::write(BLOCKS, "0").with_context(|| format!("0 to {BLOCKS}"))
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        // The test has failed already.
        let _ = fs::write(BLOCKS, "0");
    }
}

/// A number of KVM's about a VM that this thread has created, such as `pages_2m`.
pub fn statistic(vm: &VmFd, name: &str) -> Result<u64> {
    // SAFETY: gettid has no requirements.
    let thread = unsafe { nix::libc::gettid() };
    let path = format!("/sys/kernel/debug/kvm/{thread}-{}/{name}", vm.as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| path)?;
    Ok(text.trim().parse()?)
}
