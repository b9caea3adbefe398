// SPDX-License-Identifier: GPL-2.0
//! What a guest wrote into its GHCB, copied once, and what it means. Pure: no kernel dependencies.
//!
//! The guest can change the shared page at any time. Nothing here looks at it: the decision what an
//! exit is, and with which arguments, is made on the copy.
//!
//! Source: the GHCB specification, "NAE events"; include/uapi/asm/svm.h. Where more than one error
//! applies, the order is that of upstream KVM.

use crate::ffi::bindings as b;

/// A field with its bit in the bitmap of valid fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Field {
    value: u64,
    valid: bool,
}

impl Field {
    pub(crate) const fn new(value: u64, valid: bool) -> Self {
        Self { value, valid }
    }

    pub(crate) const fn is_valid(self) -> bool {
        self.valid
    }

    /// `None` unless the guest said that it filled it in.
    pub(crate) const fn get(self) -> Option<u64> {
        if self.valid {
            Some(self.value)
        } else {
            None
        }
    }

    /// 0 unless the guest said that it filled it in.
    pub(crate) const fn or_zero(self) -> u64 {
        if self.valid {
            self.value
        } else {
            0
        }
    }

    /// Whatever was read: 0 if the guest did not fill it in, save for the exit code and information.
    pub(crate) const fn raw(self) -> u64 {
        self.value
    }
}

/// Everything that is read from a GHCB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) exit_code: Field,
    pub(crate) exit_info_1: Field,
    pub(crate) exit_info_2: Field,
    pub(crate) scratch: Field,
    pub(crate) rax: Field,
    pub(crate) rbx: Field,
    pub(crate) rcx: Field,
    pub(crate) rdx: Field,
    pub(crate) rsi: Field,
    pub(crate) cpl: Field,
    pub(crate) xcr0: Field,
    pub(crate) xss: Field,
    /// How the page is laid out; 0 is the layout of the specification.
    pub(crate) usage: u32,
}

/// What the guest asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// An instruction that KVM emulates for other guests, too: the exit code of its intercept.
    Intercept(u64),
    /// Input or output of nothing.
    Nothing,
    /// `len` bytes, not 0, between the device at `gpa` and the scratch area.
    Mmio {
        write: bool,
        gpa: u64,
        len: u64,
    },
    /// NMIs are possible again.
    NmiComplete,
    /// To sleep until another vCPU starts this one.
    ApResetHold,
    /// All vCPUs start at this address.
    SetApJumpTable(u64),
    GetApJumpTable,
    /// What the hypervisor can do.
    HvFeatures,
    /// To end, and why.
    Terminate {
        reason: u64,
        info: u64,
    },
    /// An exception happened in the guest that it cannot deal with.
    Unsupported {
        info_1: u64,
        info_2: u64,
    },
    /// For SEV-SNP guests.
    Snp(SnpExit),
}

/// What only an SEV-SNP guest can ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SnpExit {
    /// To convert the pages that are listed in the scratch area.
    PageStateChange,
    /// That the vCPU `apic_id` starts with the registers at `vmsa`, or stops.
    ApCreation {
        apic_id: u32,
        action: ApAction,
        /// `SVM_SEV_FEAT_*` of these registers, as the guest says.
        features: u64,
        vmsa: u64,
    },
    /// To pass the message at `request` to the firmware, and the answer to `response`; both are
    /// addresses of pages, and differ.
    GuestRequest {
        request: u64,
        response: u64,
        /// The guest wants certificates, too.
        certificates: Certificates,
    },
}

/// What another vCPU is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ApAction {
    /// To start; at once, or when it gets an INIT.
    Create {
        at_once: bool,
    },
    Destroy,
}

/// Whether the guest wants certificates with the answer to its request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Certificates {
    No,
    /// If the request is one for a report; `pages` are to go to `gpa`. `None` if the guest did not
    /// say where.
    WithReport(Option<(u64, u64)>),
}

/// Why an exit is not served: what the guest finds in `sw_exit_info_2`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    NotRegistered,
    InvalidUsage,
    InvalidScratchArea,
    MissingInput,
    InvalidInput,
    InvalidEvent,
}

impl Refusal {
    pub(crate) const fn code(self) -> u64 {
        let code = match self {
            Refusal::NotRegistered => b::GHCB_ERR_NOT_REGISTERED,
            Refusal::InvalidUsage => b::GHCB_ERR_INVALID_USAGE,
            Refusal::InvalidScratchArea => b::GHCB_ERR_INVALID_SCRATCH_AREA,
            Refusal::MissingInput => b::GHCB_ERR_MISSING_INPUT,
            Refusal::InvalidInput => b::GHCB_ERR_INVALID_INPUT,
            Refusal::InvalidEvent => b::GHCB_ERR_INVALID_EVENT,
        };
        code as u64
    }
}

