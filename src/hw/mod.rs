// SPDX-License-Identifier: GPL-2.0
//! The processor: addresses, caches, CPUID.

pub(crate) mod addr;
pub(crate) mod asid;
pub(crate) mod blocks;
pub(crate) mod cache;
pub(crate) mod kind;
pub(crate) mod page;
pub(crate) mod rmp;
pub(crate) mod runs;
pub(crate) mod x87;
