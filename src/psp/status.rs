// SPDX-License-Identifier: GPL-2.0
//! Status codes of the SEV firmware. Pure: no kernel dependencies.
//!
//! Source: the `error` field of `struct kvm_sev_cmd` and the status codes of
//! include/uapi/linux/psp-sev.h.

#[cfg(test)]
use core::fmt;

#[cfg(not(test))]
use kernel::fmt;

/// The status of the last firmware command, as userspace sees it in `kvm_sev_cmd.error`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FwStatus(u32);

impl FwStatus {
    pub(crate) const fn success() -> Self {
        Self(0)
    }

    pub(crate) const fn new(code: u32) -> Self {
        Self(code)
    }

    pub(crate) const fn code(self) -> u32 {
        self.0
    }

    /// The name in the SEV specifications; `None` if this kernel knows none.
    pub(crate) fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0x00 => "SUCCESS",
            0x01 => "INVALID_PLATFORM_STATE",
            0x02 => "INVALID_GUEST_STATE",
            0x03 => "INVALID_CONFIG",
            0x04 => "INVALID_LEN",
            0x05 => "ALREADY_OWNED",
            0x06 => "INVALID_CERTIFICATE",
            0x07 => "POLICY_FAILURE",
            0x08 => "INACTIVE",
            0x09 => "INVALID_ADDRESS",
            0x0a => "BAD_SIGNATURE",
            0x0b => "BAD_MEASUREMENT",
            0x0c => "ASID_OWNED",
            0x0d => "INVALID_ASID",
            0x0e => "WBINVD_REQUIRED",
            0x0f => "DFFLUSH_REQUIRED",
            0x10 => "INVALID_GUEST",
            0x11 => "INVALID_COMMAND",
            0x12 => "ACTIVE",
            0x13 => "HWERROR_PLATFORM",
            0x14 => "HWERROR_UNSAFE",
            0x15 => "UNSUPPORTED",
            0x16 => "INVALID_PARAM",
            0x17 => "RESOURCE_LIMIT",
            0x18 => "SECURE_DATA_INVALID",
            0x19 => "INVALID_PAGE_SIZE",
            0x1a => "INVALID_PAGE_STATE",
            0x1b => "INVALID_MDATA_ENTRY",
            0x1c => "INVALID_PAGE_OWNER",
            0x1d => "AEAD_OFLOW",
            0x1f => "EXIT_RING_BUFFER",
            0x20 => "RMP_INIT_REQUIRED",
            0x21 => "BAD_SVN",
            0x22 => "BAD_VERSION",
            0x23 => "SHUTDOWN_REQUIRED",
            0x24 => "UPDATE_FAILED",
            0x25 => "RESTORE_REQUIRED",
            0x26 => "RMP_INITIALIZATION_FAILED",
            0x27 => "INVALID_KEY",
            0x28 => "SHUTDOWN_INCOMPLETE",
            0x30 => "INCORRECT_BUFFER_LENGTH",
            0x31 => "EXPAND_BUFFER_LENGTH_REQUEST",
            0xffff_ffff => "NO_FW_CALL",
            _ => return None,
        })
    }
}

impl fmt::Display for FwStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({:#x})", self.0),
            None => write!(f, "unknown status {:#x}", self.0),
        }
    }
}
