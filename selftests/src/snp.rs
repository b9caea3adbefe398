// SPDX-License-Identifier: GPL-2.0-or-later
//! SEV-SNP VMs: private memory in a guest_memfd, the launch, and what becomes of private pages.
//!
//! One memory slot maps [`guest::MEMORY`] bytes at guest physical address 0 twice: the shared half
//! is [`Vm::memory`], which also is what LAUNCH_UPDATE copies from (page for page at the
//! same offset), the private half is the guest_memfd. KVM takes a page from the half that
//! its memory attributes say.
//!
//! Source: Documentation/virt/kvm/x86/amd-memory-encryption.rst and api.rst of the kernel.

use std::ops::{Deref, DerefMut, Range};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use kvm_bindings::*;
use kvm_ioctls::{VcpuFd, VmFd};
use nix::fcntl::{FallocateFlags, fallocate};
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;

use crate::cmd::Answer;
use crate::guest::{self, Program};
use crate::host::{EncryptionLeaf, Host, VmType};
use crate::mem::{GuestMemory, PAGE};
use crate::vm::{Vm, addr_of};

/// Command `KVM_SEV_SNP_ENABLE_REQ_CERTS`, newer than the bindings.
pub const KVM_SEV_SNP_ENABLE_REQ_CERTS: sev_cmd_id = 103;
/// Device attribute `KVM_X86_SNP_POLICY_BITS`.
pub const KVM_X86_SNP_POLICY_BITS: u64 = 1;
/// Device attribute `KVM_X86_SEV_SNP_REQ_CERTS`.
pub const KVM_X86_SEV_SNP_REQ_CERTS: u64 = 2;

/// Guest policy bits (SEV-SNP firmware ABI, "Guest Policy").
pub mod policy {
    /// The guest may run on a machine with SMT.
    pub const SMT: u64 = 1 << 16;
    /// Reserved, has to be 1.
    pub const RESERVED_ONE: u64 = 1 << 17;
    /// The guest may be associated with a migration agent.
    pub const MIGRATE_MA: u64 = 1 << 18;
    /// Debugging is allowed.
    pub const DEBUG: u64 = 1 << 19;
    /// The guest can be activated on one socket only.
    pub const SINGLE_SOCKET: u64 = 1 << 20;
    /// What tests use that are not about the policy.
    pub const DEFAULT: u64 = SMT | RESERVED_ONE;
}

/// Bits of `SEV_FEATURES` that `KVM_SEV_INIT2` takes (APM volume 2).
pub mod features {
    /// SEV-SNP is active: KVM sets it itself.
    pub const SNP_ACTIVE: u64 = 1 << 0;
    /// Debug registers are swapped.
    pub const DEBUG_SWAP: u64 = 1 << 5;
    /// The TSC cannot be influenced by the host.
    pub const SECURE_TSC: u64 = 1 << 9;
}

/// Types of pages of LAUNCH_UPDATE (`KVM_SEV_SNP_PAGE_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageType {
    /// Measured content.
    Normal = 1,
    /// Measured zeroes.
    Zero = 3,
    /// Content that is not measured.
    Unmeasured = 4,
    /// Where firmware puts the guest's secrets.
    Secrets = 5,
    /// CPUID values that firmware checks.
    Cpuid = 6,
}

impl PageType {
    /// All with their names in case lines.
    pub const ALL: [(&'static str, PageType); 5] = [
        ("normal", PageType::Normal),
        ("zero", PageType::Zero),
        ("unmeasured", PageType::Unmeasured),
        ("secrets", PageType::Secrets),
        ("cpuid", PageType::Cpuid),
    ];
}

const KVMIO: u32 = 0xae;
ioctl_iowr_nr!(KVM_PRE_FAULT_MEMORY, KVMIO, 0xd5, kvm_pre_fault_memory);

/// A SEV-SNP VM. Dereferences to its [`Vm`].
pub struct Snp {
    /// The VM; it is closed before the guest_memfd is.
    pub vm: Vm,
    /// The guest_memfd.
    pub private: OwnedFd,
}

impl Deref for Snp {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        &self.vm
    }
}

impl DerefMut for Snp {
    fn deref_mut(&mut self) -> &mut Vm {
        &mut self.vm
    }
}

