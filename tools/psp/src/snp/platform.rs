// SPDX-License-Identifier: GPL-2.0-or-later
//! SNP_PLATFORM_STATUS, SNP_INIT(_EX), SNP_SHUTDOWN(_EX), SNP_DF_FLUSH, SNP_FEATURE_INFO.
//!
//! Source: Linux `drivers/crypto/ccp/sev-dev.c`. unspecified: order of checks, ranges and MSR
//! rules of SNP_INIT_EX.

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::config::TCB;
use super::rmp::{Entry, PageState, expect_4k};
use super::table::Table;
use super::wire::{Address, FeatureInfo, InitEx, PlatformStatus, Range, RangeList, ShutdownEx};
use super::{context, iommu};
use crate::firmware::{API, BUILD, Firmware};
use crate::host::HostError;
use crate::memory::{PAGE, Spa};
use crate::platform::State;
use crate::status::{Result, Status};
use crate::wire::{exact_len, must_be_zero};

const MSR_SYSCFG: u32 = 0xc001_0010;
const SYSCFG_MEM_ENCRYPT: u64 = 1 << 23;
const SYSCFG_SNP_EN: u64 = 1 << 24;
const SYSCFG_VMPL_EN: u64 = 1 << 25;
const SYSCFG_SNP: u64 = SYSCFG_MEM_ENCRYPT | SYSCFG_SNP_EN | SYSCFG_VMPL_EN;
const MSR_VM_HSAVE_PA: u32 = 0xc001_0117;

const INIT_RMP: u32 = 1;
const INIT_LIST: u32 = 2;
/// Elements of a range list that fit into its page.
const MAX_RANGES: u32 = 255;

const INIT_RAPL_DIS: u32 = 4;
const INIT_CIPHERTEXT_HIDING: u32 = 8;

/// The byte of SNP_PLATFORM_STATUS that says whether the RMP is initialised, and that no two addresses
/// are the same memory, as they are not here. Source: crate `sev`. unspecified: when that is found out.
const STATUS_RMP_INITIALIZED: u8 = 1 << 0;
const STATUS_ALIAS_CHECK_COMPLETE: u8 = 1 << 1;
/// SNP_PLATFORM_STATUS flags.
const STATUS_MASK_CHIP_ID: u32 = 1 << 0;
const STATUS_MASK_CHIP_KEY: u32 = 1 << 1;
const STATUS_VLEK_EN: u32 = 1 << 2;
const STATUS_FEATURE_INFO: u32 = 1 << 3;
const STATUS_RAPL_DIS: u32 = 1 << 4;
const STATUS_CIPHERTEXT_HIDING_CAP: u32 = 1 << 5;
const STATUS_CIPHERTEXT_HIDING_EN: u32 = 1 << 6;

/// SNP_FEATURE_INFO, sub-function 0, ECX: SNP_SHUTDOWN_EX can disable SNP on the cores, if
/// configured; RAPL can be disabled; ciphertext can be hidden.
const FEATURE_X86_SHUTDOWN: u32 = 1 << 1;
const FEATURES_ECX: u32 = (1 << 2) | (1 << 3);

/// SNP_SHUTDOWN_EX flags.
const SHUTDOWN_IOMMU: u32 = 1;
const SHUTDOWN_X86: u32 = 2;

fn hw<T>(value: core::result::Result<T, HostError>) -> Result<T> {
    value.map_err(|_| Status::HWERROR_PLATFORM)
}

/// SNP enabled, no host save area and the same RMP on every core: INVALID_CONFIG otherwise.
fn check_cores(fw: &Firmware) -> Result {
    let first = hw(Table::of(&*fw.host, 0))?;
    for core in 0..fw.host.ncpus() {
        let syscfg = hw(fw.host.msr_get(core, MSR_SYSCFG))?;
        let hsave = hw(fw.host.msr_get(core, MSR_VM_HSAVE_PA))?;
        let table = hw(Table::of(&*fw.host, core))?;
        let prepared = syscfg & SYSCFG_SNP == SYSCFG_SNP && hsave == 0;
        if !prepared || table != first || !table.is_valid() {
            return Err(Status::INVALID_CONFIG);
        }
    }
    Ok(())
}

