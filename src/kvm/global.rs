// SPDX-License-Identifier: GPL-2.0
//! A value that exists while the module's hardware set-up does.

#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::prelude::*;

/// Holds a `T` between hardware set-up and its undoing.
pub(crate) struct Global<T>(AtomicPtr<T>);

impl<T: Send + Sync> Global<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// `None` before set-up and if SEV is not available.
    pub(crate) fn get(&self) -> Option<&T> {
        // SAFETY: The pointer is null or owned by `self`; `take` frees it only when no code that
        // could hold the reference runs any more.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Sets the value; drops it if there is one already.
    pub(crate) fn set(&self, value: Pin<KBox<T>>) {
        // SAFETY: The value stays pinned behind the pointer.
        let new = KBox::into_raw(unsafe { Pin::into_inner_unchecked(value) });

        if self
            .0
            .compare_exchange(ptr::null_mut(), new, Ordering::Release, Ordering::Relaxed)
            .is_err()
        {
            // SAFETY: The pointer came from `into_raw` just above.
            drop(Pin::from(unsafe { KBox::from_raw(new) }));
        }
    }

    /// Takes the value out.
    ///
    /// # Safety
    ///
    /// Nobody may hold what [`Global::get`] returned, or call it concurrently. This is so while the
    /// module is initialised, and when it exits, with all VMs gone.
    pub(crate) unsafe fn take(&self) -> Option<Pin<KBox<T>>> {
        let old = self.0.swap(ptr::null_mut(), Ordering::AcqRel);

        // SAFETY: A non-null pointer came from `set`; no reference is left by the contract.
        (!old.is_null()).then(|| Pin::from(unsafe { KBox::from_raw(old) }))
    }
}
