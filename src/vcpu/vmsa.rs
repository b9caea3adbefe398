// SPDX-License-Identifier: GPL-2.0
//! The page with a vCPU's registers, the VMSA.
//!
//! ```text
//!   PlainVmsa --fill--> FilledVmsa --LAUNCH_UPDATE_VMSA--> EncryptedVmsa
//!       ^                   |                                  | drop: flushed, then freed
//!       '------refused------'
//! ```
//!
//! Nothing can be written to an encrypted one: that type has no function for it.

use core::ptr;

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::asid::Lease;
use crate::ffi::bindings::{sev_es_save_area, vmcb_save_area};
use crate::hw::addr::{PspAddr, PAGE_SIZE};
use crate::hw::cache::wbinvd_on_all_cpus;
use crate::hw::page::SaveArea;
use crate::kvm::log;
use crate::kvm::vcpu::Vcpu;
use crate::psp::{Channel, DbgDecrypt, FwStatus, LaunchUpdateVmsa};
use crate::vm::EncContext;

/// Not for use by the processor yet.
pub(super) struct PlainVmsa(SaveArea);

/// With the registers that the guest starts with.
struct FilledVmsa(SaveArea);

/// The firmware and the processor access it with the guest's key.
pub(super) struct EncryptedVmsa {
    /// Freed after it was flushed: fields are dropped after `drop` ran.
    page: SaveArea,
    /// Nobody else gets the ASID before.
    asid: Arc<Lease>,
}

/// The one or the other.
pub(super) enum Vmsa {
    Plain(PlainVmsa),
    Encrypted(EncryptedVmsa),
}

impl PlainVmsa {
    /// ENOMEM.
    pub(super) fn new() -> Result<Self> {
        SaveArea::new().map(Self)
    }

    /// Writes the registers that userspace set. Errors: see [`Vcpu::write_registers`].
    fn fill(mut self, vcpu: &Vcpu, features: u64) -> Result<FilledVmsa, (Error, Self)> {
        match vcpu.write_registers(self.0.zeroed(), features) {
            Ok(()) => Ok(FilledVmsa(self.0)),
            Err(error) => Err((error, self)),
        }
    }
}

impl FilledVmsa {
    /// Has the firmware encrypt and measure it. Errors: EBADF before the launch started; EIO if the
    /// firmware refuses.
    fn encrypt(
        self,
        context: &EncContext,
        status: &mut FwStatus,
    ) -> Result<EncryptedVmsa, (Error, PlainVmsa)> {
        // What the host wrote must be in memory, and must not get there later.
        self.0.flush_caches();

        let result = context.launched().and_then(|launched| {
            let mut command =
                LaunchUpdateVmsa::new(launched.handle(), self.0.address(), PAGE_SIZE as u32);
            launched.channel().issue(&mut command, status)
        });
        match result {
            Ok(()) => Ok(EncryptedVmsa {
                page: self.0,
                asid: context.lease().clone(),
            }),
            Err(error) => Err((error, PlainVmsa(self.0))),
        }
    }
}

impl Drop for EncryptedVmsa {
    fn drop(&mut self) {
        // Lest what caches hold of it be written over whatever the page is used for next.
        if !self.page.flush_guest_caches(self.asid.asid()) {
            if log::allowed() {
                pr_warn!("SEV: a VMSA could not be flushed alone\n");
            }
            wbinvd_on_all_cpus();
        }
    }
}

impl Vmsa {
    fn page(&self) -> &SaveArea {
        match self {
            Vmsa::Plain(vmsa) => &vmsa.0,
            Vmsa::Encrypted(vmsa) => &vmsa.page,
        }
    }

    /// For the VMCB.
    pub(super) fn address(&self) -> PspAddr {
        self.page().guest_address()
    }

    /// As [`PlainVmsa::fill`] and [`FilledVmsa::encrypt`]; EINVAL if it is encrypted.
    fn encrypted(
        self,
        vcpu: &Vcpu,
        context: &EncContext,
        status: &mut FwStatus,
    ) -> Result<Self, (Error, Self)> {
        let Vmsa::Plain(vmsa) = self else {
            return Err((EINVAL, self));
        };
        vmsa.fill(vcpu, context.params().vmsa_features())
            .and_then(|vmsa| vmsa.encrypt(context, status))
            .map(Vmsa::Encrypted)
            .map_err(|(error, vmsa)| (error, Vmsa::Plain(vmsa)))
    }
}

/// Encrypts the registers of a vCPU and adds them to the measurement. They are the guest's from
/// then on.
///
/// Errors: EINVAL if that was done before, if the guest is being debugged, or if it is one without
/// protected registers; EBADF before the launch started; EIO if the firmware refuses.
pub(crate) fn encrypt(vcpu: &Vcpu, context: &EncContext, status: &mut FwStatus) -> Result {
    let es = vcpu.es().ok_or(EINVAL)?;

    es.change_vmsa(|vmsa| vmsa.encrypted(vcpu, context, status))?;
    vcpu.protect();
    // Not before: until then, userspace can switch it on and off.
    vcpu.virtualise_branch_records();
    Ok(())
}

/// A vCPU's registers in plaintext, for the kernel log.
pub(crate) enum Decrypted {
    /// They are not encrypted yet.
    Original(*mut sev_es_save_area),
    Copy(SaveArea),
}

impl Decrypted {
    /// `None` if the guest's policy, or something else, forbids it. May sleep.
    pub(crate) fn of(vcpu: &Vcpu) -> Option<Self> {
        let es = vcpu.es()?;
        let launched = vcpu.binding().map(|binding| binding.context().launched());

        es.with_vmsa(|vmsa| match vmsa {
            Vmsa::Plain(vmsa) => Some(Decrypted::Original(vmsa.0.as_ptr())),
            Vmsa::Encrypted(vmsa) => {
                let launched = launched?.ok()?;
                let copy = SaveArea::new().ok()?;
                let mut command = DbgDecrypt::new(
                    launched.handle(),
                    vmsa.page.guest_address(),
                    copy.address(),
                    PAGE_SIZE as u32,
                );
                Channel::Kernel
                    .issue(&mut command, &mut FwStatus::success())
                    .ok()?;
                Some(Decrypted::Copy(copy))
            }
        })?
    }

    /// For C code, which gives a copy back.
    pub(crate) fn into_raw(this: Option<Self>) -> *mut vmcb_save_area {
        match this {
            None => ptr::null_mut(),
            Some(Decrypted::Original(page)) => page.cast(),
            Some(Decrypted::Copy(copy)) => copy.into_raw().cast(),
        }
    }
}
