// SPDX-License-Identifier: GPL-2.0
//! The encryption context: an ASID, a guest in the firmware, and the memory encrypted with its key.
//!
//! It is owned by reference counting, not by flags: whoever holds a reference can use the key, and
//! the last one to go returns everything, in the order that the firmware demands.
//!
//! Locks: `kvm->lock` → `regions`. `launched` and `snp` are written once, with `kvm->lock` held. Dropping a
//! context issues commands: never do so with a spinlock held or interrupts off.

use kernel::prelude::*;
use kernel::sync::atomic::{ordering::Relaxed, Atomic};
use kernel::sync::{new_mutex, Arc, Mutex, SetOnce};

use super::guest::BoundGuest;
use super::region::Regions;
use super::registry::{Card, State};
use super::snp::SnpLaunched;
use crate::asid::Lease;
use crate::ffi::bindings::KVM_SEV_CONST_SVM_SEV_FEAT_SECURE_TSC;
use crate::hw::addr::UserRange;
use crate::hw::asid::Asid;
use crate::hw::kind::Kind;
use crate::kvm::file::SevDevice;
use crate::kvm::last_vmcb::LastVmcbs;
use crate::kvm::pin::{PinAccount, PinFor, Pinned};
use crate::psp::{Channel, GuestRequests, Handle};
use crate::rejection::{Because, Outcome, Reason};

/// The part of a context that exists once LAUNCH_START succeeded.
pub(crate) struct Launched {
    guest: BoundGuest,
    /// Whoever launched the guest had this open.
    device: SevDevice,
}

impl Launched {
    pub(crate) fn new(guest: BoundGuest, device: SevDevice) -> Self {
        Self { guest, device }
    }

    pub(crate) fn handle(&self) -> Handle {
        self.guest.handle()
    }

    /// For commands about this guest.
    pub(crate) fn channel(&self) -> Channel<'_> {
        Channel::Device(&self.device)
    }
}

/// What kind of guest it is, decided before it is launched and never again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GuestParams {
    Sev,
    SevEs {
        /// `SVM_SEV_FEAT_*` of the guest's save areas.
        vmsa_features: u64,
        /// Highest version of the GHCB protocol that is offered to the guest; at least 1.
        ghcb_version: u16,
    },
    Snp {
        /// `SVM_SEV_FEAT_*` of the guest's save areas, with `SVM_SEV_FEAT_SNP_ACTIVE`.
        vmsa_features: u64,
        /// The same; at least 2.
        ghcb_version: u16,
    },
}

impl GuestParams {
    pub(crate) const fn kind(self) -> Kind {
        match self {
            GuestParams::Sev => Kind::Sev,
            GuestParams::SevEs { .. } => Kind::SevEs,
            GuestParams::Snp { .. } => Kind::Snp,
        }
    }

    /// 0 for a guest without protected registers.
    pub(crate) const fn vmsa_features(self) -> u64 {
        match self {
            GuestParams::Sev => 0,
            GuestParams::SevEs { vmsa_features, .. } | GuestParams::Snp { vmsa_features, .. } => {
                vmsa_features
            }
        }
    }

    /// Whether the host has no influence on what time it is for the guest.
    pub(crate) const fn has_secure_tsc(self) -> bool {
        self.vmsa_features() & KVM_SEV_CONST_SVM_SEV_FEAT_SECURE_TSC != 0
    }

    /// 0 for a guest without protected registers.
    pub(crate) const fn ghcb_version(self) -> u16 {
        match self {
            GuestParams::Sev => 0,
            GuestParams::SevEs { ghcb_version, .. } | GuestParams::Snp { ghcb_version, .. } => {
                ghcb_version
            }
        }
    }
}

/// See the head of this file. Fields are dropped in the order in which they are declared.
#[pin_data]
pub(crate) struct EncContext {
    /// First: unpinned.
    #[pin]
    regions: Mutex<Regions>,
    /// Second: deactivated and decommissioned. Only one of both is ever set: that of its kind.
    launched: SetOnce<Launched>,
    snp: SetOnce<SnpLaunched>,
    /// Third: given back, to be flushed before anybody else gets it.
    lease: Arc<Lease>,
    /// The one of the lease.
    asid: Asid,
    pins: Arc<PinAccount>,
    last_vmcbs: LastVmcbs,
    params: GuestParams,
    card: Arc<Card>,
    /// `None` unless it is an SEV-SNP guest's.
    requests: Option<Pin<KBox<GuestRequests>>>,
    /// Userspace has certificates for the guest's reports.
    certificates: Atomic<bool>,
}

