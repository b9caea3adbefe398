// SPDX-License-Identifier: GPL-2.0
//! Exits that a guest with protected registers causes itself, by VMGEXIT.
//!
//! ```text
//!   GHCB MSR --+-- a request ------------------> msr.rs ---> answered in the MSR
//!              '-- an address: mapped, copied --> decoded --> event.rs --> answered in the GHCB
//! ```
//!
//! What is decided, is decided on the copy. The GHCB stays mapped until the guest runs on, which
//! can be after a detour through userspace; only then it gets results.
//!
//! Locks: the vCPU's mutex and KVM's SRCU lock are held by the caller.

mod ap;
mod event;
mod guest_request;
mod msr;
mod psc;

use kernel::prelude::*;

pub(crate) use self::event::string_io;
use crate::ghcb::msr::Request;
use crate::ghcb::snapshot::{Exit, Refusal, Snapshot};
use crate::hw::kind::Kind;
use crate::kvm::exit::Next;
use crate::kvm::registers::Gpr;
use crate::kvm::vcpu::Vcpu;
use crate::kvm::{host, log};
use crate::vcpu::EsVcpu;
use crate::vm::Binding;

/// A vCPU that was left, and all that an exit can be about.
struct Exited<'a> {
    vcpu: &'a Vcpu,
    es: &'a EsVcpu,
    binding: &'a Binding,
}

impl<'a> Exited<'a> {
    /// EINVAL for a vCPU whose registers are not protected.
    fn new(vcpu: &'a Vcpu) -> Result<Self> {
        Ok(Self {
            vcpu,
            es: vcpu.es().ok_or(EINVAL)?,
            binding: vcpu.binding().ok_or(EINVAL)?,
        })
    }

    /// What the guest asks for.
    fn decode(&self, guest: &Snapshot) -> Result<Exit, Refusal> {
        if !self.es.allows_ghcb(self.vcpu.ghcb_msr()) {
            return Err(Refusal::NotRegistered);
        }
        let params = self.binding.context().params();
        guest.decode(params.ghcb_version(), params.kind() == Kind::Snp)
    }

    /// Answers in the GHCB, with `data` for the guest.
    fn succeed(&self, data: u64) {
        self.es
            .exchange()
            .with_ghcb(|ghcb| ghcb.answer_success(data));
    }

    /// Answers in the GHCB, with the reason.
    fn refuse(&self, refusal: Refusal) {
        self.es
            .exchange()
            .with_ghcb(|ghcb| ghcb.answer_malformed(refusal.code()));
    }

    /// Tells KVM the registers that the guest shows, and that it does not show any others.
    fn load_registers(&self, guest: &Snapshot) {
        let vcpu = self.vcpu;

        vcpu.clear_registers();
        vcpu.set_register(Gpr::Rax, guest.rax.or_zero());
        vcpu.set_register(Gpr::Rbx, guest.rbx.or_zero());
        vcpu.set_register(Gpr::Rcx, guest.rcx.or_zero());
        vcpu.set_register(Gpr::Rdx, guest.rdx.or_zero());
        vcpu.set_register(Gpr::Rsi, guest.rsi.or_zero());
        // One byte in the GHCB.
        vcpu.set_cpl(guest.cpl.or_zero() as u8);
        if let Some(xcr0) = guest.xcr0.get() {
            vcpu.set_xcr0(xcr0);
        }
        if let Some(xss) = guest.xss.get() {
            vcpu.set_xss(xss);
        }
        vcpu.set_exit(
            guest.exit_code.raw(),
            guest.exit_info_1.raw(),
            guest.exit_info_2.raw(),
        );
        self.es.set_scratch(guest.scratch.or_zero());
    }
}

/// Serves an exit. Errors go to userspace as the result of `KVM_RUN`.
pub(crate) fn handle(vcpu: &Vcpu) -> Result<Next> {
    let exited = Exited::new(vcpu)?;
    let value = vcpu.ghcb_msr();

    if let Some(request) = Request::decode(value) {
        vcpu.trace_msr_enter();
        let result = msr::serve(&exited, request);
        vcpu.trace_msr_exit(result);
        return result;
    }

    let ghcb = match vcpu.map_ghcb(value) {
        Ok(ghcb) => ghcb,
        Err(_) => {
            report_missing(vcpu, value);
            return Ok(Next::Guest);
        }
    };
    ghcb.trace_enter(vcpu);
    let guest = ghcb.snapshot();
    exited.load_registers(&guest);

    match exited.decode(&guest) {
        Ok(exit) => {
            // Handlers that fail change it.
            ghcb.answer_success(0);
            exited.es.exchange().keep(ghcb);
            event::serve(&exited, exit)
        }
        Err(refusal) => {
            ghcb.answer_malformed(refusal.code());
            exited.es.exchange().keep(ghcb);
            report(vcpu, refusal);
            Ok(Next::Guest)
        }
    }
}

/// Without a GHCB there is nowhere to complain but the log.
#[cold]
fn report_missing(vcpu: &Vcpu, gpa: u64) {
    if log::allowed() {
        pr_err!("SEV: vCPU {}: there is no GHCB at {gpa:#x}\n", vcpu.id());
    }
}

/// Writes a line about an exit that is not served into the log. KVM has been told what the guest
/// filled in.
#[cold]
#[inline(never)]
fn report(vcpu: &Vcpu, refusal: Refusal) {
    if !log::allowed() {
        return;
    }
    let (code, info_1, info_2) = vcpu.exit();

    pr_err!(
        "SEV: vCPU {}: exit {code:#x} ({info_1:#x}, {info_2:#x}) refused: {refusal:?}\n",
        vcpu.id()
    );
    if host::dumps_invalid_state() {
        for register in [Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx, Gpr::Rsi] {
            let value = vcpu.register(register);
            pr_err!("SEV: vCPU {}: {register:?} {value:#x}\n", vcpu.id());
        }
    }
}
