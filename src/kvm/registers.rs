// SPDX-License-Identifier: GPL-2.0
//! A vCPU's registers, as far as KVM has them.

#![allow(unsafe_code)]

use kernel::prelude::*;

use super::vcpu::Vcpu;
use super::vm::VmType;
use crate::ffi::bindings as b;
use crate::rejection::{Because, Outcome, Reason};

/// A general-purpose register that a GHCB can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gpr {
    Rax = b::kvm_reg_VCPU_REGS_RAX as isize,
    Rbx = b::kvm_reg_VCPU_REGS_RBX as isize,
    Rcx = b::kvm_reg_VCPU_REGS_RCX as isize,
    Rdx = b::kvm_reg_VCPU_REGS_RDX as isize,
    Rsi = b::kvm_reg_VCPU_REGS_RSI as isize,
}

impl Vcpu {
    fn arch(&self) -> *mut b::kvm_vcpu_arch {
        // SAFETY: The vCPU is alive.
        unsafe { &raw mut (*self.as_raw()).vcpu.arch }
    }

    /// The value that KVM has.
    pub(crate) fn register(&self, register: Gpr) -> u64 {
        // SAFETY: The vCPU is alive and ours.
        let regs = unsafe { (*self.arch()).regs };
        regs.get(register as usize).map_or(0, |value| *value as u64)
    }

    /// Changes the value that KVM has.
    pub(crate) fn set_register(&self, register: Gpr, value: u64) {
        // SAFETY: The vCPU is alive and ours, and so are its registers.
        let regs = unsafe { &mut (*self.arch()).regs };
        if let Some(at) = regs.get_mut(register as usize) {
            *at = value as usize;
        }
    }

    /// Makes KVM forget all general-purpose registers.
    pub(crate) fn clear_registers(&self) {
        // SAFETY: The vCPU is alive and ours.
        unsafe { (*self.arch()).regs = Default::default() }
    }

    /// Tells KVM the guest's XCR0. A value that the guest cannot have is ignored.
    pub(crate) fn set_xcr0(&self, value: u64) {
        // SAFETY: The vCPU is alive and ours.
        unsafe { b::__kvm_set_xcr(self.as_kvm_vcpu(), 0, value) };
    }

    /// Tells KVM the guest's XSS. A value that the guest cannot have is ignored.
    pub(crate) fn set_xss(&self, value: u64) {
        // SAFETY: The vCPU is alive and ours.
        unsafe { b::__kvm_emulate_msr_write(self.as_kvm_vcpu(), b::MSR_IA32_XSS, value) };
    }

    /// Whether the registers are encrypted, so that KVM must leave them alone.
    pub(crate) fn is_protected(&self) -> bool {
        // SAFETY: The vCPU is alive and ours.
        unsafe { (*self.arch()).guest_state_protected }
    }

    /// The TSC is the guest's own: KVM must not change it.
    pub(crate) fn protect_tsc(&self) {
        // SAFETY: The vCPU is alive and ours.
        unsafe { (*self.arch()).guest_tsc_protected = true }
    }

    /// The registers became encrypted.
    pub(crate) fn protect(&self) {
        // SAFETY: The vCPU is alive and ours.
        unsafe { (*self.arch()).guest_state_protected = true }
    }

    /// Userspace cannot access the floating-point registers any more. As upstream, those of SEV-SNP
    /// guests it can, though they mean nothing.
    pub(crate) fn protect_fpu(&self) {
        // SAFETY: The vCPU is alive and ours, and not loaded: its mutex is held outside of KVM_RUN.
        unsafe { b::kvm_sev_protect_fpu(self.as_kvm_vcpu()) }
    }

    /// The encrypted registers belong to another vCPU now.
    pub(crate) fn unprotect(&self) {
        // SAFETY: The vCPU is alive and ours.
        unsafe { (*self.arch()).guest_state_protected = false }
    }

