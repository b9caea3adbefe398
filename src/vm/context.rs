// SPDX-License-Identifier: GPL-2.0
//! The encryption context: an ASID, a guest in the firmware, and the memory encrypted with its key.
//!
//! It is owned by reference counting, not by flags: whoever holds a reference can use the key, and
//! the last one to go returns everything, in the order that the firmware demands.
//!
//! Locks: `kvm->lock` → `regions`. `launched` is written once, with `kvm->lock` held. Dropping a
//! context issues commands: never do so with a spinlock held or interrupts off.

use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex, SetOnce};

use super::guest::BoundGuest;
use super::region::Regions;
use super::registry::{Card, Registered, Registry};
use crate::asid::Lease;
use crate::hw::addr::UserRange;
use crate::kvm::file::SevDevice;
use crate::kvm::pin::{PinAccount, PinFor, Pinned};
use crate::psp::{Channel, Handle};

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

/// See the head of this file. Fields are dropped in the order in which they are declared.
#[pin_data]
pub(crate) struct EncContext {
    /// First: the ASID, by which it is known, is still this context's.
    registered: Registered,
    /// Second: unpinned.
    #[pin]
    regions: Mutex<Regions>,
    /// Third: deactivated and decommissioned.
    launched: SetOnce<Launched>,
    /// Fourth: given back, to be flushed before anybody else gets it.
    asid: Arc<Lease>,
    pins: Arc<PinAccount>,
}

impl EncContext {
    /// A context that holds an ASID, and nothing else yet. ENOMEM.
    pub(crate) fn new(asid: Lease, registry: &Arc<Registry>) -> Result<Arc<Self>> {
        let pins = Arc::new(PinAccount::new(), GFP_KERNEL)?;
        let registered = registry.register(Card::new(asid.asid(), pins.clone()))?;
        let asid = Arc::new(asid, GFP_KERNEL)?;

        Arc::pin_init(
            pin_init!(Self {
                registered,
                regions <- new_mutex!(Regions::new(), "kvm_sev_regions"),
                launched: SetOnce::new(),
                asid,
                pins,
            }),
            GFP_KERNEL,
        )
    }

    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.asid
    }

    /// EBADF before the launch started: there is no device to issue commands through.
    pub(crate) fn launched(&self) -> Result<&Launched> {
        self.launched.as_ref().ok_or(EBADF)
    }

    /// EINVAL if it was launched before; `launched` is released then.
    pub(crate) fn set_launched(&self, launched: Launched) -> Result {
        self.registered.card().set_handle(launched.handle());
        if self.launched.populate(launched) {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }

    /// Pins memory for the duration of a command. Errors as [`Pinned::new`].
    pub(crate) fn pin(&self, range: UserRange, purpose: PinFor) -> Result<Pinned> {
        Pinned::new(range, purpose, &self.pins)
    }

    /// Pins memory for as long as the guest lives, or until [`EncContext::remove_region`].
    ///
    /// Errors: as [`Pinned::new`]; ENOMEM.
    pub(crate) fn add_region(&self, range: UserRange) -> Result {
        let region = self.pin(range, PinFor::Residence)?;

        // The host may have written the pages; what its caches hold must not hit memory later.
        region.flush_caches();
        self.regions.lock().add(region)
    }

    /// Takes a region out; it is unpinned when the result is dropped. EINVAL if there is none that
    /// was registered with exactly this range.
    pub(crate) fn remove_region(&self, range: UserRange) -> Result<Pinned> {
        self.regions.lock().take(range).ok_or(EINVAL)
    }
}
