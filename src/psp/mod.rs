// SPDX-License-Identifier: GPL-2.0
//! The secure processor: its commands, and how they are issued.

mod blob;
mod channel;
mod command;
mod guest_requests;
mod launch_page;
mod snp;
mod status;

pub(crate) use self::blob::{optional, Blob};
pub(crate) use self::channel::{
    can_hide_ciphertext,
    platform_init,
    platform_shutdown,
    snp_policy_bits,
    supported_vm_types,
    Channel,
    Init, //
};
pub(crate) use self::command::*;
pub(crate) use self::guest_requests::GuestRequests;
pub(crate) use self::launch_page::{Fate, LaunchPage};
pub(crate) use self::snp::*;
pub(crate) use self::status::FwStatus;
