// SPDX-License-Identifier: GPL-2.0
//! Exits that come with a GHCB, and are answered in it.

use kernel::prelude::*;

use super::msr::HV_FEATURES;
use super::{ap, guest_request, psc, Exited};
use crate::ghcb::scratch::{place, Place};
use crate::ghcb::snapshot::{Exit, Refusal, SnpExit};
use crate::kvm::exit::{Next, StringIo};
use crate::kvm::ghcb::Ghcb;
use crate::kvm::log;
use crate::kvm::vcpu::Vcpu;
use crate::vcpu::Hold;

/// Serves an exit that is complete; the GHCB says already that it succeeded. Errors are KVM's.
#[inline(always)]
pub(super) fn serve(exited: &Exited<'_>, exit: Exit) -> Result<Next> {
    let vcpu = exited.vcpu;

    match exit {
        Exit::Nothing => {}
        Exit::Intercept(code) => return vcpu.handle_exit(code),
        Exit::Mmio { write, gpa, len } => {
            if let Some(place) = exited.find(len) {
                return vcpu.access_device(write, gpa, place);
            }
        }
        Exit::NmiComplete => vcpu.unmask_nmi(),
        Exit::ApResetHold => {
            exited.es.set_hold(Hold::Ghcb);
            return vcpu.hold_in_reset();
        }
        Exit::SetApJumpTable(gpa) => exited.binding.set_ap_jump_table(gpa),
        Exit::GetApJumpTable => exited.succeed(exited.binding.ap_jump_table()),
        Exit::HvFeatures => exited.succeed(HV_FEATURES),
        Exit::Terminate { reason, info } => {
            report_end(vcpu, reason, info);
            return Ok(vcpu.terminate());
        }
        Exit::Snp(exit) => return serve_snp(exited, exit),
        Exit::Unsupported { info_1, info_2 } => {
            report_exception(vcpu, info_1, info_2);
            return Err(EINVAL);
        }
    }
    Ok(Next::Guest)
}

/// The same, for what only an SEV-SNP guest asks for.
fn serve_snp(exited: &Exited<'_>, exit: SnpExit) -> Result<Next> {
    match exit {
        SnpExit::PageStateChange => psc::convert_list(exited),
        SnpExit::ApCreation {
            apic_id,
            action,
            features,
            vmsa,
        } => {
            ap::create(exited, apic_id, action, features, vmsa);
            Ok(Next::Guest)
        }
        SnpExit::GuestRequest {
            request,
            response,
            certificates,
        } => guest_request::serve(exited, request, response, certificates),
    }
}

#[cold]
fn report_end(vcpu: &Vcpu, reason: u64, info: u64) {
    if log::allowed() {
        pr_info!(
            "SEV: vCPU {}: the guest ends: {reason:#x}, {info:#x}\n",
            vcpu.id()
        );
    }
}

#[cold]
fn report_exception(vcpu: &Vcpu, info_1: u64, info_2: u64) {
    if log::allowed() {
        pr_err!(
            "SEV: vCPU {}: the guest cannot deal with an exception: {info_1:#x}, {info_2:#x}\n",
            vcpu.id()
        );
    }
}

impl Exited<'_> {
    /// Where `len` bytes of data are; if they are nowhere, the exit is refused.
    pub(super) fn find(&self, len: u64) -> Option<Place> {
        let buffer = Ghcb::BUFFER.start as u64..Ghcb::BUFFER.end as u64;
        let gpa = self.es.scratch();
        let version = self.binding.context().params().ghcb_version();

        place(gpa, len, self.vcpu.ghcb_msr(), buffer, version)
            .inspect_err(|why| {
                if log::allowed() {
                    pr_err!(
                        "SEV: vCPU {}: {len} bytes at {gpa:#x}: {why:?}\n",
                        self.vcpu.id()
                    );
                }
                self.refuse(Refusal::InvalidScratchArea);
            })
            .ok()
    }
}

/// Serves a string instruction, which is an IOIO exit. `count` is in the exit information.
///
/// Errors: EINVAL if it is more than KVM can count; ENOMEM; EFAULT if the guest has no memory for
/// it; KVM's.
pub(crate) fn string_io(vcpu: &Vcpu, size: u32, port: u32, input: bool) -> Result<Next> {
    let exited = Exited::new(vcpu)?;
    let io = StringIo {
        port,
        size,
        count: u32::try_from(vcpu.exit_info_2()).map_err(|_| EINVAL)?,
        input,
    };

    match io.len().ok_or(EINVAL)? {
        0 => Ok(Next::Guest),
        len => match exited.find(len as u64) {
            Some(place) => vcpu.access_port(io, place),
            None => Ok(Next::Guest),
        },
    }
}
