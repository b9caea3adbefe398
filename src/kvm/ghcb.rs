// SPDX-License-Identifier: GPL-2.0
//! A guest's GHCB: the page through which a guest whose registers are encrypted shows some of them
//! to the hypervisor, and gets some back.
//!
//! Each field is read once, when the guest exits, into a [`Snapshot`]; and what is answered is
//! written without reading anything. svm.c, too, writes to the page that `sev_es.ghcb` points to.
//!
//! Source: the GHCB specification; `struct ghcb` in arch/x86/include/asm/svm.h.

#![allow(unsafe_code)]

use core::mem::offset_of;
use core::ops::Range;
use core::ptr::{self, NonNull};

use kernel::prelude::*;

use super::guest_page::{Bytes, IoBuffer};
use super::registers::Gpr;
use super::vcpu::Vcpu;
use crate::ffi::bindings::{self, ghcb, ghcb_save_area, vcpu_svm};
use crate::ghcb::snapshot::{Field, Snapshot};
use crate::hw::addr::PAGE_SIZE;
use crate::trace::traced;

/// Where the bitmap of valid fields is: a bit for each 8 bytes of the save area.
const BITMAP: usize = offset_of!(ghcb_save_area, valid_bitmap);

/// Offset of a field of the save area, which is at the beginning of the page.
macro_rules! offset {
    ($field:ident) => {
        offset_of!(ghcb_save_area, $field)
    };
}

/// The bitmap in which these fields are valid.
const fn bitmap<const N: usize>(offsets: [usize; N]) -> [u64; 2] {
    let mut words = [0; 2];
    let mut n = 0;

    while n < N {
        let bit = offsets[n] / 8;
        words[bit / 64] |= 1 << (bit % 64);
        n += 1;
    }
    words
}

/// Valid once an exit is answered.
const ANSWER: [u64; 2] = bitmap([offset!(sw_exit_info_1), offset!(sw_exit_info_2)]);

/// Valid when the guest runs on.
const RETURN: [u64; 2] = bitmap([
    offset!(sw_exit_info_1),
    offset!(sw_exit_info_2),
    offset!(rax),
    offset!(rbx),
    offset!(rcx),
    offset!(rdx),
]);

/// A vCPU's GHCB, mapped until the value is dropped. There is at most one for each vCPU.
///
/// It is where svm.c looks for it, in `sev_es` of the vCPU.
///
/// # Invariants
///
/// `svm` lives longer than the value, and is used by its task only; `__kvm_vcpu_map` filled in its
/// `ghcb_map`, with a page at `page`.
pub(crate) struct Ghcb {
    svm: NonNull<vcpu_svm>,
    page: *mut u8,
}

impl Ghcb {
    /// Where the part for data is, in the page.
    pub(crate) const BUFFER: Range<usize> =
        offset_of!(ghcb, shared_buffer)..offset_of!(ghcb, reserved_0xff0);

    /// Bytes in there.
    pub(crate) const BUFFER_LEN: usize = Self::BUFFER.end - Self::BUFFER.start;

    /// Maps the page at `gpa` and shows it to svm.c. May sleep.
    ///
    /// The vCPU must have no GHCB now, and the result must be dropped before the vCPU is gone.
    /// EINVAL if there is no memory, or none that can be written.
    pub(super) fn map(vcpu: &Vcpu, gpa: u64) -> Result<Self> {
        let svm = NonNull::new(vcpu.as_raw()).ok_or(EINVAL)?;

        // SAFETY: The vCPU is alive and ours, and its task in an ioctl, with KVM's SRCU lock held.
        unsafe {
            let map = &raw mut (*svm.as_ptr()).sev_es.ghcb_map;
            let gfn = gpa / PAGE_SIZE as u64;
            if bindings::__kvm_vcpu_map(vcpu.as_kvm_vcpu(), gfn, map, true) != 0 {
                return Err(EINVAL);
            }
            let page = (*map).hva;
            (*svm.as_ptr()).sev_es.ghcb = page.cast();
            // INVARIANT: Mapped just above.
            Ok(Self {
                svm,
                page: page.cast(),
            })
        }
    }

    /// The page is another vCPU's now, which has to outlive it, and must not have one.
    pub(super) fn hand_over(&mut self, to: &Vcpu) {
        let Some(svm) = NonNull::new(to.as_raw()) else {
            return;
        };
        // SAFETY: By the type invariants and the contract, both vCPUs are alive and ours.
        unsafe {
            let (from, to) = (self.svm.as_ptr(), svm.as_ptr());
            (*to).sev_es.ghcb_map = (*from).sev_es.ghcb_map;
            (*to).sev_es.ghcb = (*from).sev_es.ghcb;
            (*from).sev_es.ghcb = ptr::null_mut();
        }
        // INVARIANT: The map is the other vCPU's now.
        self.svm = svm;
    }