    /// Writes the registers that userspace set, in the layout of a save area.
    ///
    /// Errors: EINVAL if they are encrypted already, or if the guest is being debugged.
    pub(crate) fn write_registers(&self, save: &mut b::sev_es_save_area, features: u64) -> Outcome {
        // SAFETY: The vCPU is alive and ours.
        let guest_debug = unsafe { (*self.as_raw()).vcpu.guest_debug };
        if self.is_protected() {
            return Err(EINVAL.because(Reason::Encrypted));
        }
        if guest_debug != 0 {
            return Err(EINVAL.because(Reason::Debugged));
        }
        // SAFETY: The VMCB is alive and ours. The layouts agree as far as the first one goes.
        unsafe {
            let from = (&raw const (*self.vmcb()).__bindgen_anon_1).cast::<b::vmcb_save_area>();
            if (*from).dr7 & !u64::from(b::DR7_FIXED_1) != 0 {
                return Err(EINVAL.because(Reason::Debugged));
            }
            from.cast::<u8>().copy_to_nonoverlapping(
                (&raw mut *save).cast(),
                core::mem::size_of::<b::vmcb_save_area>(),
            );
        }
        // SAFETY: The vCPU is alive and ours.
        let all = unsafe { (*self.arch()).regs };
        let regs = |n: b::kvm_reg| all.get(n as usize).map_or(0, |value| *value as u64);

        save.rax = regs(b::kvm_reg_VCPU_REGS_RAX);
        save.rbx = regs(b::kvm_reg_VCPU_REGS_RBX);
        save.rcx = regs(b::kvm_reg_VCPU_REGS_RCX);
        save.rdx = regs(b::kvm_reg_VCPU_REGS_RDX);
        save.rsp = regs(b::kvm_reg_VCPU_REGS_RSP);
        save.rbp = regs(b::kvm_reg_VCPU_REGS_RBP);
        save.rsi = regs(b::kvm_reg_VCPU_REGS_RSI);
        save.rdi = regs(b::kvm_reg_VCPU_REGS_RDI);
        save.r8 = regs(b::kvm_reg_VCPU_REGS_R8);
        save.r9 = regs(b::kvm_reg_VCPU_REGS_R9);
        save.r10 = regs(b::kvm_reg_VCPU_REGS_R10);
        save.r11 = regs(b::kvm_reg_VCPU_REGS_R11);
        save.r12 = regs(b::kvm_reg_VCPU_REGS_R12);
        save.r13 = regs(b::kvm_reg_VCPU_REGS_R13);
        save.r14 = regs(b::kvm_reg_VCPU_REGS_R14);
        save.r15 = regs(b::kvm_reg_VCPU_REGS_R15);
        // SAFETY: The vCPU is alive and ours.
        unsafe {
            let arch = self.arch();
            save.rip = (*arch).rip as u64;
            save.xcr0 = (*arch).xcr0;
            save.pkru = (*arch).pkru;
            save.xss = (*arch).ia32_xss;
            save.dr6 = (*arch).dr6 as u64;
        }
        save.sev_features = features;

        // `KVM_SEV_ES_INIT` never did this; doing so would change what guests' owners measure.
        if self.vm().vm_type() != VmType::Default {
            self.write_fpu_registers(save);
        }
        Ok(())
    }

    fn write_fpu_registers(&self, save: &mut b::sev_es_save_area) {
        // SAFETY: The vCPU is alive and ours, and so is the state of its floating-point unit, which
        // is in memory: the vCPU is not loaded. The second pointer is null if the guest has no AVX,
        // and else one to the upper halves of 16 registers.
        let (fx, ymm) = unsafe {
            (
                &*b::kvm_sev_fx_state(self.as_kvm_vcpu()),
                b::kvm_sev_ymm_state(self.as_kvm_vcpu())
                    .cast::<[u8; 256]>()
                    .as_ref(),
            )
        };
        // SAFETY: Both variants of the union are integers, 16 bytes in all.
        let pointers = unsafe { fx.__bindgen_anon_1.__bindgen_anon_1 };

        save.x87_rip = pointers.rip;
        save.x87_dp = pointers.rdp;
        save.mxcsr = fx.mxcsr;
        save.x87_ftw = fx.twd;
        save.x87_fsw = fx.swd;
        save.x87_fcw = fx.cwd;
        save.x87_fop = fx.fop;
        save.x87_ds = 0;
        save.x87_cs = 0;
        save.fpreg_x87 = crate::hw::x87::pack(&fx.st_space);
        for (to, from) in save.fpreg_xmm.chunks_exact_mut(4).zip(fx.xmm_space) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        save.fpreg_ymm = ymm.copied().unwrap_or([0; 256]);
    }
}
