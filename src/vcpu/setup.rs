// SPDX-License-Identifier: GPL-2.0
//! Setting up the VMCB of a SEV guest's vCPU.

use kernel::prelude::*;

use crate::hw::kind::Kind;
use crate::kvm::vcpu::{Exception, Vcpu};

/// ENODEV for guests with protected registers, whose vCPUs are not served yet.
pub(crate) fn create(vcpu: &Vcpu) -> Result {
    match vcpu.binding().map(|binding| binding.context().kind()) {
        Some(Kind::SevEs) => Err(ENODEV),
        Some(Kind::Sev) | None => Ok(()),
    }
}

/// Makes the VMCB one of a SEV guest, after KVM made it one of an ordinary guest.
pub(crate) fn init_vmcb(vcpu: &Vcpu) {
    vcpu.enable_sev();

    // KVM intercepts these to emulate instructions, which it cannot read from encrypted memory.
    vcpu.stop_intercepting(Exception::InvalidOpcode);
    vcpu.stop_intercepting(Exception::GeneralProtection);
}

/// The guest may set the C-bit in CR3, wherever its CPUID says that it is.
pub(crate) fn after_set_cpuid(vcpu: &Vcpu) {
    if let Some(bit) = vcpu.guest_c_bit() {
        vcpu.allow_in_cr3(bit);
    }
}
