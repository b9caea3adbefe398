// SPDX-License-Identifier: GPL-2.0-or-later
//! CONFIG, COMMIT, VLEK_LOAD: what attestation reports say of the platform and who signs them.
//!
//! Source: Linux `include/uapi/linux/psp-sev.h`. unspecified: how a VLEK hashstick is wrapped
//! (here: AES-256-GCM under a key of the chip) and what it wraps (here: the provider's name and a
//! seed); that a TCB version of zero in CONFIG means the committed one.

use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes256Gcm, KeyInit};
use zerocopy::FromZeros;

use super::wire::{Commit, Config, Hashstick, VlekLoad};
use crate::crypto::ecc::PrivateKey;
use crate::crypto::kdf;
use crate::firmware::Firmware;
use crate::memory::Spa;
use crate::platform::identity::Chip;
use crate::status::{Result, Status};
use crate::wire::exact_len;

/// TCB version, current and committed, in the form of Family 19h: SVN of boot loader, PSP OS,
/// four reserved, SNP firmware, microcode. An SNP SVN from 1Bh on would make Linux hide SEV-ES
/// (AMD-SB-3023).
pub const TCB: [u8; 8] = [3, 0, 0, 0, 0, 0, 10, 0];

const MASK_CHIP_ID: u32 = 1;
const MASK_CHIP_KEY: u32 = 2;

/// What reports say of the platform: CONFIG.
#[derive(Clone, Copy)]
pub struct Reported {
    /// The TCB version that VCEK is derived from.
    pub tcb: [u8; 8],
    /// Reports do not contain the chip's identifier.
    pub mask_chip_id: bool,
    /// Reports are not signed.
    pub mask_chip_key: bool,
}

impl Default for Reported {
    fn default() -> Self {
        Self {
            tcb: TCB,
            mask_chip_id: false,
            mask_chip_key: false,
        }
    }
}

/// Where the endorsement keys come from that a cloud provider shares among its chips.
#[derive(Clone)]
pub struct Vlek {
    provider: String,
    seed: [u8; SEED],
}

const NAME: usize = 64;
const SEED: usize = 384 - NAME;

impl Vlek {
    /// Of a provider: its name has 1 to 64 printable characters of ASCII.
    pub fn of(provider: &str) -> Option<Self> {
        let printable = provider.bytes().all(|byte| byte.is_ascii_graphic());
        if !printable || !(1..=NAME).contains(&provider.len()) {
            return None;
        }
        let mut seed = [0; SEED];
        for (block, n) in seed.chunks_mut(32).zip(0u8..) {
            let bytes = kdf::mac(b"sevfw vlek", &[&[n], provider.as_bytes()]);
            block.copy_from_slice(&bytes);
        }
        let provider = provider.into();
        Some(Self { provider, seed })
    }

    /// The provider's name.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The key of a TCB version.
    pub fn key(&self, tcb: &[u8; 8]) -> PrivateKey {
        PrivateKey::from_secret(&kdf::mac(&self.seed, &[b"vlek", tcb]), "vlek")
    }

    /// The hashstick for a chip, as AMD's key service makes it.
    pub fn wrap(&self, chip: &Chip, tcb: &[u8; 8]) -> Result<Hashstick> {
        let mut hashstick = Hashstick::new_zeroed();
        hashstick.tcb = *tcb;
        let (name, seed) = hashstick.wrapped.split_at_mut(NAME);
        name.iter_mut()
            .zip(self.provider.bytes())
            .for_each(|(to, from)| *to = from);
        seed.copy_from_slice(&self.seed);
        let tag = cipher(chip)
            .encrypt_in_place_detached(&hashstick.iv.into(), tcb, &mut hashstick.wrapped)
            .map_err(|_| Status::HWERROR_PLATFORM)?;
        hashstick.tag = tag.into();
        Ok(hashstick)
    }

    /// INVALID_PARAM for reserved fields and a TCB newer than the platform's, BAD_MEASUREMENT
    /// for another chip's.
    fn unwrap(chip: &Chip, mut hashstick: Hashstick) -> Result<Self> {
        let reserved = hashstick.reserved1.get() != 0 || hashstick.reserved2.get() != 0;
        if reserved || is_newer(&hashstick.tcb) {
            return Err(Status::INVALID_PARAM);
        }
        cipher(chip)
            .decrypt_in_place_detached(
                &hashstick.iv.into(),
                &hashstick.tcb,
                &mut hashstick.wrapped,
                &hashstick.tag.into(),
            )
            .map_err(|_| Status::BAD_MEASUREMENT)?;
        let (name, seed) = hashstick.wrapped.split_at(NAME);
        let name = core::str::from_utf8(name).map_err(|_| Status::BAD_MEASUREMENT)?;
        Ok(Self {
            provider: name.trim_end_matches('\0').into(),
            seed: seed.try_into().map_err(|_| Status::BAD_MEASUREMENT)?,
        })
    }
}

fn cipher(chip: &Chip) -> Aes256Gcm {
    Aes256Gcm::new(&chip.nv_key("vlek wrapping").into())
}

/// Whether any part of a TCB version is newer than the platform's.
pub fn is_newer(tcb: &[u8; 8]) -> bool {
    tcb.iter().zip(&TCB).any(|(theirs, ours)| theirs > ours)
}

/// CONFIG: INVALID_PARAM for reserved fields and a TCB newer than the committed one.
pub fn config(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Config = fw.mem.read(buffer)?;
    let flags = cmd.flags.get();
    if flags & !(MASK_CHIP_ID | MASK_CHIP_KEY) != 0
        || cmd.reserved != [0; 52]
        || is_newer(&cmd.reported_tcb)
    {
        return Err(Status::INVALID_PARAM);
    }
    let tcb = match cmd.reported_tcb {
        [0, 0, 0, 0, 0, 0, 0, 0] => TCB,
        tcb => tcb,
    };
    fw.snp.reported = Reported {
        tcb,
        mask_chip_id: flags & MASK_CHIP_ID != 0,
        mask_chip_key: flags & MASK_CHIP_KEY != 0,
    };
    Ok(())
}

/// COMMIT: the running firmware is the committed one already.
pub fn commit(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Commit = fw.mem.read(buffer)?;
    exact_len::<Commit>(cmd.length)
}

/// VLEK_LOAD: reports are signed with VLEK from now on, unless a request asks for VCEK.
pub fn vlek_load(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: VlekLoad = fw.mem.read(buffer)?;
    exact_len::<VlekLoad>(cmd.length)?;
    if cmd.version != 0 || cmd.reserved != [0; 3] {
        return Err(Status::INVALID_PARAM);
    }
    let hashstick = fw.mem.read(fw.mem.spa(cmd.address.get()))?;
    fw.snp.vlek = Some(Vlek::unwrap(&fw.platform.chip, hashstick)?);
    Ok(())
}
