// SPDX-License-Identifier: GPL-2.0
//! What the kernel and kvm.ko know about the machine, and what they are told about SEV.

#![allow(unsafe_code)]

use core::ffi::CStr;

use crate::ffi::bindings;

/// A feature of the processor.
#[derive(Clone, Copy)]
pub(crate) enum Feature {
    Sev,
    SevEs,
    SevSnp,
    /// An SEV-SNP guest can have a TSC that the host does not influence.
    SecureTsc,
    DecodeAssists,
    FlushByAsid,
    /// Debug registers of a guest are swapped by VMRUN and #VMEXIT.
    DebugSwap,
    NoNestedDataBreakpoints,
    /// TSC_AUX is switched by VMRUN and #VMEXIT.
    VirtualTscAux,
    /// The VMCB says what a save area may ask for.
    AllowedSevFeatures,
    /// PKRU, and the kernel uses it.
    ProtectionKeys,
}

impl Feature {
    fn bit(self) -> u32 {
        match self {
            Feature::Sev => bindings::X86_FEATURE_SEV,
            Feature::SevEs => bindings::X86_FEATURE_SEV_ES,
            Feature::SevSnp => bindings::X86_FEATURE_SEV_SNP,
            Feature::SecureTsc => bindings::X86_FEATURE_SNP_SECURE_TSC,
            Feature::DecodeAssists => bindings::X86_FEATURE_DECODEASSISTS,
            Feature::FlushByAsid => bindings::X86_FEATURE_FLUSHBYASID,
            Feature::DebugSwap => bindings::X86_FEATURE_DEBUG_SWAP,
            Feature::NoNestedDataBreakpoints => bindings::X86_FEATURE_NO_NESTED_DATA_BP,
            Feature::VirtualTscAux => bindings::X86_FEATURE_V_TSC_AUX,
            Feature::AllowedSevFeatures => bindings::X86_FEATURE_ALLOWED_SEV_FEATURES,
            Feature::ProtectionKeys => bindings::X86_FEATURE_OSPKE,
        }
    }

    /// Whether the machine has it, and the kernel does not disable it.
    pub(crate) fn is_present(self) -> bool {
        let bit = self.bit();

        // SAFETY: Written only while the kernel boots. This is boot_cpu_has(), which is no function
        // that could be called, and has to be cheap on the way into the guest.
        let words = unsafe {
            kernel::bindings::boot_cpu_data
                .__bindgen_anon_3
                .x86_capability
        };
        words
            .get((bit / u32::BITS) as usize)
            .is_some_and(|word| word >> (bit % u32::BITS) & 1 != 0)
    }

    /// Offers it to guests.
    pub(crate) fn offer_to_guests(self) {
        // SAFETY: The bit is one of those that KVM knows a CPUID leaf for. Called while the module
        // is initialised, when nobody reads the capabilities.
        unsafe { bindings::kvm_sev_cpu_cap_set(self.bit()) }
    }
}

/// CPUID Fn8000_001F: (EBX, ECX, EDX).
pub(crate) fn cpuid_sev() -> (u32, u32, u32) {
    let (mut eax, mut ebx, mut ecx, mut edx) = (0, 0, 0, 0);

    // SAFETY: The pointers are valid for the call.
    unsafe { bindings::cpuid(0x8000_001f, &mut eax, &mut ebx, &mut ecx, &mut edx) };
    (ebx, ecx, edx)
}

/// Position of the C-bit in page table entries. Asks the processor.
pub(crate) fn c_bit() -> u8 {
    (cpuid_sev().0 & 0x3f) as u8
}

/// Whether the administrator wants to see the state of guests that KVM cannot run.
pub(crate) fn dumps_invalid_state() -> bool {
    // SAFETY: One byte, which the administrator can change at any time.
    unsafe { (&raw const bindings::dump_invalid_vmcb).read_volatile() }
}

/// Whether KVM uses nested paging and next-RIP saving, without which there is no SEV.
pub(crate) fn has_npt_and_nrips() -> bool {
    // SAFETY: Written only while the module is initialised, before this is called.
    unsafe { bindings::npt_enabled && bindings::nrips != 0 }
}

/// Whether KVM does what guests with protected registers need: it cannot read their instructions,
/// so faults of MMIO must be told from others by the page table; and their VMCBs virtualise LBRs.
pub(crate) fn can_protect_registers() -> bool {
    // SAFETY: Written only while the modules are initialised, before this is called.
    unsafe { bindings::enable_mmio_caching && bindings::lbrv != 0 }
}

/// Whether the RMP is active on this host.
pub(crate) fn has_rmp() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::cc_platform_has(bindings::cc_attr_CC_ATTR_HOST_SEV_SNP) }
}

/// Whether the kernel found out how fast the TSC is.
pub(crate) fn knows_tsc_frequency() -> bool {
    // SAFETY: Written while the system boots.
    unsafe { bindings::tsc_khz != 0 }
}

/// Lets userspace create VMs of these types (bits `KVM_X86_*_VM`).
pub(crate) fn support_vm_types(types: u32) {
    // SAFETY: Called while the module is initialised, before /dev/kvm exists.
    unsafe {
        let caps = &raw mut bindings::kvm_caps;
        (*caps).supported_vm_types |= types;
    }
}

/// A chance for other tasks to run. May sleep.
pub(crate) fn cond_resched() {
    // SAFETY: No requirements but a context that may sleep.
    unsafe { bindings::kvm_sev_cond_resched() }
}

/// Which process did something, for people who look into debugfs.
pub(crate) struct Task {
    pub(crate) pid: i32,
    comm: [u8; 16],
}

impl Task {
    pub(crate) fn current() -> Self {
        let mut comm = [0; 16];

        // SAFETY: The buffer has TASK_COMM_LEN bytes.
        let pid = unsafe { bindings::kvm_sev_current_task(comm.as_mut_ptr().cast()) };
        Self { pid, comm }
    }

    /// The command's name.
    pub(crate) fn name(&self) -> &str {
        CStr::from_bytes_until_nul(&self.comm)
            .ok()
            .and_then(|name| name.to_str().ok())
            .unwrap_or("?")
    }
}
