// SPDX-License-Identifier: GPL-2.0
//! Requests that come through the GHCB MSR alone, and are answered there.

use kernel::prelude::*;

use super::{psc, Exited};
use crate::ffi::bindings as b;
use crate::ghcb::msr::{self, CpuidRegister, Request, SnpRequest};
use crate::hw::kind::Kind;
use crate::kvm::exit::Next;
use crate::kvm::log;
use crate::kvm::registers::Gpr;
use crate::vcpu::{initial_ghcb_msr, Hold};

/// What the hypervisor can do, as `GHCB_HV_FT_*`. It is the same for all guests.
pub(super) const HV_FEATURES: u64 =
    b::KVM_SEV_CONST_HV_FT_SNP | b::KVM_SEV_CONST_HV_FT_SNP_AP_CREATION;

/// Serves a request. Errors are KVM's.
pub(super) fn serve(exited: &Exited<'_>, request: Request) -> Result<Next> {
    let vcpu = exited.vcpu;

    match request {
        Request::SevInfo => {
            vcpu.set_ghcb_msr(initial_ghcb_msr(exited.binding.context().params()));
            Ok(Next::Guest)
        }
        Request::Cpuid { function, register } => cpuid(exited, function, register),
        Request::ApResetHold => {
            exited.es.set_hold(Hold::Msr);
            let result = vcpu.hold_in_reset();

            // Unless another vCPU starts this one.
            vcpu.set_ghcb_msr(msr::ap_reset_hold(false));
            result
        }
        Request::HvFeatures => {
            vcpu.set_ghcb_msr(msr::hv_features(HV_FEATURES));
            Ok(Next::Guest)
        }
        Request::Snp(request) => {
            if exited.binding.context().kind() != Kind::Snp {
                return Ok(vcpu.terminate());
            }
            Ok(serve_snp(exited, request))
        }
        Request::Terminate { set, reason } => {
            if log::allowed() {
                pr_info!(
                    "SEV: vCPU {}: the guest ends: {set:#x}:{reason:#x}\n",
                    vcpu.id()
                );
            }
            Ok(vcpu.terminate())
        }
        // The guest sees that it was not answered.
        Request::Unknown => Ok(Next::Guest),
    }
}

/// The same, for what only an SEV-SNP guest can want.
fn serve_snp(exited: &Exited<'_>, request: SnpRequest) -> Next {
    let vcpu = exited.vcpu;

    match request {
        SnpRequest::PreferredGhcb => vcpu.set_ghcb_msr(msr::no_preferred_ghcb()),
        SnpRequest::RegisterGhcb(gpa) => {
            exited.es.register_ghcb(gpa);
            vcpu.set_ghcb_msr(msr::registered_ghcb(gpa));
        }
        SnpRequest::PageState { gfn, state } => return psc::convert_one(vcpu, gfn, state),
    }
    Next::Guest
}

fn cpuid(exited: &Exited<'_>, function: u32, register: CpuidRegister) -> Result<Next> {
    let vcpu = exited.vcpu;

    vcpu.set_register(Gpr::Rax, u64::from(function));
    vcpu.set_register(Gpr::Rcx, 0);
    let next = vcpu.handle_exit(u64::from(b::SVM_EXIT_CPUID))?;

    // Otherwise userspace answers for KVM, and the guest asks again.
    if next == Next::Guest {
        let value = vcpu.register(match register {
            CpuidRegister::Eax => Gpr::Rax,
            CpuidRegister::Ebx => Gpr::Rbx,
            CpuidRegister::Ecx => Gpr::Rcx,
            CpuidRegister::Edx => Gpr::Rdx,
        });
        // CPUID leaves 32 bits in each.
        vcpu.set_ghcb_msr(msr::cpuid(vcpu.ghcb_msr(), value as u32));
    }
    Ok(next)
}
