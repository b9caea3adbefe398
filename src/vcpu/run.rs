// SPDX-License-Identifier: GPL-2.0
//! The way into the guest. Interrupts are off: nothing here allocates or sleeps.

use kernel::prelude::*;

use crate::kvm::vcpu::VmrunCtx;

/// Prepares VMRUN of a SEV guest. EINVAL if the VM has no encryption context.
pub(crate) fn prepare(ctx: &VmrunCtx<'_>) -> Result {
    let (sev, binding) = ctx.bound().ok_or(EINVAL)?;
    let context = binding.context();

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
