// SPDX-License-Identifier: GPL-2.0
//! Leasing ASIDs to encryption contexts, charged to the misc cgroup.
//!
//! Locks: `flush` → `pool`, `lost`, and `flush` → [`FlushExclusive`] → the PSP driver's mutex. Neither
//! WBINVD nor DF_FLUSH runs with `pool` held, so giving an ASID back never waits for a flush.

use kernel::prelude::*;
use kernel::sync::atomic::{ordering::Relaxed, Atomic};
use kernel::sync::{new_mutex, Arc, Mutex};

use super::pool::{Exhausted, Flushed, Pool, Slot, Usage};
use crate::hw::asid::{Asid, Range, Split};
use crate::hw::cache::wbinvd_on_all_cpus;
use crate::hw::kind::Kind;
use crate::kvm::cgroup::{Charge, Resource};
use crate::kvm::lock::FlushExclusive;
use crate::psp::{Channel, DfFlush, FwStatus, SnpDfFlush};
use crate::rejection::{Because, Outcome, Reason, Rejection};
use crate::trace;

/// Which command ends a flush; the SNP firmware wants its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FlushWith {
    DfFlush,
    SnpDfFlush,
}

/// All ASIDs of the machine.
#[pin_data]
pub(crate) struct Asids {
    split: Split,
    flush_with: FlushWith,
    #[pin]
    pool: Mutex<Pool<KVec<Slot>>>,
    /// The charges of leaked ASIDs, by ASID. Nobody else can have these before the platform was
    /// shut down, so the charges last until then.
    #[pin]
    lost: Mutex<KVec<Option<Charge>>>,
    /// Held by the one task that flushes.
    #[pin]
    flush: Mutex<()>,
}

impl Asids {
    /// All ASIDs of `split` are free and clean, as after a reset. ENOMEM.
    pub(crate) fn new(split: Split, flush_with: FlushWith) -> Result<Arc<Self>> {
        // One entry more, for the host.
        let entries = split.max.index().wrapping_add(1);
        let slots = KVec::from_elem(Slot::Free, entries, GFP_KERNEL)?;
        let mut lost = KVec::with_capacity(entries, GFP_KERNEL)?;
        while lost.push_within_capacity(None).is_ok() {}

        Arc::pin_init(
            pin_init!(Self {
                split,
                flush_with,
                lost <- new_mutex!(lost, "kvm_sev_asid_lost"),
                pool <- new_mutex!(Pool::new(slots), "kvm_sev_asid_pool"),
                flush <- new_mutex!((), "kvm_sev_asid_flush"),
            }),
            GFP_KERNEL,
        )
    }

    pub(crate) fn split(&self) -> Split {
        self.split
    }

    /// Leases an ASID for a guest of this kind, charged to the current task's cgroup. May sleep
    /// long.
    ///
    /// Errors: ENOTTY if the machine has none for such guests; EBUSY if all are in use or the
    /// cgroup is over its limit; ENOMEM.
    pub(crate) fn lease(self: &Arc<Self>, kind: Kind) -> Outcome<Arc<Lease>> {
        let range = self
            .split
            .range(kind)
            .ok_or(ENOTTY.because(Reason::NotAvailable))?;
        let charge = Charge::current(Resource::from(kind))
            .map_err(|error| error.because(Reason::CgroupLimit))?;
        let taken = Taken {
            asid: self.take(range)?,
            asids: self.clone(),
            leaked: Atomic::new(false),
        };
        trace::asid(taken.asid.get(), "leased");

        Arc::pin_init(
            pin_init!(Lease {
                taken,
                charge <- new_mutex!(Some(charge), "kvm_sev_asid_charge"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
        .map_err(Rejection::from)
    }

    fn take(&self, range: Range) -> Outcome<Asid> {
        loop {
            // In a statement of its own, lest the guard live as long as the match.
            let leased = self.pool.lock().lease(range);

            match leased {
                Ok(asid) => return Ok(asid),
                Err(Exhausted::InUse) => return Err(EBUSY.because(Reason::NoAsid)),
                // Each round ends with more ASIDs free or with an error.
                Err(Exhausted::Recyclable) => {
                    self.recycle().map_err(|_| EBUSY.because(Reason::NoAsid))?;
                }
            }
        }
    }

    /// Cleans all ASIDs that were given back. EIO and others: the firmware refused.
    pub(crate) fn recycle(&self) -> Result {
        let _one_at_a_time = self.flush.lock();

        let dirty = self.pool.lock().begin_flush();
        if dirty == 0 {
            // Another task flushed while this one waited.
            return Ok(());
        }
        let result = self.flush_caches();
        let flushed = Flushed::by_firmware(result.is_ok());
        self.pool.lock().end_flush(flushed);
        trace::recycled(dirty, result);
        result
    }

    fn flush_caches(&self) -> Result {
        let _no_deactivation = FlushExclusive::enter();
        let mut status = FwStatus::success();

        wbinvd_on_all_cpus();
        match self.flush_with {
            FlushWith::DfFlush => Channel::Kernel.issue(&mut DfFlush, &mut status),
            FlushWith::SnpDfFlush => Channel::Kernel.issue(&mut SnpDfFlush, &mut status),
        }
    }

    /// The state of the ASIDs in `range`.
    pub(crate) fn usage(&self, range: Range) -> Usage {
        self.pool.lock().usage(range)
    }

    /// Number of successful flushes so far.
    pub(crate) fn flushes(&self) -> u64 {
        self.pool.lock().flushes()
    }
}

/// An ASID that was taken out of the pool; it returns there when dropped.
struct Taken {
    asid: Asid,
    asids: Arc<Asids>,
    leaked: Atomic<bool>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.leaked.load(Relaxed) {
            self.asids.pool.lock().retire(self.asid);
            trace::asid(self.asid.get(), "retired");
        }
    }
}

/// An ASID that belongs to one encryption context, and the charge for it.
#[pin_data]
pub(crate) struct Lease {
    taken: Taken,
    /// `None` once it was moved to the charges of leaked ASIDs.
    #[pin]
    charge: Mutex<Option<Charge>>,
}

impl Lease {
    pub(crate) fn asid(&self) -> Asid {
        self.taken.asid
    }

    /// The firmware did not release the ASID: neither it nor its charge returns before the platform
    /// is shut down.
    pub(crate) fn leak(&self) {
        let asids = &self.taken.asids;

        if self.taken.leaked.xchg(true, Relaxed) {
            return;
        }
        asids.pool.lock().leak(self.asid());
        trace::asid(self.asid().get(), "leaked");
        let charge = self.charge.lock().take();
        if let Some(entry) = asids.lost.lock().get_mut(self.asid().index()) {
            *entry = charge;
        }
    }

    /// What the current task's cgroup has to pay to take the lease over; `None` if it pays already.
    /// Errors as [`Charge::current`].
    pub(crate) fn charge_current(&self) -> Result<Option<Charge>> {
        match &*self.charge.lock() {
            Some(charge) => charge.for_current(),
            None => Ok(None),
        }
    }

    /// Whoever paid so far does so no longer.
    pub(crate) fn set_charge(&self, charge: Charge) {
        let before = self.charge.lock().replace(charge);
        drop(before);
    }
}
