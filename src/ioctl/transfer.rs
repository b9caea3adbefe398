// SPDX-License-Identifier: GPL-2.0
//! `KVM_CAP_VM_COPY_ENC_CONTEXT_FROM` and `KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM`: a VM gets the
//! encryption context of another one, to share or to keep.
//!
//! Both are called on the destination. Whatever can fail is done before anything is changed.

use kernel::prelude::*;

use crate::hw::kind::Kind;
use crate::kvm::two::{TwoVms, VmFile};
use crate::kvm::vcpus::{AllVcpus, Frozen};
use crate::kvm::Vm;
use crate::rejection::{Because, Outcome, Reason};
use crate::vcpu;
use crate::vm::{Role, SevVm};

/// Makes `destination` a mirror of the VM `source_fd`: its vCPUs run with that one's key.
///
/// Takes `kvm->lock` of both. Errors: EBADF if `source_fd` is not a VM; EINVAL if it is this VM, is
/// no SEV VM, an SEV-SNP VM or a mirror itself, and if `destination` is a SEV VM already or has vCPUs; EBUSY
/// if one of them takes part in another transfer; EINTR if the task is being killed; ENOMEM.
pub(super) fn copy(destination: &Vm, source_fd: u32) -> Outcome {
    let file = VmFile::from_fd(source_fd)?;
    let two = TwoVms::lock(destination, file.vm())?;

    if two.destination.sev().is_some() {
        return Err(EINVAL.because(Reason::Initialised));
    }
    if two.destination.has_vcpus() {
        return Err(EINVAL.because(Reason::HasVcpus));
    }
    let source = two.source.binding().ok_or(EINVAL.because(Reason::NotSev))?;
    if source.role() == Role::Mirror {
        return Err(EINVAL.because(Reason::Mirror));
    }
    if source.context().kind() == Kind::Snp {
        return Err(EINVAL.because(Reason::Snp));
    }

    let mut state = SevVm::new()?;
    state.bind(source.mirror()?);
    two.destination.become_sev(state)?;
    Ok(())
}

/// Gives `destination` the context of the VM `source_fd`, which is dead thereafter.
///
/// An owner's mirrors stay what they are; a mirror's move makes the destination the mirror. Takes
/// `kvm->lock` of both and the mutexes of all their vCPUs. Errors: EBADF if `source_fd` is not a VM;
/// EINVAL if it is this VM, of another type, no SEV VM, an SEV-SNP VM, or if its vCPUs cannot be matched with
/// those of `destination`, and if that is a SEV VM already; EBUSY if the current task's cgroup is
/// over its limit, if one of them takes part in another transfer, or a vCPU is being created; EINTR
/// if the task is being killed; ENOMEM.
pub(super) fn take(destination: &Vm, source_fd: u32) -> Outcome {
    let file = VmFile::from_fd(source_fd)?;
    let mut two = TwoVms::lock(destination, file.vm())?;

    if two.destination.vm_type() != two.source.vm_type() {
        return Err(EINVAL.because(Reason::VmType));
    }
    if two.destination.sev().is_some() {
        return Err(EINVAL.because(Reason::Initialised));
    }
    let source = two.source.binding().ok_or(EINVAL.because(Reason::NotSev))?;
    let kind = source.context().kind();
    if kind == Kind::Snp {
        return Err(EINVAL.because(Reason::Snp));
    }
    let charge = source
        .charge_current()
        .map_err(|error| error.because(Reason::CgroupLimit))?;
    let mut state = SevVm::new()?;

    let to = AllVcpus::lock(&two.destination)?;
    let mut from = Frozen::new(&mut two.source)?;

    if kind == Kind::SevEs && !can_take_registers(&to, from.vcpus()) {
        return Err(EINVAL.because(Reason::Vcpus));
    }

    // Nothing fails from here on. First of all the source's CPUs forget the guest's memory: when it
    // is reclaimed, only the destination's will be asked to.
    if let Some(sev) = from.vcpus().vm().sev() {
        sev.run_cpus().write_back_caches();
    }
    let Some(binding) = from.take_binding() else {
        return Err(EINVAL.because(Reason::NotSev));
    };
    binding.taken_over(charge);
    state.bind(binding);
    to.vm().become_sev(state)?;
    for vcpu in to.iter() {
        vcpu::init_vmcb(vcpu, false);
    }
    if kind == Kind::SevEs {
        for (vcpu, source) in to.iter().zip(from.vcpus().iter()) {
            vcpu::transfer(vcpu, source)?;
        }
    }
    from.vcpus().vm().retract_sev();
    Ok(())
}

/// Whether each vCPU can take over the encrypted registers of another one, as [`vcpu::transfer`]
/// wants it.
fn can_take_registers(to: &AllVcpus<'_, '_>, from: &AllVcpus<'_, '_>) -> bool {
    to.count() == from.count()
        && from.iter().all(|vcpu| vcpu.is_protected())
        && to.iter().all(|vcpu| vcpu.es().is_none())
}
