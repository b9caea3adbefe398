// SPDX-License-Identifier: GPL-2.0-or-later
//! One VM: its memory slot, the SEV commands by name, and the launch sequence.

use std::ops::Range;
use std::os::fd::RawFd;

use anyhow::{Context, Result, ensure};
use kvm_bindings::*;
use kvm_ioctls::VmFd;

use crate::cmd::{Answer, issue};
use crate::guest::{self, Program};
use crate::host::{EncryptionLeaf, Host, VmType};
use crate::mem::GuestMemory;
use crate::vcpu::Vcpu;

/// Guest policy bits of SEV (kernel: Documentation/virt/kvm/x86/amd-memory-encryption.rst).
pub mod policy {
    /// Debugging is forbidden.
    pub const NO_DEBUG: u32 = 1 << 0;
    /// Sharing the key with another guest is forbidden.
    pub const NO_KEY_SHARING: u32 = 1 << 1;
    /// The guest's register state is encrypted (SEV-ES).
    pub const ES: u32 = 1 << 2;
    /// Sending the guest to another platform is forbidden.
    pub const NO_SEND: u32 = 1 << 3;
}

/// `KVM_SEV_GUEST_STATUS` states, in the order of the firmware's state machine.
pub mod guest_state {
    /// Between LAUNCH_START and LAUNCH_MEASURE.
    pub const LAUNCHING: u32 = 1;
    /// Between LAUNCH_MEASURE and LAUNCH_FINISH.
    pub const SECRET: u32 = 2;
    /// After LAUNCH_FINISH.
    pub const RUNNING: u32 = 3;
}

/// Bytes of a launch measurement: HMAC and nonce.
pub const MEASUREMENT_LEN: u32 = 48;

/// The kernel's address of a structure that the caller holds exclusively.
pub fn addr_of<T>(argument: &mut T) -> u64 {
    &raw mut *argument as u64
}

/// A VM with one memory slot. Field order is drop order: vCPU files close before the VM's.
pub struct Vm {
    /// vCPUs in order of creation.
    pub vcpus: Vec<Vcpu>,
    /// The VM's file.
    pub fd: VmFd,
    /// Guest memory, mapped at guest physical address 0.
    pub memory: GuestMemory,
    /// Descriptor passed with every command.
    pub sev_fd: RawFd,
    /// C-bit of this VM's page tables; 0 in a plain VM.
    pub c_mask: u64,
}

impl Vm {
    /// A VM of `kind` with memory, not initialised for SEV.
    pub fn bare(host: &Host, kind: VmType) -> Result<Self> {
        Self::with_memory(host, kind, GuestMemory::new(guest::MEMORY)?)
    }

    /// As [`Vm::bare`], with memory that may have been another VM's.
    pub fn with_memory(host: &Host, kind: VmType, memory: GuestMemory) -> Result<Self> {
        let fd = host.create_vm(kind).with_context(|| format!("KVM_CREATE_VM({kind:?})"))?;
        let slot = kvm_userspace_memory_region {
            memory_size: memory.len() as u64,
            userspace_addr: memory.addr(),
            ..Default::default()
        };
        // SAFETY: the range is mapped as long as `memory` lives, which is in the same object.
        unsafe { fd.set_user_memory_region(slot)? };
        Ok(Self { vcpus: Vec::new(), fd, memory, sev_fd: host.sev_fd(), c_mask: 0 })
    }

    /// A SEV VM after `KVM_SEV_INIT2`.
    pub fn sev(host: &Host) -> Result<Self> {
        Self::sev_with_memory(host, GuestMemory::new(guest::MEMORY)?)
    }

    /// As [`Vm::sev`], with memory that may have been another VM's.
    pub fn sev_with_memory(host: &Host, memory: GuestMemory) -> Result<Self> {
        let mut vm = Self::with_memory(host, VmType::Sev, memory)?;
        vm.c_mask = EncryptionLeaf::read().c_mask();
        let answer = vm.init2(&mut kvm_sev_init::default());
        ensure!(answer.is_ok(), "KVM_SEV_INIT2: {answer}");
        Ok(vm)
    }

    /// A SEV VM after LAUNCH_START with `policy` and no session.
    pub fn started(host: &Host, policy: u32) -> Result<Self> {
        let vm = Self::sev(host)?;
        let answer = vm.launch_start(&mut kvm_sev_launch_start { policy, ..Default::default() });
        ensure!(answer.is_ok(), "KVM_SEV_LAUNCH_START: {answer}");
        Ok(vm)
    }

    /// A SEV VM with `program` launched: ready for vCPUs to run.
    pub fn launched(host: &Host, policy: u32, program: Program) -> Result<Self> {
        let vm = Self::started(host, policy)?;
        vm.launch(program)?;
        Ok(vm)
    }

    /// Everything between LAUNCH_START and the first run: page tables and `program`.
    pub fn launch(&self, program: Program) -> Result<()> {
        self.load(program);
        self.encrypt(guest::LAUNCHED)?;
        self.measurement()?;
        let answer = self.launch_finish();
        ensure!(answer.is_ok(), "KVM_SEV_LAUNCH_FINISH: {answer}");
        Ok(())
    }

    /// Closes the VM and keeps its memory.
    pub fn into_memory(self) -> GuestMemory {
        self.memory
    }

    /// Writes page tables and `program` into guest memory, in the clear.
    pub fn load(&self, program: Program) {
        guest::write_page_tables(&self.memory, self.c_mask);
        self.memory.write(guest::CODE as usize, program.code());
    }

