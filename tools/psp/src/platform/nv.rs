// SPDX-License-Identifier: GPL-2.0-or-later
//! The persistent state: its format, and the chip's own store.
//!
//! Format (ours): magic, version, IV, then the identity encrypted with AES-128-CTR and a MAC
//! over all of it. Both keys follow from the chip, so the state of another chip is as corrupt
//! as a damaged one.

use std::fs;
use std::io;
use std::path::PathBuf;

use aes::Aes128;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::identity::{Chip, Identity};
use crate::crypto::cert::Certificate;
use crate::crypto::ecc::PrivateKey;
use crate::crypto::{Rng, kdf, random};

/// Size of the area that INIT_EX uses.
pub const NV_SIZE: usize = 32 * 1024;

const MAGIC: [u8; 8] = *b"sevfw nv";
const VERSION: u32 = 1;
/// A blank area is all ones, as flash is after erasure. One of all zeros, which Linux passes to
/// INIT_EX when its file does not exist, counts as blank too. unspecified.
const BLANK: u8 = 0xff;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U32,
    iv: [u8; 16],
}

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Body {
    externally_owned: U32,
    /// Zero if externally owned.
    oca: [u8; 48],
    pek: [u8; 48],
    pdh: [u8; 48],
    oca_cert: Certificate,
    pek_cert: Certificate,
    pdh_cert: Certificate,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Image {
    header: Header,
    body: Body,
    mac: [u8; 32],
}

const _: () = assert!(size_of::<Image>() <= NV_SIZE);

/// What an area holds.
pub enum Content {
    /// Nothing yet.
    Blank,
    /// A state that fails its check.
    Corrupt,
    /// A state of this chip.
    Valid(Box<Identity>),
}

fn crypt(chip: &Chip, iv: &[u8; 16], body: &mut Body) {
    let key = chip.nv_key("nv encryption");
    let (key, _) = key.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    ctr::Ctr128BE::<Aes128>::new(key.into(), iv.into()).apply_keystream(body.as_mut_bytes());
}

/// An area of [`NV_SIZE`] bytes that holds the identity.
pub fn seal(identity: &Identity, chip: &Chip, rng: &mut Rng) -> Vec<u8> {
    let header = Header {
        magic: MAGIC,
        version: U32::new(VERSION),
        iv: random(rng),
    };
    let oca = identity.oca.as_ref();
    let mut body = Body {
        externally_owned: U32::from(u32::from(oca.is_none())),
        oca: oca.map_or([0; 48], PrivateKey::to_bytes),
        pek: identity.pek.to_bytes(),
        pdh: identity.pdh.to_bytes(),
        oca_cert: identity.oca_cert,
        pek_cert: identity.pek_cert,
        pdh_cert: identity.pdh_cert,
    };
    crypt(chip, &header.iv, &mut body);
    let key = chip.nv_key("nv integrity");
    let mac = kdf::mac(&key, &[header.as_bytes(), body.as_bytes()]);
    let mut area = Image { header, body, mac }.as_bytes().to_vec();
    area.resize(NV_SIZE, BLANK);
    area
}

/// A blank area.
pub fn blank() -> Vec<u8> {
    vec![BLANK; NV_SIZE]
}

fn identity(body: &Body) -> Option<Identity> {
    let oca = match body.externally_owned.get() {
        0 => Some(PrivateKey::from_bytes(&body.oca)?),
        _ => None,
    };
    Some(Identity {
        oca,
        oca_cert: body.oca_cert,
        pek: PrivateKey::from_bytes(&body.pek)?,
        pek_cert: body.pek_cert,
        pdh: PrivateKey::from_bytes(&body.pdh)?,
        pdh_cert: body.pdh_cert,
    })
}

/// What an area holds.
pub fn open(area: &[u8], chip: &Chip) -> Content {
    let all = |value| area.iter().all(|byte| *byte == value);
    if all(BLANK) || all(0) {
        return Content::Blank;
    }
    let Ok((mut image, _)) = Image::read_from_prefix(area) else {
        return Content::Corrupt;
    };
    let key = chip.nv_key("nv integrity");
    let parts = [image.header.as_bytes(), image.body.as_bytes()];
    if image.header.magic != MAGIC
        || image.header.version.get() != VERSION
        || !kdf::mac_is(&key, &parts, &image.mac)
    {
        return Content::Corrupt;
    }
    crypt(chip, &image.header.iv, &mut image.body);
    match identity(&image.body) {
        Some(identity) => Content::Valid(Box::new(identity)),
        None => Content::Corrupt,
    }
}

/// The chip's own store: a file, or memory that lasts as long as the firmware object.
pub enum Flash {
    /// In memory.
    Memory(Vec<u8>),
    /// In a file, replaced as a whole.
    File(PathBuf),
}

impl Flash {
    /// The store of the configuration item `state`.
    pub fn new(path: Option<PathBuf>) -> Self {
        path.map_or_else(|| Flash::Memory(Vec::new()), Flash::File)
    }

    /// The whole content; empty if nothing was ever stored.
    pub fn load(&self) -> io::Result<Vec<u8>> {
        match self {
            Flash::Memory(bytes) => Ok(bytes.clone()),
            Flash::File(path) => match fs::read(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                other => other,
            },
        }
    }

    /// Replaces the content. A crash leaves the old or the new one.
    pub fn store(&mut self, area: &[u8]) -> io::Result<()> {
        match self {
            Flash::Memory(bytes) => *bytes = area.to_vec(),
            Flash::File(path) => {
                let mut new = path.clone().into_os_string();
                new.push(".new");
                fs::write(&new, area)?;
                fs::rename(&new, path)?;
            }
        }
        Ok(())
    }
}
