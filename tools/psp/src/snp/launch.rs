// SPDX-License-Identifier: GPL-2.0-or-later
//! LAUNCH_START, LAUNCH_UPDATE, LAUNCH_FINISH.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros};

use super::config::TCB;
use super::context::{Guest, Launched, State, Vmpck, find};
use super::digest::{LaunchDigest, Page};
use super::policy::Policy;
use super::rmp::{Entry, LARGE, PageState};
use super::wire::{CpuidTable, LaunchFinish, LaunchStart, LaunchUpdate, Secrets};
use super::{cpuid, id_block};
use crate::asid::Asid;
use crate::crypto::random;
use crate::firmware::Firmware;
use crate::memory::{Memory, PAGE, Spa};
use crate::status::{Result, Status};
use crate::wire::must_be_zero;

const START_MA_EN: u32 = 1;
const START_IMI_EN: u32 = 2;

const UPDATE_LARGE: u32 = 1;
const UPDATE_TYPE_SHIFT: u32 = 1;
const UPDATE_TYPE: u32 = 7 << UPDATE_TYPE_SHIFT;
const UPDATE_IMI: u32 = 1 << 4;

/// Version of the secrets page.
const SECRETS_VERSION: u32 = 3;
/// VMSA.SEV_FEATURES, and SNPActive in it.
const VMSA_SEV_FEATURES: usize = 0x3b0;
const SNP_ACTIVE: u8 = 1;
/// Read, write and both kinds of execution.
const ALL_PERMISSIONS: u8 = 0xf;

/// The migration agent of LAUNCH_START.
fn migration_agent(fw: &mut Firmware, cmd: &LaunchStart, policy: Policy) -> Result<[u8; 32]> {
    let flags = cmd.flags.get();
    if flags & START_MA_EN == 0 {
        // An incoming migration image is for an agent.
        let bad = flags & START_IMI_EN != 0;
        return if bad {
            Err(Status::INVALID_PARAM)
        } else {
            Ok([0xff; 32])
        };
    }
    policy.allows_migration_agent()?;
    let (_, agent) = find(&fw.mem, &mut fw.snp, cmd.ma_gctx_address)?;
    Ok(agent.running()?.0.report_id)
}

/// LAUNCH_START.
pub fn start(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: LaunchStart = fw.mem.read(buffer)?;
    let (_, context) = find(&fw.mem, &mut fw.snp, cmd.gctx_address)?;
    if context.state() != State::Init {
        return Err(Status::INVALID_GUEST_STATE);
    }
    if cmd.flags.get() & !(START_MA_EN | START_IMI_EN) != 0 {
        return Err(Status::INVALID_PARAM);
    }
    let policy = Policy::accept(cmd.policy.get(), &fw.snp)?;
    let report_id_ma = migration_agent(fw, &cmd, policy)?;
    let mut vmpck = || Vmpck {
        key: random(&mut fw.rng),
        sequence: 0,
    };
    let guest = Guest {
        policy,
        vmpck: [vmpck(), vmpck(), vmpck(), vmpck()],
        vek: random(&mut fw.rng),
        report_id: random(&mut fw.rng),
        report_id_ma,
        gosvw: cmd.gosvw,
        tsc_khz: cmd.desired_tsc_khz.get(),
        imi: cmd.flags.get() & START_IMI_EN != 0,
        digest: LaunchDigest::new(),
        launch_tcb: TCB,
        launched: None,
    };
    let (_, context) = find(&fw.mem, &mut fw.snp, cmd.gctx_address)?;
    context.guest = Some(Box::new(guest));
    Ok(())
}

/// Page types. Source: Linux `psp-sev.h`, SNP_PAGE_TYPE_*.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum PageType {
    Normal = 1,
    Vmsa = 2,
    Zero = 3,
    Unmeasured = 4,
    Secrets = 5,
    Cpuid = 6,
}

impl PageType {
    fn from_number(number: u32) -> Result<Self> {
        use PageType::*;
        [Normal, Vmsa, Zero, Unmeasured, Secrets, Cpuid]
            .into_iter()
            .find(|kind| *kind as u32 == number)
            .ok_or(Status::INVALID_PARAM)
    }

    fn may_be_large(self) -> bool {
        use PageType::*;
        matches!(self, Normal | Zero | Unmeasured)
    }

    fn is_measured(self) -> bool {
        matches!(self, PageType::Normal | PageType::Vmsa)
    }
}

fn secrets(guest: &Guest, fms: u32) -> Secrets {
    let mut page = Secrets::new_zeroed();
    page.version = U32::new(SECRETS_VERSION);
    page.imi_en = U32::new(guest.imi.into());
    page.fms = U32::new(fms);
    page.gosvw = guest.gosvw;
    for (to, from) in page.vmpck.iter_mut().zip(&guest.vmpck) {
        *to = from.key;
    }
    page
}

