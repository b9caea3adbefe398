// SPDX-License-Identifier: GPL-2.0
//! The secure processor: its commands, and how they are issued.

mod blob;
mod channel;
mod command;
mod status;

pub(crate) use self::blob::{optional, Blob};
pub(crate) use self::channel::{platform_init, platform_shutdown, supported_vm_types, Channel};
pub(crate) use self::command::*;
pub(crate) use self::status::FwStatus;
