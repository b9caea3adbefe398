// SPDX-License-Identifier: GPL-2.0-or-later
//! A vCPU that starts a guest program in 64-bit mode.

use std::os::fd::{FromRawFd, OwnedFd};

use anyhow::{Result, bail};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, KVMIO, kvm_regs, kvm_segment};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use vmm_sys_util::ioctl::ioctl_with_val;
use vmm_sys_util::ioctl_io_nr;

use crate::cmd::Answer;
use crate::guest;
use crate::host::Host;

const CR0_PE_MP_ET_NE_PG: u64 = 0x8000_0033;
const CR4_PAE_OSFXSR: u64 = 0x220;
const EFER_LME_LMA: u64 = 0x500;

ioctl_io_nr!(KVM_CREATE_VCPU, KVMIO, 0x41);

/// Nothing but `KVM_CREATE_VCPU`, of number 0, which is closed again: `VmFd::create_vcpu` also maps
/// the vCPU's page, and forgets a vCPU whose page it cannot map.
pub fn create(vm: &VmFd) -> Answer {
    // SAFETY: the argument is a number, 0.
    let fd = unsafe { ioctl_with_val(vm, KVM_CREATE_VCPU(), 0) };
    if fd < 0 {
        return Answer::from_result::<()>(Err(kvm_ioctls::Error::last()));
    }
    // SAFETY: a new descriptor, which nobody else knows.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Answer::OK_KEPT
}

/// Why a program stopped, as far as the programs of [`guest`] can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// `hlt`.
    Halt,
    /// Port output: port, bytes.
    Out(u16, Vec<u8>),
    /// Store outside memory: guest physical address, bytes.
    MmioWrite(u64, Vec<u8>),
    /// Triple fault.
    Shutdown,
    /// Anything else.
    Other(String),
}

/// One vCPU.
pub struct Vcpu {
    fd: VcpuFd,
}

impl Vcpu {
    /// Puts a new vCPU into 64-bit mode at [`guest::CODE`] with `args` in RDI, RSI, RDX, RCX.
    pub fn start(host: &Host, fd: VcpuFd, index: u64, c_mask: u64, args: [u64; 4]) -> Result<Self> {
        fd.set_cpuid2(&host.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
        let mut sregs = fd.get_sregs()?;
        sregs.cr0 = CR0_PE_MP_ET_NE_PG;
        sregs.cr3 = guest::TABLES | c_mask;
        sregs.cr4 = CR4_PAE_OSFXSR;
        sregs.efer = EFER_LME_LMA;
        sregs.cs = segment(8, 11, true);
        let data = segment(16, 3, false);
        (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
        fd.set_sregs(&sregs)?;
        let vcpu = Self { fd };
        vcpu.enter(index, args)?;
        Ok(vcpu)
    }

    /// A vCPU as KVM made it.
    pub fn bare(fd: VcpuFd) -> Self {
        Self { fd }
    }

    /// The vCPU's file, for calls that have no method here.
    pub fn fd(&mut self) -> &mut VcpuFd {
        &mut self.fd
    }

    /// Makes the vCPU start the program over with other arguments.
    pub fn enter(&self, index: u64, args: [u64; 4]) -> Result<()> {
        self.enter_at(guest::CODE, index, args)
    }

    /// Makes the vCPU start the program at `rip`.
    pub fn enter_at(&self, rip: u64, index: u64, args: [u64; 4]) -> Result<()> {
        let [rdi, rsi, rdx, rcx] = args;
        self.fd.set_regs(&kvm_regs {
            rip,
            rsp: guest::STACK + index * 0x1000,
            rflags: 2,
            rdi,
            rsi,
            rdx,
            rcx,
            ..Default::default()
        })?;
        Ok(())
    }

    /// Runs until the next exit. Reads of ports and MMIO are answered with `input(address)`,
    /// little-endian, and do not end the run.
    pub fn run_with(&mut self, mut input: impl FnMut(u64) -> u64) -> Result<Exit> {
        loop {
            return Ok(match self.fd.run()? {
                VcpuExit::IoIn(port, data) => {
                    data.copy_from_slice(&input(port.into()).to_le_bytes()[..data.len()]);
                    continue;
                }
                VcpuExit::MmioRead(gpa, data) => {
                    data.copy_from_slice(&input(gpa).to_le_bytes()[..data.len()]);
                    continue;
                }
                VcpuExit::IoOut(port, data) => Exit::Out(port, data.to_vec()),
                VcpuExit::MmioWrite(gpa, data) => Exit::MmioWrite(gpa, data.to_vec()),
                VcpuExit::Hlt => Exit::Halt,
                VcpuExit::Shutdown => Exit::Shutdown,
                // Not the CPU, which is by chance.
                VcpuExit::FailEntry(reason, _) => Exit::Other(format!("FailEntry({reason:#x})")),
                other => Exit::Other(format!("{other:?}")),
            });
        }
    }

    /// Runs until the next exit; reads of ports and MMIO see zero.
    pub fn run(&mut self) -> Result<Exit> {
        self.run_with(|_| 0)
    }

    /// Runs until the program halts; any other exit is an error.
    pub fn run_to_halt(&mut self) -> Result<()> {
        match self.run()? {
            Exit::Halt => Ok(()),
            other => bail!("the guest stopped with {other:?}, not with a halt"),
        }
    }
}

fn segment(selector: u16, type_: u8, long: bool) -> kvm_segment {
    kvm_segment {
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        s: 1,
        l: long.into(),
        db: (!long).into(),
        g: 1,
        ..Default::default()
    }
}
