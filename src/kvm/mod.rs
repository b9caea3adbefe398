// SPDX-License-Identifier: GPL-2.0
//! Safe views of KVM's and the kernel's objects, as far as SEV needs them.
//!
//! Nothing in here knows what SEV does with them, save [`slot`], which attaches this
//! implementation's state to a VM.

pub(crate) mod cgroup;
pub(crate) mod cpumask;
pub(crate) mod file;
pub(crate) mod global;
pub(crate) mod host;
pub(crate) mod last_vmcb;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod pin;
pub(crate) mod slot;
pub(crate) mod two;
pub(crate) mod user;
pub(crate) mod vcpu;
pub(crate) mod vcpus;
pub(crate) mod vm;

pub(crate) use self::vm::{Vm, VmLocked, VmType};
