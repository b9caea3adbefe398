// SPDX-License-Identifier: GPL-2.0-or-later
//! SNP VMs whose vCPUs are puppets of the test ([`crate::snp_guest_program`]), and the part of a
//! VMM that answers them.
//!
//! The first 2 MiB of guest memory are launched memory, shared pages and private pages; two
//! areas of 2 MiB follow for tests that change the state of pages. Virtual addresses equal
//! physical ones with the C-bit; the whole memory is mapped a second time without it from
//! [`SHARED_VIEW`]. All memory but [`SHARED`] has the attribute "private" at first; of that,
//! [`guest::LAUNCHED`] is validated by the launch.

use std::ops::Range;
use std::os::fd::OwnedFd;

use anyhow::{Result, ensure};
use kvm_bindings::*;
use kvm_ioctls::VmFd;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::cmd::Answer;
use crate::es::{self, Guest};
use crate::guest;
use crate::host::{EncryptionLeaf, Host, VmType};
use crate::mem::{self, GuestMemory, Mapping, PAGE};
use crate::snp::{self, PageType, policy};
use crate::snp_guest_program::{note_snp_exception, puppet};
use crate::vm::Vm;

pub use crate::snp_guest_actor::{Actor, Exception, Outcome, Reply, Vmm, answer};

/// Bytes of guest memory.
pub const MEMORY: u64 = 6 << 20;
/// Bytes of a large page.
pub const LARGE: u64 = mem::LARGE as u64;
/// Pages without C-bit in both views: mailboxes, GHCBs, buffers.
pub const SHARED: Range<u64> = 0x2_0000..0x4_0000;
/// Shared pages that are free for buffers.
pub const BUFFERS: Range<u64> = 0x2_8000..0x4_0000;
/// Where the firmware puts the secrets of a guest that asks for them.
pub const SECRETS: u64 = 0x4_0000;
/// Private pages that are not validated.
pub const PRIVATE: Range<u64> = 0x5_0000..0x20_0000;
/// The first of two areas of 2 MiB, private and not validated.
pub const AREA: u64 = LARGE;
/// Virtual address of the view without C-bit.
pub const SHARED_VIEW: u64 = 0x8000_0000;
/// vCPUs that there are mailboxes for.
pub const MOST_VCPUS: usize = 4;
/// Where free launched memory for other programs is.
pub const OTHER_CODE: u64 = 0x1_4000;

/// `KVM_HC_MAP_GPA_RANGE`.
pub const MAP_GPA_RANGE: u64 = 12;
/// Bits of the third argument of that hypercall.
pub mod map {
    /// The size is 2 MiB.
    pub const LARGE: u64 = 1;
    /// To private.
    pub const ENCRYPTED: u64 = 1 << 4;
}

/// Page of a vCPU's mailbox.
pub const fn mailbox_of(vcpu: usize) -> u64 {
    SHARED.start + 2 * (vcpu * PAGE) as u64
}

/// Page of a vCPU's GHCB.
pub const fn ghcb_of(vcpu: usize) -> u64 {
    mailbox_of(vcpu) + PAGE as u64
}

/// How to set up an SNP VM.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// vCPUs; all of them are launched as puppets.
    pub vcpus: usize,
    /// `KVM_MAP_GPA_RANGE` exits to userspace.
    pub hypercalls: bool,
    /// Interrupt controllers in the kernel.
    pub irqchip: bool,
    /// With a secrets page at [`SECRETS`].
    pub secrets: bool,
    /// Certificates are asked from userspace.
    pub certificates: bool,
    /// The guest's policy.
    pub policy: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            vcpus: 1,
            hypercalls: true,
            irqchip: false,
            secrets: false,
            certificates: false,
            policy: policy::DEFAULT,
        }
    }
}

impl Setup {
    /// One vCPU for each puppet.
    pub fn vcpus(vcpus: usize) -> Self {
        Self { vcpus, ..Default::default() }
    }

