// SPDX-License-Identifier: GPL-2.0
//! AP creation: a vCPU starts and stops others.

use kernel::prelude::*;

use super::Exited;
use crate::ghcb::snapshot::{ApAction, Refusal};
use crate::hw::addr::{Pfn, PAGE_SIZE};
use crate::kvm::log;
use crate::vcpu::ApRequest;

/// A page of registers that begins a large page makes the processor report violations of the RMP that
/// there are not, elsewhere. See [`crate::hw::page::alloc_save_area`].
const LARGE: u64 = Pfn::PER_LARGE * PAGE_SIZE as u64;

/// Serves the request. What is wrong with it, the guest is told.
pub(super) fn create(
    exited: &Exited<'_>,
    apic_id: u32,
    action: ApAction,
    features: u64,
    vmsa: u64,
) {
    let result = match action {
        ApAction::Create { .. } => check(exited, features, vmsa).map(|()| ApRequest::Create(vmsa)),
        ApAction::Destroy => Ok(ApRequest::Destroy),
    };
    let target = exited.vcpu.vm().vcpu_by_id(apic_id);
    let ap = target.as_ref().and_then(|target| target.ap());

    match (result, target.as_ref(), ap) {
        (Ok(request), Some(target), Some(ap)) => {
            ap.request(request);
            if action != (ApAction::Create { at_once: false }) {
                target.update_state();
            }
        }
        (result, ..) => {
            let why = result.err().unwrap_or("there is no such vCPU");
            if log::allowed() {
                pr_err!(
                    "SEV: vCPU {}: AP creation of {apic_id:#x} with {vmsa:#x}: {why}\n",
                    exited.vcpu.id()
                );
            }
            exited.refuse(Refusal::InvalidInput);
        }
    }
}

/// Whether a vCPU can run with the registers at `vmsa`; the processor decides about the rest.
fn check(exited: &Exited<'_>, features: u64, vmsa: u64) -> Result<(), &'static str> {
    if features != exited.binding.context().params().vmsa_features() {
        return Err("other features than the guest was created with");
    }
    if !exited.vcpu.is_page_address(vmsa) {
        return Err("no address of a page");
    }
    if vmsa % LARGE == 0 {
        return Err("the page begins a large page");
    }
    Ok(())
}
