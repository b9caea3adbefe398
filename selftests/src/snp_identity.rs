// SPDX-License-Identifier: GPL-2.0-or-later
//! What the owner of an SNP guest says it is: ID block and its authentication (crate `sev`).

use anyhow::Result;
use kvm_bindings::kvm_sev_snp_launch_finish;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::Private;
use sev::firmware::guest::GuestPolicy;
use sev::measurement::idblock_types::{IdAuth, IdBlock, SevEcdsaPubKey, SevEcdsaSig};
use sev::measurement::snp::SnpLaunchDigest;
use sev::parser::ByteParser;

use crate::mem::{Mapping, PAGE};

/// An owner with an identity key and an author key.
pub struct Owner {
    id: EcKey<Private>,
    author: EcKey<Private>,
}

/// An ID block and its authentication in memory.
pub struct Identity {
    /// The block at its beginning, the authentication one page further.
    pub memory: Mapping,
}

impl Owner {
    /// Makes keys.
    pub fn new() -> Result<Self> {
        let group = EcGroup::from_curve_name(Nid::SECP384R1)?;
        Ok(Self { id: EcKey::generate(&group)?, author: EcKey::generate(&group)? })
    }

    /// The identity of a guest.
    pub fn identify(&self, digest: SnpLaunchDigest, policy: u64) -> Result<Identity> {
        let block = IdBlock::new(Some(digest), None, None, Some(7), Some(GuestPolicy(policy)))?;
        self.sign(&block.to_bytes()?)
    }

    /// Signs the bytes of any ID block.
    pub fn sign(&self, block: &[u8]) -> Result<Identity> {
        let key = SevEcdsaPubKey::try_from(&self.id)?;
        let auth = IdAuth::new(
            None,
            None,
            SevEcdsaSig::try_from((self.id.clone(), block))?,
            key,
            SevEcdsaSig::try_from((self.author.clone(), &key.to_bytes()?[..]))?,
            SevEcdsaPubKey::try_from(&self.author)?,
        );
        let memory = Mapping::anonymous(2 * PAGE)?;
        memory.write(0, block);
        memory.write(PAGE, &auth.to_bytes()?);
        Ok(Identity { memory })
    }
}

impl Identity {
    /// The argument of LAUNCH_FINISH with it, and with the author's key or without.
    pub fn finish(&self, author: bool) -> kvm_sev_snp_launch_finish {
        kvm_sev_snp_launch_finish {
            id_block_uaddr: self.memory.addr(),
            id_auth_uaddr: self.memory.addr() + PAGE as u64,
            id_block_en: 1,
            auth_key_en: author.into(),
            ..Default::default()
        }
    }
}
