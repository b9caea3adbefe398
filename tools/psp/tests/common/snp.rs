// SPDX-License-Identifier: GPL-2.0-or-later
//! The host's side of SNP: RMP entries, and the commands in the order of a launch.

use sevfw::snp::wire;
use sevfw::status::Status;
use zerocopy::FromZeros;
use zerocopy::little_endian::{U32, U64};

use super::{Outcome, Psp};

pub const ASSIGNED: u64 = 1;
pub const LARGE: u64 = 2;
pub const IMMUTABLE: u64 = 4;
pub const VMSA: u64 = 1 << 61;
pub const VALIDATED: u64 = 1 << 62;
pub const FIRMWARE: [u64; 2] = [ASSIGNED | IMMUTABLE, 0];
pub const RECLAIM: [u64; 2] = [ASSIGNED, 0];
pub const HV_FIXED: [u64; 2] = [IMMUTABLE, 0];

/// Pages for guest contexts, and for answers.
pub const GCTX: u64 = 0x100_000;
pub const GCTX2: u64 = 0x101_000;
pub const OUT: u64 = 0x110_000;
/// The policy of a guest that asks for nothing.
pub const POLICY: u64 = 3 << 16;

/// What RMPUPDATE makes for a page that a guest is to get.
pub fn pre_guest(asid: u64, gpa: u64) -> [u64; 2] {
    [ASSIGNED | IMMUTABLE | (asid << 51) | gpa, 0]
}

/// Page types of LAUNCH_UPDATE.
pub mod page {
    pub const NORMAL: u32 = 1;
    pub const VMSA: u32 = 2;
    pub const ZERO: u32 = 3;
    pub const UNMEASURED: u32 = 4;
    pub const SECRETS: u32 = 5;
    pub const CPUID: u32 = 6;
}

impl Psp {
    /// A firmware after SNP_INIT, and flushed.
    pub fn snp(config: &str) -> Self {
        let mut psp = Self::new(config);
        psp.plain("SNP_INIT").unwrap();
        psp.snp_flush();
        psp
    }

    pub fn snp_flush(&mut self) {
        self.wbinvd();
        self.plain("SNP_DF_FLUSH").unwrap();
    }

    pub fn rmp(&self, spa: u64) -> [u64; 2] {
        *self.machine.look().rmp.get(&(spa >> 12)).unwrap_or(&[0; 2])
    }

    pub fn rmpupdate(&self, spa: u64, entry: [u64; 2]) {
        self.machine.state().rmp.insert(spa >> 12, entry);
    }

    /// The same of 2 MiB: the other entries there say that they are assigned, and no more.
    pub fn rmpupdate_large(&self, spa: u64, entry: [u64; 2]) {
        for page in 1..512 {
            self.rmpupdate(spa + 4096 * page, [ASSIGNED, 0]);
        }
        self.rmpupdate(spa, [entry[0] | LARGE, entry[1]]);
    }

    /// A command whose buffer is one address.
    pub fn at(&mut self, name: &str, spa: u64) -> Outcome {
        let address = U64::new(spa);
        self.ok(name, &wire::Address { address }).map(|_| ())
    }

    pub fn gctx_create(&mut self, spa: u64) -> Outcome {
        self.rmpupdate(spa, FIRMWARE);
        self.at("SNP_GCTX_CREATE", spa)
    }

    pub fn snp_start(&mut self, gctx: u64, policy: u64) -> Outcome {
        let mut cmd = wire::LaunchStart::new_zeroed();
        (cmd.gctx_address, cmd.policy) = (U64::new(gctx), U64::new(policy));
        self.ok("SNP_LAUNCH_START", &cmd).map(|_| ())
    }

    pub fn snp_activate(&mut self, gctx: u64, asid: u32) -> Outcome {
        let (gctx_address, asid) = (U64::new(gctx), U32::new(asid));
        let cmd = wire::Activate { gctx_address, asid };
        self.ok("SNP_ACTIVATE", &cmd).map(|_| ())
    }

    /// LAUNCH_UPDATE of a 4 KiB page as the RMP has it.
    pub fn snp_update(&mut self, gctx: u64, kind: u32, spa: u64) -> Outcome {
        self.ok("SNP_LAUNCH_UPDATE", &update(gctx, kind, spa))
            .map(|_| ())
    }

    pub fn snp_finish(&mut self, gctx: u64) -> Outcome {
        let mut cmd = wire::LaunchFinish::new_zeroed();
        cmd.gctx_address = U64::new(gctx);
        self.ok("SNP_LAUNCH_FINISH", &cmd).map(|_| ())
    }

    /// A guest in the LAUNCH state, active.
    pub fn snp_launching(&mut self, gctx: u64, asid: u32, policy: u64) {
        self.gctx_create(gctx).unwrap();
        self.snp_start(gctx, policy).unwrap();
        self.snp_activate(gctx, asid).unwrap();
    }

    pub fn snp_state(&mut self, gctx: u64) -> Outcome<wire::Status> {
        self.rmpupdate(OUT, FIRMWARE);
        let cmd = wire::GuestStatus {
            gctx_address: U64::new(gctx),
            address: U64::new(OUT),
        };
        self.ok("SNP_GUEST_STATUS", &cmd)?;
        Ok(self.machine.read(OUT))
    }
}

pub fn update(gctx: u64, kind: u32, spa: u64) -> wire::LaunchUpdate {
    let mut cmd = wire::LaunchUpdate::new_zeroed();
    (cmd.gctx_address, cmd.address) = (U64::new(gctx), U64::new(spa));
    cmd.flags = U32::new(kind << 1);
    cmd
}

/// The status of an outcome.
pub fn status<T>(outcome: Outcome<T>) -> Status {
    outcome.err().unwrap_or(Status::SUCCESS)
}