/// A slot with both halves of `memory`.
pub fn slot(vm: &Vm, private: &OwnedFd) -> kvm_userspace_memory_region2 {
    kvm_userspace_memory_region2 {
        flags: KVM_MEM_GUEST_MEMFD,
        memory_size: vm.memory.len() as u64,
        userspace_addr: vm.memory.addr(),
        guest_memfd: private.as_raw_fd() as u32,
        ..Default::default()
    }
}

/// The guest physical addresses that a program expects to be shared.
pub const SHARED: Range<usize> = guest::SHARED.start as usize..guest::SHARED.end as usize;
/// Those behind them, which are private.
pub const BEHIND: Range<usize> = guest::SHARED.end as usize..guest::MEMORY;

impl Snp {
    /// A VM of type `KVM_X86_SNP_VM` with memory, all of it shared; not initialised.
    pub fn bare(host: &Host) -> Result<Self> {
        Self::with_memory(host, VmType::Snp)
    }

    /// As [`Snp::bare`], of any type that has private memory.
    pub fn with_memory(host: &Host, kind: VmType) -> Result<Self> {
        let fd = host.create_vm(kind).with_context(|| format!("KVM_CREATE_VM({kind:?})"))?;
        let memory = GuestMemory::new(guest::MEMORY)?;
        let c_mask = EncryptionLeaf::read().c_mask();
        let vm = Vm { vcpus: Vec::new(), fd, memory, sev_fd: host.sev_fd(), c_mask };
        let private = vm.guest_memfd(guest::MEMORY)?;
        // SAFETY: the range is mapped as long as `memory` lives, which is in the same object.
        unsafe { vm.fd.set_user_memory_region2(slot(&vm, &private)) }
            .context("KVM_SET_USER_MEMORY_REGION2")?;
        Ok(Self { vm, private })
    }

    /// A VM after `KVM_SEV_INIT2`.
    pub fn initialised(host: &Host) -> Result<Self> {
        Self::initialised_with(host, &mut kvm_sev_init::default())
    }

    /// As [`Snp::initialised`], with features and a version of the GHCB protocol.
    pub fn initialised_with(host: &Host, init: &mut kvm_sev_init) -> Result<Self> {
        let snp = Self::bare(host)?;
        let answer = snp.init2(init);
        ensure!(answer.is_ok(), "KVM_SEV_INIT2: {answer}");
        Ok(snp)
    }

    /// A VM after LAUNCH_START with `policy`; memory is private save [`guest::SHARED`].
    pub fn started(host: &Host, policy: u64) -> Result<Self> {
        Self::initialised(host)?.start(policy)
    }

    /// LAUNCH_START with `policy`; memory is private save [`guest::SHARED`].
    pub fn start(self, policy: u64) -> Result<Self> {
        let answer = self.snp_launch_start(&mut start(policy));
        ensure!(answer.is_ok(), "KVM_SEV_SNP_LAUNCH_START: {answer}");
        self.set_private(0..SHARED.start, true)?;
        self.set_private(BEHIND, true)?;
        Ok(self)
    }

    /// A VM ready to run `program`, with a vCPU for each element of `vcpus`: its arguments.
    pub fn launched(
        host: &Host,
        policy: u64,
        program: Program,
        vcpus: &[[u64; 4]],
    ) -> Result<Self> {
        let mut snp = Self::started(host, policy)?;
        snp.prepare(host, program, vcpus)?;
        snp.seal()?;
        Ok(snp)
    }

    /// Loads page tables and `program` (measured); all other private pages are zero and
    /// validated. Adds a vCPU for each element of `vcpus`.
    pub fn prepare(&mut self, host: &Host, program: Program, vcpus: &[[u64; 4]]) -> Result<()> {
        self.vm.load(program);
        self.update(PageType::Normal, guest::LAUNCHED)?;
        self.update(PageType::Zero, BEHIND)?;
        for args in vcpus {
            self.vm.add_vcpu(host, *args)?;
        }
        Ok(())
    }

    /// LAUNCH_FINISH without identity block.
    pub fn seal(&self) -> Result<()> {
        let answer = self.snp_launch_finish(&mut kvm_sev_snp_launch_finish::default());
        ensure!(answer.is_ok(), "KVM_SEV_SNP_LAUNCH_FINISH: {answer}");
        Ok(())
    }

