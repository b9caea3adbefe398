// SPDX-License-Identifier: GPL-2.0-or-later
//! The launch digest: a chain of SHA-384 over descriptions of the pages.
//!
//! Source: virtee/sev `src/measurement/gctx.rs`, virtee/sev-snp-measure `gctx.py`.

use sha2::{Digest, Sha384};
use zerocopy::little_endian::{U16, U64};
use zerocopy::{Immutable, IntoBytes, KnownLayout, Unaligned};

/// A SHA-384 digest.
pub type Sha384Digest = [u8; 48];

/// What is hashed for a page.
#[derive(IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct PageInfo {
    digest: Sha384Digest,
    contents: Sha384Digest,
    length: U16,
    page_type: u8,
    imi: u8,
    /// Permissions of VMPL 3, 2, 1.
    permissions: [u8; 3],
    reserved: u8,
    gpa: U64,
}

/// The digest of the pages so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchDigest(Sha384Digest);

/// What counts of a page besides its contents.
#[derive(Clone, Copy)]
pub struct Page {
    /// PAGE_TYPE of LAUNCH_UPDATE.
    pub page_type: u8,
    /// Whether it is of the incoming migration image.
    pub imi: bool,
    /// Permissions of VMPL 1, 2, 3.
    pub permissions: [u8; 3],
    /// Guest physical address.
    pub gpa: u64,
}

impl LaunchDigest {
    /// Of no page.
    pub fn new() -> Self {
        Self([0; 48])
    }

    /// Adds a page; `None` if its contents do not count.
    pub fn add(&mut self, page: &Page, contents: Option<&[u8]>) {
        let [vmpl1, vmpl2, vmpl3] = page.permissions;
        let info = PageInfo {
            digest: self.0,
            contents: contents.map_or([0; 48], |bytes| Sha384::digest(bytes).into()),
            length: U16::new(size_of::<PageInfo>() as u16),
            page_type: page.page_type,
            imi: page.imi.into(),
            permissions: [vmpl3, vmpl2, vmpl1],
            reserved: 0,
            gpa: U64::new(page.gpa),
        };
        self.0 = Sha384::digest(info.as_bytes()).into();
    }

    /// The digest.
    pub fn get(&self) -> Sha384Digest {
        self.0
    }
}

impl Default for LaunchDigest {
    fn default() -> Self {
        Self::new()
    }
}