    /// Registers all of guest memory as encrypted, so that it is pinned.
    pub fn register_memory(&self) -> Result<()> {
        let region = kvm_enc_region { addr: self.memory.addr(), size: self.memory.len() as u64 };
        let answer = self.register(&region);
        ensure!(answer.is_ok(), "KVM_MEMORY_ENCRYPT_REG_REGION: {answer}");
        Ok(())
    }

    /// LAUNCH_UPDATE_DATA of a range of guest memory.
    pub fn encrypt(&self, range: Range<usize>) -> Result<()> {
        let answer = self.launch_update_data(&mut kvm_sev_launch_update_data {
            uaddr: self.memory.addr() + range.start as u64,
            len: range.len().try_into()?,
            ..Default::default()
        });
        ensure!(answer.is_ok(), "KVM_SEV_LAUNCH_UPDATE_DATA of {range:x?}: {answer}");
        Ok(())
    }

    /// LAUNCH_MEASURE: the 48 bytes HMAC and nonce.
    pub fn measurement(&self) -> Result<Vec<u8>> {
        let mut blob = [0u8; MEASUREMENT_LEN as usize];
        let uaddr = addr_of(&mut blob);
        let mut measure =
            kvm_sev_launch_measure { uaddr, len: MEASUREMENT_LEN, ..Default::default() };
        let answer = self.launch_measure(&mut measure);
        ensure!(answer.is_ok(), "KVM_SEV_LAUNCH_MEASURE: {answer}");
        ensure!(measure.len == MEASUREMENT_LEN, "a measurement of {} bytes", measure.len);
        Ok(blob.to_vec())
    }

    /// Adds a vCPU that will start the loaded program with `args`.
    pub fn add_vcpu(&mut self, host: &Host, args: [u64; 4]) -> Result<()> {
        let index = self.vcpus.len() as u64;
        let fd = self.fd.create_vcpu(index)?;
        self.vcpus.push(Vcpu::start(host, fd, index, self.c_mask, args)?);
        Ok(())
    }

    /// Any command with any argument address and this VM's `/dev/sev` descriptor.
    pub fn command(&self, id: sev_cmd_id, data: u64) -> Answer {
        issue(&self.fd, id, data, self.sev_fd)
    }

    fn typed<T>(&self, id: sev_cmd_id, argument: &mut T) -> Answer {
        self.command(id, addr_of(argument))
    }

    /// `KVM_SEV_INIT2`.
    pub fn init2(&self, argument: &mut kvm_sev_init) -> Answer {
        self.typed(sev_cmd_id_KVM_SEV_INIT2, argument)
    }

    /// `KVM_SEV_LAUNCH_START`.
    pub fn launch_start(&self, argument: &mut kvm_sev_launch_start) -> Answer {
        self.typed(sev_cmd_id_KVM_SEV_LAUNCH_START, argument)
    }

    /// `KVM_SEV_LAUNCH_UPDATE_DATA`.
    pub fn launch_update_data(&self, argument: &mut kvm_sev_launch_update_data) -> Answer {
        self.typed(sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_DATA, argument)
    }

    /// `KVM_SEV_LAUNCH_MEASURE`.
    pub fn launch_measure(&self, argument: &mut kvm_sev_launch_measure) -> Answer {
        self.typed(sev_cmd_id_KVM_SEV_LAUNCH_MEASURE, argument)
    }

    /// `KVM_SEV_LAUNCH_SECRET`.
    pub fn launch_secret(&self, argument: &mut kvm_sev_launch_secret) -> Answer {
        self.typed(sev_cmd_id_KVM_SEV_LAUNCH_SECRET, argument)
    }

    /// `KVM_SEV_LAUNCH_FINISH`.
    pub fn launch_finish(&self) -> Answer {
        self.command(sev_cmd_id_KVM_SEV_LAUNCH_FINISH, 0)
    }

    /// `KVM_SEV_GUEST_STATUS`.
    pub fn guest_status(&self, argument: &mut kvm_sev_guest_status) -> Answer {
        self.typed(sev_cmd_id_KVM_SEV_GUEST_STATUS, argument)
    }

    /// The guest's state by GUEST_STATUS.
    pub fn state(&self) -> Result<u32> {
        let mut status = kvm_sev_guest_status::default();
        let answer = self.guest_status(&mut status);
        ensure!(answer.is_ok(), "KVM_SEV_GUEST_STATUS: {answer}");
        Ok(status.state)
    }

    /// `KVM_SEV_DBG_DECRYPT` of `len` bytes of guest memory at user address `src` to `dst`.
    pub fn dbg_decrypt(&self, src: u64, dst: u64, len: u32) -> Answer {
        self.debug(sev_cmd_id_KVM_SEV_DBG_DECRYPT, src, dst, len)
    }

    /// `KVM_SEV_DBG_ENCRYPT` of `len` bytes at user address `src` into guest memory at `dst`.
    pub fn dbg_encrypt(&self, src: u64, dst: u64, len: u32) -> Answer {
        self.debug(sev_cmd_id_KVM_SEV_DBG_ENCRYPT, src, dst, len)
    }

    fn debug(&self, id: sev_cmd_id, src_uaddr: u64, dst_uaddr: u64, len: u32) -> Answer {
        self.typed(id, &mut kvm_sev_dbg { src_uaddr, dst_uaddr, len, pad0: 0 })
    }

    /// `KVM_MEMORY_ENCRYPT_REG_REGION`.
    pub fn register(&self, region: &kvm_enc_region) -> Answer {
        Answer::from_result(self.fd.register_enc_memory_region(region))
    }

    /// `KVM_MEMORY_ENCRYPT_UNREG_REGION`.
    pub fn unregister(&self, region: &kvm_enc_region) -> Answer {
        Answer::from_result(self.fd.unregister_enc_memory_region(region))
    }
}
