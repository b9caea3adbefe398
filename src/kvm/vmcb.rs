// SPDX-License-Identifier: GPL-2.0
//! A vCPU's VMCB: what makes VMRUN leave the guest, and what tells KVM why it did.
//!
//! Source: APM volume 2, appendix B; arch/x86/include/asm/svm.h.

#![allow(unsafe_code)]

use super::vcpu::Vcpu;
use crate::ffi::bindings;
use crate::hw::addr::PspAddr;

/// An instruction or event that can make the guest stop.
#[derive(Clone, Copy)]
pub(crate) enum Intercept {
    Cr0Read,
    Cr4Read,
    Cr8Read,
    Cr0Write,
    Cr4Write,
    Cr8Write,
    /// Writes that change other bits of CR0 than TS and MP.
    SelectiveCr0,
    Xsetbv,
    Dr7Read,
    Dr7Write,
    /// After EFER was written.
    EferTrap,
    /// After CR0 was written; likewise the next two.
    Cr0Trap,
    Cr4Trap,
    Cr8Trap,
}

impl Intercept {
    fn bit(self) -> i32 {
        let bit = match self {
            Intercept::Cr0Read => bindings::INTERCEPT_CR0_READ,
            Intercept::Cr4Read => bindings::INTERCEPT_CR4_READ,
            Intercept::Cr8Read => bindings::INTERCEPT_CR8_READ,
            Intercept::Cr0Write => bindings::INTERCEPT_CR0_WRITE,
            Intercept::Cr4Write => bindings::INTERCEPT_CR4_WRITE,
            Intercept::Cr8Write => bindings::INTERCEPT_CR8_WRITE,
            Intercept::SelectiveCr0 => bindings::INTERCEPT_SELECTIVE_CR0,
            Intercept::Xsetbv => bindings::INTERCEPT_XSETBV,
            Intercept::Dr7Read => bindings::INTERCEPT_DR7_READ,
            Intercept::Dr7Write => bindings::INTERCEPT_DR7_WRITE,
            Intercept::EferTrap => bindings::TRAP_EFER_WRITE,
            Intercept::Cr0Trap => bindings::TRAP_CR0_WRITE,
            Intercept::Cr4Trap => bindings::TRAP_CR4_WRITE,
            Intercept::Cr8Trap => bindings::TRAP_CR8_WRITE,
        };
        // Less than 192.
        bit as i32
    }
}

/// An MSR that the processor may switch between host and guest.
#[derive(Clone, Copy)]
pub(crate) enum Msr {
    Ghcb,
    Efer,
    Pat,
    TscAux,
    Xss,
    /// For reading only.
    GuestTscFrequency,
}

impl Vcpu {
    fn control(&self) -> *mut bindings::vmcb_control_area {
        // SAFETY: The VMCB is alive and, by the type invariant, ours.
        unsafe { &raw mut (*self.vmcb()).control }
    }

    /// Makes the guest stop at this.
    pub(crate) fn intercept(&self, what: Intercept) {
        // SAFETY: The vCPU is alive and ours.
        unsafe { bindings::svm_set_intercept(self.as_raw(), what.bit()) }
    }

    /// Lets the guest do this.
    pub(crate) fn allow(&self, what: Intercept) {
        // SAFETY: The vCPU is alive and ours.
        unsafe { bindings::svm_clr_intercept(self.as_raw(), what.bit()) }
    }

    /// Lets the guest read and write all debug registers. Whoever intercepts any of them afterwards
    /// tells the processor about the change.
    pub(crate) fn allow_debug_registers(&self) {
        const WORD: usize = (bindings::INTERCEPT_DR0_READ / 32) as usize;

        // SAFETY: The VMCB is alive and ours; the word is one of the six.
        unsafe { (*self.control()).intercepts[WORD] = 0 }
    }

    /// Lets the guest access an MSR, or makes it stop at that.
    pub(crate) fn set_msr_intercept(&self, msr: Msr, intercept: bool) {
        let all = bindings::KVM_SEV_CONST_MSR_TYPE_RW;
        let (number, access) = match msr {
            Msr::Ghcb => (bindings::MSR_AMD64_SEV_ES_GHCB, all),
            Msr::Efer => (bindings::MSR_EFER, all),
            Msr::Pat => (bindings::MSR_IA32_CR_PAT, all),
            Msr::TscAux => (bindings::MSR_TSC_AUX, all),
            Msr::Xss => (bindings::MSR_IA32_XSS, all),
            Msr::GuestTscFrequency => (
                bindings::MSR_AMD64_GUEST_TSC_FREQ,
                bindings::KVM_SEV_CONST_MSR_TYPE_R,
            ),
        };
        // SAFETY: The vCPU is alive and ours, and has its permission map.
        unsafe {
            bindings::svm_set_intercept_for_msr(
                self.as_kvm_vcpu(),
                number,
                access as i32,
                intercept,
            )
        }
    }

