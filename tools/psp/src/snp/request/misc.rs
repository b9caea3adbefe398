// SPDX-License-Identifier: GPL-2.0-or-later
//! MSG_CPUID_REQ, MSG_TSC_INFO_REQ.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::{parse, status};
use crate::firmware::Firmware;
use crate::snp::context::Guest;
use crate::snp::cpuid;
use crate::snp::wire::{CpuidTable, TscInfoResponse};
use crate::status::{Result, Status};

/// Checks a table as LAUNCH_UPDATE checks the CPUID page; the answer holds the corrected one.
/// Source of the layout: the same table, with the status in front of the count.
pub fn cpuid(payload: &[u8]) -> Result<Vec<u8>> {
    let mut table: CpuidTable = parse(payload)?;
    let status = status(&cpuid::correct(&mut table));
    let count = core::mem::replace(&mut table.count, status);
    table.reserved1 = count;
    Ok(table.as_bytes().to_vec())
}

/// MHz of the machine's TSC.
const MSR_GUEST_TSC_FREQ: u32 = 0xc001_0134;

/// What the guest's TSC is of the machine's, in 32.32 fixed point.
fn tsc_scale(fw: &Firmware, guest: &Guest) -> u64 {
    const ONE: u64 = 1 << 32;
    let machine = fw.host.msr_get(0, MSR_GUEST_TSC_FREQ).unwrap_or(0);
    let wanted = u64::from(guest.tsc_khz) << 32;
    match wanted.checked_div(machine.saturating_mul(1000)) {
        None | Some(0) => ONE,
        Some(scale) => scale,
    }
}

/// The guest's TSC runs as LAUNCH_START wanted it. unspecified: the answer for a guest for which
/// it wanted nothing, or on a machine that does not tell its own frequency (here: as the
/// machine's).
pub fn tsc_info(fw: &Firmware, guest: &Guest, payload: &[u8]) -> Result<Vec<u8>> {
    if payload != [0; 128] {
        return Err(Status::INVALID_PARAM);
    }
    let mut response = TscInfoResponse::new_zeroed();
    response.status = U32::ZERO;
    response.scale = U64::new(tsc_scale(fw, guest));
    Ok(response.as_bytes().to_vec())
}