// Exit codes of intercepts are 32 bits wide in the bindings, those of the GHCB 64.
const READ_DR7: u64 = b::SVM_EXIT_READ_DR7 as u64;
const WRITE_DR7: u64 = b::SVM_EXIT_WRITE_DR7 as u64;
const RDTSC: u64 = b::SVM_EXIT_RDTSC as u64;
const RDTSCP: u64 = b::SVM_EXIT_RDTSCP as u64;
const RDPMC: u64 = b::SVM_EXIT_RDPMC as u64;
const CPUID: u64 = b::SVM_EXIT_CPUID as u64;
const INVD: u64 = b::SVM_EXIT_INVD as u64;
const IOIO: u64 = b::SVM_EXIT_IOIO as u64;
const MSR: u64 = b::SVM_EXIT_MSR as u64;
const VMMCALL: u64 = b::SVM_EXIT_VMMCALL as u64;
const WBINVD: u64 = b::SVM_EXIT_WBINVD as u64;
const MONITOR: u64 = b::SVM_EXIT_MONITOR as u64;
const MWAIT: u64 = b::SVM_EXIT_MWAIT as u64;
const MMIO_READ: u64 = b::SVM_VMGEXIT_MMIO_READ as u64;
const MMIO_WRITE: u64 = b::SVM_VMGEXIT_MMIO_WRITE as u64;
const NMI_COMPLETE: u64 = b::SVM_VMGEXIT_NMI_COMPLETE as u64;
const AP_RESET_HOLD: u64 = b::SVM_VMGEXIT_AP_HLT_LOOP as u64;
const AP_JUMP_TABLE: u64 = b::SVM_VMGEXIT_AP_JUMP_TABLE as u64;
const HV_FEATURES: u64 = b::SVM_VMGEXIT_HV_FEATURES as u64;
const TERM_REQUEST: u64 = b::SVM_VMGEXIT_TERM_REQUEST as u64;
const UNSUPPORTED_EVENT: u64 = b::SVM_VMGEXIT_UNSUPPORTED_EVENT as u64;
const AP_CREATION: u64 = b::SVM_VMGEXIT_AP_CREATION as u64;
const GUEST_REQUEST: u64 = b::SVM_VMGEXIT_GUEST_REQUEST as u64;
const EXT_GUEST_REQUEST: u64 = b::SVM_VMGEXIT_EXT_GUEST_REQUEST as u64;
const PSC: u64 = b::SVM_VMGEXIT_PSC as u64;

// Lower half of the exit information of AP creation.
const AP_CREATE_ON_INIT: u32 = b::SVM_VMGEXIT_AP_CREATE_ON_INIT;
const AP_CREATE: u32 = b::SVM_VMGEXIT_AP_CREATE;
const AP_DESTROY: u32 = b::SVM_VMGEXIT_AP_DESTROY;
const PAGE_MASK: u64 = 0xfff;

// Bits of the exit information of IOIO.
const IO_IN: u64 = b::SVM_IOIO_TYPE_MASK as u64;
const IO_STRING: u64 = 1 << b::SVM_IOIO_STR_SHIFT;
const IO_SIZE: u64 = 7 << b::SVM_IOIO_SIZE_SHIFT;

/// The CPUID leaf whose answer depends on XCR0.
const CPUID_XSTATE: u64 = 0xd;
/// Largest access to a device since version 2 of the protocol, in bytes.
const MMIO_MAX: u64 = 8;