impl EncContext {
    /// A context that holds an ASID, and nothing else yet. ENOMEM; EIO if the firmware does not help.
    pub(super) fn new(lease: Arc<Lease>, params: GuestParams) -> Result<Arc<Self>> {
        let asid = lease.asid();
        let pins = Arc::new(PinAccount::new(), GFP_KERNEL_ACCOUNT)?;
        let card = Card::new(asid, params.kind(), pins.clone());
        let card = Arc::new(card, GFP_KERNEL_ACCOUNT)?;
        let last_vmcbs = LastVmcbs::new()?;
        let requests = match params.kind() {
            Kind::Snp => Some(GuestRequests::new()?),
            _ => None,
        };

        Arc::pin_init(
            pin_init!(Self {
                regions <- new_mutex!(Regions::new(), "kvm_sev_regions"),
                launched: SetOnce::new(),
                snp: SetOnce::new(),
                lease,
                asid,
                pins,
                last_vmcbs,
                params,
                card,
                requests,
                certificates: Atomic::new(false),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    pub(crate) fn last_vmcbs(&self) -> &LastVmcbs {
        &self.last_vmcbs
    }

    pub(crate) fn params(&self) -> GuestParams {
        self.params
    }

    pub(crate) fn kind(&self) -> Kind {
        self.params.kind()
    }

    /// An SEV-SNP guest's way to the firmware.
    pub(crate) fn requests(&self) -> Option<&GuestRequests> {
        self.requests.as_deref()
    }

    /// Userspace will provide certificates for the reports of an SEV-SNP guest.
    pub(crate) fn provide_certificates(&self) {
        self.certificates.store(true, Relaxed);
    }

    /// Whether it does.
    pub(crate) fn provides_certificates(&self) -> bool {
        self.certificates.load(Relaxed)
    }

    pub(super) fn card(&self) -> &Arc<Card> {
        &self.card
    }

    /// A command that changes how far the guest is succeeded.
    pub(crate) fn enter(&self, state: State) {
        self.card.set_state(state);
    }

    pub(crate) fn asid(&self) -> Asid {
        self.asid
    }

    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// EBADF before the launch started: there is no device to issue commands through.
    pub(crate) fn launched(&self) -> Outcome<&Launched> {
        self.launched
            .as_ref()
            .ok_or(EBADF.because(Reason::NotLaunched))
    }

    /// EINVAL if it was launched before; `launched` is released then.
    pub(crate) fn set_launched(&self, launched: Launched) -> Outcome {
        let handle = launched.handle();

        if !self.launched.populate(launched) {
            return Err(EINVAL.because(Reason::Launched));
        }
        self.card.set_handle(handle);
        Ok(())
    }

    /// The same for an SEV-SNP guest; `None` before the launch started.
    pub(crate) fn snp(&self) -> Option<&SnpLaunched> {
        self.snp.as_ref()
    }

    /// EINVAL if it was launched before; `launched` is released then.
    pub(crate) fn set_snp(&self, launched: SnpLaunched) -> Outcome {
        if !self.snp.populate(launched) {
            return Err(EINVAL.because(Reason::Launched));
        }
        Ok(())
    }

    /// Pins memory for the duration of a command. Errors as [`Pinned::new`].
    pub(crate) fn pin(&self, range: UserRange, purpose: PinFor) -> Outcome<Pinned> {
        Pinned::new(range, purpose, &self.pins)
    }

    /// Pins memory for as long as the guest lives, or until [`EncContext::remove_region`].
    ///
    /// Errors: as [`Pinned::new`]; ENOMEM.
    pub(crate) fn add_region(&self, range: UserRange) -> Outcome {
        let region = self.pin(range, PinFor::Residence)?;

        // The host may have written the pages; what its caches hold must not hit memory later.
        region.flush_caches();
        self.regions.lock().add(region)?;
        Ok(())
    }

    /// Takes a region out; it is unpinned when the result is dropped. EINVAL if there is none that
    /// was registered with exactly this range.
    pub(crate) fn remove_region(&self, range: UserRange) -> Outcome<Pinned> {
        let region = self.regions.lock().take(range);
        region.ok_or(EINVAL.because(Reason::NoRegion))
    }
}
