// SPDX-License-Identifier: GPL-2.0-or-later
//! MSG_CPUID_REQ, MSG_TSC_INFO_REQ.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::{parse, status};
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

/// The guest's TSC runs as the machine's does. unspecified: the answer for a guest without
/// secure TSC (here the same).
pub fn tsc_info(payload: &[u8]) -> Result<Vec<u8>> {
    /// Scale in 32.32 fixed point.
    const ONE: u64 = 1 << 32;
    if payload != [0; 128] {
        return Err(Status::INVALID_PARAM);
    }
    let mut response = TscInfoResponse::new_zeroed();
    response.status = U32::ZERO;
    response.scale = U64::new(ONE);
    Ok(response.as_bytes().to_vec())
}