impl Snapshot {
    /// Whether the guest filled in what the exit needs.
    fn is_complete(&self) -> bool {
        let always = [self.exit_code, self.exit_info_1, self.exit_info_2];
        if !always.into_iter().all(Field::is_valid) {
            return false;
        }
        let info_1 = self.exit_info_1.raw();

        match self.exit_code.raw() {
            WRITE_DR7 => self.rax.is_valid(),
            RDPMC => self.rcx.is_valid(),
            CPUID => {
                self.rax.is_valid()
                    && self.rcx.is_valid()
                    && (self.rax.raw() != CPUID_XSTATE || self.xcr0.is_valid())
            }
            IOIO if info_1 & IO_STRING != 0 => self.scratch.is_valid(),
            IOIO => info_1 & IO_IN != 0 || self.rax.is_valid(),
            // Reading an MSR needs its number only.
            MSR if info_1 == 0 => self.rcx.is_valid(),
            MSR => self.rcx.is_valid() && self.rax.is_valid() && self.rdx.is_valid(),
            VMMCALL => self.rax.is_valid() && self.cpl.is_valid(),
            MONITOR => self.rax.is_valid() && self.rcx.is_valid() && self.rdx.is_valid(),
            MWAIT => self.rax.is_valid() && self.rcx.is_valid(),
            AP_CREATION => self.rax.is_valid() || info_1 as u32 == AP_DESTROY,
            MMIO_READ | MMIO_WRITE | PSC => self.scratch.is_valid(),
            _ => true,
        }
    }

    /// What the guest asks for. `ghcb_version` is the one that the VM was created with.
    pub(crate) fn decode(&self, ghcb_version: u16, is_snp: bool) -> Result<Exit, Refusal> {
        if self.usage != 0 {
            return Err(Refusal::InvalidUsage);
        }
        let code = self.exit_code.raw();

        // What only an SEV-SNP guest can ask for is unknown even if it is incomplete.
        let is_snp_only = matches!(code, AP_CREATION | GUEST_REQUEST | EXT_GUEST_REQUEST | PSC);
        if is_snp_only && !is_snp {
            return Err(Refusal::InvalidEvent);
        }
        if !self.is_complete() {
            return Err(Refusal::MissingInput);
        }
        let (info_1, info_2) = (self.exit_info_1.raw(), self.exit_info_2.raw());

        Ok(match code {
            IOIO if info_1 & IO_SIZE == 0 => Exit::Nothing,
            IOIO | READ_DR7 | WRITE_DR7 | RDTSC | RDTSCP | RDPMC | CPUID | INVD | MSR | VMMCALL
            | WBINVD | MONITOR | MWAIT => Exit::Intercept(code),
            MMIO_READ | MMIO_WRITE if info_2 == 0 => Exit::Nothing,
            MMIO_READ | MMIO_WRITE if ghcb_version >= 2 && info_2 > MMIO_MAX => {
                return Err(Refusal::InvalidInput);
            }
            MMIO_READ | MMIO_WRITE => Exit::Mmio {
                write: code == MMIO_WRITE,
                gpa: info_1,
                len: info_2,
            },
            NMI_COMPLETE => Exit::NmiComplete,
            AP_RESET_HOLD => Exit::ApResetHold,
            AP_JUMP_TABLE => match info_1 {
                0 => Exit::SetApJumpTable(info_2),
                1 => Exit::GetApJumpTable,
                _ => return Err(Refusal::InvalidInput),
            },
            HV_FEATURES => Exit::HvFeatures,
            TERM_REQUEST => Exit::Terminate {
                reason: info_1,
                info: info_2,
            },
            UNSUPPORTED_EVENT => Exit::Unsupported { info_1, info_2 },
            PSC => Exit::Snp(SnpExit::PageStateChange),
            AP_CREATION => Exit::Snp(self.decode_ap_creation()?),
            GUEST_REQUEST => Exit::Snp(self.decode_request(Certificates::No)?),
            EXT_GUEST_REQUEST => {
                let place = self.rax.get().zip(self.rbx.get());
                Exit::Snp(self.decode_request(Certificates::WithReport(place))?)
            }
            _ => return Err(Refusal::InvalidEvent),
        })
    }

    fn decode_ap_creation(&self) -> Result<SnpExit, Refusal> {
        let info_1 = self.exit_info_1.raw();
        let action = match info_1 as u32 {
            AP_CREATE_ON_INIT => ApAction::Create { at_once: false },
            AP_CREATE => ApAction::Create { at_once: true },
            AP_DESTROY => ApAction::Destroy,
            _ => return Err(Refusal::InvalidInput),
        };
        Ok(SnpExit::ApCreation {
            apic_id: (info_1 >> 32) as u32,
            action,
            features: self.rax.or_zero(),
            vmsa: self.exit_info_2.raw(),
        })
    }

    fn decode_request(&self, certificates: Certificates) -> Result<SnpExit, Refusal> {
        let (request, response) = (self.exit_info_1.raw(), self.exit_info_2.raw());

        if (request | response) & PAGE_MASK != 0 || request == response {
            return Err(Refusal::InvalidInput);
        }
        Ok(SnpExit::GuestRequest {
            request,
            response,
            certificates,
        })
    }
}
