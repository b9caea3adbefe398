// SPDX-License-Identifier: GPL-2.0-or-later
//! Status codes of the SEV and SEV-SNP firmware interfaces.
//!
//! Values: Linux `include/uapi/linux/psp-sev.h`; names: the AMD manuals'.

use core::fmt;

/// What a command handler returns: nothing, or the code that the mailbox reports.
pub type Result<T = ()> = core::result::Result<T, Status>;

/// A 16-bit status code. Prints its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Status(pub u16);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Status = Status($value);)*

            const NAMES: &'static [(Status, &'static str)] =
                &[$((Status::$name, stringify!($name)),)*];
        }
    };
}

statuses! {
    /// The command completed.
    SUCCESS = 0x00,
    /// Not allowed in this platform state.
    INVALID_PLATFORM_STATE = 0x01,
    /// Not allowed in this guest state.
    INVALID_GUEST_STATE = 0x02,
    /// The platform's configuration does not permit it.
    INVALID_CONFIG = 0x03,
    /// A length is too short or not a permitted one.
    INVALID_LENGTH = 0x04,
    /// The platform has an external owner already.
    ALREADY_OWNED = 0x05,
    /// A certificate is malformed or of the wrong kind.
    INVALID_CERTIFICATE = 0x06,
    /// The guest policy forbids it.
    POLICY_FAILURE = 0x07,
    /// The guest is not bound to an ASID.
    INACTIVE = 0x08,
    /// An address is misaligned or cannot be accessed.
    INVALID_ADDRESS = 0x09,
    /// A signature does not verify.
    BAD_SIGNATURE = 0x0a,
    /// A MAC does not verify.
    BAD_MEASUREMENT = 0x0b,
    /// The ASID belongs to another guest.
    ASID_OWNED = 0x0c,
    /// The ASID is out of the range for this kind of guest.
    INVALID_ASID = 0x0d,
    /// A core has not executed WBINVD since the last DEACTIVATE.
    WBINVD_REQUIRED = 0x0e,
    /// The ASID was used and DF_FLUSH has not been issued since.
    DFFLUSH_REQUIRED = 0x0f,
    /// No guest has this handle.
    INVALID_GUEST = 0x10,
    /// No such command.
    INVALID_COMMAND = 0x11,
    /// The guest is bound to an ASID.
    ACTIVE = 0x12,
    /// A hardware failure that leaves the platform usable.
    HWERROR_PLATFORM = 0x13,
    /// A hardware failure after which it is unsafe to go on.
    HWERROR_UNSAFE = 0x14,
    /// The feature is not supported.
    UNSUPPORTED = 0x15,
    /// A parameter is out of range or a reserved field is not zero.
    INVALID_PARAM = 0x16,
    /// No guest context is free.
    RESOURCE_LIMIT = 0x17,
    /// The persistent state failed its integrity check and was discarded.
    SECURE_DATA_INVALID = 0x18,
    /// The RMP page size does not fit.
    INVALID_PAGE_SIZE = 0x19,
    /// The RMP page state does not permit it.
    INVALID_PAGE_STATE = 0x1a,
    /// A metadata entry is invalid.
    INVALID_MDATA_ENTRY = 0x1b,
    /// The page belongs to another guest.
    INVALID_PAGE_OWNER = 0x1c,
    /// An AEAD sequence number would overflow.
    AEAD_OFLOW = 0x1d,
    /// Ring buffer mode ended.
    EXIT_RING_BUFFER = 0x1f,
    /// The RMP must be initialised first.
    RMP_INIT_REQUIRED = 0x20,
    /// A security version number is too low.
    BAD_SVN = 0x21,
    /// A firmware version is not permitted.
    BAD_VERSION = 0x22,
    /// SNP_SHUTDOWN is required first.
    SHUTDOWN_REQUIRED = 0x23,
    /// A firmware update failed.
    UPDATE_FAILED = 0x24,
    /// The committed firmware must be restored.
    RESTORE_REQUIRED = 0x25,
    /// The RMP could not be initialised.
    RMP_INITIALIZATION_FAILED = 0x26,
    /// A key is not valid for the request.
    INVALID_KEY = 0x27,
    /// A shutdown did not complete.
    SHUTDOWN_INCOMPLETE = 0x28,
}

impl Status {
    /// The manual's name of the code, if it has one.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES
            .iter()
            .find(|(status, _)| *status == self)
            .map(|(_, name)| *name)
    }

    /// The code of a name (`INVALID_ASID`) or of a number (`0x0d`).
    pub fn parse(text: &str) -> Option<Status> {
        if let Some(hex) = text.strip_prefix("0x") {
            return u16::from_str_radix(hex, 16).ok().map(Status);
        }
        Self::NAMES
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(status, _)| *status)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#04x}", self.0),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
