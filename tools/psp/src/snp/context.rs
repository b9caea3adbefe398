// SPDX-License-Identifier: GPL-2.0-or-later
//! Guest contexts: GCTX_CREATE, DECOMMISSION, GUEST_STATUS, and what a context holds.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::Snp;
use super::digest::{LaunchDigest, Sha384Digest};
use super::policy::Policy;
use super::rmp::{PageState, expect_4k};
use super::wire::{self, Address};
use crate::asid::Asid;
use crate::crypto::random;
use crate::firmware::Firmware;
use crate::memory::{Memory, PAGE, Spa};
use crate::status::{Result, Status};

/// Encodings of the guest state in GUEST_STATUS. unspecified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Created.
    Init = 0,
    /// Between LAUNCH_START and LAUNCH_FINISH.
    Launch = 1,
    /// Launched.
    Running = 2,
}

/// Who the guest owner says the guest is: the ID block.
#[derive(Clone)]
pub struct Identity {
    /// Family of the guest.
    pub family: [u8; 16],
    /// Image of the guest.
    pub image: [u8; 16],
    /// Security version of the guest.
    pub svn: u32,
    /// Digest of the key that signed the ID block.
    pub id_key: Sha384Digest,
    /// Digest of the key that signed that key.
    pub author_key: Option<Sha384Digest>,
}

/// What LAUNCH_FINISH adds.
#[derive(Clone)]
pub struct Launched {
    /// Data of the host for the guest.
    pub host_data: [u8; 32],
    /// The ID block, if there was one.
    pub identity: Option<Identity>,
    /// Reports are not signed with VCEK.
    pub vcek_disabled: bool,
}

/// A platform communication key and the sequence number of the last message under it.
#[derive(Clone)]
pub struct Vmpck {
    /// The key of both directions.
    pub key: [u8; 32],
    /// Sequence number of the last response.
    pub sequence: u64,
}

/// A guest from LAUNCH_START on.
#[derive(Clone)]
pub struct Guest {
    /// Its policy.
    pub policy: Policy,
    /// The memory encryption key.
    pub vek: [u8; 16],
    /// Communication keys of VMPL 0 to 3.
    pub vmpck: [Vmpck; 4],
    /// Identifier of this guest in reports.
    pub report_id: [u8; 32],
    /// That of its migration agent, or all ones.
    pub report_id_ma: [u8; 32],
    /// Workarounds that the host reports to the guest.
    pub gosvw: [u8; 16],
    /// The frequency that its TSC is to have, kHz, or 0.
    pub tsc_khz: u32,
    /// Whether it is launched with an incoming migration image.
    pub imi: bool,
    /// The digest of the pages.
    pub digest: LaunchDigest,
    /// The TCB at the time of LAUNCH_START.
    pub launch_tcb: [u8; 8],
    /// `None` before LAUNCH_FINISH.
    pub launched: Option<Launched>,
}

/// A guest context.
#[derive(Default)]
pub struct Context {
    /// The ASID it is bound to. Invariant: no two guests have the same.
    pub asid: Option<Asid>,
    /// `None` before LAUNCH_START.
    pub guest: Option<Box<Guest>>,
}

impl Context {
    /// The guest state.
    pub fn state(&self) -> State {
        match &self.guest {
            None => State::Init,
            Some(guest) if guest.launched.is_none() => State::Launch,
            Some(_) => State::Running,
        }
    }

    /// The guest once LAUNCH_START was done, else INVALID_GUEST_STATE.
    pub fn started(&mut self) -> Result<&mut Guest> {
        self.guest.as_deref_mut().ok_or(Status::INVALID_GUEST_STATE)
    }

    /// The guest that is being launched, else INVALID_GUEST_STATE.
    pub fn launching(&mut self) -> Result<&mut Guest> {
        let guest = self.started()?;
        if guest.launched.is_some() {
            return Err(Status::INVALID_GUEST_STATE);
        }
        Ok(guest)
    }