/// Makes the pages of a range HV-fixed, as far as the RMP covers them. They must be the host's
/// or the firmware's.
fn fix_range(fw: &Firmware, range: &Range) -> Result {
    must_be_zero(&[range.reserved])?;
    let base = fw.mem.spa(range.base.get()).aligned(PAGE as u64)?;
    for page in 0..u64::from(range.page_count.get()) {
        let spa = base.offset(page.saturating_mul(PAGE as u64))?;
        let Ok(entry) = Entry::covering(&fw.mem, spa) else {
            break;
        };
        match entry.state() {
            PageState::Hypervisor | PageState::HvFixed => {
                entry.to(PageState::HvFixed).write(&fw.mem, spa)?;
            }
            PageState::Firmware => {}
            _ => return Err(Status::INVALID_PAGE_STATE),
        }
    }
    Ok(())
}

fn fix_list(fw: &Firmware, list: Spa) -> Result {
    let head: RangeList = fw.mem.read(list)?;
    must_be_zero(&[head.reserved])?;
    if head.num_elements.get() > MAX_RANGES {
        return Err(Status::INVALID_PARAM);
    }
    let mut at = list.offset(size_of::<RangeList>() as u64)?;
    for _ in 0..head.num_elements.get() {
        fix_range(fw, &fw.mem.read(at)?)?;
        at = at.offset(size_of::<Range>() as u64)?;
    }
    Ok(())
}

/// What INIT_EX asks for.
#[derive(Default)]
struct Setup {
    init_rmp: bool,
    list: Option<Spa>,
    rapl_disabled: bool,
    /// With ciphertext hiding.
    max_snp_asid: Option<u32>,
}

fn start(fw: &mut Firmware, setup: &Setup) -> Result {
    if fw.snp.initialized {
        return Err(Status::INVALID_PLATFORM_STATE);
    }
    check_cores(fw)?;
    fw.asids.split(setup.max_snp_asid)?;
    if setup.init_rmp {
        fw.host
            .rmp_init()
            .map_err(|_| Status::RMP_INITIALIZATION_FAILED)?;
        fw.snp.rmp_initialized = true;
    } else if !fw.snp.rmp_initialized {
        return Err(Status::RMP_INIT_REQUIRED);
    }
    let regions = iommu::take(fw)?;
    if let Some(Err(error)) = setup.list.map(|list| fix_list(fw, list)) {
        iommu::give(fw, &regions, PageState::Hypervisor)?;
        return Err(error);
    }
    fw.snp.iommu = regions;
    fw.asids.mark_all_dirty(fw.running_cores());
    fw.snp.ciphertext_hiding = setup.max_snp_asid.is_some();
    fw.snp.rapl_disabled = setup.rapl_disabled;
    fw.snp.initialized = true;
    fw.mem.set_snp(true);
    Ok(())
}

/// SNP_INIT: SNP_INIT_EX with a new RMP and no list.
pub fn init(fw: &mut Firmware, _: Spa) -> Result {
    let setup = Setup {
        init_rmp: true,
        ..Setup::default()
    };
    start(fw, &setup)
}

/// SNP_INIT_EX. Features that SNP_FEATURE_INFO does not report are INVALID_PARAM.
pub fn init_ex(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: InitEx = fw.mem.read(buffer)?;
    must_be_zero(&[cmd.reserved1])?;
    let flags = cmd.flags.get();
    let hiding = flags & INIT_CIPHERTEXT_HIDING != 0;
    let max_snp_asid = u32::from(cmd.max_snp_asid.get());
    if flags & !(INIT_RMP | INIT_LIST | INIT_RAPL_DIS | INIT_CIPHERTEXT_HIDING) != 0
        || hiding == (max_snp_asid == 0)
        || cmd.reserved2.iter().any(|byte| *byte != 0)
    {
        return Err(Status::INVALID_PARAM);
    }
    let list = fw.mem.spa(cmd.list_address.get());
    let setup = Setup {
        init_rmp: flags & INIT_RMP != 0,
        list: (flags & INIT_LIST != 0).then_some(list),
        rapl_disabled: flags & INIT_RAPL_DIS != 0,
        max_snp_asid: hiding.then_some(max_snp_asid),
    };
    start(fw, &setup)
}

/// SNP_SHUTDOWN: the IOMMUs keep their pages.
pub fn shutdown(fw: &mut Firmware, _: Spa) -> Result {
    if fw.snp.unflushed || (fw.asids.dirty() > 0 && fw.state() != State::Uninit) {
        return Err(Status::DFFLUSH_REQUIRED);
    }
    context::delete_all(fw)?;
    fw.asids.split(None)?;
    (fw.snp.ciphertext_hiding, fw.snp.rapl_disabled) = (false, false);
    fw.snp.initialized = false;
    fw.mem.set_snp(false);
    Ok(())
}

