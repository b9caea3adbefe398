// SPDX-License-Identifier: GPL-2.0-or-later
//! The firmware of the emulated AMD secure processor (PSP): the SEV API, complete, and the SNP
//! commands of platforms and guests.
//!
//! ```text
//!  PSP device (QEMU) ── C ABI ── ffi ──> firmware ──> command (the table) ──> handlers
//!                                 │          │            platform/  guest/  snp/
//!                                 │          ├─ monitor, control   counters, faults, log
//!                                 │          ├─ asid               who owns which ASID
//!                                 │          └─ crypto/            keys, certificates, MACs
//!                                 └─ host (trait) <── memory (checked access) <── handlers
//! ```
//!
//! A command is a function from the firmware's state and a command buffer address to a
//! [`status::Status`]. Everything but [`ffi`] is safe code without global state, so several
//! firmwares live side by side in a test.
//!
//! Rules:
//! - No input makes it panic: memory only through [`memory::Memory`], buffers as plain data
//!   ([`wire`]), no indexing, no unchecked arithmetic (denied below).
//! - No length in a command sizes an allocation beyond 16 KiB.
//! - A failed command leaves the state as it was, save where noted.
//! - Where the public sources do not say what a product does, the code says `unspecified`;
//!   nobody may rely on it.
//!
//! Persistent state, configuration and the control protocol: [`platform::nv`], [`config`],
//! [`control`].
#![deny(unsafe_code, missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub mod asid;
pub mod command;
pub mod config;
pub mod control;
pub mod crypto;
pub mod ffi;
pub mod firmware;
pub mod guest;
pub mod host;
pub mod memory;
pub mod monitor;
pub mod platform;
pub mod snp;
pub mod status;
pub mod wire;
