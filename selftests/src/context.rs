// SPDX-License-Identifier: GPL-2.0-or-later
//! VMs of both kinds, SEV and SEV-ES, and the capabilities by which a VM gets the encryption
//! context of another one.

use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Result, ensure};
use kvm_bindings::*;

use crate::cmd::Answer;
use crate::guest::{self, Program};
use crate::host::{EncryptionLeaf, Host, VmType};
use crate::mem::GuestMemory;
use crate::program;
use crate::vcpu::Vcpu;
use crate::vm::{Vm, policy};

/// A kind of encrypted guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Encrypted memory.
    Sev,
    /// Encrypted memory and registers.
    Es,
}

impl Kind {
    /// Both kinds with their names in case lines.
    pub const ALL: [(&'static str, Kind); 2] = [("sev", Kind::Sev), ("es", Kind::Es)];

    /// The type of VMs made with `KVM_SEV_INIT2`.
    pub fn vm_type(self) -> VmType {
        match self {
            Kind::Sev => VmType::Sev,
            Kind::Es => VmType::SevEs,
        }
    }

    /// The policy that firmware wants for it.
    pub fn policy(self) -> u32 {
        match self {
            Kind::Sev => 0,
            Kind::Es => policy::ES,
        }
    }

    /// Makes `vm` one of this kind by the command for its type.
    pub fn init(self, vm: &Vm, vm_type: VmType) -> Answer {
        match (vm_type, self) {
            (VmType::Default, Kind::Sev) => vm.command(sev_cmd_id_KVM_SEV_INIT, 0),
            (VmType::Default, Kind::Es) => vm.command(sev_cmd_id_KVM_SEV_ES_INIT, 0),
            _ => vm.init2(&mut kvm_sev_init::default()),
        }
    }

    /// A VM with an ASID.
    pub fn initialised(self, host: &Host, vm_type: VmType) -> Result<Vm> {
        let vm = empty(host, vm_type, GuestMemory::new(guest::MEMORY)?)?;
        let answer = self.init(&vm, vm_type);
        ensure!(answer.is_ok(), "initialise a {self:?} VM: {answer}");
        Ok(vm)
    }

    /// A VM after LAUNCH_START.
    pub fn started(self, host: &Host, vm_type: VmType) -> Result<Vm> {
        let vm = self.initialised(host, vm_type)?;
        let policy = self.policy();
        let answer = vm.launch_start(&mut kvm_sev_launch_start { policy, ..Default::default() });
        ensure!(answer.is_ok(), "KVM_SEV_LAUNCH_START: {answer}");
        Ok(vm)
    }

    /// A VM ready to run `program`, with a vCPU for each element of `vcpus`.
    pub fn launched(
        self,
        host: &Host,
        vm_type: VmType,
        program: Program,
        vcpus: &[[u64; 4]],
    ) -> Result<Vm> {
        let mut vm = self.started(host, vm_type)?;
        vm.load(program);
        vm.encrypt(guest::LAUNCHED)?;
        self.add_vcpus(&mut vm, host, vcpus)?;
        vm.measurement()?;
        let answer = vm.launch_finish();
        ensure!(answer.is_ok(), "KVM_SEV_LAUNCH_FINISH: {answer}");
        Ok(vm)
    }

    /// Adds a vCPU for each element of `vcpus`; encrypts the state of all.
    pub fn add_vcpus(self, vm: &mut Vm, host: &Host, vcpus: &[[u64; 4]]) -> Result<()> {
        for args in vcpus {
            vm.add_vcpu(host, *args)?;
        }
        if self == Kind::Es && !vcpus.is_empty() {
            let answer = vm.launch_update_vmsa();
            ensure!(answer.is_ok(), "KVM_SEV_LAUNCH_UPDATE_VMSA: {answer}");
        }
        Ok(())
    }
}

/// A VM of the given type with `memory`, whose page tables have the C-bit; not initialised.
pub fn empty(host: &Host, vm_type: VmType, memory: GuestMemory) -> Result<Vm> {
    let mut vm = Vm::with_memory(host, vm_type, memory)?;
    vm.c_mask = EncryptionLeaf::read().c_mask();
    Ok(vm)
}

/// A VM of the given type that shares the memory of `other`; not initialised.
pub fn beside(host: &Host, vm_type: VmType, other: &Vm) -> Result<Vm> {
    empty(host, vm_type, other.memory.share()?)
}

impl Vm {
    /// Adds a vCPU of which nothing is set.
    pub fn add_bare_vcpu(&mut self) -> Result<()> {
        let fd = self.fd.create_vcpu(self.vcpus.len() as u64)?;
        self.vcpus.push(Vcpu::bare(fd));
        Ok(())
    }

    /// `KVM_SEV_LAUNCH_UPDATE_VMSA`.
    pub fn launch_update_vmsa(&self) -> Answer {
        self.command(sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA, 0)
    }

    /// `KVM_CAP_VM_COPY_ENC_CONTEXT_FROM`: become a mirror of `source`.
    pub fn copy_from(&self, source: &Vm) -> Answer {
        self.copy_from_fd(source.fd.as_raw_fd())
    }

    /// As [`Vm::copy_from`], with any descriptor.
    pub fn copy_from_fd(&self, source: RawFd) -> Answer {
        self.context_from(KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, 0, u64::from(source as u32))
    }

    /// `KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM`: take over the context of `source`.
    pub fn move_from(&self, source: &Vm) -> Answer {
        self.move_from_fd(source.fd.as_raw_fd())
    }

    /// As [`Vm::move_from`], with any descriptor.
    pub fn move_from_fd(&self, source: RawFd) -> Answer {
        self.context_from(KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, 0, u64::from(source as u32))
    }

    /// `KVM_ENABLE_CAP` of one of the two with any flags and argument.
    pub fn context_from(&self, cap: u32, flags: u32, source: u64) -> Answer {
        let args = [source, 0, 0, 0];
        let cap = kvm_enable_cap { cap, flags, args, ..Default::default() };
        Answer::from_result(self.fd.enable_cap(&cap))
    }
}

program! {
    /// Counts in the word at RDI (private), copies the count to RSI (shared), and halts once
    /// the word at RSI + 8 is not zero.
    count_until_told:
    "2: inc qword ptr [rdi]"
    "mov rax, [rdi]"
    "mov [rsi], rax"
    "pause"
    "cmp qword ptr [rsi + 8], 0"
    "je 2b"
    "hlt"
}
