// SPDX-License-Identifier: GPL-2.0-or-later
//! The module's files without kernel dependencies, compiled for the build machine: their own unit
//! tests run here, and so do the property tests beside this file. A kernel with KUnit runs the unit
//! tests as well.

#![cfg(test)]
#![allow(dead_code, unexpected_cfgs)]

#[path = "../../../src/asid"]
mod asid {
    pub(crate) mod pool;
}

/// The pure files know the kernel's declarations by this name.
mod ffi {
    pub(crate) use crate::ghcb_constants as bindings;
}

#[path = "../../../src/ghcb"]
mod ghcb {
    pub(crate) mod msr;
    pub(crate) mod psc;
    pub(crate) mod scratch;
    pub(crate) mod snapshot;
}

#[path = "../../../src/hw"]
mod hw {
    pub(crate) mod addr;
    pub(crate) mod asid;
    pub(crate) mod blocks;
    pub(crate) mod kind;
    pub(crate) mod runs;
    pub(crate) mod x87;
}

#[path = "../../../src/psp"]
mod psp {
    pub(crate) mod status;
}

mod ghcb_constants;
mod ghcb_properties;
mod pool_properties;
mod psc_properties;
mod range_properties;
mod status_names;
