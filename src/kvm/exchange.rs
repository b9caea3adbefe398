// SPDX-License-Identifier: GPL-2.0
//! What a vCPU and its guest exchange: the GHCB, and the data of an exit.
//!
//! KVM, and the devices in it, read and write the data wherever and as often as they like, even
//! after a detour through userspace. So they get a copy, made once; and what they wrote is copied
//! to the guest when it runs on. That happens with preemption disabled: by then all pages are
//! mapped, and nothing is allocated or freed but small things.

#![allow(unsafe_code)]

use core::cell::Cell;

use kernel::prelude::*;

use super::exit::{Next, StringIo};
use super::ghcb::Ghcb;
use super::guest_page::{GuestPage, IoBuffer};
use super::vcpu::Vcpu;
use crate::ghcb::psc::List;
use crate::ghcb::scratch::{chunks, Place};
use crate::hw::addr::PAGE_SIZE;
use crate::vcpu::EsVcpu;

/// Where results have to go when the guest runs on.
enum Results {
    Ghcb {
        offset: usize,
        len: usize,
    },
    Memory {
        gpa: u64,
        len: usize,
        pages: KVec<Option<GuestPage>>,
    },
}

/// A vCPU's side of the exchange.
///
/// # Invariants
///
/// It is part of the state that is attached to a vCPU; all mapped pages are that one's.
pub(crate) struct Exchange {
    /// From an exit until the guest runs on.
    ghcb: Cell<Option<Ghcb>>,
    /// As large as the part of a GHCB that holds data.
    small: IoBuffer,
    /// Bytes of the data in there.
    small_len: Cell<usize>,
    /// For data outside of the GHCB. Kept, as it could not be freed where it is last used.
    large: Cell<Option<IoBuffer>>,
    results: Cell<Option<Results>>,
    /// Whether `results` may be there: usually not.
    has_results: Cell<bool>,
}

impl Exchange {
    /// ENOMEM.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            ghcb: Cell::new(None),
            small: IoBuffer::new(Ghcb::BUFFER_LEN)?,
            small_len: Cell::new(0),
            large: Cell::new(None),
            results: Cell::new(None),
            has_results: Cell::new(false),
        })
    }

    /// Keeps a GHCB of this vCPU's until the guest runs on. There must be none now.
    pub(crate) fn keep(&self, ghcb: Ghcb) {
        self.ghcb.set(Some(ghcb));
    }

    /// Calls `f` with the GHCB; `None` if there is none now.
    pub(crate) fn with_ghcb<R>(&self, f: impl FnOnce(&Ghcb) -> R) -> Option<R> {
        let ghcb = self.ghcb.take()?;
        let result = f(&ghcb);

        self.ghcb.set(Some(ghcb));
        Some(result)
    }

    /// Copies the data at `place`; with `back`, the results will be copied there. May sleep.
    ///
    /// The pointer is to that many bytes, and valid until the next call. Errors: EINVAL without
    /// GHCB; ENOMEM; EFAULT if the guest has no memory there.
    fn begin(&self, vcpu: &Vcpu, place: Place, back: bool) -> Result<*mut u8> {
        self.results.set(None);
        match place {
            Place::Ghcb { offset, len } => {
                if len > self.small.len() {
                    return Err(EINVAL);
                }
                self.with_ghcb(|ghcb| ghcb.read(offset, len, &self.small))
                    .ok_or(EINVAL)?;
                self.small_len.set(len);
                if back {
                    self.set_results(Results::Ghcb { offset, len });
                }
                Ok(self.small.as_ptr())
            }
            Place::Memory { gpa, len } => {
                let buffer = self.large(len)?;
                let pointer = buffer.as_ptr();
                let result = buffer.read_guest(vcpu, gpa, len);

                self.large.set(Some(buffer));
                result?;
                if back {
                    let pages = map_all(vcpu, gpa, len)?;
                    self.set_results(Results::Memory { gpa, len, pages });
                }
                Ok(pointer)
            }
        }
    }

    /// The data of the last exit, as far as it was copied from the GHCB.
    pub(crate) fn list(&self) -> DataList<'_> {
        DataList(self)
    }

    /// A large buffer of at least `len` bytes.
    fn large(&self, len: usize) -> Result<IoBuffer> {
        match self.large.take() {
            Some(buffer) if buffer.len() >= len => Ok(buffer),
            _ => IoBuffer::new(len),
        }
    }

    fn set_results(&self, results: Results) {
        self.results.set(Some(results));
        self.has_results.set(true);
    }

    /// Copies the results to the guest.
    #[cold]
    fn end(&self, ghcb: &Ghcb) {
        self.has_results.set(false);
        match self.results.take() {
            None => {}
            Some(Results::Ghcb { offset, len }) => ghcb.write(offset, len, &self.small),
            Some(Results::Memory { gpa, len, pages }) => {
                let Some(buffer) = self.large.take() else {
                    return;
                };
                for ((at, part), page) in chunks(gpa, len).zip(&pages) {
                    if let Some(page) = page {
                        buffer.copy_to(part, page.bytes(), at as usize % PAGE_SIZE);
                    }
                }
                self.large.set(Some(buffer));
            }
        }
    }

    /// All this is another vCPU's now, which has to outlive it.
    pub(super) fn hand_over(&self, to: &Vcpu) {
        let mut ghcb = self.ghcb.take();
        let mut results = self.results.take();

        if let Some(ghcb) = &mut ghcb {
            ghcb.hand_over(to);
        }
        if let Some(Results::Memory { pages, .. }) = &mut results {
            for page in pages.iter_mut().flatten() {
                page.hand_over(to);
            }
        }
        self.ghcb.set(ghcb);
        self.results.set(results);
    }
}

