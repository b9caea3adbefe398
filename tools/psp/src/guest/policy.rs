// SPDX-License-Identifier: GPL-2.0-or-later
//! The guest policy. Bits: Linux `include/linux/psp-sev.h` SEV_POLICY_MASK_*, AMDESE/sev-tool
//! `src/sevapi.h` SEV_POLICY.

use crate::firmware::API;
use crate::status::{Result, Status};

const NODBG: u32 = 1 << 0;
const NOKS: u32 = 1 << 1;
const ES: u32 = 1 << 2;
const NOSEND: u32 = 1 << 3;
const DOMAIN: u32 = 1 << 4;
const SEV: u32 = 1 << 5;
const RESERVED: u32 = 0xffc0;

/// What the guest owner allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy(u32);

impl Policy {
    /// The policy of a start command, if this platform can honour it: INVALID_PARAM for reserved
    /// bits, POLICY_FAILURE if it wants a newer firmware or SEV-ES where that is off.
    /// unspecified: the status of reserved bits and of ES without ES support.
    pub fn accept(bits: u32, es_enabled: bool) -> Result<Self> {
        if bits & RESERVED != 0 {
            return Err(Status::INVALID_PARAM);
        }
        let policy = Self(bits);
        policy.allows_firmware(API)?;
        if policy.es() && !es_enabled {
            return Err(Status::POLICY_FAILURE);
        }
        Ok(policy)
    }

    /// The policy as a number.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Refuses a firmware older than the policy's minimum: POLICY_FAILURE.
    pub fn allows_firmware(self, api: [u8; 2]) -> Result {
        let [_, _, major, minor] = self.0.to_le_bytes();
        if api >= [major, minor] {
            Ok(())
        } else {
            Err(Status::POLICY_FAILURE)
        }
    }

    fn forbids(self, bit: u32) -> Result {
        if self.0 & bit == 0 {
            Ok(())
        } else {
            Err(Status::POLICY_FAILURE)
        }
    }

    /// POLICY_FAILURE unless debugging is allowed.
    pub fn allows_debug(self) -> Result {
        self.forbids(NODBG)
    }

    /// POLICY_FAILURE unless sharing the memory key with another guest is allowed.
    pub fn allows_key_sharing(self) -> Result {
        self.forbids(NOKS)
    }

    /// POLICY_FAILURE unless sending is allowed.
    pub fn allows_send(self) -> Result {
        self.forbids(NOSEND)
    }

    /// Whether this is an SEV-ES guest.
    pub fn es(self) -> bool {
        self.0 & ES != 0
    }

    /// Whether it may be sent only within its owner's domain.
    pub fn domain(self) -> bool {
        self.0 & DOMAIN != 0
    }

    /// Whether it may be sent only to a genuine SEV platform.
    pub fn sev(self) -> bool {
        self.0 & SEV != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimum_version_is_major_then_minor() {
        let policy = |major: u32, minor: u32| Policy::accept((major << 16) | (minor << 24), false);
        let [major, minor] = API.map(u32::from);
        assert!(policy(0, 0).is_ok());
        assert!(policy(major, minor).is_ok());
        assert!(policy(major - 1, 255).is_ok());
        assert_eq!(policy(major, minor + 1), Err(Status::POLICY_FAILURE));
        assert_eq!(policy(major + 1, 0), Err(Status::POLICY_FAILURE));
    }

    #[test]
    fn es_needs_es_and_reserved_bits_are_refused() {
        assert_eq!(Policy::accept(ES, false), Err(Status::POLICY_FAILURE));
        assert!(Policy::accept(ES, true).unwrap().es());
        for bit in 6..16 {
            assert_eq!(Policy::accept(1 << bit, true), Err(Status::INVALID_PARAM));
        }
    }
}