/// Brings the contents of a page into the form in which the guest gets them.
fn prepare(
    mem: &Memory,
    spa: Spa,
    kind: PageType,
    guest: &Guest,
    fms: u32,
    bytes: &mut [u8; PAGE],
) -> Result {
    match kind {
        PageType::Normal | PageType::Unmeasured => mem.read_bytes(spa, bytes),
        PageType::Zero => {
            *bytes = [0; PAGE];
            Ok(())
        }
        PageType::Secrets => {
            *bytes = zerocopy::transmute!(secrets(guest, fms));
            Ok(())
        }
        PageType::Vmsa => {
            mem.read_bytes(spa, bytes)?;
            match bytes.get(VMSA_SEV_FEATURES) {
                Some(features) if features & SNP_ACTIVE != 0 => Ok(()),
                _ => Err(Status::INVALID_PARAM),
            }
        }
        PageType::Cpuid => {
            mem.read_bytes(spa, bytes)?;
            let (table, _) = CpuidTable::mut_from_prefix(bytes.as_mut_slice())
                .map_err(|_| Status::HWERROR_PLATFORM)?;
            let checked = cpuid::correct(table);
            if checked.is_err() {
                // The host learns what would be permitted.
                mem.write_owned(spa, None, bytes)?;
            }
            checked
        }
    }
}

/// The entry of a page that the host has prepared for a guest: INVALID_PAGE_STATE,
/// INVALID_PAGE_OWNER, INVALID_PAGE_SIZE.
fn expect_prepared(mem: &Memory, spa: Spa, asid: Asid, large: bool) -> Result<Entry> {
    let entry = Entry::covering(mem, spa)?;
    if entry.state() != PageState::PreGuest {
        Err(Status::INVALID_PAGE_STATE)
    } else if entry.asid() != asid.get() {
        Err(Status::INVALID_PAGE_OWNER)
    } else if entry.is_2m() != large {
        Err(Status::INVALID_PAGE_SIZE)
    } else {
        Ok(entry)
    }
}

/// LAUNCH_UPDATE: measures and encrypts a page in place and makes it a validated page of the
/// guest. A large page is measured as its 4 KiB pages are.
///
/// unspecified: which permissions are accepted.
pub fn update(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: LaunchUpdate = fw.mem.read(buffer)?;
    let (_, context) = find(&fw.mem, &mut fw.snp, cmd.gctx_address)?;
    let asid = context.active();
    let guest = context.launching()?;
    let asid = asid?;
    must_be_zero(&[
        cmd.reserved1,
        cmd.reserved3,
        U32::from(u32::from(cmd.reserved2)),
    ])?;
    let flags = cmd.flags.get();
    if flags & !(UPDATE_LARGE | UPDATE_TYPE | UPDATE_IMI) != 0 {
        return Err(Status::INVALID_PARAM);
    }
    let kind = PageType::from_number((flags & UPDATE_TYPE) >> UPDATE_TYPE_SHIFT)?;
    let (large, imi) = (flags & UPDATE_LARGE != 0, flags & UPDATE_IMI != 0);
    if imi && !guest.imi {
        return Err(Status::INVALID_PARAM);
    }
    if large && !kind.may_be_large() {
        return Err(Status::INVALID_PAGE_SIZE);
    }
    let size = if large { LARGE } else { PAGE as u64 };
    let spa = fw.mem.spa(cmd.address.get()).aligned(size)?;
    let entry = expect_prepared(&fw.mem, spa, asid, large)?;
    let permissions = [cmd.vmpl1_perms, cmd.vmpl2_perms, cmd.vmpl3_perms];
    if permissions.iter().any(|mask| mask & !ALL_PERMISSIONS != 0) {
        return Err(Status::INVALID_PARAM);
    }

    let mut digest = guest.digest;
    let mut bytes = [0; PAGE];
    for at in (0..size).step_by(PAGE) {
        let spa = spa.offset(at)?;
        prepare(&fw.mem, spa, kind, guest, fw.config.fms, &mut bytes)?;
        let page = Page {
            page_type: kind as u8,
            imi,
            permissions,
            gpa: entry.gpa().saturating_add(at),
        };
        digest.add(&page, kind.is_measured().then_some(&bytes));
        fw.mem.write_owned(spa, Some(asid), &bytes)?;
    }
    let [vmpl1, vmpl2, vmpl3] = permissions;
    let entry = entry.to(PageState::GuestValid);
    let entry = entry.with_permissions([ALL_PERMISSIONS, vmpl1, vmpl2, vmpl3]);
    let entry = if kind == PageType::Vmsa {
        entry.with_vmsa()
    } else {
        entry
    };
    entry.write(&fw.mem, spa)?;
    guest.digest = digest;
    Ok(())
}

/// LAUNCH_FINISH: the guest may run, if it is the one that the ID block describes.
pub fn finish(fw: &mut Firmware, buffer: Spa) -> Result {
    const ID_BLOCK: u64 = 1;
    const AUTHOR_KEY: u64 = 2;
    const VCEK_DISABLED: u64 = 4;
    let cmd: LaunchFinish = fw.mem.read(buffer)?;
    let (_, context) = find(&fw.mem, &mut fw.snp, cmd.gctx_address)?;
    let guest = context.launching()?;
    let flags = cmd.flags.get();
    let author = flags & AUTHOR_KEY != 0;
    if flags & !(ID_BLOCK | AUTHOR_KEY | VCEK_DISABLED) != 0 {
        return Err(Status::INVALID_PARAM);
    }
    let identity = if flags & ID_BLOCK != 0 {
        let block = fw.mem.read(fw.mem.spa(cmd.id_block_address.get()))?;
        let auth = fw.mem.read(fw.mem.spa(cmd.id_auth_address.get()))?;
        Some(id_block::verify(&block, &auth, author, guest)?)
    } else if author {
        return Err(Status::INVALID_PARAM);
    } else {
        None
    };
    guest.launched = Some(Launched {
        host_data: cmd.host_data,
        identity,
        vcek_disabled: flags & VCEK_DISABLED != 0,
    });
    Ok(())
}