    /// Makes the guest a SEV-ES guest when it next runs, with its registers at `vmsa`; without
    /// them, it cannot run. `features` is what the save area may ask for.
    pub(crate) fn enable_sev_es(&self, vmsa: Option<PspAddr>, features: Option<u64>) {
        // SAFETY: The VMCB is alive and ours.
        unsafe {
            let control = self.control();
            (*control).misc_ctl |= bindings::KVM_SEV_CONST_SVM_MISC_ENABLE_SEV_ES;
            if let Some(features) = features {
                const VALID: u64 = 1 << bindings::KVM_SEV_CONST_ALLOWED_FEATURES_VALID_BIT;
                (*control).allowed_sev_features = features | VALID;
            }
        }
        self.set_vmsa(vmsa);
    }

    /// Where the registers of an SEV-ES guest are, without the C-bit: they are accessed with the
    /// guest's key.
    pub(crate) fn set_vmsa(&self, vmsa: Option<PspAddr>) {
        // SAFETY: The VMCB is alive and ours.
        unsafe { (*self.control()).vmsa_pa = vmsa.map_or(u64::MAX, PspAddr::get) }
    }

    /// What [`Vcpu::set_vmsa`] said.
    pub(crate) fn vmsa(&self) -> Option<PspAddr> {
        // SAFETY: The VMCB is alive and ours.
        let address = unsafe { (*self.control()).vmsa_pa };
        (address != u64::MAX).then(|| PspAddr::new(address))
    }

    /// Whether [`Vcpu::set_vmsa`] said where the registers are.
    pub(crate) fn has_vmsa(&self) -> bool {
        self.vmsa().is_some()
    }

    /// What the guest wrote to the GHCB MSR, or reads from it.
    pub(crate) fn ghcb_msr(&self) -> u64 {
        // SAFETY: The VMCB is alive and ours.
        unsafe { (*self.control()).ghcb_gpa }
    }

    /// Changes what the guest reads from the GHCB MSR.
    pub(crate) fn set_ghcb_msr(&self, value: u64) {
        // SAFETY: The VMCB is alive and ours.
        unsafe { (*self.control()).ghcb_gpa = value }
    }

    /// Makes it look to KVM as if the guest had been left for this reason.
    pub(crate) fn set_exit(&self, code: u64, info_1: u64, info_2: u64) {
        // SAFETY: The VMCB is alive and ours.
        unsafe {
            let control = self.control();
            (*control).exit_code = code;
            (*control).exit_info_1 = info_1;
            (*control).exit_info_2 = info_2;
        }
    }

    /// The first of the values that say more about why the guest was left.
    pub(crate) fn exit_info_1(&self) -> u64 {
        // SAFETY: The VMCB is alive and ours.
        unsafe { (*self.control()).exit_info_1 }
    }

    /// Makes the processor read all of the VMCB when the guest next runs.
    pub(crate) fn mark_all_dirty(&self) {
        // SAFETY: The VMCB is alive and ours.
        unsafe { (*self.control()).clean = 0 }
    }

    /// What [`Vcpu::set_exit`] said, or why the guest was left.
    pub(crate) fn exit(&self) -> (u64, u64, u64) {
        // SAFETY: The VMCB is alive and ours.
        unsafe {
            let control = self.control();
            (
                (*control).exit_code,
                (*control).exit_info_1,
                (*control).exit_info_2,
            )
        }
    }

    /// The second of the values that say more about why the guest was left.
    pub(crate) fn exit_info_2(&self) -> u64 {
        // SAFETY: The VMCB is alive and ours.
        unsafe { (*self.control()).exit_info_2 }
    }

    /// The privilege level at which the guest was left.
    pub(crate) fn set_cpl(&self, cpl: u8) {
        // SAFETY: The VMCB is alive and ours. Its save area is that of KVM: a SEV-ES guest's
        // registers are elsewhere.
        unsafe {
            let save =
                (&raw mut (*self.vmcb()).__bindgen_anon_1).cast::<bindings::vmcb_save_area>();
            (*save).cpl = cpl;
        }
    }

    /// From now on the processor records branches for the guest, as it must for a SEV-ES guest.
    pub(crate) fn virtualise_branch_records(&self) {
        // SAFETY: The vCPU is alive and ours.
        unsafe { bindings::svm_enable_lbrv(self.as_kvm_vcpu()) }
    }
}
