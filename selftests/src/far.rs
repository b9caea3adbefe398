// SPDX-License-Identifier: GPL-2.0-or-later
//! A VM that another process has launched, for what this one does with its context.

use std::fs::File;
use std::os::fd::AsRawFd;

use anyhow::{Result, ensure};
use kvm_bindings::kvm_sev_launch_start;
use nix::libc;

use crate::context::Kind;
use crate::guest::{self, Program};
use crate::host::{Host, VmType};
use crate::mem::GuestMemory;
use crate::other::{self, Other};
use crate::vm::Vm;

/// Where the other process has its /dev/sev, and this one nothing.
const FAR_FD: i32 = 777;

/// The other process, and what it has opened.
pub struct Far {
    /// The process.
    pub process: Other,
    /// The VM's file.
    pub vm: File,
    /// The VM's memory.
    pub memory: GuestMemory,
}

impl Far {
    /// Starts this program in `role`, in which it calls [`launch`] and [`Launching::keep`].
    pub fn start(role: &str, kind: &str) -> Result<Self> {
        let mut process = Other::start(role, &[kind.to_owned()])?;
        let numbers = process.numbers()?;
        ensure!(numbers.len() == 2, "{numbers:?}");
        let vm = File::from(process.take(numbers[0])?);
        let memory = GuestMemory::from_fd(process.take(numbers[1])?, guest::MEMORY)?;
        Ok(Self { process, vm, memory })
    }
}

/// In the other process: a VM that is being launched.
pub struct Launching {
    /// The devices.
    pub host: Host,
    /// What was asked for.
    pub kind: Kind,
    /// The VM, with its memory encrypted.
    pub vm: Vm,
}

/// Starts to launch a VM of the kind with this name; its /dev/sev has a number that nobody else uses.
pub fn launch(
    kind: &str,
    vm_type: impl FnOnce(Kind) -> VmType,
    program: Program,
) -> Result<Launching> {
    let host = Host::open()?;
    // SAFETY: the number is not in use in this process.
    let far = unsafe { libc::dup2(host.sev_fd(), FAR_FD) };
    ensure!(far == FAR_FD, "dup2");
    let kind = if kind == "es" { Kind::Es } else { Kind::Sev };
    let mut vm = kind.initialised(&host, vm_type(kind))?;
    vm.sev_fd = FAR_FD;
    let policy = kind.policy();
    let answer = vm.launch_start(&mut kvm_sev_launch_start { policy, ..Default::default() });
    ensure!(answer.is_ok(), "LAUNCH_START: {answer}");
    vm.load(program);
    vm.encrypt(guest::LAUNCHED)?;
    Ok(Launching { host, kind, vm })
}

impl Launching {
    /// Says the numbers of the VM's file and of its memory's, and keeps both until told to end.
    pub fn keep(self) -> Result<()> {
        println!("{} {}", self.vm.fd.as_raw_fd(), self.vm.memory.fd_number());
        other::until_told()
    }
}