    /// Creates, fills and launches the VM.
    pub fn launch(self, host: &Host) -> Result<SnpGuest> {
        ensure!(self.vcpus <= MOST_VCPUS, "mailboxes are for {MOST_VCPUS} vCPUs");
        let memory = GuestMemory::new(MEMORY as usize)?;
        let fd = host.create_vm(VmType::Snp)?;
        let c_mask = EncryptionLeaf::read().c_mask();
        let mut vm = Vm { vcpus: Vec::new(), fd, memory, sev_fd: host.sev_fd(), c_mask };
        let private = vm.guest_memfd(MEMORY as usize)?;
        // SAFETY: the range is mapped as long as `memory` lives, which is in the same object as
        // the VM's file.
        unsafe { vm.fd.set_user_memory_region2(snp::slot(&vm, &private))? };
        if self.hypercalls {
            let cap = kvm_enable_cap {
                cap: KVM_CAP_EXIT_HYPERCALL,
                args: [1 << MAP_GPA_RANGE, 0, 0, 0],
                ..Default::default()
            };
            vm.fd.enable_cap(&cap)?;
        }
        if self.irqchip {
            vm.fd.create_irq_chip()?;
        }
        set_private(&vm.fd, 0..MEMORY, true)?;
        set_private(&vm.fd, SHARED, false)?;
        succeeded("KVM_SEV_INIT2", vm.init2(&mut kvm_sev_init::default()))?;
        if self.certificates {
            succeeded("KVM_SEV_SNP_ENABLE_REQ_CERTS", vm.snp_enable_req_certs())?;
        }
        let arguments: Vec<_> = (0..self.vcpus).map(|vcpu| [mailbox_of(vcpu), 0, 0, 0]).collect();
        es::prepare(
            &mut vm,
            host,
            Guest { program: puppet(), handler: Some(note_snp_exception()) },
            &arguments,
        )?;
        write_page_tables(&vm.memory, c_mask);
        for (i, vcpu) in vm.vcpus.iter_mut().enumerate() {
            let mut registers = vcpu.fd().get_regs()?;
            registers.rsp = stack_of(i);
            vcpu.fd().set_regs(&registers)?;
        }
        let boot = vm.vcpus[0].fd().get_sregs()?;
        let guest = SnpGuest { vm, private, boot };
        guest.seal(self)?;
        Ok(guest)
    }
}

/// Top of a vCPU's stack, in launched memory.
pub fn stack_of(vcpu: usize) -> u64 {
    guest::LAUNCHED.end as u64 - (vcpu * PAGE) as u64
}

fn succeeded(what: &str, answer: Answer) -> Result<()> {
    ensure!(answer.is_ok(), "{what}: {answer}");
    Ok(())
}

/// `KVM_SET_MEMORY_ATTRIBUTES`: makes a range private or shared.
pub fn set_private(vm: &VmFd, range: Range<u64>, private: bool) -> Result<(), kvm_ioctls::Error> {
    vm.set_memory_attributes(kvm_memory_attributes {
        address: range.start,
        size: range.end - range.start,
        attributes: if private { u64::from(KVM_MEMORY_ATTRIBUTE_PRIVATE) } else { 0 },
        flags: 0,
    })
}

