// SPDX-License-Identifier: GPL-2.0
//! The module's files without kernel dependencies, compiled for the build machine to run
//! their unit tests. (A kernel with KUnit runs the same tests.)

#![allow(dead_code, unexpected_cfgs)]

#[path = "../../src/asid"]
mod asid {
    pub(crate) mod pool;
    pub(crate) mod range;
}

#[path = "../../src/hw"]
mod hw {
    pub(crate) mod addr;
}