    /// The guest that runs, else INVALID_GUEST_STATE.
    pub fn running(&mut self) -> Result<(&mut Guest, Launched)> {
        let guest = self.started()?;
        match guest.launched.clone() {
            Some(launched) => Ok((guest, launched)),
            None => Err(Status::INVALID_GUEST_STATE),
        }
    }

    /// The bound ASID, else INACTIVE.
    pub fn active(&self) -> Result<Asid> {
        self.asid.ok_or(Status::INACTIVE)
    }
}

/// The page and the context that a command names: INVALID_ADDRESS, INVALID_GUEST.
pub fn find<'a>(mem: &Memory, snp: &'a mut Snp, address: U64) -> Result<(Spa, &'a mut Context)> {
    let spa = mem.spa(address.get()).aligned(PAGE as u64)?;
    match snp.contexts.get_mut(&spa.get()) {
        Some(context) => Ok((spa, context)),
        None => Err(Status::INVALID_GUEST),
    }
}

/// GCTX_CREATE: a page in the Firmware state becomes a guest context.
pub fn create(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Address = fw.mem.read(buffer)?;
    let spa = fw.mem.spa(cmd.address.get());
    let entry = expect_4k(&fw.mem, spa, PageState::Firmware)?;
    let noise: [u8; PAGE] = random(&mut fw.rng);
    fw.mem.write_bytes(spa, &noise)?;
    entry.to(PageState::Context).write(&fw.mem, spa)?;
    fw.snp.contexts.insert(spa.get(), Context::default());
    Ok(())
}

/// Takes the key of a context from the memory controllers; the ASID needs WBINVD on every core
/// and DF_FLUSH.
fn deactivate(fw: &mut Firmware, spa: Spa) -> Result {
    let Some(context) = fw.snp.contexts.get_mut(&spa.get()) else {
        return Ok(());
    };
    if let Some(asid) = context.asid {
        let removed = fw.host.asid_key(asid.get(), None);
        removed.map_err(|_| Status::HWERROR_PLATFORM)?;
        context.asid = None;
        fw.snp.unflushed = true;
        fw.asids.unbind(asid, fw.running_cores());
    }
    Ok(())
}

/// DECOMMISSION: the context is deleted in whatever state, and its ASID released.
pub fn decommission(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Address = fw.mem.read(buffer)?;
    let (spa, _) = find(&fw.mem, &mut fw.snp, cmd.address)?;
    let entry = expect_4k(&fw.mem, spa, PageState::Context)?;
    deactivate(fw, spa)?;
    fw.snp.contexts.remove(&spa.get());
    entry.to(PageState::Firmware).write(&fw.mem, spa)?;
    fw.mem.write_bytes(spa, &[0; PAGE])
}

/// Deletes every context, as SHUTDOWN does; the host may take the pages back. unspecified.
pub fn delete_all(fw: &mut Firmware) -> Result {
    let pages: Vec<Spa> = fw.snp.contexts.keys().map(|at| fw.mem.spa(*at)).collect();
    for spa in pages {
        deactivate(fw, spa)?;
        fw.snp.contexts.remove(&spa.get());
        let entry = expect_4k(&fw.mem, spa, PageState::Context)?;
        entry.to(PageState::Reclaim).write(&fw.mem, spa)?;
    }
    Ok(())
}

/// GUEST_STATUS: to a page in the Firmware state.
pub fn status(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: wire::GuestStatus = fw.mem.read(buffer)?;
    let (_, context) = find(&fw.mem, &mut fw.snp, cmd.gctx_address)?;
    let status = wire::Status {
        policy: U64::new(
            context
                .guest
                .as_ref()
                .map_or(0, |guest| guest.policy.bits()),
        ),
        asid: U32::new(context.asid.map_or(0, Asid::get)),
        state: context.state() as u8,
        reserved: [0; 3],
    };
    super::platform::output(fw, cmd.address.get(), status.as_bytes())
}
