// SPDX-License-Identifier: GPL-2.0
//! Guest requests: encrypted messages between a guest and the firmware, which the host only carries.

use core::mem::offset_of;

use kernel::prelude::*;

use super::Exited;
use crate::ffi::bindings as b;
use crate::ghcb::snapshot::{Certificates, Refusal};
use crate::hw::addr::PAGE_SIZE;
use crate::kvm::ask_user::{Certified, Continue};
use crate::kvm::exit::Next;
use crate::kvm::registers::Gpr;
use crate::kvm::vcpu::Vcpu;
use crate::psp::FwStatus;

/// Bytes at the end of a list of certificates.
const LIST_END: usize = 24;

/// What the guest is told when userspace has no certificates for it, and none of the other reasons is
/// the right one. Source: arch/x86/kvm/svm/sev.c, which nobody else can include.
const GENERIC_ERROR: u32 = u32::MAX;

/// Serves the request. Errors: EIO if the guest has no memory there; others if the firmware does not
/// answer.
pub(super) fn serve(
    exited: &Exited<'_>,
    request: u64,
    response: u64,
    certificates: Certificates,
) -> Result<Next> {
    if let Certificates::WithReport(place) = certificates {
        if wants_report(exited.vcpu, request)? {
            return serve_report(exited, request, response, place);
        }
    }
    pass_on(exited, request, response)
}

/// Whether the message at `request` is one for a report.
fn wants_report(vcpu: &Vcpu, request: u64) -> Result<bool> {
    const TYPE: u64 = offset_of!(b::snp_guest_msg_hdr, msg_type) as u64;
    let mut msg_type = [0];

    vcpu.read_guest(request.wrapping_add(TYPE), &mut msg_type)?;
    Ok(msg_type == [b::msg_type_SNP_MSG_REPORT_REQ as u8])
}

/// Provides certificates, and then the report.
fn serve_report(
    exited: &Exited<'_>,
    request: u64,
    response: u64,
    place: Option<(u64, u64)>,
) -> Result<Next> {
    let Some((gpa, pages)) = place.filter(|(gpa, _)| gpa % PAGE_SIZE as u64 == 0) else {
        exited.refuse(Refusal::InvalidInput);
        return Ok(Next::Guest);
    };
    if exited.binding.context().provides_certificates() {
        return Ok(exited
            .vcpu
            .ask_for_certificates::<WithCertificates>(gpa, pages));
    }
    if pages != 0 {
        // There are none.
        exited.vcpu.clear_guest(gpa, LIST_END)?;
    }
    pass_on(exited, request, response)
}

/// A report whose certificates userspace provides.
struct WithCertificates;

impl Continue for WithCertificates {
    type Answer = Certified;

    fn go_on(vcpu: &Vcpu, answer: Certified) -> Result<Next> {
        let exited = Exited::new(vcpu)?;
        let error = match answer {
            Certified::Yes => return pass_on(&exited, vcpu.exit_info_1(), vcpu.exit_info_2()),
            Certified::TooFewPages(pages) => {
                vcpu.set_register(Gpr::Rbx, pages);
                b::SNP_GUEST_VMM_ERR_INVALID_LEN
            }
            Certified::TryAgain => b::SNP_GUEST_VMM_ERR_BUSY,
            Certified::Failed => GENERIC_ERROR,
        };

        exited.succeed(u64::from(error) << b::SNP_GUEST_VMM_ERR_SHIFT);
        Ok(Next::Guest)
    }
}

/// Passes the message on to the firmware, and its answer to the guest; the status, too.
fn pass_on(exited: &Exited<'_>, request: u64, response: u64) -> Result<Next> {
    let context = exited.binding.context();
    let launched = context.snp().ok_or(EINVAL)?;
    let mut status = FwStatus::success();

    context.requests().ok_or(EINVAL)?.exchange(
        launched.gctx(),
        launched.channel(),
        &mut status,
        |message| exited.vcpu.read_guest(request, message),
        |answer| exited.vcpu.write_guest_page(response, answer),
    )?;
    exited.succeed(u64::from(status.code()));
    Ok(Next::Guest)
}
