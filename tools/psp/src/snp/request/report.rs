// SPDX-License-Identifier: GPL-2.0-or-later
//! MSG_REPORT_REQ: the attestation report.
//!
//! Source: google/go-sev-guest `abi/abi.go`, virtee/sev `src/firmware/guest/types/snp.rs`.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::{Answer, Asker, status};
use crate::crypto::cert::le_extend;
use crate::firmware::{API, BUILD, Firmware};
use crate::snp::config::TCB;
use crate::snp::wire::{Report, ReportRequest, ReportResponse, Signature};
use crate::status::{Result, Status};

/// Of report and signature.
const VERSION: u32 = 3;
const ECDSA_P384_SHA384: u32 = 1;

/// PLATFORM_INFO.
const INFO_RAPL_DISABLED: u64 = 1 << 3;
const INFO_CIPHERTEXT_HIDING: u64 = 1 << 4;

/// KEY_INFO.
const AUTHOR_KEY_EN: u32 = 1;
const MASK_CHIP_KEY: u32 = 2;
const SIGNING_KEY_SHIFT: u32 = 2;

/// Who signs, as KEY_INFO encodes it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Signer {
    Vcek = 0,
    Vlek = 1,
    None = 7,
}

/// The key that a request selects: INVALID_PARAM, INVALID_KEY. unspecified: whether a report is
/// refused if its key is not there.
fn signer(fw: &Firmware, asker: &Asker<'_>, select: u32) -> Answer<Signer> {
    let vlek = fw.snp.vlek.is_some();
    match select {
        3.. => Err(Status::INVALID_PARAM),
        _ if fw.snp.reported.mask_chip_key => Ok(Signer::None),
        0 | 2 if vlek => Ok(Signer::Vlek),
        0 | 1 if !asker.launched.vcek_disabled => Ok(Signer::Vcek),
        _ => Err(Status::INVALID_KEY),
    }
}

/// Family and model with their extensions, and stepping.
fn cpu(fms: u32) -> [u8; 3] {
    let field = |shift: u32, mask: u32| (fms >> shift) & mask;
    let family = field(8, 0xf).wrapping_add(field(20, 0xff));
    let model = field(4, 0xf) | (field(16, 0xf) << 4);
    [family, model, field(0, 0xf)].map(|value| value as u8)
}

fn unsigned(fw: &Firmware, asker: &Asker<'_>, request: &ReportRequest, signer: Signer) -> Report {
    let (guest, launched, reported) = (asker.guest, asker.launched, &fw.snp.reported);
    let mut report = Report::new_zeroed();
    report.version = U32::new(VERSION);
    report.policy = U64::new(guest.policy.bits());
    report.vmpl = request.vmpl;
    report.signature_algo = U32::new(ECDSA_P384_SHA384);
    report.current_tcb = TCB;
    report.reported_tcb = reported.tcb;
    report.committed_tcb = TCB;
    report.launch_tcb = guest.launch_tcb;
    let mut info = 0;
    if fw.snp.rapl_disabled {
        info |= INFO_RAPL_DISABLED;
    }
    if fw.snp.ciphertext_hiding {
        info |= INFO_CIPHERTEXT_HIDING;
    }
    report.platform_info = U64::new(info);
    let mut key_info = (signer as u32) << SIGNING_KEY_SHIFT;
    if reported.mask_chip_key {
        key_info |= MASK_CHIP_KEY;
    }
    report.report_data = request.report_data;
    report.measurement = guest.digest.get();
    report.host_data = launched.host_data;
    if let Some(identity) = &launched.identity {
        report.guest_svn = U32::new(identity.svn);
        report.family_id = identity.family;
        report.image_id = identity.image;
        report.id_key_digest = identity.id_key;
        if let Some(author) = identity.author_key {
            report.author_key_digest = author;
            key_info |= AUTHOR_KEY_EN;
        }
    }
    report.key_info = U32::new(key_info);
    report.report_id = guest.report_id;
    report.report_id_ma = guest.report_id_ma;
    [report.family, report.model, report.stepping] = cpu(fw.config.fms);
    if !reported.mask_chip_id {
        report.chip_id = fw.platform.chip.id();
    }
    [report.current_major, report.current_minor] = API;
    [report.committed_major, report.committed_minor] = API;
    (report.current_build, report.committed_build) = (BUILD, BUILD);
    report
}

/// What the signature covers.
fn body(report: &Report) -> &[u8] {
    let bytes = report.as_bytes();
    let len = core::mem::offset_of!(Report, signature);
    bytes.get(..len).unwrap_or(bytes)
}

fn report(fw: &Firmware, asker: &Asker<'_>, request: &ReportRequest) -> Answer<Report> {
    let vmpl = request.vmpl.get();
    if vmpl < asker.vmpl || vmpl > 3 || request.reserved != [0; 24] {
        return Err(Status::INVALID_PARAM);
    }
    let signer = signer(fw, asker, request.key_select.get())?;
    let mut report = unsigned(fw, asker, request, signer);
    let tcb = &fw.snp.reported.tcb;
    let key = match (signer, &fw.snp.vlek) {
        (Signer::Vcek, _) => Some(fw.platform.chip.vcek(tcb)),
        (Signer::Vlek, Some(vlek)) => Some(vlek.key(tcb)),
        _ => None,
    };
    if let Some(key) = key {
        let (r, s) = key.sign_sha384(body(&report));
        report.signature = Signature {
            r: le_extend(&r),
            s: le_extend(&s),
            reserved: [0; 368],
        };
    }
    Ok(report)
}

pub fn respond(fw: &Firmware, asker: &Asker<'_>, request: &ReportRequest) -> Result<Vec<u8>> {
    let answer = report(fw, asker, request);
    let response = ReportResponse {
        status: status(&answer),
        size: U32::new(answer.as_ref().map_or(0, |_| size_of::<Report>() as u32)),
        reserved: [0; 24],
        report: answer.unwrap_or_else(|_| Report::new_zeroed()),
    };
    Ok(response.as_bytes().to_vec())
}
