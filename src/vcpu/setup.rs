// SPDX-License-Identifier: GPL-2.0
//! Setting up a SEV guest's vCPU and its VMCB.

use kernel::prelude::*;

use super::ap::{self, Ap};
use super::es::EsVcpu;
use crate::ffi::bindings as b;
use crate::ghcb::{msr, VERSIONS};
use crate::kvm::host::Feature;
use crate::kvm::vcpu::{Exception, Vcpu};
use crate::kvm::vmcb::{Intercept, Msr};
use crate::platform::{self, Platform};
use crate::vm::GuestParams;

/// `None` for a vCPU whose guest's registers are not protected.
fn es_params(vcpu: &Vcpu) -> Option<GuestParams> {
    let params = vcpu.binding()?.context().params();

    params.kind().protects_registers().then_some(params)
}

/// Whether the processor gives the guest the debug registers for itself.
pub(super) fn swaps_debug_registers(params: GuestParams) -> bool {
    params.vmsa_features() & b::KVM_SEV_CONST_SVM_SEV_FEAT_DEBUG_SWAP != 0
}

/// Allocates what a vCPU needs whose registers are protected. ENOMEM.
pub(crate) fn create(vcpu: &Vcpu) -> Result {
    let Some(params) = es_params(vcpu) else {
        return Ok(());
    };

    vcpu.attach_es(EsVcpu::new(params.kind())?)?;
    if params.has_secure_tsc() {
        vcpu.protect_tsc();
    }
    Ok(())
}

/// Makes the VMCB one of a SEV guest, after KVM made it one of an ordinary guest.
///
/// `init_event`: because of an INIT, rather than for a new vCPU.
pub(crate) fn init_vmcb(vcpu: &Vcpu, init_event: bool) {
    vcpu.enable_sev();
    if init_event {
        if let Some(ap) = vcpu.es().and_then(EsVcpu::ap) {
            ap::serve(vcpu, ap);
        }
    }

    // KVM intercepts these to emulate instructions, which it cannot read from encrypted memory.
    vcpu.stop_intercepting(Exception::InvalidOpcode);
    vcpu.stop_intercepting(Exception::GeneralProtection);

    if let Some(params) = es_params(vcpu) {
        init_es_vmcb(vcpu, params);
        if !init_event {
            vcpu.set_ghcb_msr(initial_ghcb_msr(params));
        }
    }
}

/// What the guest reads from the GHCB MSR before it wrote to it.
pub(crate) fn initial_ghcb_msr(params: GuestParams) -> u64 {
    let c_bit = platform::get().map_or(0, Platform::c_bit);

    msr::sev_info(params.ghcb_version(), *VERSIONS.start(), c_bit)
}

fn init_es_vmcb(vcpu: &Vcpu, params: GuestParams) {
    let vmsa = match vcpu.es() {
        // Those that the guest created, if it did.
        Some(es) if es.ap().is_some_and(Ap::is_created) => vcpu.vmsa(),
        Some(es) => es.vmsa_address(),
        // It is going to take over those of another VM.
        None => None,
    };
    let allowed = Feature::AllowedSevFeatures
        .is_present()
        .then_some(params.vmsa_features());
    vcpu.enable_sev_es(vmsa, allowed);

    // KVM could not carry these out; it is told afterwards what became of the registers.
    for register in [
        Intercept::Cr0Read,
        Intercept::Cr4Read,
        Intercept::Cr8Read,
        Intercept::Cr0Write,
        Intercept::Cr4Write,
        Intercept::Cr8Write,
        Intercept::SelectiveCr0,
        Intercept::Xsetbv,
    ] {
        vcpu.allow(register);
    }
    for trap in [
        Intercept::EferTrap,
        Intercept::Cr0Trap,
        Intercept::Cr4Trap,
        Intercept::Cr8Trap,
    ] {
        vcpu.intercept(trap);
    }

    vcpu.allow_debug_registers();
    if swaps_debug_registers(params) {
        // The processor does not let a guest loop in #DB for ever, which is what KVM intercepts it
        // for: the feature is offered only then.
        vcpu.stop_intercepting(Exception::Debug);
    } else {
        vcpu.intercept(Intercept::Dr7Read);
        vcpu.intercept(Intercept::Dr7Write);
    }
}

/// The guest may set the C-bit in CR3, wherever its CPUID says that it is.
pub(crate) fn after_set_cpuid(vcpu: &Vcpu) {
    if let Some(bit) = vcpu.guest_c_bit() {
        vcpu.allow_in_cr3(bit);
    }
}

/// Lets the guest access the MSRs that the processor switches for it.
pub(crate) fn recalc_msr_intercepts(vcpu: &Vcpu) {
    for msr in [Msr::Ghcb, Msr::Efer, Msr::Pat] {
        vcpu.set_msr_intercept(msr, false);
    }
    if Feature::VirtualTscAux.is_present() {
        vcpu.set_msr_intercept(Msr::TscAux, !vcpu.has_tsc_aux());
    }
    let secure_tsc = es_params(vcpu).is_some_and(GuestParams::has_secure_tsc);
    vcpu.set_msr_intercept(Msr::GuestTscFrequency, !secure_tsc);
    vcpu.set_msr_intercept(Msr::Xss, !vcpu.has_xsaves());
}
