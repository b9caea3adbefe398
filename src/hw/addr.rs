// SPDX-License-Identifier: GPL-2.0
//! Addresses. Pure: no kernel dependencies.

/// Bytes in a page.
pub(crate) const PAGE_SIZE: usize = 4096;

/// A system physical address as it is given to the firmware: with the C-bit, if the host encrypts
/// its own memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PspAddr(u64);

impl PspAddr {
    pub(crate) const fn new(address: u64) -> Self {
        Self(address)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// The address `bytes` further; it must still be in the same piece of memory.
    pub(crate) const fn offset(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes as u64))
    }

    /// The address `bytes` earlier; it must still be in the same piece of memory.
    pub(crate) const fn back(self, bytes: usize) -> Self {
        Self(self.0.wrapping_sub(bytes as u64))
    }

    /// Whether `other` is `pages` pages further.
    pub(crate) const fn is_followed_by(self, other: Self, pages: usize) -> bool {
        self.offset(pages.wrapping_mul(PAGE_SIZE)).0 == other.0
    }
}

/// The number of a page of 4 KiB of the machine's memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Pfn(u64);

impl Pfn {
    /// Pages in one of 2 MiB.
    pub(crate) const PER_LARGE: u64 = 512;

    pub(crate) const fn new(pfn: u64) -> Self {
        Self(pfn)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// The page `pages` further; it must still be in the same piece of memory.
    pub(crate) const fn offset(self, pages: u64) -> Self {
        Self(self.0.wrapping_add(pages))
    }

    /// The first page of the large page that contains this one.
    pub(crate) const fn large_page(self) -> Self {
        Self(self.0 & !(Self::PER_LARGE - 1))
    }

    /// Whether a large page begins here.
    pub(crate) const fn begins_large_page(self) -> bool {
        self.0 % Self::PER_LARGE == 0
    }
}

/// A non-empty range of user addresses that does not wrap around.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UserRange {
    start: u64,
    len: usize,
}

impl UserRange {
    /// `None` if the range is empty or wraps around.
    pub(crate) const fn new(start: u64, len: u64) -> Option<Self> {
        if len == 0 || start.checked_add(len).is_none() {
            return None;
        }
        Some(Self {
            start,
            len: len as usize,
        })
    }

    /// `None` if the range is empty or does not lie in one page, or is at address 0. Unlike others
    /// it may end with the last byte of the address space.
    pub(crate) const fn within_page(start: u64, len: u32) -> Option<Self> {
        let offset = start as usize % PAGE_SIZE;
        let len = len as usize;

        if start == 0 || len == 0 || len > PAGE_SIZE.wrapping_sub(offset) {
            return None;
        }
        Some(Self { start, len })
    }

    pub(crate) const fn start(self) -> u64 {
        self.start
    }

    /// In bytes.
    pub(crate) const fn len(self) -> usize {
        self.len
    }

    /// Address of the page that holds the first byte.
    pub(crate) const fn first_page(self) -> u64 {
        self.start & !(PAGE_SIZE as u64 - 1)
    }

    /// Of the first byte in its page.
    pub(crate) const fn offset(self) -> usize {
        (self.start & (PAGE_SIZE as u64 - 1)) as usize
    }

    /// Bytes from the start to the end of its page.
    pub(crate) const fn left_in_page(self) -> usize {
        PAGE_SIZE.wrapping_sub(self.offset())
    }

    /// The range without its first `bytes`; `None` if nothing is left.
    pub(crate) const fn skip(self, bytes: usize) -> Option<Self> {
        match self.len.checked_sub(bytes) {
            None | Some(0) => None,
            Some(len) => Some(Self {
                start: self.start.wrapping_add(bytes as u64),
                len,
            }),
        }
    }

    /// The first `bytes` of the range; at least one byte, at most all of it.
    pub(crate) fn first(self, bytes: usize) -> Self {
        Self {
            len: bytes.min(self.len).max(1),
            ..self
        }
    }

    /// Number of pages that the range touches.
    pub(crate) const fn pages(self) -> usize {
        // The range neither wraps nor is it empty, so none of this can overflow.
        let last = self.start.wrapping_add(self.len as u64).wrapping_sub(1);
        let pages = (last / PAGE_SIZE as u64).wrapping_sub(self.start / PAGE_SIZE as u64);
        pages.wrapping_add(1) as usize
    }
}

#[cfg(any(test, CONFIG_KUNIT))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(kvm_sev_addr))]
mod tests {
    use super::*;

    fn pages(start: u64, len: u64) -> Option<usize> {
        UserRange::new(start, len).map(UserRange::pages)
    }

    #[test]
    fn refuses_empty_and_wrapping_ranges() {
        assert_eq!(UserRange::new(0x1000, 0), None);
        assert_eq!(UserRange::new(u64::MAX, 1), None);
        assert_eq!(UserRange::new(1, u64::MAX), None);
        assert!(UserRange::new(0, u64::MAX).is_some());
    }

    #[test]
    fn knows_what_lies_in_a_page() {
        let within = |start, len| UserRange::within_page(start, len).map(UserRange::pages);

        assert_eq!(within(0x1000, 0x1000), Some(1));
        assert_eq!(within(0x1fff, 1), Some(1));
        assert_eq!(within(u64::MAX - 0xfff, 0x1000), Some(1));
        assert_eq!(within(0x1001, 0x1000), None);
        assert_eq!(within(0x1fff, 2), None);
        assert_eq!(within(0x1000, u32::MAX), None);
        assert_eq!(within(0x1000, 0), None);
        assert_eq!(within(0, 16), None);
    }

    #[test]
    fn counts_the_pages_it_touches() {
        assert_eq!(pages(0x1000, 1), Some(1));
        assert_eq!(pages(0x1000, 0x1000), Some(1));
        assert_eq!(pages(0x1001, 0x1000), Some(2));
        assert_eq!(pages(0x1fff, 2), Some(2));
        assert_eq!(pages(0, u64::MAX), Some(1 << 52));
    }

    #[test]
    fn contiguity() {
        let a = PspAddr::new(0x10_0000);
        assert!(a.is_followed_by(PspAddr::new(0x10_2000), 2));
        assert!(!a.is_followed_by(PspAddr::new(0x10_2000), 1));
        assert!(!a.is_followed_by(PspAddr::new(0xf_f000), 1));
    }
}