    /// LAUNCH_UPDATE of `range`, copied from the same offset of [`Vm::memory`].
    pub fn update(&self, kind: PageType, range: Range<usize>) -> Result<()> {
        let mut argument = self.update_of(kind, range.clone());
        let answer = self.snp_launch_update(&mut argument);
        ensure!(answer.is_ok(), "KVM_SEV_SNP_LAUNCH_UPDATE of {range:x?}: {answer}");
        ensure!(argument.len == 0, "{:#x} bytes are left of {range:x?}", argument.len);
        Ok(())
    }

    /// The argument of LAUNCH_UPDATE for that.
    pub fn update_of(&self, kind: PageType, range: Range<usize>) -> kvm_sev_snp_launch_update {
        kvm_sev_snp_launch_update {
            gfn_start: (range.start / PAGE) as u64,
            uaddr: self.memory.addr() + range.start as u64,
            len: range.len() as u64,
            type_: kind as u8,
            ..Default::default()
        }
    }

    /// Makes `range` private or shared; see [`Vm::set_attributes`].
    pub fn set_private(&self, range: Range<usize>, private: bool) -> Result<()> {
        let answer = self.vm.set_private(range.clone(), private);
        ensure!(answer.is_ok(), "KVM_SET_MEMORY_ATTRIBUTES of {range:x?}: {answer}");
        Ok(())
    }

    /// Frees the private pages of `range`.
    pub fn punch(&self, range: Range<usize>) -> Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.private, flags, range.start as i64, range.len() as i64)
            .with_context(|| format!("punching {range:x?} out of the guest_memfd"))
    }
}

/// The argument of LAUNCH_START with `policy`.
pub fn start(policy: u64) -> kvm_sev_snp_launch_start {
    kvm_sev_snp_launch_start { policy, ..Default::default() }
}

/// A guest_memfd of a VM.
pub fn guest_memfd(vm: &VmFd, len: usize) -> Result<OwnedFd> {
    let argument = kvm_create_guest_memfd { size: len as u64, ..Default::default() };
    let number = vm.create_guest_memfd(argument).context("KVM_CREATE_GUEST_MEMFD")?;
    // SAFETY: the descriptor is new, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

impl Vm {
    /// A guest_memfd of this VM.
    pub fn guest_memfd(&self, len: usize) -> Result<OwnedFd> {
        guest_memfd(&self.fd, len)
    }

    /// `KVM_SEV_SNP_LAUNCH_START`.
    pub fn snp_launch_start(&self, argument: &mut kvm_sev_snp_launch_start) -> Answer {
        self.command(sev_cmd_id_KVM_SEV_SNP_LAUNCH_START, addr_of(argument))
    }

    /// `KVM_SEV_SNP_LAUNCH_UPDATE`.
    pub fn snp_launch_update(&self, argument: &mut kvm_sev_snp_launch_update) -> Answer {
        self.command(sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE, addr_of(argument))
    }

    /// `KVM_SEV_SNP_LAUNCH_FINISH`.
    pub fn snp_launch_finish(&self, argument: &mut kvm_sev_snp_launch_finish) -> Answer {
        self.command(sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH, addr_of(argument))
    }

    /// `KVM_SEV_SNP_ENABLE_REQ_CERTS`.
    pub fn snp_enable_req_certs(&self) -> Answer {
        self.command(KVM_SEV_SNP_ENABLE_REQ_CERTS, 0)
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES`: `range` is private, or shared. Private pages that become
    /// shared stay in the guest_memfd, and the guest's, until they are punched out.
    pub fn set_private(&self, range: Range<usize>, private: bool) -> Answer {
        let attributes = if private { u64::from(KVM_MEMORY_ATTRIBUTE_PRIVATE) } else { 0 };
        Answer::from_result(self.fd.set_memory_attributes(kvm_memory_attributes {
            address: range.start as u64,
            size: range.len() as u64,
            attributes,
            flags: 0,
        }))
    }
}

/// `KVM_PRE_FAULT_MEMORY`; what is left to do afterwards is in `argument`.
pub fn pre_fault(vcpu: &VcpuFd, argument: &mut kvm_pre_fault_memory) -> Answer {
    // SAFETY: the kernel reads and writes `argument` only.
    let ret = unsafe { ioctl_with_mut_ref(vcpu, KVM_PRE_FAULT_MEMORY(), argument) };
    Answer::from_result(if ret < 0 { Err(kvm_ioctls::Error::last()) } else { Ok(()) })
}
