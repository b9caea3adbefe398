// SPDX-License-Identifier: GPL-2.0-or-later
//! The policy of SNP guests. Bits: virtee/sev `GuestPolicy`, Linux `psp-sev.h`
//! SNP_POLICY_MASK_*.

use super::Snp;
use crate::firmware::API;
use crate::status::{Result, Status};

const RESERVED_ONE: u64 = 1 << 17;
const MIGRATE_MA: u64 = 1 << 18;
const DEBUG: u64 = 1 << 19;
const MEM_AES_256_XTS: u64 = 1 << 22;
const RAPL_DIS: u64 = 1 << 23;
const CIPHERTEXT_HIDING: u64 = 1 << 24;
/// Bits that this version of the ABI does not define, among them PAGE_SWAP_DISABLE.
const RESERVED: u64 = !0 << 25;

/// What the guest owner allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy(u64);

impl Policy {
    /// The policy of LAUNCH_START, if this platform can honour it: INVALID_PARAM for reserved
    /// bits, else POLICY_FAILURE. The machine has one socket, no SMT and no CXL, which every
    /// policy allows. unspecified: the status of reserved bits.
    pub fn accept(bits: u64, snp: &Snp) -> Result<Self> {
        if bits & RESERVED != 0 || bits & RESERVED_ONE == 0 {
            return Err(Status::INVALID_PARAM);
        }
        let policy = Self(bits);
        let [minor, major, ..] = bits.to_le_bytes();
        let too_old = API < [major, minor];
        let hiding = policy.has(CIPHERTEXT_HIDING) && !snp.ciphertext_hiding;
        let rapl = policy.has(RAPL_DIS) && !snp.rapl_disabled;
        if too_old || hiding || rapl || policy.has(MEM_AES_256_XTS) {
            return Err(Status::POLICY_FAILURE);
        }
        Ok(policy)
    }

    fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    fn requires(self, bit: u64) -> Result {
        if self.has(bit) {
            Ok(())
        } else {
            Err(Status::POLICY_FAILURE)
        }
    }

    /// The policy as a number.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// POLICY_FAILURE unless debugging is allowed.
    pub fn allows_debug(self) -> Result {
        self.requires(DEBUG)
    }

    /// POLICY_FAILURE unless a migration agent is allowed.
    pub fn allows_migration_agent(self) -> Result {
        self.requires(MIGRATE_MA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_honoured_or_refused() {
        let mut snp = Snp::default();
        let [major, minor] = API.map(u64::from);
        for (bits, status) in [
            (0, None),
            ((major << 8) | minor, None),
            (((major - 1) << 8) | 0xff, None),
            (0x3d_0000, None),
            ((major << 8) | (minor + 1), Some(Status::POLICY_FAILURE)),
            ((major + 1) << 8, Some(Status::POLICY_FAILURE)),
            (MEM_AES_256_XTS, Some(Status::POLICY_FAILURE)),
            (RAPL_DIS, Some(Status::POLICY_FAILURE)),
            (CIPHERTEXT_HIDING, Some(Status::POLICY_FAILURE)),
            (1 << 25, Some(Status::INVALID_PARAM)),
            (1 << 63, Some(Status::INVALID_PARAM)),
        ] {
            let policy = Policy::accept(bits | RESERVED_ONE, &snp);
            assert_eq!(policy.err(), status, "{bits:#x}");
        }
        assert_eq!(Policy::accept(1 << 16, &snp), Err(Status::INVALID_PARAM));
        snp.ciphertext_hiding = true;
        snp.rapl_disabled = true;
        let bits = RESERVED_ONE | RAPL_DIS | CIPHERTEXT_HIDING;
        assert!(Policy::accept(bits, &snp).is_ok());
    }
}
