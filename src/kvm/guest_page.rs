// SPDX-License-Identifier: GPL-2.0
//! Memory of a guest that the guest can change at any time.
//!
//! There are no references to it, only reads and writes of its bytes, each of which happens exactly
//! once. What a decision depends on is read once and then kept.

#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::ops::Range;
use core::ptr::NonNull;

use kernel::prelude::*;

use super::vcpu::Vcpu;
use crate::ffi::bindings;
use crate::hw::addr::PAGE_SIZE;

/// A number that is read and written in one go.
pub(super) trait Word: Copy + Default {}

impl Word for u8 {}
impl Word for u32 {}
impl Word for u64 {}

/// The bytes of a page of a guest, which is mapped writable for `'a`.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(*mut u8, PhantomData<&'a ()>);

impl Bytes<'_> {
    /// # Safety
    ///
    /// A page of a guest must be mapped writable at `page` for `'a`.
    pub(super) unsafe fn new(page: *mut u8) -> Self {
        Self(page, PhantomData)
    }

    /// The address of `size` bytes at an aligned offset; `None` if they are not in the page.
    fn at<T>(self, offset: usize) -> Option<*mut T> {
        let size = core::mem::size_of::<T>();
        let fits = offset <= PAGE_SIZE.wrapping_sub(size) && offset % size == 0;

        // SAFETY: In bounds of the mapped page.
        fits.then(|| unsafe { self.0.add(offset).cast() })
    }

    /// Reads a number at an aligned offset; 0 beyond the page.
    pub(super) fn read<T: Word>(self, offset: usize) -> T {
        match self.at::<T>(offset) {
            // SAFETY: The address is aligned and in the mapped page; any bits are a number.
            Some(at) => unsafe { at.read_volatile() },
            None => T::default(),
        }
    }

    /// Writes a number at an aligned offset; nothing beyond the page.
    pub(super) fn write<T: Word>(self, offset: usize, value: T) {
        if let Some(at) = self.at::<T>(offset) {
            // SAFETY: As above, and the page is mapped writable.
            unsafe { at.write_volatile(value) }
        }
    }
}

/// A page of a guest, mapped writable, until the value is dropped.
///
/// # Invariants
///
/// `map` was filled in by `__kvm_vcpu_map`; `vcpu` is a vCPU that lives longer than the value.
pub(crate) struct GuestPage {
    map: bindings::kvm_host_map,
    vcpu: NonNull<bindings::kvm_vcpu>,
}

impl GuestPage {
    /// Maps the page at `gpa`, ignoring the offset in it. May sleep.
    ///
    /// The result must be dropped before the vCPU is gone. Errors: EINVAL if there is no memory, or
    /// none that can be written.
    pub(super) fn map(vcpu: &Vcpu, gpa: u64) -> Result<Self> {
        let mut map = bindings::kvm_host_map::default();
        let vcpu = NonNull::new(vcpu.as_kvm_vcpu()).ok_or(EINVAL)?;

        // SAFETY: The vCPU is alive, and its task in an ioctl, with KVM's SRCU lock held.
        let ret = unsafe {
            bindings::__kvm_vcpu_map(vcpu.as_ptr(), gpa / PAGE_SIZE as u64, &mut map, true)
        };
        kernel::error::to_result(ret)?;
        // INVARIANT: Mapped just above.
        Ok(Self { map, vcpu })
    }

    /// The page is another vCPU's now, which has to outlive it.
    pub(super) fn hand_over(&mut self, to: &Vcpu) {
        if let Some(vcpu) = NonNull::new(to.as_kvm_vcpu()) {
            // INVARIANT: By the contract of this function.
            self.vcpu = vcpu;
        }
    }

    pub(super) fn bytes(&self) -> Bytes<'_> {
        // SAFETY: By the type invariants the page is mapped as long as `self` lives.
        unsafe { Bytes::new(self.map.hva.cast()) }
    }
}

impl Drop for GuestPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariants. This may be called with preemption disabled, and then
        // does not sleep for memory that the host manages, as all memory usually is.
        unsafe { bindings::kvm_vcpu_unmap(self.vcpu.as_ptr(), &mut self.map) }
    }
}

