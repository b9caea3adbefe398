// SPDX-License-Identifier: GPL-2.0-or-later
//! Save areas that an SNP guest makes for its other vCPUs, and AP creation requests.
//!
//! Source: APM volume 2, "State save area" of the VMCB, RMPADJUST; asm/svm.h.

use std::fmt;

use anyhow::{Result, ensure};
use kvm_bindings::{kvm_segment, kvm_sregs};

use crate::ghcb::{Field, Ghcb, exit};
use crate::guest;
use crate::mem::PAGE;
use crate::snp_guest::{Actor, BUFFERS, Outcome, answer, mailbox_of, stack_of};
use crate::snp_guest_program::Command;

/// `SEV_FEATURES` of SNP guests without any other feature.
pub const SNP_ACTIVE: u64 = 1;
/// RMPADJUST: the page is a VMSA; the target is VMPL 1, whose permissions stay nil.
const MAKE_VMSA: u64 = (1 << 16) | 1;
/// RMPADJUST: it is not any more.
const NO_VMSA: u64 = 1;
const EFER_SVME: u64 = 1 << 12;
/// Shared page in which VMSAs are prepared.
const STAGING: u64 = BUFFERS.end - PAGE as u64;

/// What an AP creation request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Creation {
    /// The vCPU gets the VMSA when it receives INIT.
    OnInit = 0,
    /// It gets the VMSA and runs.
    Create = 1,
    /// It stops.
    Destroy = 2,
}

/// Content of a VMSA.
#[derive(Clone)]
pub struct Vmsa(Vec<u8>);

impl Vmsa {
    /// A vCPU in the state `boot` that enters `rip` with RDI.
    pub fn new(boot: &kvm_sregs, rip: u64, rdi: u64, rsp: u64) -> Self {
        let mut vmsa = Self(vec![0; PAGE]);
        for (offset, segment) in [
            (0x00, &boot.es),
            (0x10, &boot.cs),
            (0x20, &boot.ss),
            (0x30, &boot.ds),
            (0x40, &boot.fs),
            (0x50, &boot.gs),
            (0x70, &boot.ldt),
            (0x90, &boot.tr),
        ] {
            vmsa.segment(offset, segment);
        }
        for (offset, table) in [(0x60, &boot.gdt), (0x80, &boot.idt)] {
            vmsa.set(offset, u64::from(table.limit) << 32);
            vmsa.set(offset + 8, table.base);
        }
        for (offset, value) in [
            (0xd0, boot.efer | EFER_SVME),
            (0x148, boot.cr4),
            (0x150, boot.cr3),
            (0x158, boot.cr0),
            (0x160, 0x400),       // DR7
            (0x168, 0xffff_0ff0), // DR6
            (0x170, 2),           // RFLAGS
            (0x178, rip),
            (0x1d8, rsp),
            (0x268, 0x0007_0406_0007_0406), // PAT
            (0x338, rdi),
            (0x3b0, SNP_ACTIVE),
            (0x3e8, 1), // XCR0
        ] {
            vmsa.set(offset, value);
        }
        // MXCSR, FTW; FCW
        vmsa.0[0x408..0x40c].copy_from_slice(&0x1f80u32.to_le_bytes());
        vmsa.0[0x410..0x412].copy_from_slice(&0x037fu16.to_le_bytes());
        vmsa
    }

    /// A puppet: vCPU `index`, with its own mailbox.
    pub fn puppet(boot: &kvm_sregs, index: usize) -> Self {
        Self::new(boot, guest::CODE, mailbox_of(index), stack_of(index))
    }

    /// Sets the word at `offset`.
    pub fn set(&mut self, offset: usize, value: u64) {
        self.0[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn segment(&mut self, offset: usize, segment: &kvm_segment) {
        let flags = [
            u64::from(segment.type_),
            u64::from(segment.s) << 4,
            u64::from(segment.dpl) << 5,
            u64::from(segment.present) << 7,
            u64::from(segment.avl) << 8,
            u64::from(segment.l) << 9,
            u64::from(segment.db) << 10,
            u64::from(segment.g) << 11,
        ];
        let attributes: u64 = flags.iter().sum();
        let selector = u64::from(segment.selector);
        self.set(offset, selector | (attributes << 16) | (u64::from(segment.limit) << 32));
        self.set(offset + 8, segment.base);
    }
}

/// What became of an AP creation request.
pub struct Created {
    /// The VMGEXIT.
    pub outcome: Outcome,
    /// The two words of the answer.
    pub answer: (u64, u64),
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{:x} {}", self.answer.0, self.answer.1, self.outcome.exits())
    }
}

/// An AP creation request.
pub fn creation(what: u64, apic_id: u64, vmsa: u64, features: u64) -> Ghcb {
    Ghcb::request(exit::AP_CREATION, (apic_id << 32) | what, vmsa).with(Field::Rax, features)
}

impl Actor<'_> {
    /// Makes the validated page at `gpa` a VMSA with this content.
    pub fn make_vmsa(&mut self, gpa: u64, vmsa: &Vmsa) -> Result<()> {
        self.memory.write(STAGING as usize, &vmsa.0);
        let copied = self.command(Command::Copy, [STAGING, gpa, PAGE as u64])?;
        ensure!(copied.quiet(), "VMSA to {gpa:#x}: {copied}");
        let adjusted = self.rmpadjust(gpa, MAKE_VMSA)?;
        ensure!(adjusted.quiet() && adjusted.results[0] == 0, "RMPADJUST {gpa:#x}: {adjusted}");
        Ok(())
    }

    /// Makes the VMSA at `gpa` an ordinary page again: the result of RMPADJUST.
    pub fn unmake_vmsa(&mut self, gpa: u64) -> Result<Outcome> {
        self.rmpadjust(gpa, NO_VMSA)
    }

    /// RMPADJUST of 4 KiB.
    pub fn rmpadjust(&mut self, gpa: u64, attributes: u64) -> Result<Outcome> {
        self.command(Command::RmpAdjust, [gpa, 0, attributes])
    }

    /// Makes an AP creation request.
    pub fn create(&mut self, what: Creation, vcpu: usize, vmsa: u64) -> Result<Created> {
        self.create_raw(&creation(what as u64, vcpu as u64, vmsa, SNP_ACTIVE))
    }

    /// As [`Actor::create`], of any content.
    pub fn create_raw(&mut self, ghcb: &Ghcb) -> Result<Created> {
        let (outcome, page) = self.vmgexit(ghcb)?;
        Ok(Created { outcome, answer: answer(&page) })
    }
}