/// Page tables as the head of this file says.
fn write_page_tables(memory: &Mapping, c_mask: u64) {
    const PRESENT_WRITABLE: u64 = 3;
    const IS_LARGE: u64 = 1 << 7;
    let [pml4, pdpt, pd, pd_mmio, pd_shared, pt] =
        [0, 1, 2, 3, 4, 5].map(|i| guest::TABLES + i * PAGE as u64);
    let entry = |table: u64, index: u64, value: u64| {
        memory.write_u64((table + index * 8) as usize, value | PRESENT_WRITABLE);
    };
    entry(pml4, 0, pdpt | c_mask);
    entry(pdpt, 0, pd | c_mask);
    entry(pdpt, guest::MMIO.start >> 30, pd_mmio | c_mask);
    entry(pdpt, SHARED_VIEW >> 30, pd_shared | c_mask);
    entry(pd, 0, pt | c_mask);
    for large in 1..MEMORY / LARGE {
        entry(pd, large, (large * LARGE) | IS_LARGE | c_mask);
    }
    for large in 0..MEMORY / LARGE {
        entry(pd_shared, large, (large * LARGE) | IS_LARGE);
    }
    entry(pd_mmio, 0, guest::MMIO.start | IS_LARGE);
    for page in (0..LARGE).step_by(PAGE) {
        let encrypted = if SHARED.contains(&page) { 0 } else { c_mask };
        entry(pt, page / PAGE as u64, page | encrypted);
    }
}

/// A launched SNP guest. Field order is drop order.
pub struct SnpGuest {
    /// The VM; `memory` is what the guest sees of its shared pages.
    pub vm: Vm,
    /// The guest_memfd.
    pub private: OwnedFd,
    /// System registers that vCPUs start with.
    pub boot: kvm_sregs,
}

impl SnpGuest {
    fn seal(&self, setup: Setup) -> Result<()> {
        let vm = &self.vm;
        // Free for other programs; the launch measures it.
        vm.memory.write(OTHER_CODE as usize, crate::snp_guest_program::snp_counter().code());
        let answer = vm.snp_launch_start(&mut snp::start(setup.policy));
        succeeded("KVM_SEV_SNP_LAUNCH_START", answer)?;
        let launched = guest::LAUNCHED.start as u64..guest::LAUNCHED.end as u64;
        self.update(launched, PageType::Normal)?;
        if setup.secrets {
            self.update(SECRETS..SECRETS + PAGE as u64, PageType::Secrets)?;
        }
        let mut finish = kvm_sev_snp_launch_finish::default();
        let answer = vm.snp_launch_finish(&mut finish);
        succeeded("KVM_SEV_SNP_LAUNCH_FINISH", answer)
    }

    /// LAUNCH_UPDATE with the content of the shared memory at the same place.
    fn update(&self, range: Range<u64>, kind: PageType) -> Result<()> {
        let mut update = kvm_sev_snp_launch_update {
            gfn_start: range.start / PAGE as u64,
            uaddr: self.vm.memory.addr() + range.start,
            len: range.end - range.start,
            type_: kind as u8,
            ..Default::default()
        };
        let answer = self.vm.snp_launch_update(&mut update);
        succeeded("KVM_SEV_SNP_LAUNCH_UPDATE", answer)?;
        ensure!(update.len == 0, "KVM_SEV_SNP_LAUNCH_UPDATE left {} bytes", update.len);
        Ok(())
    }

    /// One vCPU with what it needs to run.
    pub fn actor(&mut self, vcpu: usize) -> Actor<'_> {
        let Vm { vcpus, fd, memory, .. } = &mut self.vm;
        Actor { vcpu: &mut vcpus[vcpu], vm: fd, memory, index: vcpu, vmm: Vmm::default() }
    }

    /// Every vCPU, to run each in a thread of its own.
    pub fn actors(&mut self) -> Vec<Actor<'_>> {
        let Vm { vcpus, fd, memory, .. } = &mut self.vm;
        let (fd, memory): (&VmFd, &Mapping) = (fd, memory);
        let actor = |(index, vcpu)| Actor { vcpu, vm: fd, memory, index, vmm: Vmm::default() };
        vcpus.iter_mut().enumerate().map(actor).collect()
    }
}

/// Frees pages of a guest_memfd: the guest's content is lost.
pub fn punch(private: &OwnedFd, range: Range<u64>) -> Result<(), Errno> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let (offset, len) = (range.start as i64, (range.end - range.start) as i64);
    fallocate(private, flags, offset, len)
}
