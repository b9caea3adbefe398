// SPDX-License-Identifier: GPL-2.0-or-later
//! SEV-SNP: the platform part. Guest commands do not exist yet and answer INVALID_COMMAND, and
//! legacy commands do not check the RMP while SNP is initialised.

pub mod platform;
pub mod rmp;

/// State of the SNP firmware.
#[derive(Default)]
pub struct Snp {
    initialized: bool,
    rmp_initialized: bool,
}

impl Snp {
    /// Whether SNP_INIT was done.
    pub fn is_initialized(&self) -> bool {
        self.initialized
    }
}
