// SPDX-License-Identifier: GPL-2.0
//! The kernel's C declarations, as generated when the module is built, and checks of them.

pub(crate) mod bindings;
mod layout;
