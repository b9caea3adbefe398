// SPDX-License-Identifier: GPL-2.0
//! What a vCPU has besides if its registers are protected.
//!
//! All of it but [`Ap`] is used by the task that holds the vCPU's mutex, only.

use core::cell::Cell;

use kernel::prelude::*;

use super::ap::Ap;
use super::vmsa::{PlainVmsa, Vmsa};
use crate::ghcb::msr;
use crate::ghcb::psc::Psc;
use crate::hw::addr::PspAddr;
use crate::hw::kind::Kind;
use crate::kvm::exchange::Exchange;
use crate::kvm::vcpu::Vcpu;
use crate::rejection::{Outcome, Rejection};

/// Whether a vCPU waits to be started by another one, and how it asked for that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Hold {
    #[default]
    None,
    /// By an exit with a GHCB.
    Ghcb,
    /// By the GHCB MSR.
    Msr,
}

/// See the head of this file.
pub(crate) struct EsVcpu {
    exchange: Exchange,
    /// `None` only while it is being changed.
    vmsa: Cell<Option<Vmsa>>,
    hold: Cell<Hold>,
    /// Another vCPU has started this one before.
    started: Cell<bool>,
    /// Guest physical address of the data of the last exit, or 0.
    scratch: Cell<u64>,
    snp: Option<SnpVcpu>,
}

/// What it has besides if it is an SEV-SNP guest's.
struct SnpVcpu {
    ap: Pin<KBox<Ap>>,
    /// Guest physical address of the page that the guest said it will use as GHCB, or 0.
    registered_ghcb: Cell<u64>,
    /// The request to convert memory that is in progress.
    psc: Cell<Option<Psc>>,
}

impl EsVcpu {
    /// For a guest of this kind. ENOMEM.
    pub(super) fn new(kind: Kind) -> Result<KBox<Self>> {
        let snp = if kind == Kind::Snp {
            Some(SnpVcpu {
                ap: Ap::new()?,
                registered_ghcb: Cell::new(0),
                psc: Cell::new(None),
            })
        } else {
            None
        };
        let state = Self {
            snp,
            exchange: Exchange::new()?,
            vmsa: Cell::new(Some(Vmsa::Plain(PlainVmsa::new()?))),
            hold: Cell::new(Hold::None),
            started: Cell::new(false),
            scratch: Cell::new(0),
        };
        Ok(KBox::new(state, GFP_KERNEL_ACCOUNT)?)
    }

    pub(crate) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    pub(crate) fn set_hold(&self, hold: Hold) {
        self.hold.set(hold);
    }

    /// Guest physical address of the data of the last exit; 0 if the guest gave none.
    pub(crate) fn scratch(&self) -> u64 {
        self.scratch.get()
    }

    pub(crate) fn set_scratch(&self, gpa: u64) {
        self.scratch.set(gpa);
    }

    /// `None` unless it is an SEV-SNP guest's.
    pub(crate) fn ap(&self) -> Option<&Ap> {
        Some(&self.snp.as_ref()?.ap)
    }

    /// An SEV-SNP guest says where its GHCB will be.
    pub(crate) fn register_ghcb(&self, gpa: u64) {
        if let Some(snp) = &self.snp {
            snp.registered_ghcb.set(gpa);
        }
    }

    /// Whether the guest may use this page as GHCB.
    pub(crate) fn allows_ghcb(&self, gpa: u64) -> bool {
        match &self.snp {
            Some(snp) => snp.registered_ghcb.get() == gpa,
            None => true,
        }
    }

    /// Takes the request to convert memory that is in progress.
    pub(crate) fn take_psc(&self) -> Option<Psc> {
        self.snp.as_ref()?.psc.take()
    }

    /// The request will be continued when userspace has done its part.
    pub(crate) fn set_psc(&self, psc: Psc) {
        if let Some(snp) = &self.snp {
            snp.psc.set(Some(psc));
        }
    }

    pub(super) fn with_vmsa<R>(&self, f: impl FnOnce(&Vmsa) -> R) -> Option<R> {
        let vmsa = self.vmsa.take()?;
        let result = f(&vmsa);

        self.vmsa.set(Some(vmsa));
        Some(result)
    }

    /// `f` gives a page back in any case.
    pub(super) fn change_vmsa(
        &self,
        f: impl FnOnce(Vmsa) -> Result<Vmsa, (Rejection, Vmsa)>,
    ) -> Outcome {
        let (result, vmsa) = match f(self.vmsa.take().ok_or(EINVAL)?) {
            Ok(vmsa) => (Ok(()), vmsa),
            Err((rejection, vmsa)) => (Err(rejection), vmsa),
        };

        self.vmsa.set(Some(vmsa));
        result
    }

    /// For the VMCB.
    pub(super) fn vmsa_address(&self) -> Option<PspAddr> {
        self.with_vmsa(Vmsa::address)?
    }
}

/// Another vCPU starts this one.
pub(crate) fn deliver_sipi(vcpu: &Vcpu) {
    let Some(es) = vcpu.es() else { return };

    // The first time it starts with the registers that userspace gave it.
    if !es.started.replace(true) {
        return;
    }
    // Later it returns from the exit by which it went to sleep; the guest knows where to go on.
    match es.hold.get() {
        Hold::None => {}
        Hold::Ghcb => {
            es.exchange.with_ghcb(|ghcb| ghcb.answer_success(1));
        }
        Hold::Msr => vcpu.set_ghcb_msr(msr::ap_reset_hold(true)),
    }
}

/// Moves the encrypted registers, and all that belongs to them, from one vCPU to another, for a
/// move of the guest to another VM. `from` cannot run thereafter.
///
/// The mutexes of both must be held. `to` must have been set up as a vCPU of a SEV-ES guest, with
/// [`init_vmcb`](super::init_vmcb), and have no registers of its own. Errors: EINVAL if these
/// conditions are not met, or if the registers of `from` are not encrypted; nothing is changed then.
pub(crate) fn transfer(to: &Vcpu, from: &Vcpu) -> Result {
    if !from.is_protected() {
        return Err(EINVAL);
    }
    to.take_es_of(from)?;

    to.set_vmsa(to.es().and_then(EsVcpu::vmsa_address));
    to.set_ghcb_msr(from.ghcb_msr());
    to.protect_fpu();
    to.protect();
    to.virtualise_branch_records();

    from.set_vmsa(None);
    from.set_ghcb_msr(u64::MAX);
    from.unprotect();
    Ok(())
}
