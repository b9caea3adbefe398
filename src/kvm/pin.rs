// SPDX-License-Identifier: GPL-2.0
//! User memory that must not move, because the firmware addresses it physically or because it holds
//! ciphertext, which depends on its address.

#![allow(unsafe_code)]

use kernel::alloc::flags::{GFP_KERNEL_ACCOUNT, __GFP_NOWARN};
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::Relaxed, Atomic};
use kernel::sync::Arc;

use super::log;
use crate::ffi::bindings;
use crate::hw::addr::{PspAddr, UserRange, PAGE_SIZE};
use crate::hw::runs::{Run, Runs};
use crate::rejection::{Because, Outcome, Reason};

/// Pages unpinned between two chances for other tasks to run.
const UNPIN_BATCH: usize = 512;

/// What is done with the pages while they are pinned; decides how they are pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PinFor {
    /// The firmware reads them.
    Read,
    /// The firmware writes them, so they must be writable and are dirty afterwards.
    Write,
    /// They stay where they are for as long as the guest uses them.
    Residence,
}

impl PinFor {
    fn gup_flags(self) -> u32 {
        match self {
            PinFor::Read => 0,
            PinFor::Write => bindings::FOLL_WRITE,
            // Not FOLL_WRITE: the host does not write them, and this flag breaks copy-on-write.
            PinFor::Residence => bindings::FOLL_LONGTERM,
        }
    }
}

/// How many pages are pinned on behalf of a guest, against RLIMIT_MEMLOCK.
pub(crate) struct PinAccount(Atomic<usize>);

impl PinAccount {
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Pages pinned now.
    pub(crate) fn pages(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// EINVAL: more than the machine has. ENOMEM: over RLIMIT_MEMLOCK without CAP_IPC_LOCK.
    fn check(&self, pages: usize) -> Outcome {
        let total = self
            .pages()
            .checked_add(pages)
            .ok_or(EINVAL.because(Reason::TooMuch))?;
        // SAFETY: No requirements.
        let (ram, limit) = unsafe {
            (
                bindings::totalram_pages(),
                bindings::rlimit(bindings::RLIMIT_MEMLOCK) as usize / PAGE_SIZE,
            )
        };

        if total > ram {
            return Err(EINVAL.because(Reason::TooMuch));
        }
        // SAFETY: No requirements.
        if total > limit && !unsafe { bindings::capable(bindings::CAP_IPC_LOCK as i32) } {
            if log::allowed() {
                pr_err!("SEV: {total} pinned pages would exceed the lock limit of {limit}\n");
            }
            return Err(ENOMEM.because(Reason::LockLimit));
        }
        Ok(())
    }
}

/// The pinned pages of a range of user memory, in order.
///
/// # Invariants
///
/// Every element of `pages` is a page that `pin_user_pages_fast` pinned, and is counted in
/// `account`.
pub(crate) struct Pinned {
    pages: KVVec<*mut bindings::page>,
    account: Arc<PinAccount>,
    range: UserRange,
    purpose: PinFor,
}

// SAFETY: Pages are not tied to a task.
unsafe impl Send for Pinned {}
// SAFETY: A shared reference only allows to look at addresses and to flush caches.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// Pins the pages of `range` in the current process. May sleep.
    ///
    /// Errors: see [`PinAccount`]; EINVAL if there are too many pages, ENOMEM if not all of them
    /// could be pinned, for whatever reason.
    pub(crate) fn new(
        range: UserRange,
        purpose: PinFor,
        account: &Arc<PinAccount>,
    ) -> Outcome<Self> {
        let count = range.pages();
        let request = i32::try_from(count).map_err(|_| EINVAL.because(Reason::TooMuch))?;

        account.check(count)?;
        // An absurd size must fail, but not with a warning in the kernel log.
        let mut pages = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT | __GFP_NOWARN)?;

        // SAFETY: The vector has room for `count` pointers. The address is user memory or makes
        // the call fail.
        let pinned = unsafe {
            bindings::pin_user_pages_fast(
                range.first_page() as usize,
                request,
                purpose.gup_flags(),
                pages.spare_capacity_mut().as_mut_ptr().cast(),
            )
        };
        let got = usize::try_from(pinned).unwrap_or(0).min(count);
        // SAFETY: The call initialised as many elements as it returned.
        unsafe { pages.inc_len(got) };
        account.0.fetch_add(got, Relaxed);

        // INVARIANT: All elements were pinned, and counted just above.
        let this = Self {
            pages,
            account: account.clone(),
            range,
            purpose,
        };
        if got < count {
            if log::allowed() {
                pr_err!("SEV: could not pin {count} pages of user memory\n");
            }
            // Dropping it unpins the part that was pinned.
            return Err(ENOMEM.because(Reason::NotPinned));
        }
        Ok(this)
    }

    pub(crate) fn range(&self) -> UserRange {
        self.range
    }

    /// Writes back and drops what CPU caches hold of the pages, unless caches are coherent across
    /// encryption keys. May sleep.
    pub(crate) fn flush_caches(&self) {
        // SAFETY: The pages are pinned and thus alive.
        unsafe { bindings::kvm_sev_clflush_pages(self.pages.as_ptr(), self.pages.len()) }
    }

    fn page_address(&self, index: usize) -> Option<PspAddr> {
        let page = *self.pages.get(index)?;
        // SAFETY: The page is pinned and thus alive.
        Some(PspAddr::new(unsafe { bindings::kvm_sev_page_psp_pa(page) }))
    }

    /// The range as physically contiguous runs, in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        Runs::new(self.range, |index| self.page_address(index))
    }

    /// Physical address of the whole range; `None` if it is not contiguous.
    pub(crate) fn contiguous(&self) -> Option<PspAddr> {
        let first = self.runs().next()?;
        (first.len as usize == self.range.len()).then_some(first.address)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let dirty = self.purpose == PinFor::Write;
        let count = self.pages.len();

        for batch in self.pages.chunks_mut(UNPIN_BATCH) {
            // SAFETY: By the type invariant the pages were pinned, and they are not used after.
            // Everybody who drops a `Pinned` may sleep.
            unsafe {
                bindings::unpin_user_pages_dirty_lock(batch.as_mut_ptr(), batch.len(), dirty);
                bindings::kvm_sev_cond_resched();
            }
        }
        self.account.0.fetch_sub(count, Relaxed);
    }
}
