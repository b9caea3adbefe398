// SPDX-License-Identifier: GPL-2.0
//! What SEV changes in the life of a vCPU.

mod run;
mod setup;

pub(crate) use self::run::prepare;
pub(crate) use self::setup::{after_set_cpuid, create, init_vmcb};
