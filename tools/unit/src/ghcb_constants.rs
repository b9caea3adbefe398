// SPDX-License-Identifier: GPL-2.0-or-later
//! In place of the kernel's declarations: the numbers of the GHCB protocol that the module's pure
//! files use. The bits of the intercepts' information are those of APM volume 2, 15.10.2.

pub(crate) const SVM_EXIT_READ_DR7: u32 = 0x27;
pub(crate) const SVM_EXIT_WRITE_DR7: u32 = 0x37;
pub(crate) const SVM_EXIT_RDTSC: u32 = 0x6e;
pub(crate) const SVM_EXIT_RDPMC: u32 = 0x6f;
pub(crate) const SVM_EXIT_CPUID: u32 = 0x72;
pub(crate) const SVM_EXIT_INVD: u32 = 0x76;
pub(crate) const SVM_EXIT_IOIO: u32 = 0x7b;
pub(crate) const SVM_EXIT_MSR: u32 = 0x7c;
pub(crate) const SVM_EXIT_VMMCALL: u32 = 0x81;
pub(crate) const SVM_EXIT_RDTSCP: u32 = 0x87;
pub(crate) const SVM_EXIT_WBINVD: u32 = 0x89;
pub(crate) const SVM_EXIT_MONITOR: u32 = 0x8a;
pub(crate) const SVM_EXIT_MWAIT: u32 = 0x8b;
pub(crate) const SVM_VMGEXIT_MMIO_READ: u32 = 0x8000_0001;
pub(crate) const SVM_VMGEXIT_MMIO_WRITE: u32 = 0x8000_0002;
pub(crate) const SVM_VMGEXIT_NMI_COMPLETE: u32 = 0x8000_0003;
pub(crate) const SVM_VMGEXIT_AP_HLT_LOOP: u32 = 0x8000_0004;
pub(crate) const SVM_VMGEXIT_AP_JUMP_TABLE: u32 = 0x8000_0005;
pub(crate) const SVM_VMGEXIT_PSC: u32 = 0x8000_0010;
pub(crate) const SVM_VMGEXIT_GUEST_REQUEST: u32 = 0x8000_0011;
pub(crate) const SVM_VMGEXIT_EXT_GUEST_REQUEST: u32 = 0x8000_0012;
pub(crate) const SVM_VMGEXIT_AP_CREATION: u32 = 0x8000_0013;
pub(crate) const SVM_VMGEXIT_AP_CREATE_ON_INIT: u32 = 0;
pub(crate) const SVM_VMGEXIT_AP_CREATE: u32 = 1;
pub(crate) const SVM_VMGEXIT_AP_DESTROY: u32 = 2;
pub(crate) const SVM_VMGEXIT_HV_FEATURES: u32 = 0x8000_fffd;
pub(crate) const SVM_VMGEXIT_TERM_REQUEST: u32 = 0x8000_fffe;
pub(crate) const SVM_VMGEXIT_UNSUPPORTED_EVENT: u32 = 0x8000_ffff;

pub(crate) const SVM_IOIO_TYPE_MASK: u32 = 1;
pub(crate) const SVM_IOIO_STR_SHIFT: u32 = 2;
pub(crate) const SVM_IOIO_SIZE_SHIFT: u32 = 4;

pub(crate) const KVM_SEV_CONST_PSC_ERROR_GENERIC: u64 = 0x100_0000_0000;
pub(crate) const KVM_SEV_CONST_PSC_ERROR_INVALID_HDR: u64 = 0x1_0000_0001;
pub(crate) const KVM_SEV_CONST_PSC_ERROR_INVALID_ENTRY: u64 = 0x1_0000_0002;

pub(crate) const GHCB_ERR_NOT_REGISTERED: u32 = 1;
pub(crate) const GHCB_ERR_INVALID_USAGE: u32 = 2;
pub(crate) const GHCB_ERR_INVALID_SCRATCH_AREA: u32 = 3;
pub(crate) const GHCB_ERR_MISSING_INPUT: u32 = 4;
pub(crate) const GHCB_ERR_INVALID_INPUT: u32 = 5;
pub(crate) const GHCB_ERR_INVALID_EVENT: u32 = 6;

pub(crate) const GHCB_MSR_SEV_INFO_RESP: u32 = 0x001;
pub(crate) const GHCB_MSR_SEV_INFO_REQ: u32 = 0x002;
pub(crate) const GHCB_MSR_CPUID_REQ: u32 = 0x004;
pub(crate) const GHCB_MSR_CPUID_RESP: u32 = 0x005;
pub(crate) const GHCB_MSR_CPUID_FUNC_POS: u32 = 32;
pub(crate) const GHCB_MSR_CPUID_VALUE_POS: u32 = 32;
pub(crate) const GHCB_MSR_CPUID_REG_POS: u32 = 30;
pub(crate) const GHCB_MSR_AP_RESET_HOLD_REQ: u32 = 0x006;
pub(crate) const GHCB_MSR_AP_RESET_HOLD_RESP: u32 = 0x007;
pub(crate) const GHCB_MSR_PREF_GPA_REQ: u32 = 0x010;
pub(crate) const GHCB_MSR_PREF_GPA_RESP: u32 = 0x011;
pub(crate) const GHCB_MSR_REG_GPA_REQ: u32 = 0x012;
pub(crate) const GHCB_MSR_REG_GPA_RESP: u32 = 0x013;
pub(crate) const GHCB_MSR_PSC_REQ: u32 = 0x014;
pub(crate) const GHCB_MSR_PSC_RESP: u32 = 0x015;
pub(crate) const GHCB_MSR_HV_FT_REQ: u32 = 0x080;
pub(crate) const GHCB_MSR_HV_FT_RESP: u32 = 0x081;
pub(crate) const GHCB_MSR_TERM_REQ: u32 = 0x100;
pub(crate) const GHCB_MSR_TERM_REASON_SET_POS: u32 = 12;
pub(crate) const GHCB_MSR_TERM_REASON_POS: u32 = 16;
