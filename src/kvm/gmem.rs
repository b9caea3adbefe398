// SPDX-License-Identifier: GPL-2.0
//! A guest's private memory, which is in a file (guest_memfd) and that userspace cannot access.
//!
//! Locks: `kvm->lock` → `slots_lock` → the invalidation lock of the file.

#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::ptr;

use kernel::prelude::*;
use kernel::types::{NotThreadSafe, Opaque};

use super::vcpu::Vcpu;
use super::vm::{Vm, VmLocked};
use crate::ffi::bindings as b;
use crate::hw::addr::Pfn;
use crate::rejection::{Because, Outcome, Reason, Rejection};

/// The memory slots of a VM, which stay as they are, and whether memory is private, too.
pub(crate) struct Slots<'l, 'a> {
    vm: &'l VmLocked<'a>,
    _not_send: NotThreadSafe,
}

/// A page of userspace's that is copied to the guest.
#[repr(transparent)]
pub(crate) struct SourcePage(Opaque<b::page>);

impl SourcePage {
    fn as_raw(&self) -> *mut b::page {
        self.0.get()
    }

    /// Copies it to a page of private memory, which must be the host's still.
    pub(crate) fn copy_to(&self, pfn: Pfn) {
        // SAFETY: Both pages are referenced by the function that passed them. Others may be using the
        // source at the same time, as the kernel's pages are used: it is opaque here.
        unsafe { b::kvm_sev_copy_to_pfn(pfn.get(), self.as_raw()) }
    }

    /// Copies a page of private memory back to it.
    pub(crate) fn copy_from(&self, pfn: Pfn) {
        // SAFETY: As above; the page was got for writing.
        unsafe { b::kvm_sev_copy_from_pfn(self.as_raw(), pfn.get()) }
    }
}

impl<'l, 'a> Slots<'l, 'a> {
    /// May sleep.
    pub(crate) fn lock(vm: &'l VmLocked<'a>) -> Self {
        // SAFETY: The VM and with it its initialised mutex are alive.
        unsafe { b::mutex_lock(&raw mut (*vm.as_raw()).slots_lock) };
        Self {
            vm,
            _not_send: NotThreadSafe,
        }
    }

    /// Whether there can be private memory at this guest page.
    pub(crate) fn has_private(&self, gfn: u64) -> bool {
        // SAFETY: The VM is alive, and its slots are locked.
        unsafe { slot(self.vm, gfn).is_some() }
    }

    /// Fills private memory from the guest page `gfn` on, with the pages from `source` on if there
    /// are any. Stops at the end of the slot, or when a signal arrives.
    ///
    /// `load` is called for one page after the other, with the guest's page, the host's, and what to
    /// copy; the host's is locked. `writable`: `load` may write the source. Returns how many pages
    /// were loaded. Errors: if that is none, those of `load`; EFAULT, ENOMEM, EINTR; EINVAL if the
    /// memory is not private.
    pub(crate) fn populate<F>(
        &self,
        gfn: u64,
        source: Option<u64>,
        pages: u64,
        writable: bool,
        load: F,
    ) -> Outcome<u64>
    where
        F: FnMut(u64, Pfn, Option<&SourcePage>) -> Outcome,
    {
        let pages = isize::try_from(pages).map_err(|_| EINVAL.because(Reason::TooMuch))?;
        let mut loading = Loading {
            load,
            rejection: None,
        };

        // SAFETY: The VM is alive, and its slots are locked. The last two arguments belong together:
        // `loading` outlives the call, and is used by one call at a time.
        let done = unsafe {
            b::kvm_gmem_populate(
                self.vm.as_raw(),
                gfn,
                source.unwrap_or(0) as usize as *mut c_void,
                pages,
                writable,
                Some(load_page::<F>),
                (&raw mut loading).cast(),
            )
        };
        if done < 0 {
            let error = Error::from_errno(done as c_int);
            return Err(loading.rejection.unwrap_or_else(|| match error {
                EINVAL => error.because(Reason::NotPrivate),
                _ => error.into(),
            }));
        }
        Ok(done as u64)
    }
}

struct Loading<F> {
    load: F,
    /// The answer of `load` to the page that was refused.
    rejection: Option<Rejection>,
}

/// # Safety
///
/// To be called by `kvm_gmem_populate` only, with the `F` of [`Slots::populate`].
unsafe extern "C" fn load_page<F>(
    _kvm: *mut b::kvm,
    gfn: b::gfn_t,
    pfn: b::kvm_pfn_t,
    source: *mut b::page,
    loading: *mut c_void,
) -> c_int
where
    F: FnMut(u64, Pfn, Option<&SourcePage>) -> Outcome,
{
    // SAFETY: By the contract; the page is null, or referenced during the call.
    let (loading, source) = unsafe {
        (
            &mut *loading.cast::<Loading<F>>(),
            source.cast::<SourcePage>().as_ref(),
        )
    };

    match (loading.load)(gfn, Pfn::new(pfn), source) {
        Ok(()) => 0,
        Err(rejection) => {
            loading.rejection = Some(rejection);
            rejection.errno()
        }
    }
}