/// SNP_SHUTDOWN_EX: on request disables SNP in the IOMMUs, and on the cores too. After the latter
/// the host has the RMP for itself. INVALID_PARAM for a flag that SNP_FEATURE_INFO does not offer.
///
/// unspecified: that the cores cannot go without the IOMMUs (INVALID_PARAM).
pub fn shutdown_ex(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: ShutdownEx = fw.mem.read(buffer)?;
    exact_len::<ShutdownEx>(cmd.length)?;
    let (iommu, x86) = match cmd.flags.get() {
        0 => (false, false),
        SHUTDOWN_IOMMU => (true, false),
        flags if flags == SHUTDOWN_IOMMU | SHUTDOWN_X86 && fw.config.x86_shutdown => (true, true),
        _ => return Err(Status::INVALID_PARAM),
    };
    shutdown(fw, buffer)?;
    if iommu {
        let regions = core::mem::take(&mut fw.snp.iommu);
        iommu::give(fw, &regions, PageState::Reclaim)?;
    }
    if x86 {
        fw.snp.rmp_initialized = false;
        hw(fw.host.snp_disable())?;
    }
    Ok(())
}

/// DF_FLUSH and SNP_DF_FLUSH.
pub fn flush(fw: &mut Firmware) -> Result {
    fw.asids.flush()?;
    fw.snp.unflushed = false;
    Ok(())
}

/// SNP_DF_FLUSH: the same flush as DF_FLUSH.
pub fn df_flush(fw: &mut Firmware, _: Spa) -> Result {
    flush(fw)
}

/// Writes an output page: once SNP is initialised it must be a firmware page, and is reclaimable
/// afterwards.
pub(super) fn output(fw: &Firmware, address: u64, bytes: &[u8]) -> Result {
    let spa = fw.mem.spa(address);
    if !fw.snp.initialized {
        return fw.mem.write_bytes(spa, bytes);
    }
    let page = spa.align_down(PAGE as u64);
    let entry = expect_4k(&fw.mem, page, PageState::Firmware)?;
    if spa.page_offset().saturating_add(bytes.len() as u64) > PAGE as u64 {
        return Err(Status::INVALID_ADDRESS);
    }
    fw.mem.write_bytes(spa, bytes)?;
    entry.to(PageState::Reclaim).write(&fw.mem, page)
}

fn status_flags(fw: &Firmware) -> u32 {
    let (snp, reported) = (&fw.snp, &fw.snp.reported);
    [
        (true, STATUS_FEATURE_INFO | STATUS_CIPHERTEXT_HIDING_CAP),
        (reported.mask_chip_id, STATUS_MASK_CHIP_ID),
        (reported.mask_chip_key, STATUS_MASK_CHIP_KEY),
        (snp.vlek.is_some(), STATUS_VLEK_EN),
        (snp.rapl_disabled, STATUS_RAPL_DIS),
        (snp.ciphertext_hiding, STATUS_CIPHERTEXT_HIDING_EN),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .fold(0, |flags, (_, flag)| flags | flag)
}

/// SNP_PLATFORM_STATUS.
pub fn status(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Address = fw.mem.read(buffer)?;
    let [api_major, api_minor] = API;
    let status = PlatformStatus {
        api_major,
        api_minor,
        state: fw.snp.initialized.into(),
        is_rmp_initialized: if fw.snp.rmp_initialized {
            STATUS_RMP_INITIALIZED | STATUS_ALIAS_CHECK_COMPLETE
        } else {
            0
        },
        build: U32::new(BUILD.into()),
        flags: U32::new(status_flags(fw)),
        guest_count: U32::new(u32::try_from(fw.snp.contexts.len()).unwrap_or(u32::MAX)),
        current_tcb: TCB,
        reported_tcb: fw.snp.reported.tcb,
    };
    output(fw, cmd.address.get(), status.as_bytes())
}

/// SNP_FEATURE_INFO: sub-function 0.
pub fn feature_info(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: FeatureInfo = fw.mem.read(buffer)?;
    exact_len::<FeatureInfo>(cmd.length)?;
    if cmd.ecx_in.get() != 0 {
        return Err(Status::INVALID_PARAM);
    }
    let ecx = match fw.config.x86_shutdown {
        true => FEATURES_ECX | FEATURE_X86_SHUTDOWN,
        false => FEATURES_ECX,
    };
    let registers = [0, 0, ecx, 0].map(U32::new);
    output(fw, cmd.address.get(), registers.as_bytes())
}
