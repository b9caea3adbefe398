// SPDX-License-Identifier: GPL-2.0
//! The way into the guest. Interrupts are off: nothing here allocates or sleeps.

use kernel::prelude::*;

use crate::kvm::vcpu::VmrunCtx;

/// Prepares VMRUN of a SEV guest. EINVAL if the VM has no encryption context.
pub(crate) fn prepare(ctx: &VmrunCtx<'_>) -> Result {
    let sev = ctx.vm().sev().ok_or(EINVAL)?;
    let asid = ctx.binding().ok_or(EINVAL)?.context().asid();

    // Before the guest can dirty this CPU's caches.
    sev.run_cpus().add(ctx.cpu());
    ctx.set_asid(asid);

    // The vCPUs of a SEV guest share its ASID, so stale TLB entries of another vCPU, or of this one
    // from when it ran here last, would be taken for its own.
    if !ctx.continues(asid) {
        ctx.flush_asid_from_tlb();
    }
    Ok(())
}
