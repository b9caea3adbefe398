// SPDX-License-Identifier: GPL-2.0-or-later
//! The ID block, with which a guest owner says which guest may be launched.
//!
//! Source: virtee/sev `src/measurement/idblock.rs`. unspecified: the status of a malformed key
//! (here BAD_SIGNATURE), and which error wins when several apply.

use sha2::{Digest, Sha384};
use zerocopy::IntoBytes;

use super::context::{Guest, Identity};
use super::wire::{IdAuth, IdBlock, PublicKey, Signature};
use crate::crypto::cert::be_48;
use crate::crypto::ecc::verify_sha384;
use crate::status::{Result, Status};

const VERSION: u32 = 1;
/// ECDSA P-384 with SHA-384.
const ALGORITHM: u32 = 1;
const CURVE_P384: u32 = 2;

fn verify_signature(key: &PublicKey, message: &[u8], signature: &Signature) -> Result {
    let numbers = [&key.x, &key.y, &signature.r, &signature.s].map(be_48);
    match (key.curve.get(), numbers) {
        (CURVE_P384, [Some(x), Some(y), Some(r), Some(s)]) => {
            verify_sha384((&x, &y), message, (&r, &s))
        }
        _ => Err(Status::BAD_SIGNATURE),
    }
}

/// The identity of the guest, if the block describes it and its signatures verify:
/// INVALID_PARAM, BAD_SIGNATURE, BAD_MEASUREMENT, POLICY_FAILURE.
pub fn verify(block: &IdBlock, auth: &IdAuth, author: bool, guest: &Guest) -> Result<Identity> {
    if block.version.get() != VERSION
        || auth.id_key_algo.get() != ALGORITHM
        || (author && auth.auth_key_algo.get() != ALGORITHM)
    {
        return Err(Status::INVALID_PARAM);
    }
    verify_signature(&auth.id_key, block.as_bytes(), &auth.id_block_signature)?;
    if author {
        verify_signature(
            &auth.author_key,
            auth.id_key.as_bytes(),
            &auth.id_key_signature,
        )?;
    }
    if block.launch_digest != guest.digest.get() {
        return Err(Status::BAD_MEASUREMENT);
    }
    if block.policy.get() != guest.policy.bits() {
        return Err(Status::POLICY_FAILURE);
    }
    let digest = |key: &PublicKey| Sha384::digest(key.as_bytes()).into();
    Ok(Identity {
        family: block.family_id,
        image: block.image_id,
        svn: block.guest_svn.get(),
        id_key: digest(&auth.id_key),
        author_key: author.then(|| digest(&auth.author_key)),
    })
}
