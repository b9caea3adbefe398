// SPDX-License-Identifier: GPL-2.0
//! Setting up the VMCB of a SEV guest's vCPU.

use crate::kvm::vcpu::{Exception, Vcpu};

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
