// SPDX-License-Identifier: GPL-2.0
//! Address space identifiers: who has which, and how they become usable again.

mod lease;
mod pool;

pub(crate) use self::lease::{Asids, FlushWith, Lease};
