// SPDX-License-Identifier: GPL-2.0
//! The protocol between a guest with protected registers and its hypervisor, as far as it is only
//! about numbers. Pure: no kernel dependencies.

pub(crate) mod msr;
pub(crate) mod psc;
pub(crate) mod scratch;
pub(crate) mod snapshot;

/// Versions of the protocol that are served.
pub(crate) const VERSIONS: core::ops::RangeInclusive<u16> = 1..=2;

/// The first one that SEV-SNP guests can use.
pub(crate) const SNP_VERSION: u16 = 2;