    fn bytes(&self) -> Bytes<'_> {
        // SAFETY: By the type invariants the page is mapped as long as `self` lives.
        unsafe { Bytes::new(self.page) }
    }

    /// Copies what the guest filled in, and clears the bitmap.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let page = self.bytes();
        let valid = [
            page.read::<u64>(BITMAP),
            page.read::<u64>(BITMAP + size_of::<u64>()),
        ];
        let is_valid = |offset: usize| {
            let bit = offset / 8;
            valid
                .get(bit / 64)
                .is_some_and(|word| (word >> (bit % 64)) & 1 != 0)
        };
        // These may be looked at even if the guest did not fill them in.
        let always = |offset: usize| Field::new(page.read(offset), is_valid(offset));
        let field = |offset: usize| match is_valid(offset) {
            true => Field::new(page.read(offset), true),
            false => Field::default(),
        };
        const CPL: usize = offset!(cpl);

        let snapshot = Snapshot {
            exit_code: always(offset!(sw_exit_code)),
            exit_info_1: always(offset!(sw_exit_info_1)),
            exit_info_2: always(offset!(sw_exit_info_2)),
            scratch: field(offset!(sw_scratch)),
            rax: field(offset!(rax)),
            rbx: field(offset!(rbx)),
            rcx: field(offset!(rcx)),
            rdx: field(offset!(rdx)),
            rsi: field(offset!(rsi)),
            cpl: match is_valid(CPL) {
                true => Field::new(u64::from(page.read::<u8>(CPL)), true),
                false => Field::default(),
            },
            xcr0: field(offset!(xcr0)),
            xss: field(offset!(xss)),
            usage: page.read(offset_of!(ghcb, ghcb_usage)),
        };
        self.set_valid([0; 2]);
        snapshot
    }

    fn set_valid(&self, [low, high]: [u64; 2]) {
        let page = self.bytes();
        page.write(BITMAP, low);
        page.write(BITMAP + size_of::<u64>(), high);
    }

    /// Answers that the exit was served, with `data` for the guest. Of several answers the last one
    /// counts.
    pub(crate) fn answer_success(&self, data: u64) {
        self.answer(bindings::GHCB_HV_RESP_NO_ACTION, data);
    }

    /// Answers that the exit was not served, with the reason, `GHCB_ERR_*`.
    pub(crate) fn answer_malformed(&self, reason: u64) {
        self.answer(bindings::GHCB_HV_RESP_MALFORMED_INPUT, reason);
    }

    fn answer(&self, response: u32, data: u64) {
        let page = self.bytes();
        page.write(offset!(sw_exit_info_1), u64::from(response));
        page.write(offset!(sw_exit_info_2), data);
        self.set_valid(ANSWER);
    }

    /// Gives back the registers that the guest may look at. The exit must have been answered.
    pub(crate) fn return_registers(&self, vcpu: &Vcpu) {
        for (offset, register) in [
            (offset!(rax), Gpr::Rax),
            (offset!(rbx), Gpr::Rbx),
            (offset!(rcx), Gpr::Rcx),
            (offset!(rdx), Gpr::Rdx),
        ] {
            self.bytes().write(offset, vcpu.register(register));
        }
        self.set_valid(RETURN);
    }

    /// Copies data of the guest's, from `offset` in the page on.
    pub(super) fn read(&self, offset: usize, len: usize, to: &IoBuffer) {
        to.copy_from(self.bytes(), offset, len);
    }

    /// Copies data to the guest, from `offset` in the page on.
    pub(super) fn write(&self, offset: usize, len: usize, from: &IoBuffer) {
        from.copy_to(0..len, self.bytes(), offset);
    }

    /// For those who trace exits.
    pub(crate) fn trace_enter(&self, vcpu: &Vcpu) {
        if traced!(bindings::__tracepoint_kvm_vmgexit_enter) {
            // SAFETY: The page is mapped.
            unsafe { bindings::kvm_sev_trace_enter(vcpu.id(), self.page.cast()) }
        }
    }

    /// For those who trace exits.
    pub(crate) fn trace_exit(&self, vcpu: &Vcpu) {
        if traced!(bindings::__tracepoint_kvm_vmgexit_exit) {
            // SAFETY: The page is mapped.
            unsafe { bindings::kvm_sev_trace_exit(vcpu.id(), self.page.cast()) }
        }
    }
}

impl Drop for Ghcb {
    fn drop(&mut self) {
        // SAFETY: By the type invariants. This may be called with preemption disabled, and then
        // does not sleep for memory that the host manages, as all memory usually is.
        unsafe {
            let svm = self.svm.as_ptr();
            bindings::kvm_vcpu_unmap(&raw mut (*svm).vcpu, &raw mut (*svm).sev_es.ghcb_map);
            (*svm).sev_es.ghcb = ptr::null_mut();
        }
    }
}
