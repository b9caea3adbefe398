// SPDX-License-Identifier: GPL-2.0-or-later
//! MSG_KEY_REQ: a key that follows from the chip and from what the guest selects of itself.
//!
//! Source: virtee/sev `src/firmware/guest/types/snp.rs`, DerivedKey. unspecified: the derivation.

use zerocopy::IntoBytes;

use super::{Answer, Asker, status};
use crate::crypto::kdf;
use crate::firmware::Firmware;
use crate::snp::config::is_newer;
use crate::snp::wire::{KeyRequest, KeyResponse};
use crate::status::{Result, Status};

const ROOT_VMRK: u32 = 1;

/// GUEST_FIELD_SELECT.
const POLICY: u64 = 1 << 0;
const IMAGE_ID: u64 = 1 << 1;
const FAMILY_ID: u64 = 1 << 2;
const MEASUREMENT: u64 = 1 << 3;
const SVN: u64 = 1 << 4;
const TCB_VERSION: u64 = 1 << 5;
const FIELDS: u64 = (1 << 6) - 1;

fn key(fw: &Firmware, asker: &Asker<'_>, request: &KeyRequest) -> Answer<[u8; 32]> {
    let select = request.guest_field_select.get();
    let identity = asker.launched.identity.as_ref();
    let (vmpl, svn) = (request.vmpl.get(), request.guest_svn.get());
    let newer_tcb = is_newer(&request.tcb_version);
    if request.reserved.get() != 0
        || select & !FIELDS != 0
        || vmpl < asker.vmpl
        || vmpl > 3
        || svn > identity.map_or(0, |identity| identity.svn)
        || newer_tcb
    {
        return Err(Status::INVALID_PARAM);
    }
    match request.root_key_select.get() {
        0 if asker.launched.vcek_disabled => return Err(Status::INVALID_KEY),
        0 => {}
        // No migration agent has given this guest a root key.
        ROOT_VMRK => return Err(Status::INVALID_KEY),
        _ => return Err(Status::INVALID_PARAM),
    }
    let mut context = [vmpl.to_le_bytes(), [0; 4]].concat();
    context.extend(select.to_le_bytes());
    let mut mix = |bit: u64, bytes: &[u8]| {
        if select & bit != 0 {
            context.extend(bytes);
        }
    };
    mix(POLICY, &asker.guest.policy.bits().to_le_bytes());
    mix(
        IMAGE_ID,
        &identity.map_or([0; 16], |identity| identity.image),
    );
    mix(
        FAMILY_ID,
        &identity.map_or([0; 16], |identity| identity.family),
    );
    mix(MEASUREMENT, &asker.guest.digest.get());
    mix(SVN, &svn.to_le_bytes());
    mix(TCB_VERSION, &request.tcb_version);
    let root = fw.platform.chip.nv_key("guest keys");
    Ok(kdf::derive(&root, "guest key", &context))
}

pub fn respond(fw: &Firmware, asker: &Asker<'_>, request: &KeyRequest) -> Result<Vec<u8>> {
    let answer = key(fw, asker, request);
    let response = KeyResponse {
        status: status(&answer),
        reserved: [0; 28],
        key: answer.unwrap_or_default(),
    };
    Ok(response.as_bytes().to_vec())
}
