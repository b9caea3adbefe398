// SPDX-License-Identifier: GPL-2.0-or-later
//! SEV-SNP.
//!
//! ```text
//! GCTX_CREATE --> INIT --LAUNCH_START--> LAUNCH --LAUNCH_FINISH--> RUNNING
//!                               [ACTIVATE; LAUNCH_UPDATE]  [GUEST_REQUEST]     --DECOMMISSION-->
//! ```
//! A guest context is named by the page that the host gave for it. The page holds nothing but
//! noise; the RMP keeps the host from changing it. unspecified: its format, and the status for a
//! page that holds no context (here INVALID_GUEST).

pub mod activate;
pub mod census;
pub mod certs;
pub mod config;
pub mod context;
pub mod cpuid;
pub mod debug;
pub mod digest;
pub mod id_block;
pub mod iommu;
pub mod launch;
pub mod pages;
pub mod platform;
pub mod policy;
pub mod request;
pub mod rmp;
pub mod table;
pub mod wire;

use std::collections::BTreeMap;

use crate::asid::Asid;
use config::{Reported, Vlek};
use context::Context;

/// State of the SNP firmware.
#[derive(Default)]
pub struct Snp {
    initialized: bool,
    rmp_initialized: bool,
    /// The pages of the IOMMUs that are the firmware's.
    iommu: Vec<iommu::Region>,
    /// The contexts by the addresses of their pages. Invariant: these are the pages in the
    /// Context state.
    contexts: BTreeMap<u64, Context>,
    /// Whether it was initialised with ciphertext hiding.
    ciphertext_hiding: bool,
    rapl_disabled: bool,
    /// An ASID was released and DF_FLUSH has not been issued since.
    unflushed: bool,
    reported: Reported,
    vlek: Option<Vlek>,
}

impl Snp {
    /// Whether SNP_INIT was done.
    pub fn is_initialized(&self) -> bool {
        self.initialized
    }

    /// Whether there is an RMP, which outlives SNP_SHUTDOWN.
    pub fn has_rmp(&self) -> bool {
        self.rmp_initialized
    }

    /// Number of guest contexts.
    pub fn contexts(&self) -> usize {
        self.contexts.len()
    }

    /// The ASIDs of SNP guests.
    pub fn asids(&self) -> Vec<Asid> {
        let contexts = self.contexts.values();
        contexts.filter_map(|context| context.asid).collect()
    }
}
