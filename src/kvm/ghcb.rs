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

use super::guest_page::{GuestPage, IoBuffer};
use super::registers::Gpr;
use super::vcpu::Vcpu;
use crate::ffi::bindings::{self, ghcb, ghcb_save_area};
use crate::ghcb::snapshot::{Field, Snapshot};

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
pub(crate) struct Ghcb {
    page: GuestPage,
}

impl Ghcb {
    /// Where the part for data is, in the page.
    pub(crate) const BUFFER: Range<usize> =
        offset_of!(ghcb, shared_buffer)..offset_of!(ghcb, reserved_0xff0);

    /// Bytes in there.
    pub(crate) const BUFFER_LEN: usize = Self::BUFFER.end - Self::BUFFER.start;

    /// Maps the page at `gpa` and shows it to svm.c. May sleep.
    ///
    /// The result must be dropped before the vCPU is gone. Errors: as [`GuestPage::map`].
    pub(super) fn map(vcpu: &Vcpu, gpa: u64) -> Result<Self> {
        let this = Self {
            page: GuestPage::map(vcpu, gpa)?,
        };
        this.publish(this.page.as_ptr().cast());
        Ok(this)
    }

    fn publish(&self, page: *mut ghcb) {
        let vcpu: NonNull<bindings::kvm_vcpu> = self.page.vcpu();

        // SAFETY: The vCPU lives longer than its GHCB, is ours, and part of a `vcpu_svm`.
        unsafe {
            let svm = kernel::container_of!(vcpu.as_ptr(), bindings::vcpu_svm, vcpu);
            (*svm).sev_es.ghcb = page;
        }
    }

    /// The page is another vCPU's now, which has to outlive it.
    pub(super) fn hand_over(&mut self, to: &Vcpu) {
        self.publish(ptr::null_mut());
        self.page.hand_over(to);
        self.publish(self.page.as_ptr().cast());
    }

    /// Copies what the guest wrote, and clears the bitmap.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let valid = [
            self.page.read::<u64>(BITMAP),
            self.page.read::<u64>(BITMAP + size_of::<u64>()),
        ];
        let is_valid = |offset: usize| {
            let bit = offset / 8;
            valid
                .get(bit / 64)
                .is_some_and(|word| (word >> (bit % 64)) & 1 != 0)
        };
        let field = |offset: usize| Field::new(self.page.read(offset), is_valid(offset));
        const CPL: usize = offset!(cpl);

        let snapshot = Snapshot {
            exit_code: field(offset!(sw_exit_code)),
            exit_info_1: field(offset!(sw_exit_info_1)),
            exit_info_2: field(offset!(sw_exit_info_2)),
            scratch: field(offset!(sw_scratch)),
            rax: field(offset!(rax)),
            rbx: field(offset!(rbx)),
            rcx: field(offset!(rcx)),
            rdx: field(offset!(rdx)),
            rsi: field(offset!(rsi)),
            cpl: Field::new(u64::from(self.page.read::<u8>(CPL)), is_valid(CPL)),
            xcr0: field(offset!(xcr0)),
            xss: field(offset!(xss)),
            usage: self.page.read(offset_of!(ghcb, ghcb_usage)),
        };
        self.set_valid([0; 2]);
        snapshot
    }

    fn set_valid(&self, [low, high]: [u64; 2]) {
        self.page.write(BITMAP, low);
        self.page.write(BITMAP + size_of::<u64>(), high);
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
        self.page
            .write(offset!(sw_exit_info_1), u64::from(response));
        self.page.write(offset!(sw_exit_info_2), data);
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
            self.page.write(offset, vcpu.register(register));
        }
        self.set_valid(RETURN);
    }

    /// Copies data of the guest's, from `offset` in the page on.
    pub(super) fn read(&self, offset: usize, len: usize, to: &IoBuffer) {
        to.copy_from(&self.page, offset, len);
    }

    /// Copies data to the guest, from `offset` in the page on.
    pub(super) fn write(&self, offset: usize, len: usize, from: &IoBuffer) {
        from.copy_to(0..len, &self.page, offset);
    }

    /// For those who trace exits.
    pub(crate) fn trace_enter(&self, vcpu: &Vcpu) {
        // SAFETY: The page is mapped.
        unsafe { bindings::kvm_sev_trace_enter(vcpu.id(), self.page.as_ptr().cast()) }
    }

    /// For those who trace exits.
    pub(crate) fn trace_exit(&self, vcpu: &Vcpu) {
        // SAFETY: The page is mapped.
        unsafe { bindings::kvm_sev_trace_exit(vcpu.id(), self.page.as_ptr().cast()) }
    }
}

impl Drop for Ghcb {
    fn drop(&mut self) {
        self.publish(ptr::null_mut());
    }
}
