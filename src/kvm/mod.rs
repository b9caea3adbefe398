// SPDX-License-Identifier: GPL-2.0
//! Safe views of KVM's and the kernel's objects, as far as SEV needs them.
//!
//! Nothing in here knows what SEV does with them, save [`slot`] and [`es_slot`], which attach this
//! implementation's state to a VM and its vCPUs.

pub(crate) mod ask_user;
pub(crate) mod cgroup;
pub(crate) mod cpumask;
pub(crate) mod es_slot;
pub(crate) mod exchange;
pub(crate) mod exit;
pub(crate) mod file;
pub(crate) mod ghcb;
pub(crate) mod global;
pub(crate) mod gmem;
pub(crate) mod guest_memory;
pub(crate) mod guest_page;
pub(crate) mod host;
pub(crate) mod host_state;
pub(crate) mod last_vmcb;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod pin;
pub(crate) mod registers;
pub(crate) mod remote;
pub(crate) mod slot;
pub(crate) mod two;
pub(crate) mod user;
pub(crate) mod vcpu;
pub(crate) mod vcpus;
pub(crate) mod vm;
pub(crate) mod vmcb;

pub(crate) use self::vm::{Vm, VmLocked, VmType};