impl Drop for Slots<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: Taken in `lock` by the same task.
        unsafe { b::mutex_unlock(&raw mut (*self.vm.as_raw()).slots_lock) }
    }
}

/// The slot of a guest page, if it can have private memory.
///
/// # Safety
///
/// KVM's SRCU lock, or the lock of the slots, must be held as long as the result is used.
unsafe fn slot(vm: &Vm, gfn: u64) -> Option<ptr::NonNull<b::kvm_memory_slot>> {
    // SAFETY: The VM is alive; the lock is held by the contract.
    unsafe {
        ptr::NonNull::new(b::gfn_to_memslot(vm.as_raw(), gfn))
            .filter(|slot| b::kvm_slot_has_gmem(slot.as_ptr()))
    }
}

/// The page behind a guest's private page, referenced until the value is dropped.
pub(crate) struct PrivatePage {
    page: *mut b::page,
    pfn: Pfn,
}

impl PrivatePage {
    pub(crate) fn pfn(&self) -> Pfn {
        self.pfn
    }
}

impl Drop for PrivatePage {
    fn drop(&mut self) {
        // SAFETY: Referenced when the value was created.
        unsafe { b::kvm_release_page_unused(self.page) }
    }
}

/// Access for a task that runs a vCPU: KVM's SRCU lock is held.
pub(crate) struct VcpuMemory<'a>(&'a Vm);

impl Vcpu {
    /// The guest's memory, for tasks that run the vCPU or serve its INIT: they hold that lock. Not for
    /// ioctls that have all vCPUs of a VM, such as launches and moves, which do not.
    pub(crate) fn memory(&self) -> VcpuMemory<'_> {
        VcpuMemory(self.vm())
    }
}

impl VcpuMemory<'_> {
    /// Whether a guest page is private.
    pub(crate) fn is_private(&self, gfn: u64) -> bool {
        // SAFETY: The VM is alive.
        unsafe { b::kvm_mem_is_private(self.0.as_raw(), gfn) }
    }

    /// The page behind a guest page; it is allocated, and given to the guest, if necessary. May sleep.
    ///
    /// Errors: EINVAL if there is no private memory; else KVM's.
    pub(crate) fn page(&self, gfn: u64) -> Result<PrivatePage> {
        let (mut pfn, mut page, mut order) = (0, ptr::null_mut(), 0);

        // SAFETY: The VM is alive; the lock is held by the invariant of `self`. The pointers are
        // valid for the call.
        unsafe {
            let slot = slot(self.0, gfn).ok_or(EINVAL)?;
            let ret = b::kvm_gmem_get_pfn(
                self.0.as_raw(),
                slot.as_ptr(),
                gfn,
                &mut pfn,
                &mut page,
                &mut order,
            );
            kernel::error::to_result(ret)?;
        }
        Ok(PrivatePage {
            page,
            pfn: Pfn::new(pfn),
        })
    }

    /// A number that changes whenever memory was invalidated, for [`InUse::was_invalidated`].
    pub(crate) fn invalidations(&self) -> usize {
        // SAFETY: The VM is alive.
        unsafe { b::kvm_sev_invalidations(self.0.as_raw()) }
    }

    /// Takes guest pages out of the guest's nested page table; it will be filled again. May sleep.
    pub(crate) fn unmap(&self, gfns: core::ops::Range<u64>) {
        // SAFETY: The VM is alive.
        unsafe { b::kvm_zap_gfn_range(self.0.as_raw(), gfns.start, gfns.end) }
    }
}

/// Proof that no memory is being invalidated: `mmu_lock` is held, shared. Nothing here sleeps.
pub(crate) struct InUse<'l, 'a> {
    memory: &'l VcpuMemory<'a>,
    _not_send: NotThreadSafe,
}

impl<'l, 'a> InUse<'l, 'a> {
    pub(crate) fn begin(memory: &'l VcpuMemory<'a>) -> Self {
        // SAFETY: The VM is alive.
        unsafe { b::kvm_sev_mmu_read_lock(memory.0.as_raw()) };
        Self {
            memory,
            _not_send: NotThreadSafe,
        }
    }

    /// Whether a guest page was invalidated since [`VcpuMemory::invalidations`], or is being.
    pub(crate) fn was_invalidated(&self, since: usize, gfn: u64) -> bool {
        // SAFETY: The VM is alive, and the lock held.
        unsafe { b::kvm_sev_was_invalidated(self.memory.0.as_raw(), since, gfn) }
    }
}

impl Drop for InUse<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: Taken in `begin` by the same task.
        unsafe { b::kvm_sev_mmu_read_unlock(self.memory.0.as_raw()) }
    }
}