/// The words of the data of an exit, from its beginning on. What is written goes to the guest when it
/// runs on.
pub(crate) struct DataList<'a>(&'a Exchange);

impl DataList<'_> {
    /// In bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.small_len.get()
    }
}

impl List for DataList<'_> {
    fn word(&self, index: usize) -> u64 {
        self.0.small.word(index, self.len())
    }

    fn set_word(&self, index: usize, value: u64) {
        self.0.small.set_word(index, self.len(), value);
    }
}

/// Maps the pages of a range; those that cannot be written are left out. ENOMEM.
fn map_all(vcpu: &Vcpu, gpa: u64, len: usize) -> Result<KVec<Option<GuestPage>>> {
    // The first and the last one may be touched in part only.
    let count = (len / PAGE_SIZE).wrapping_add(2);
    let mut pages = KVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;

    for (at, _) in chunks(gpa, len) {
        if pages
            .push_within_capacity(GuestPage::map(vcpu, at).ok())
            .is_err()
        {
            return Err(ENOMEM);
        }
    }
    Ok(pages)
}

impl Vcpu {
    /// Maps the GHCB at `gpa`. May sleep.
    ///
    /// Errors: EINVAL if the guest's registers are not protected, or if it has no memory there that
    /// can be written.
    pub(crate) fn map_ghcb(&self, gpa: u64) -> Result<Ghcb> {
        let exchange = self.es().ok_or(EINVAL)?.exchange();

        drop(exchange.ghcb.take());
        if gpa == 0 {
            return Err(EINVAL);
        }
        Ghcb::map(self, gpa)
    }

    /// Whether the guest is to get an answer in its GHCB before it runs on.
    pub(crate) fn has_ghcb(&self) -> bool {
        // SAFETY: The vCPU is alive and ours.
        unsafe { !(*self.as_raw()).sev_es.ghcb.is_null() }
    }

    /// Copies the results of an exit to the guest, which runs on, and unmaps its memory. May be
    /// called with preemption disabled.
    #[inline(never)]
    pub(crate) fn unmap_ghcb(&self) {
        let Some(exchange) = self.es().map(EsVcpu::exchange) else {
            return;
        };
        if let Some(ghcb) = exchange.ghcb.take() {
            if exchange.has_results.get() {
                exchange.end(&ghcb);
            }
            ghcb.trace_exit(self);
            ghcb.return_registers(self);
        }
    }

    /// Copies a list that begins at `place`, in the GHCB, and ends where the data in there ends.
    ///
    /// Errors: EINVAL if it is not in the GHCB.
    pub(crate) fn take_list(&self, place: Place) -> Result<DataList<'_>> {
        let Place::Ghcb { offset, .. } = place else {
            return Err(EINVAL);
        };
        let exchange = self.es().ok_or(EINVAL)?.exchange();
        let len = Ghcb::BUFFER.end.saturating_sub(offset);

        exchange.begin(self, Place::Ghcb { offset, len }, true)?;
        Ok(exchange.list())
    }

    /// Lets the guest access a device, with the data at `place`. May sleep.
    ///
    /// Errors: as KVM's; ENOMEM; EFAULT if the guest has no memory there.
    pub(crate) fn access_device(&self, write: bool, gpa: u64, place: Place) -> Result<Next> {
        let exchange = self.es().ok_or(EINVAL)?.exchange();
        let len = u32::try_from(place.len()).map_err(|_| EINVAL)?;
        let data = exchange.begin(self, place, !write)?;

        // SAFETY: There are `len` bytes, and `exchange` does not touch them before the guest runs
        // again.
        unsafe { self.kvm_mmio(write, gpa, len, data) }
    }

    /// Lets the guest access a port, with the data at `place`. May sleep.
    ///
    /// Errors: as KVM's; EINVAL if it is not as much as said; ENOMEM; EFAULT if the guest has no
    /// memory there.
    pub(crate) fn access_port(&self, io: StringIo, place: Place) -> Result<Next> {
        let exchange = self.es().ok_or(EINVAL)?.exchange();
        if io.len() != Some(place.len()) || io.size == 0 {
            return Err(EINVAL);
        }
        let data = exchange.begin(self, place, io.input)?;

        // SAFETY: There are so many bytes, and `exchange` does not touch them before the guest runs
        // again.
        unsafe { self.kvm_string_io(io, data) }
    }
}
