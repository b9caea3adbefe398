// SPDX-License-Identifier: GPL-2.0
//! Handing an exit of a guest to the rest of KVM.

#![allow(unsafe_code)]

use kernel::prelude::*;

use super::vcpu::Vcpu;
use crate::ffi::bindings;
use crate::hw::addr::Pfn;
use crate::hw::rmp::PageSize;
use crate::trace::traced;

/// Where a vCPU goes after an exit was dealt with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub(crate) enum Next {
    /// To userspace, which finds the reason in `struct kvm_run`.
    User = 0,
    /// Back into the guest.
    Guest = 1,
}

impl Next {
    /// What KVM's functions return: negative for an error, 0 for userspace.
    fn from_kvm(ret: i32) -> Result<Self> {
        match ret {
            0 => Ok(Next::User),
            ret if ret < 0 => Err(Error::from_errno(ret)),
            _ => Ok(Next::Guest),
        }
    }

    /// The inverse.
    pub(crate) fn to_kvm(result: Result<Self>) -> i32 {
        match result {
            Ok(next) => next as i32,
            Err(error) => error.to_errno(),
        }
    }
}

/// Whether KVM runs a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RunState {
    Runnable,
    /// Until an interrupt, or somebody else, wakes it up.
    Halted,
}

/// Accesses of a guest to a port, by a string instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StringIo {
    pub(crate) port: u32,
    /// Bytes of each access.
    pub(crate) size: u32,
    /// Number of accesses.
    pub(crate) count: u32,
    /// From the port to the guest.
    pub(crate) input: bool,
}

impl StringIo {
    /// Bytes of all accesses; `None` if they are more than KVM can count.
    pub(crate) fn len(self) -> Option<usize> {
        let bytes = i32::try_from(self.count.checked_mul(self.size)?).ok()?;
        usize::try_from(bytes).ok()
    }
}

impl Vcpu {
    /// Does what KVM does when a guest is left for this reason. See [`Vcpu::set_exit`].
    pub(crate) fn handle_exit(&self, code: u64) -> Result<Next> {
        // SAFETY: The vCPU is alive and ours, and was just left.
        Next::from_kvm(unsafe { bindings::svm_invoke_exit_handler(self.as_kvm_vcpu(), code) })
    }

    /// Lets the guest access a device.
    ///
    /// # Safety
    ///
    /// `data` must have `len` bytes, which nobody else uses until the guest runs again.
    pub(super) unsafe fn kvm_mmio(
        &self,
        write: bool,
        gpa: u64,
        len: u32,
        data: *mut u8,
    ) -> Result<Next> {
        // SAFETY: The vCPU is alive and ours; the data is by the contract of this function.
        Next::from_kvm(unsafe {
            bindings::kvm_sev_es_mmio(self.as_kvm_vcpu(), write, gpa, len, data.cast())
        })
    }

    /// Lets the guest access a port.
    ///
    /// # Safety
    ///
    /// `data` must have `size` times `count` bytes, which nobody else uses until the guest runs
    /// again; `size` must not be 0.
    pub(super) unsafe fn kvm_string_io(&self, io: StringIo, data: *mut u8) -> Result<Next> {
        // SAFETY: The vCPU is alive and ours; the rest is by the contract of this function.
        Next::from_kvm(unsafe {
            bindings::kvm_sev_es_string_io(
                self.as_kvm_vcpu(),
                io.size,
                io.port,
                data.cast(),
                io.count,
                io.input.into(),
            )
        })
    }

    /// Puts the vCPU to sleep until another one starts it.
    pub(crate) fn hold_in_reset(&self) -> Result<Next> {
        // SAFETY: The vCPU is alive and ours.
        Next::from_kvm(unsafe { bindings::kvm_emulate_ap_reset_hold(self.as_kvm_vcpu()) })
    }

    pub(crate) fn set_run_state(&self, state: RunState) {
        // SAFETY: The vCPU is alive and ours.
        unsafe { bindings::kvm_sev_set_run_state(self.as_kvm_vcpu(), state == RunState::Runnable) }
    }

    /// The page with the registers must be found again before the guest runs on.
    pub(crate) fn request_vmsa_reload(&self) {
        // SAFETY: The vCPU is alive.
        unsafe { bindings::kvm_sev_request_reload(self.as_kvm_vcpu()) }
    }

    /// Tells userspace that the guest wants to end.
    pub(crate) fn terminate(&self) -> Next {
        // SAFETY: The vCPU is alive and ours.
        unsafe { bindings::kvm_sev_exit_sev_term(self.as_kvm_vcpu(), self.ghcb_msr()) };
        Next::User
    }

    /// The guest finished handling an NMI: the next one may come.
    pub(crate) fn unmask_nmi(&self) {
        // SAFETY: The vCPU is alive and ours.
        unsafe {
            let svm = self.as_raw();
            let count = &raw mut (*svm).vcpu.stat.nmi_window_exits;
            *count = (*count).wrapping_add(1);
            (*svm).nmi_masked = false;
            bindings::kvm_sev_request_event(self.as_kvm_vcpu());
        }
    }

    /// For those who trace faults of the RMP.
    pub(crate) fn trace_rmp_fault(
        &self,
        gpa: u64,
        pfn: Pfn,
        error_code: u64,
        size: PageSize,
        result: i32,
    ) {
        // SAFETY: The vCPU is alive.
        unsafe {
            bindings::kvm_sev_trace_rmp_fault(
                self.as_kvm_vcpu(),
                gpa,
                pfn.get(),
                error_code,
                size.level() as i32,
                result,
            )
        }
    }

    /// For those who trace exits: an exit by the GHCB MSR.
    pub(crate) fn trace_msr_enter(&self) {
        if traced!(bindings::__tracepoint_kvm_vmgexit_msr_protocol_enter) {
            // SAFETY: No requirements.
            unsafe { bindings::kvm_sev_trace_msr_enter(self.id(), self.ghcb_msr()) }
        }
    }

    /// The same when it was dealt with.
    pub(crate) fn trace_msr_exit(&self, result: Result<Next>) {
        if traced!(bindings::__tracepoint_kvm_vmgexit_msr_protocol_exit) {
            // SAFETY: No requirements.
            unsafe {
                bindings::kvm_sev_trace_msr_exit(self.id(), self.ghcb_msr(), Next::to_kvm(result))
            }
        }
    }
}
