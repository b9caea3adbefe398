// SPDX-License-Identifier: GPL-2.0
//! Questions to userspace that a guest's exit raises: the vCPU leaves KVM_RUN, and what is to be done
//! with the answer happens when it is called again.

#![allow(unsafe_code)]

use kernel::prelude::*;

use super::exit::Next;
use super::vcpu::Vcpu;
use crate::ffi::bindings as b;
use crate::ghcb::psc::{Conversion, PageState};
use crate::hw::addr::PAGE_SIZE;

/// What becomes of an answer.
pub(crate) trait Continue {
    /// What userspace answered.
    type Answer: FromUser;

    /// Goes on with the exit.
    fn go_on(vcpu: &Vcpu, answer: Self::Answer) -> Result<Next>;
}

/// Something that userspace can answer.
pub(crate) trait FromUser: Sized {
    /// Reads it, once. EINVAL if it makes no sense.
    fn read(vcpu: &Vcpu) -> Result<Self>;
}

/// Whether userspace converted the pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Converted(pub(crate) bool);

impl FromUser for Converted {
    fn read(vcpu: &Vcpu) -> Result<Self> {
        let mut result = 0;

        // SAFETY: The vCPU is alive and ours, and the pointer valid for the call.
        let is_valid = unsafe { b::kvm_sev_map_pages_result(vcpu.as_kvm_vcpu(), &mut result) };
        if !is_valid {
            return Err(EINVAL);
        }
        Ok(Self(result == 0))
    }
}

/// Whether userspace wrote certificates to the guest's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Certified {
    Yes,
    /// They need so many pages.
    TooFewPages(u64),
    TryAgain,
    Failed,
}

impl FromUser for Certified {
    fn read(vcpu: &Vcpu) -> Result<Self> {
        let mut pages = 0;

        // SAFETY: As above.
        let result = unsafe { b::kvm_sev_req_certs_result(vcpu.as_kvm_vcpu(), &mut pages) };

        // Error numbers are 32 bits wide, the result is not.
        match u32::try_from(result).map_err(|_| EINVAL)? {
            0 => Ok(Certified::Yes),
            b::ENOSPC => Ok(Certified::TooFewPages(pages)),
            b::EAGAIN => Ok(Certified::TryAgain),
            b::EIO => Ok(Certified::Failed),
            _ => Err(EINVAL),
        }
    }
}

/// # Safety
///
/// To be called by KVM only, as `complete_userspace_io` of a vCPU that it runs.
unsafe extern "C" fn complete<C: Continue>(vcpu: *mut b::kvm_vcpu) -> core::ffi::c_int {
    // SAFETY: KVM holds the vCPU's mutex.
    let vcpu = unsafe { Vcpu::from_kvm(vcpu) };

    Next::to_kvm(C::Answer::read(vcpu).and_then(|answer| C::go_on(vcpu, answer)))
}

impl Vcpu {
    fn continue_with<C: Continue>(&self) -> Next {
        // SAFETY: The vCPU is alive and ours.
        unsafe {
            let arch = &raw mut (*self.as_kvm_vcpu()).arch;
            (*arch).complete_userspace_io = Some(complete::<C>);
        }
        Next::User
    }

    /// Whether userspace wants to be asked to convert pages.
    pub(crate) fn user_converts_pages(&self) -> bool {
        // SAFETY: The VM is alive.
        unsafe { b::kvm_sev_user_maps_pages(self.vm().as_raw()) }
    }

    /// Asks userspace to convert pages, `KVM_EXIT_HYPERCALL`.
    pub(crate) fn ask_to_convert<C>(&self, what: Conversion) -> Next
    where
        C: Continue<Answer = Converted>,
    {
        // SAFETY: The vCPU is alive and ours.
        unsafe {
            b::kvm_sev_exit_map_pages(
                self.as_kvm_vcpu(),
                what.gfn.wrapping_mul(PAGE_SIZE as u64),
                what.pages,
                what.state == PageState::Private,
                what.large,
            )
        };
        self.continue_with::<C>()
    }

    /// Asks userspace to write certificates to `pages` pages of the guest's at `gpa`,
    /// `KVM_EXIT_SNP_REQ_CERTS`.
    pub(crate) fn ask_for_certificates<C>(&self, gpa: u64, pages: u64) -> Next
    where
        C: Continue<Answer = Certified>,
    {
        // SAFETY: The vCPU is alive and ours.
        unsafe { b::kvm_sev_exit_req_certs(self.as_kvm_vcpu(), gpa, pages) };
        self.continue_with::<C>()
    }
}
