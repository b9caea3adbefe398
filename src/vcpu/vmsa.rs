// SPDX-License-Identifier: GPL-2.0
//! The page with a vCPU's registers, the VMSA.
//!
//! ```text
//!   PlainVmsa --fill--> FilledVmsa --LAUNCH_UPDATE_VMSA--> EncryptedVmsa
//!       ^                   |                                  | drop: flushed, then freed
//!       '------refused------'
//! ```
//!
//! Nothing can be written to an encrypted one: that type has no function for it. The page of an
//! SEV-SNP guest's is assigned to the guest; one that cannot be taken back is lost.

use core::ptr;

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::asid::Lease;
use crate::ffi::bindings::{
    sev_es_save_area,
    vmcb_save_area,
    KVM_SEV_CONST_SNP_POLICY_DEBUG, //
};
use crate::hw::addr::{PspAddr, PAGE_SIZE};
use crate::hw::cache::wbinvd_on_all_cpus;
use crate::hw::kind::Kind;
use crate::hw::page::{FirmwarePage, SaveArea};
use crate::hw::rmp::{self, Owner, PageSize};
use crate::kvm::file::SevDevice;
use crate::kvm::log;
use crate::kvm::vcpu::Vcpu;
use crate::psp::{
    Channel,
    DbgDecrypt,
    Fate,
    FwStatus,
    LaunchPage,
    LaunchUpdateVmsa,
    PageType,
    SnpDbgDecrypt, //
};
use crate::rejection::{Because, Outcome, Reason, Rejection};
use crate::vm::{EncContext, Launched, SnpLaunched};

/// Where the firmware measures that an SEV-SNP guest's first registers are: the last page that a
/// guest can address. Source: arch/x86/kvm/svm/sev.c; tools that compute measurements use it, too.
const INITIAL_VMSA_GPA: u64 = 0xffff_ffff_f000;

/// Not for use by the processor yet: all of it is 0.
pub(super) struct PlainVmsa(SaveArea);

/// With the registers that the guest starts with.
struct FilledVmsa(SaveArea);

/// The firmware and the processor access it with the guest's key.
pub(super) struct EncryptedVmsa {
    /// Freed after it was flushed: fields are dropped after `drop` ran.
    page: SaveArea,
    /// The processor does not let the host write to it.
    assigned: bool,
    /// Nobody else gets the ASID before.
    asid: Arc<Lease>,
}

/// The one or the other.
pub(super) enum Vmsa {
    Plain(PlainVmsa),
    Encrypted(EncryptedVmsa),
    /// The VM was stopped.
    Lost,
}

impl PlainVmsa {
    /// ENOMEM.
    pub(super) fn new() -> Result<Self> {
        SaveArea::new().map(Self)
    }

    /// Of a page that was written to, perhaps by the firmware.
    fn again(mut page: SaveArea) -> Self {
        page.clear();
        Self(page)
    }

