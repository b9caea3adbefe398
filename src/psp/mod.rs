// SPDX-License-Identifier: GPL-2.0
//! The secure processor: commands, how they are issued, and guests that the firmware knows.

mod blob;
mod channel;
mod command;
mod guest;
mod status;

pub(crate) use self::blob::{optional, Blob};
pub(crate) use self::channel::{platform_init, platform_shutdown, supported_vm_types, Channel};
pub(crate) use self::command::*;
pub(crate) use self::guest::{BoundGuest, Guest};
pub(crate) use self::status::FwStatus;
