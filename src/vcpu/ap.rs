// SPDX-License-Identifier: GPL-2.0
//! How the vCPUs of an SEV-SNP guest start and stop each other.
//!
//! A vCPU's first registers are in a page of the host's. All others are in private memory of the guest,
//! which says where: another vCPU creates them and asks that this one use them, or that it stop.
//!
//! ```text
//!   AP creation:   another vCPU  --request--> Ap --INIT--> this vCPU
//!   invalidation:  whoever converts or frees the memory --kick--> this vCPU looks again
//! ```
//!
//! Locks: `pending` → the lock of the private memory's file → `mmu_lock` (shared). `vmsa_gpa` is
//! written with `pending` held, becomes valid with `mmu_lock` held, and is read with `mmu_lock` held
//! exclusively by those who invalidate memory: they never miss a page that is in use.

use kernel::prelude::*;
use kernel::sync::atomic::{ordering::Relaxed, Atomic};
use kernel::sync::{new_mutex, Mutex};

use super::es::EsVcpu;
use crate::hw::addr::PAGE_SIZE;
use crate::kvm::exit::RunState;
use crate::kvm::gmem::InUse;
use crate::kvm::vcpu::Vcpu;
use crate::kvm::Vm;

/// Not the address of a page.
const NOWHERE: u64 = u64::MAX;

/// What another vCPU wants of this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ApRequest {
    /// To run with the registers at this guest physical address.
    Create(u64),
    /// To stop.
    Destroy,
}

/// The part of an SEV-SNP guest's vCPU that others use, too.
#[pin_data]
pub(crate) struct Ap {
    /// Served when the vCPU gets INIT.
    #[pin]
    pending: Mutex<Option<ApRequest>>,
    /// Guest physical address of the registers, or [`NOWHERE`].
    vmsa_gpa: Atomic<u64>,
    /// The registers are not the first ones any more.
    created: Atomic<bool>,
}

impl Ap {
    /// ENOMEM.
    pub(super) fn new() -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                pending <- new_mutex!(None, "kvm_sev_ap"),
                vmsa_gpa: Atomic::new(NOWHERE),
                created: Atomic::new(false),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Another vCPU asks for something. The last request before the vCPU gets INIT counts.
    pub(crate) fn request(&self, request: ApRequest) {
        *self.pending.lock() = Some(request);
    }

    /// Whether the registers are in the guest's memory, or were.
    pub(super) fn is_created(&self) -> bool {
        self.created.load(Relaxed)
    }

    /// Whether the registers may be in one of these guest pages. With `mmu_lock` held.
    fn uses(&self, gfns: &core::ops::Range<u64>) -> bool {
        let gpa = self.vmsa_gpa.load(Relaxed);

        gpa != NOWHERE && gfns.contains(&(gpa / PAGE_SIZE as u64))
    }

    /// Looks where the registers are. Without them, the vCPU does not run. With `pending` held.
    fn load(&self, vcpu: &Vcpu, gpa: u64) {
        vcpu.set_vmsa(None);
        self.vmsa_gpa.store(NOWHERE, Relaxed);
        self.created.store(true, Relaxed);
        // Nothing that the processor remembers of the VMCB is right any more.
        vcpu.mark_all_dirty();

        if gpa == NOWHERE {
            return;
        }
        let memory = vcpu.memory();
        let gfn = gpa / PAGE_SIZE as u64;
        let seq = memory.invalidations();
        let Ok(page) = memory.page(gfn) else { return };

        let in_use = InUse::begin(&memory);
        self.vmsa_gpa.store(gpa, Relaxed);
        if in_use.was_invalidated(seq, gfn) {
            vcpu.request_vmsa_reload();
        } else {
            vcpu.set_vmsa(Some(page.pfn().guest_address()));
        }
    }
}

/// Serves the request of another vCPU, because of an INIT, if there is one.
pub(super) fn serve(vcpu: &Vcpu, ap: &Ap) {
    let mut pending = ap.pending.lock();
    let Some(request) = pending.take() else {
        return;
    };

    vcpu.set_run_state(RunState::Halted);
    match request {
        ApRequest::Create(gpa) => {
            ap.load(vcpu, gpa);
            // Also without registers: userspace is told then, rather than that nothing happens.
            vcpu.set_run_state(RunState::Runnable);
        }
        ApRequest::Destroy => ap.load(vcpu, NOWHERE),
    }
}

/// The page with the registers may be another one now.
pub(crate) fn reload_vmsa(vcpu: &Vcpu) {
    let Some(ap) = vcpu.es().and_then(EsVcpu::ap) else {
        return;
    };
    let _pending = ap.pending.lock();

    ap.load(vcpu, ap.vmsa_gpa.load(Relaxed));
}

/// Guest pages are about to be converted or freed: vCPUs whose registers are there have to look again.
/// With `mmu_lock` held exclusively.
pub(crate) fn invalidate(vm: &Vm, gfns: core::ops::Range<u64>) {
    for vcpu in vm.remote_vcpus() {
        if vcpu.ap().is_some_and(|ap| ap.uses(&gfns)) {
            vcpu.reload_vmsa();
        }
    }
}