/// Bytes that KVM reads and writes on behalf of a guest, also after the call that it got them in,
/// until it asks whether the vCPU may run on.
///
/// There are no references to these bytes, either.
pub(crate) struct IoBuffer(KVVec<u8>);

const WORD: usize = size_of::<u64>();

/// How many words can be copied instead of bytes, from and to multiples of `alignment`.
const fn whole_words(alignment: usize, len: usize) -> usize {
    if alignment % WORD == 0 {
        len / WORD
    } else {
        0
    }
}

impl IoBuffer {
    /// ENOMEM.
    pub(super) fn new(len: usize) -> Result<Self> {
        Ok(Self(KVVec::from_elem(0, len, GFP_KERNEL_ACCOUNT)?))
    }

    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr().cast_mut()
    }

    fn at(&self, index: usize) -> Option<*mut u8> {
        // SAFETY: In bounds of the allocation.
        (index < self.len()).then(|| unsafe { self.as_ptr().add(index) })
    }

    /// The address of the word `index` of the first `len` bytes.
    fn word_at(&self, index: usize, len: usize) -> Option<*mut u64> {
        let offset = index.checked_mul(WORD)?;
        let end = offset.checked_add(WORD)?;

        if end > len.min(self.len()) {
            return None;
        }
        self.at(offset).map(<*mut u8>::cast)
    }

    /// The word `index` of the first `len` bytes; 0 beyond these.
    pub(super) fn word(&self, index: usize, len: usize) -> u64 {
        match self.word_at(index, len) {
            // SAFETY: In bounds; KVM does not use the buffer now.
            Some(at) => unsafe { at.read_unaligned() },
            None => 0,
        }
    }

    /// Changes it; nothing beyond these.
    pub(super) fn set_word(&self, index: usize, len: usize, value: u64) {
        if let Some(at) = self.word_at(index, len) {
            // SAFETY: As above.
            unsafe { at.write_unaligned(value) }
        }
    }

    /// Copies bytes of a guest's page at `offset` to the beginning.
    pub(super) fn copy_from(&self, page: Bytes<'_>, offset: usize, len: usize) {
        let words = whole_words(offset, len);

        for n in 0..words {
            let word = page.read(offset.wrapping_add(n.wrapping_mul(WORD)));
            self.set_word(n, len, word);
        }
        for n in words.wrapping_mul(WORD)..len {
            if let Some(at) = self.at(n) {
                // SAFETY: In bounds; KVM does not use the buffer now.
                unsafe { at.write(page.read(offset.wrapping_add(n))) }
            }
        }
    }

    /// Copies a part to a guest's page at `offset`.
    pub(super) fn copy_to(&self, part: Range<usize>, page: Bytes<'_>, offset: usize) {
        let len = part.end.saturating_sub(part.start);
        let words = whole_words(part.start | offset, len);
        let first = part.start / WORD;

        for n in 0..words {
            let word = self.word(first.wrapping_add(n), part.end);
            page.write(offset.wrapping_add(n.wrapping_mul(WORD)), word);
        }
        for n in words.wrapping_mul(WORD)..len {
            if let Some(at) = self.at(part.start.wrapping_add(n)) {
                // SAFETY: In bounds; KVM does not use the buffer now.
                page.write(offset.wrapping_add(n), unsafe { at.read() });
            }
        }
    }

    /// Copies `len` bytes of guest memory to the beginning. May sleep. EFAULT.
    pub(super) fn read_guest(&self, vcpu: &Vcpu, gpa: u64, len: usize) -> Result {
        if len > self.len() {
            return Err(EFAULT);
        }
        // SAFETY: The VM is alive, its task in an ioctl with KVM's SRCU lock held, and the buffer
        // large enough; KVM does not use the latter now.
        let ret =
            unsafe { bindings::kvm_read_guest(vcpu.vm().as_raw(), gpa, self.as_ptr().cast(), len) };
        if ret != 0 {
            return Err(EFAULT);
        }
        Ok(())
    }
}
