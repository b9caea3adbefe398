// SPDX-License-Identifier: GPL-2.0
//! Page-state changes: a list of guest pages that the guest wants to be private or shared. Pure: no
//! kernel dependencies.
//!
//! The list is in the data of the GHCB: a header with the numbers of the first and the last entry that
//! are to be processed, and the entries. What was done is noted in the list, so that the guest can tell
//! how far the hypervisor got. All of it is worked on as it was copied when the guest exited.
//!
//! Source: the GHCB specification, "SNP Page State Change"; `struct psc_hdr` and `struct psc_entry` in
//! arch/x86/include/asm/sev-common.h. What is combined into one request to userspace is as upstream.

use crate::ffi::bindings as b;
use crate::hw::addr::Pfn;

/// Bytes of the header, and of an entry.
pub(crate) const WORD: usize = 8;

/// The data of the GHCB from the header on, in words of 8 bytes; 0 beyond the end, where nothing can
/// be written.
pub(crate) trait List {
    fn word(&self, index: usize) -> u64;
    fn set_word(&self, index: usize, value: u64);
}

/// One or 512 pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry(u64);

impl Entry {
    const CUR_PAGE: u64 = 0xfff;

    fn read(list: &impl List, index: u16) -> Self {
        Self(list.word(usize::from(index).wrapping_add(1)))
    }

    /// How many of its pages are done.
    const fn cur_page(self) -> u64 {
        self.0 & Self::CUR_PAGE
    }

    const fn gfn(self) -> u64 {
        (self.0 >> 12) & 0xff_ffff_ffff
    }

    const fn operation(self) -> u64 {
        (self.0 >> 52) & 0xf
    }

    const fn is_large(self) -> bool {
        (self.0 >> 56) & 1 != 0
    }

    /// In 4 KiB pages.
    const fn pages(self) -> u64 {
        if self.is_large() {
            Pfn::PER_LARGE
        } else {
            1
        }
    }

    /// All of its pages are done.
    fn write_done(self, list: &impl List, index: u16) {
        let value = (self.0 & !Self::CUR_PAGE) | self.pages();
        list.set_word(usize::from(index).wrapping_add(1), value);
    }
}

/// What a page is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageState {
    Private,
    Shared,
}

impl PageState {
    /// From the operation of an entry, or of the MSR protocol, which are the same. `None` for others.
    pub(crate) const fn decode(operation: u64) -> Option<Self> {
        match operation {
            1 => Some(PageState::Private),
            2 => Some(PageState::Shared),
            _ => None,
        }
    }
}

/// Guest pages that userspace is asked to convert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Conversion {
    pub(crate) gfn: u64,
    /// Of 4 KiB.
    pub(crate) pages: u64,
    pub(crate) state: PageState,
    /// The guest uses large pages.
    pub(crate) large: bool,
}

/// What is to be done next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Convert(Conversion),
    /// Nothing: this is the answer to the guest, 0 if all was done.
    Finished(u64),
}

/// Why a request is not served, or not to its end.
pub(crate) const GENERIC_ERROR: u64 = 0x100 << 32;
const INVALID_HEADER: u64 = (1 << 32) | 1;
const INVALID_ENTRY: u64 = (1 << 32) | 2;

// As the C constants, which are shifted.
const _: () = {
    assert!(b::KVM_SEV_CONST_PSC_ERROR_GENERIC == GENERIC_ERROR);
    assert!(b::KVM_SEV_CONST_PSC_ERROR_INVALID_HDR == INVALID_HEADER);
    assert!(b::KVM_SEV_CONST_PSC_ERROR_INVALID_ENTRY == INVALID_ENTRY);
};

/// A request that is being processed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Psc {
    /// The first entry that is not done.
    current: u16,
    last: u16,
    /// How many entries userspace is being asked about.
    batch: u16,
}

impl Psc {
    /// Reads the header. `len`: bytes of the list. The error is the answer to the guest.
    pub(crate) fn begin(list: &impl List, len: usize) -> Result<Self, u64> {
        let header = list.word(0);
        let entries = (len / WORD).saturating_sub(1);
        let this = Self {
            current: header as u16,
            last: (header >> 16) as u16,
            batch: 0,
        };

        if usize::from(this.last) >= entries {
            return Err(INVALID_HEADER);
        }
        Ok(this)
    }

    /// Finds out what comes next. Whatever was asked before must have been done.
    pub(crate) fn next(&mut self, list: &impl List) -> Step {
        while self.current <= self.last {
            let entry = Entry::read(list, self.current);
            let (done, all) = (entry.cur_page(), entry.pages());

            if done > all || entry.gfn() % all != 0 {
                return Step::Finished(INVALID_ENTRY);
            }
            if done == all {
                self.current = self.current.wrapping_add(1);
                // Seen by the guest if a later entry is wrong.
                write_current(list, (list.word(0) as u16).wrapping_add(1));
                continue;
            }
            let pages = self.combine(list, entry);

            if let Some(state) = PageState::decode(entry.operation()) {
                return Step::Convert(Conversion {
                    gfn: entry.gfn().wrapping_add(done),
                    pages,
                    state,
                    large: entry.is_large(),
                });
            }
            // Hints about page sizes: nothing has to be done about those.
            self.complete(list);
        }
        Step::Finished(0)
    }

    /// Counts the entries that can be asked for together with `first`, and their 4 KiB pages.
    fn combine(&mut self, list: &impl List, first: Entry) -> u64 {
        let mut pages = first.pages().wrapping_sub(first.cur_page());

        self.batch = 1;
        if first.cur_page() != 0 {
            // The rest of a large page is small pages, and is not combined with whole ones.
            return pages;
        }
        for index in self.current.saturating_add(1)..=self.last {
            let entry = Entry::read(list, index);
            let follows = entry.operation() == first.operation()
                && entry.gfn() == first.gfn().wrapping_add(pages)
                && entry.cur_page() == 0
                && entry.is_large() == first.is_large();

            if !follows {
                break;
            }
            self.batch = self.batch.wrapping_add(1);
            pages = pages.wrapping_add(entry.pages());
        }
        pages
    }

    /// What [`Psc::next`] asked for was done.
    pub(crate) fn complete(&mut self, list: &impl List) {
        for _ in 0..self.batch {
            Entry::read(list, self.current).write_done(list, self.current);
            self.current = self.current.wrapping_add(1);
        }
        self.batch = 0;
        write_current(list, self.current);
    }
}

fn write_current(list: &impl List, index: u16) {
    list.set_word(0, (list.word(0) & !0xffff) | u64::from(index));
}
