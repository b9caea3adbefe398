// SPDX-License-Identifier: GPL-2.0
//! `KVM_MEMORY_ENCRYPT_REG_REGION` and `_UNREG_REGION`: guest memory that must stay where it is.

use kernel::prelude::*;

use crate::hw::addr::UserRange;
use crate::kvm::{Vm, VmLocked};
use crate::rejection::{Because, Outcome, Reason};
use crate::vm::{EncContext, Role};

/// Pins guest memory. Takes `kvm->lock`.
///
/// Errors: ENOTTY if the VM is not a SEV VM; EINVAL for a mirror, for an empty or wrapping range or
/// an absurd size; ENOMEM if it cannot be pinned or would exceed RLIMIT_MEMLOCK.
pub(super) fn register(vm: &Vm, address: u64, size: u64) -> Outcome {
    let vm = vm.lock();
    let context = owned(&vm)?;

    context.add_region(UserRange::new(address, size).ok_or(EINVAL.because(Reason::Range))?)
}

/// Unpins guest memory. Takes `kvm->lock`.
///
/// Errors: ENOTTY if the VM is not a SEV VM; EINVAL for a mirror, and unless exactly this range was
/// registered.
pub(super) fn unregister(vm: &Vm, address: u64, size: u64) -> Outcome {
    let vm = vm.lock();
    let context = owned(&vm)?;
    let range = UserRange::new(address, size).ok_or(EINVAL.because(Reason::Range))?;
    let region = context.remove_region(range)?;

    // Before anybody else can get the pages: the guest's dirty cache lines would hit them.
    if let Some(sev) = vm.sev() {
        sev.run_cpus().write_back_caches();
    }
    drop(region);
    Ok(())
}

/// The context whose regions the VM manages.
fn owned<'a>(vm: &'a VmLocked<'_>) -> Outcome<&'a EncContext> {
    let binding = vm.binding().ok_or(ENOTTY.because(Reason::NotSev))?;

    match binding.role() {
        Role::Owner => Ok(binding.context()),
        Role::Mirror => Err(EINVAL.because(Reason::Mirror)),
    }
}
