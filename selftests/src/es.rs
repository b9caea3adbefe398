// SPDX-License-Identifier: GPL-2.0-or-later
//! SEV-ES VMs: launch with encrypted vCPU state, and exceptions in their guests.
//!
//! A program with a handler gets a GDT and an IDT in its measured pages. Every exception
//! enters the handler with the vector on top of the stack, then the error code (0 for
//! exceptions that have none), then what `iretq` takes.

use anyhow::{Result, ensure};
use kvm_bindings::{
    kvm_dtable, kvm_sev_init, kvm_sev_launch_start, sev_cmd_id_KVM_SEV_ES_INIT,
    sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA,
};
use kvm_ioctls::{Kvm, VmFd};

use crate::cmd::Answer;
use crate::guest::{self, Program};
use crate::host::{EncryptionLeaf, Host, VmType};
use crate::mem::{GuestMemory, Mapping};
use crate::vcpu::Vcpu;
use crate::vm::{Vm, policy};

const IDT: u64 = 0x8000;
const GDT: u64 = 0x9000;
const STUBS: u64 = 0xa000;
/// Where a program's handler is.
pub const HANDLER: u64 = 0xb000;
const VECTORS: u64 = 32;
const STUB_LEN: u64 = 16;
/// Null, 64-bit code, data: the selectors that vCPUs start with.
const DESCRIPTORS: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
/// Vectors of exceptions with an error code (APM volume 2).
const WITH_ERROR_CODE: [u64; 10] = [8, 10, 11, 12, 13, 14, 17, 21, 29, 30];

/// A program and what handles its exceptions.
#[derive(Clone, Copy)]
pub struct Guest {
    /// Runs from [`guest::CODE`].
    pub program: Program,
    /// Runs from [`HANDLER`]; without it exceptions end the guest.
    pub handler: Option<Program>,
}

impl From<Program> for Guest {
    fn from(program: Program) -> Self {
        Self { program, handler: None }
    }
}

/// An idle VM, to be kept as long as tests create and close others.
///
/// With the first VM KVM switches a static key on, and off with the last one: every CPU's text is
/// patched each time. That has nothing to do with these tests, and is slow on emulated CPUs.
pub fn kept_vm() -> Option<VmFd> {
    // Without /dev/kvm the tests say what is wrong.
    Kvm::new().ok()?.create_vm().ok()
}

/// How to set up a SEV-ES VM.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// Highest GHCB protocol version; 0 leaves it to KVM.
    pub ghcb_version: u16,
    /// `SEV_FEATURES` of every VMSA.
    pub vmsa_features: u64,
    /// Interrupt controllers in the kernel: vCPUs wait there, and INIT-SIPI works.
    pub irqchip: bool,
    /// By `KVM_SEV_ES_INIT`, which knows no versions or features.
    pub old: bool,
}

impl Setup {
    /// With the given protocol version.
    pub fn version(ghcb_version: u16) -> Self {
        Self { ghcb_version, ..Default::default() }
    }

    /// A VM after LAUNCH_START.
    pub fn start(&self, host: &Host) -> Result<Vm> {
        let vm_type = if self.old { VmType::Default } else { VmType::SevEs };
        let mut vm = Vm::with_memory(host, vm_type, GuestMemory::new(guest::MEMORY)?)?;
        if self.irqchip {
            vm.fd.create_irq_chip()?;
        }
        vm.c_mask = EncryptionLeaf::read().c_mask();
        let answer = if self.old {
            vm.command(sev_cmd_id_KVM_SEV_ES_INIT, 0)
        } else {
            vm.init2(&mut kvm_sev_init {
                vmsa_features: self.vmsa_features,
                ghcb_version: self.ghcb_version,
                ..Default::default()
            })
        };
        ensure!(answer.is_ok(), "initialise ({self:?}): {answer}");
        let answer =
            vm.launch_start(&mut kvm_sev_launch_start { policy: policy::ES, ..Default::default() });
        ensure!(answer.is_ok(), "KVM_SEV_LAUNCH_START: {answer}");
        Ok(vm)
    }

    /// A VM ready to run, with one vCPU for each element of `vcpus`: its arguments.
    pub fn launch(&self, host: &Host, guest: impl Into<Guest>, vcpus: &[[u64; 4]]) -> Result<Vm> {
        let mut vm = self.start(host)?;
        prepare(&mut vm, host, guest.into(), vcpus)?;
        seal(&vm)?;
        Ok(vm)
    }
}

/// Loads `guest` and adds a vCPU for each element of `vcpus`; nothing is encrypted yet.
pub fn prepare(vm: &mut Vm, host: &Host, guest: Guest, vcpus: &[[u64; 4]]) -> Result<()> {
    vm.load(guest.program);
    for args in vcpus {
        vm.add_vcpu(host, *args)?;
    }
    if let Some(handler) = guest.handler {
        vm.memory.write(HANDLER as usize, handler.code());
        write_tables(&vm.memory);
        vm.vcpus.iter_mut().try_for_each(use_tables)?;
    }
    Ok(())
}

/// Encrypts memory and vCPUs, and ends the launch.
pub fn seal(vm: &Vm) -> Result<()> {
    vm.encrypt(guest::LAUNCHED)?;
    let answer = update_vmsa(vm);
    ensure!(answer.is_ok(), "KVM_SEV_LAUNCH_UPDATE_VMSA: {answer}");
    vm.measurement()?;
    let answer = vm.launch_finish();
    ensure!(answer.is_ok(), "KVM_SEV_LAUNCH_FINISH: {answer}");
    Ok(())
}

/// `KVM_SEV_LAUNCH_UPDATE_VMSA`: encrypts the registers of every vCPU.
pub fn update_vmsa(vm: &Vm) -> Answer {
    vm.command(sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA, 0)
}

fn write_tables(memory: &Mapping) {
    for (i, descriptor) in DESCRIPTORS.iter().enumerate() {
        memory.write_u64(GDT as usize + 8 * i, *descriptor);
    }
    for vector in 0..VECTORS {
        let stub = STUBS + vector * STUB_LEN;
        // Interrupt gate, present, selector 8.
        let gate = (stub & 0xffff) | (8 << 16) | (0x8e00 << 32) | ((stub >> 16) << 48);
        memory.write_u64((IDT + 16 * vector) as usize, gate);
        // push 0 (if the CPU pushes no error code); push vector; jmp HANDLER
        let mut code = Vec::new();
        if !WITH_ERROR_CODE.contains(&vector) {
            code.extend([0x6a, 0]);
        }
        code.extend([0x6a, vector as u8, 0xe9]);
        let next = stub + code.len() as u64 + 4;
        code.extend(((HANDLER - next) as u32).to_le_bytes());
        memory.write(stub as usize, &code);
    }
}

fn use_tables(vcpu: &mut Vcpu) -> Result<()> {
    let table = |base, limit| kvm_dtable { base, limit, ..Default::default() };
    let mut sregs = vcpu.fd().get_sregs()?;
    sregs.gdt = table(GDT, 8 * DESCRIPTORS.len() as u16 - 1);
    sregs.idt = table(IDT, 16 * VECTORS as u16 - 1);
    vcpu.fd().set_sregs(&sregs)?;
    Ok(())
}