    /// Writes the registers that userspace set. Errors: see [`Vcpu::write_registers`].
    fn fill(mut self, vcpu: &Vcpu, features: u64) -> Result<FilledVmsa, (Rejection, Self)> {
        match vcpu.write_registers(self.0.registers(), features) {
            Ok(()) => Ok(FilledVmsa(self.0)),
            Err(error) => Err((error, Self::again(self.0))),
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
    ) -> Result<EncryptedVmsa, (Rejection, PlainVmsa)> {
        // What the host wrote must be in memory, and must not get there later.
        self.0.flush_caches();

        let result = context.launched().and_then(|launched| {
            let mut command =
                LaunchUpdateVmsa::new(launched.handle(), self.0.address(), PAGE_SIZE as u32);
            Ok(launched.channel().issue(&mut command, status)?)
        });
        match result {
            Ok(()) => Ok(self.encrypted(context)),
            Err(error) => Err((error, PlainVmsa::again(self.0))),
        }
    }

    /// The same for an SEV-SNP guest, with the context `gctx`. Errors: EBADF if `sev_fd` is no file;
    /// EIO if the firmware refuses; EFAULT if the processor does.
    fn encrypt_snp(
        self,
        context: &EncContext,
        gctx: PspAddr,
        sev_fd: u32,
        status: &mut FwStatus,
    ) -> Result<EncryptedVmsa, (Rejection, Vmsa)> {
        let device = match SevDevice::from_fd(sev_fd) {
            Ok(device) => device,
            Err(error) => return Err((error.into(), Vmsa::Plain(PlainVmsa::again(self.0)))),
        };
        let page = match LaunchPage::assign(self.0.pfn(), INITIAL_VMSA_GPA, context.asid()) {
            Ok(page) => page,
            Err(error) => {
                let rejection = error.because(Reason::Rmp);
                return Err((rejection, Vmsa::Plain(PlainVmsa::again(self.0))));
            }
        };

        match page.update(gctx, PageType::Vmsa, Channel::Device(&device), status) {
            Ok(()) => Ok(self.encrypted(context)),
            Err((error, Fate::Shared)) => {
                Err((error.into(), Vmsa::Plain(PlainVmsa::again(self.0))))
            }
            Err((error, Fate::Leaked)) => Err((error.into(), Vmsa::Lost)),
        }
    }

    fn encrypted(self, context: &EncContext) -> EncryptedVmsa {
        EncryptedVmsa {
            page: self.0,
            assigned: context.kind() == Kind::Snp,
            asid: context.lease().clone(),
        }
    }
}

impl EncryptedVmsa {
    /// The host can use the page again. An error number if the processor does not agree.
    fn take_back(&self) -> Result {
        if self.assigned {
            rmp::make_shared(self.page.pfn(), PageSize::Small, Owner::Guest)?;
        }
        Ok(())
    }
}

impl Drop for EncryptedVmsa {
    fn drop(&mut self) {
        if let Err(error) = self.take_back() {
            pr_err!("SEV: a VMSA is lost: it is still the guest's: {error:?}\n");
            rmp::leak(self.page.pfn());
            return;
        }
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
    /// For the VMCB. `None` if there is none any more.
    pub(super) fn address(&self) -> Option<PspAddr> {
        match self {
            Vmsa::Plain(vmsa) => Some(vmsa.0.guest_address()),
            Vmsa::Encrypted(vmsa) => Some(vmsa.page.guest_address()),
            Vmsa::Lost => None,
        }
    }

    /// Fills it with a vCPU's registers, and has them encrypted by `encrypt`. Errors as
    /// [`PlainVmsa::fill`]; EINVAL if it is encrypted, or lost.
    fn encrypted(
        self,
        vcpu: &Vcpu,
        features: u64,
        encrypt: impl FnOnce(FilledVmsa) -> Result<EncryptedVmsa, (Rejection, Vmsa)>,
    ) -> Result<Self, (Rejection, Self)> {
        let Vmsa::Plain(vmsa) = self else {
            return Err((EINVAL.because(Reason::Encrypted), self));
        };
        vmsa.fill(vcpu, features)
            .map_err(|(error, vmsa)| (error, Vmsa::Plain(vmsa)))
            .and_then(encrypt)
            .map(Vmsa::Encrypted)
    }
}

/// Encrypts the registers of a vCPU and adds them to the measurement. They are the guest's from
/// then on.
///
/// Errors: EINVAL if that was done before, if the guest is being debugged, or if it is one without
/// protected registers; EBADF before the launch started; EIO if the firmware refuses.
pub(crate) fn encrypt(vcpu: &Vcpu, context: &EncContext, status: &mut FwStatus) -> Outcome {
    encrypt_with(vcpu, context, |vmsa| {
        vmsa.encrypt(context, status)
            .map_err(|(error, vmsa)| (error, Vmsa::Plain(vmsa)))
    })?;
    vcpu.protect_fpu();
    Ok(())
}

/// The same for an SEV-SNP guest, with the context `gctx`, through the descriptor `sev_fd`. If the page
/// is lost, the VM is stopped.
///
/// Errors: as [`encrypt`]; EBADF if `sev_fd` is no file; EFAULT if the processor refuses.
pub(crate) fn encrypt_snp(
    vcpu: &Vcpu,
    context: &EncContext,
    gctx: PspAddr,
    sev_fd: u32,
    status: &mut FwStatus,
) -> Outcome {
    encrypt_with(vcpu, context, |vmsa| {
        vmsa.encrypt_snp(context, gctx, sev_fd, status)
            .inspect_err(|(_, vmsa)| {
                if let Vmsa::Lost = vmsa {
                    vcpu.vm().stop();
                }
            })
    })
}

fn encrypt_with(
    vcpu: &Vcpu,
    context: &EncContext,
    encrypt: impl FnOnce(FilledVmsa) -> Result<EncryptedVmsa, (Rejection, Vmsa)>,
) -> Outcome {
    let features = context.params().vmsa_features();
    let es = vcpu.es().ok_or(EINVAL.because(Reason::NotSevEs))?;

    es.change_vmsa(|vmsa| vmsa.encrypted(vcpu, features, encrypt))?;
    vcpu.protect();
    // Not before: until then, userspace can switch it on and off.
    vcpu.virtualise_branch_records();
    Ok(())
}

/// Errors: ENOMEM; EIO.
fn decrypt(launched: &Launched, vmsa: PspAddr) -> Result<SaveArea> {
    let copy = SaveArea::new()?;
    let mut command = DbgDecrypt::new(launched.handle(), vmsa, copy.address(), PAGE_SIZE as u32);

    Channel::Kernel.issue(&mut command, &mut FwStatus::success())?;
    Ok(copy)
}

/// Errors: EACCES if the policy forbids it; ENOMEM; EIO.
fn decrypt_snp(launched: &SnpLaunched, vmsa: PspAddr) -> Result<SaveArea> {
    if launched.policy() & KVM_SEV_CONST_SNP_POLICY_DEBUG == 0 {
        return Err(EACCES);
    }
    let mut copy = SaveArea::new()?;
    let page = FirmwarePage::new()?;
    let mut command = SnpDbgDecrypt::new(launched.gctx(), vmsa, page.address());

    Channel::Kernel.issue(&mut command, &mut FwStatus::success())?;
    copy.copy_from(&page);
    Ok(copy)
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
        let context = vcpu.binding()?.context();

        vcpu.es()?.with_vmsa(|vmsa| match vmsa {
            Vmsa::Lost => None,
            Vmsa::Plain(vmsa) => Some(Decrypted::Original(vmsa.0.as_ptr())),
            Vmsa::Encrypted(_) => match context.kind() {
                // It may be in memory of the guest's meanwhile.
                Kind::Snp => decrypt_snp(context.snp()?, vcpu.vmsa()?).ok(),
                _ => decrypt(context.launched().ok()?, vmsa.address()?).ok(),
            }
            .map(Decrypted::Copy),
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
