// SPDX-License-Identifier: GPL-2.0
//! Address space identifiers: who has which, and how they become usable again.

mod lease;
mod pool;
mod range;

pub(crate) use self::lease::{Asids, FlushWith, Lease};
pub(crate) use self::range::{Asid, Range, Split};
