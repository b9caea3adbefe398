// SPDX-License-Identifier: GPL-2.0
//! The SEV half of kvm-amd: encrypted guests, in place of `arch/x86/kvm/svm/sev.c`.
//!
//! # How it fits in
//!
//! The other half (`svm.c` and its companions) is C, compiled from the kernel's own source. It calls
//! the functions in [`entry`], whose prototypes are in `svm.h`; `module_init` is there, too.
//!
//! # Layers
//!
//! A module uses those below it, never those above:
//!
//! ```text
//! entry                      raw pointers to types, Result to errno
//! ioctl        vmgexit       what userspace asks for; what a guest asks for
//! gmem                       the private memory of SEV-SNP guests
//! vcpu                       what a vCPU needs
//! platform                   what exists while the module is loaded
//! debug  params  rejections
//! vm                         a VM's encryption context and what it owns
//! asid                       who has which ASID, and flushing them
//! psp                        the firmware's commands
//! ghcb                       the protocol that guests ask by
//! kvm  hw                    safe views of the kernel and the processor        (unsafe)
//! trace                      what can be watched                               (unsafe)
//! rejection                  why an ioctl is rejected
//! ffi                        generated bindings, C shims                       (unsafe)
//! ```
//!
//! # The one idea
//!
//! An encrypted guest is one object, [`vm::EncContext`]: its ASID, its key in the firmware, and its
//! pinned memory. References to it are counted; when the last one goes, everything is returned in
//! the order that the firmware demands. There are no flags that say who has to free what.
//!
//! # Rules
//!
//! `unsafe` is allowed only in modules that say so at their head. Nothing here may panic: that would
//! take the host down. Values that come from users or guests are computed with checked or wrapping
//! operations only.

#![deny(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod asid;
mod debug;
mod entry;
mod ffi;
mod ghcb;
mod gmem;
mod hw;
mod ioctl;
mod kvm;
mod params;
mod platform;
mod psp;
mod rejection;
mod rejections;
mod trace;
mod vcpu;
mod vm;
mod vmgexit;

/// What the kernel's logging macros put in front of each line.
const __LOG_PREFIX: &[u8] = b"kvm_amd\0";
