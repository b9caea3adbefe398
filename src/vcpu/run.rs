// SPDX-License-Identifier: GPL-2.0
//! The way into the guest. Interrupts or preemption are off: nothing here allocates or sleeps.

use kernel::prelude::*;

use super::es::Hold;
use super::setup::swaps_debug_registers;
use crate::hw::kind::Kind;
use crate::kvm::host::Feature;
use crate::kvm::host_state::HostSaveArea;
use crate::kvm::vcpu::{Vcpu, VmrunCtx};
use crate::vm::GuestParams;

/// Prepares VMRUN of a SEV guest. EINVAL if the VM has no encryption context, or the vCPU no
/// registers.
pub(crate) fn prepare(ctx: &VmrunCtx<'_>) -> Result {
    let (sev, binding) = ctx.bound().ok_or(EINVAL)?;
    let context = binding.context();

    if context.kind().protects_registers() && !ctx.has_vmsa() {
        return Err(EINVAL);
    }

    // Before the guest can dirty this CPU's caches.
    sev.run_cpus().add(ctx.cpu());
    ctx.set_asid(context.asid());

    // The vCPUs of a SEV guest share its ASID, so stale TLB entries of another vCPU, or of this one
    // from when it ran here last, would be taken for its own.
    if !context.last_vmcbs().continues(ctx) {
        ctx.flush_asid_from_tlb();
    }
    Ok(())
}

/// Saves what the processor loads when it leaves the guest, but does not save when it enters it.
pub(crate) fn prepare_switch(vcpu: &Vcpu, host: &HostSaveArea) {
    host.save();
    if vcpu
        .binding()
        .is_some_and(|binding| can_swap_debug_registers(binding.context().params()))
    {
        host.save_debug_masks();
    }
}

/// Whether the processor may swap debug registers. An SEV-SNP guest says so in registers that it
/// creates itself, without telling the host the truth.
fn can_swap_debug_registers(params: GuestParams) -> bool {
    swaps_debug_registers(params) || (params.kind() == Kind::Snp && Feature::DebugSwap.is_present())
}

/// The guest runs on after an exit that it caused itself.
pub(crate) fn resume(vcpu: &Vcpu) {
    if let Some(es) = vcpu.es() {
        es.set_hold(Hold::None);
    }
    if vcpu.has_ghcb() {
        vcpu.unmap_ghcb();
    }
}
