// SPDX-License-Identifier: GPL-2.0-or-later
//! SNP_PLATFORM_STATUS, SNP_INIT(_EX), SNP_SHUTDOWN(_EX), SNP_DF_FLUSH, SNP_FEATURE_INFO,
//! SNP_PAGE_RECLAIM.
//!
//! Source: Linux `drivers/crypto/ccp/sev-dev.c`. unspecified: order of checks, ranges and MSR
//! rules of SNP_INIT_EX.

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::rmp::{Entry, PageState};
use crate::firmware::{API, BUILD, Firmware};
use crate::host::HostError;
use crate::memory::{PAGE, Spa};
use crate::platform::State;
use crate::status::{Result, Status};
use crate::wire::{self, SnpAddress, SnpFeatureInfo, SnpInitEx, SnpRange, SnpRangeList};

const MSR_SYSCFG: u32 = 0xc001_0010;
const SYSCFG_MEM_ENCRYPT: u64 = 1 << 23;
const SYSCFG_SNP_EN: u64 = 1 << 24;
const SYSCFG_VMPL_EN: u64 = 1 << 25;
const SYSCFG_SNP: u64 = SYSCFG_MEM_ENCRYPT | SYSCFG_SNP_EN | SYSCFG_VMPL_EN;
const MSR_VM_HSAVE_PA: u32 = 0xc001_0117;
const MSR_RMP_BASE: u32 = 0xc001_0132;
const MSR_RMP_END: u32 = 0xc001_0133;

const INIT_RMP: u32 = 1;
const INIT_LIST: u32 = 2;
/// Elements of a range list that fit into its page.
const MAX_RANGES: u32 = 255;

/// SNP_PLATFORM_STATUS flag: SNP_FEATURE_INFO exists.
const STATUS_FEATURE_INFO: u32 = 1 << 3;
/// TCB version in the form of Family 19h: SVN of boot loader, PSP OS, four reserved, SNP
/// firmware, microcode. An SNP SVN from 1Bh on would make Linux hide SEV-ES (AMD-SB-3023).
const TCB: [u8; 8] = [3, 0, 0, 0, 0, 0, 10, 0];

fn initialized(fw: &Firmware) -> Result {
    if fw.snp.initialized {
        Ok(())
    } else {
        Err(Status::INVALID_PLATFORM_STATE)
    }
}

fn hw<T>(value: core::result::Result<T, HostError>) -> Result<T> {
    value.map_err(|_| Status::HWERROR_PLATFORM)
}

/// SNP enabled, no host save area and the same RMP on every core: INVALID_CONFIG otherwise.
fn check_cores(fw: &Firmware) -> Result {
    let rmp = |core| -> Result<[u64; 2]> {
        Ok([
            hw(fw.host.msr_get(core, MSR_RMP_BASE))?,
            hw(fw.host.msr_get(core, MSR_RMP_END))?,
        ])
    };
    let first = rmp(0)?;
    for core in 0..fw.host.ncpus() {
        let syscfg = hw(fw.host.msr_get(core, MSR_SYSCFG))?;
        let hsave = hw(fw.host.msr_get(core, MSR_VM_HSAVE_PA))?;
        let [base, end] = rmp(core)?;
        let valid = syscfg & SYSCFG_SNP == SYSCFG_SNP && hsave == 0;
        if !valid || [base, end] != first || base >= end {
            return Err(Status::INVALID_CONFIG);
        }
    }
    Ok(())
}

/// Makes the pages of a range HV-fixed, as far as the RMP covers them. They must be the host's
/// or the firmware's.
fn fix_range(fw: &Firmware, range: &SnpRange) -> Result {
    wire::must_be_zero(&[range.reserved])?;
    let base = fw.mem.spa(range.base.get()).aligned(PAGE as u64)?;
    for page in 0..u64::from(range.page_count.get()) {
        let spa = base.offset(page.saturating_mul(PAGE as u64))?;
        let Some(entry) = Entry::read(fw, spa) else {
            break;
        };
        match entry.state() {
            PageState::Hypervisor | PageState::HvFixed => entry.hv_fixed().write(fw, spa)?,
            PageState::Firmware => {}
            PageState::Reclaim | PageState::Guest => return Err(Status::INVALID_PAGE_STATE),
        }
    }
    Ok(())
}

fn fix_list(fw: &Firmware, list: Spa) -> Result {
    let head: SnpRangeList = fw.mem.read(list)?;
    wire::must_be_zero(&[head.reserved])?;
    if head.num_elements.get() > MAX_RANGES {
        return Err(Status::INVALID_PARAM);
    }
    let mut at = list.offset(size_of::<SnpRangeList>() as u64)?;
    for _ in 0..head.num_elements.get() {
        fix_range(fw, &fw.mem.read(at)?)?;
        at = at.offset(size_of::<SnpRange>() as u64)?;
    }
    Ok(())
}

fn start(fw: &mut Firmware, init_rmp: bool, list: Option<Spa>) -> Result {
    if fw.snp.initialized {
        return Err(Status::INVALID_PLATFORM_STATE);
    }
    check_cores(fw)?;
    if init_rmp {
        fw.host
            .rmp_init()
            .map_err(|_| Status::RMP_INITIALIZATION_FAILED)?;
        fw.snp.rmp_initialized = true;
    } else if !fw.snp.rmp_initialized {
        return Err(Status::RMP_INIT_REQUIRED);
    }
    if let Some(list) = list {
        fix_list(fw, list)?;
    }
    fw.asids.mark_all_dirty(fw.running_cores());
    fw.snp.initialized = true;
    Ok(())
}

/// SNP_INIT: SNP_INIT_EX with a new RMP and no list.
pub fn init(fw: &mut Firmware, _: Spa) -> Result {
    start(fw, true, None)
}

/// SNP_INIT_EX. Features that SNP_FEATURE_INFO does not report are INVALID_PARAM.
pub fn init_ex(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: SnpInitEx = fw.mem.read(buffer)?;
    wire::must_be_zero(&[cmd.reserved1])?;
    let flags = cmd.flags.get();
    if flags & !(INIT_RMP | INIT_LIST) != 0
        || cmd.max_snp_asid.get() != 0
        || cmd.reserved2.iter().any(|byte| *byte != 0)
    {
        return Err(Status::INVALID_PARAM);
    }
    let list = (flags & INIT_LIST != 0).then(|| fw.mem.spa(cmd.list_address.get()));
    start(fw, flags & INIT_RMP != 0, list)
}

/// SNP_SHUTDOWN.
pub fn shutdown(fw: &mut Firmware, _: Spa) -> Result {
    initialized(fw)?;
    if fw.asids.dirty() > 0 && fw.state() != State::Uninit {
        return Err(Status::DFFLUSH_REQUIRED);
    }
    fw.snp.initialized = false;
    Ok(())
}

/// SNP_SHUTDOWN_EX: the IOMMU flag changes nothing here, where the IOMMU has no RMP checks;
/// disabling SNP on the cores is not offered: INVALID_PARAM.
pub fn shutdown_ex(fw: &mut Firmware, buffer: Spa) -> Result {
    const IOMMU: u32 = 1;
    let cmd: wire::SnpShutdownEx = fw.mem.read(buffer)?;
    wire::exact_len::<wire::SnpShutdownEx>(cmd.length)?;
    if cmd.flags.get() & !IOMMU != 0 {
        return Err(Status::INVALID_PARAM);
    }
    shutdown(fw, buffer)
}

/// SNP_DF_FLUSH: the same flush as DF_FLUSH.
pub fn df_flush(fw: &mut Firmware, _: Spa) -> Result {
    initialized(fw)?;
    fw.asids.flush()
}

/// Writes an output page: once SNP is initialised it must be a firmware page, and is reclaimable
/// afterwards.
fn output(fw: &Firmware, address: u64, bytes: &[u8]) -> Result {
    let spa = fw.mem.spa(address);
    if !fw.snp.initialized {
        return fw.mem.write_bytes(spa, bytes);
    }
    let entry = Entry::read(fw, spa).ok_or(Status::INVALID_ADDRESS)?;
    if entry.state() != PageState::Firmware {
        return Err(Status::INVALID_PAGE_STATE);
    }
    if spa.page_offset().saturating_add(bytes.len() as u64) > PAGE as u64 {
        return Err(Status::INVALID_ADDRESS);
    }
    fw.mem.write_bytes(spa, bytes)?;
    entry.reclaimed().write(fw, spa)
}

/// SNP_PLATFORM_STATUS.
pub fn status(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: SnpAddress = fw.mem.read(buffer)?;
    let [api_major, api_minor] = API;
    let status = wire::SnpPlatformStatus {
        api_major,
        api_minor,
        state: fw.snp.initialized.into(),
        is_rmp_initialized: fw.snp.rmp_initialized.into(),
        build: U32::new(BUILD.into()),
        flags: U32::new(STATUS_FEATURE_INFO),
        guest_count: U32::ZERO,
        current_tcb: TCB,
        reported_tcb: TCB,
    };
    output(fw, cmd.address.get(), status.as_bytes())
}

/// SNP_FEATURE_INFO: sub-function 0, no optional feature.
pub fn feature_info(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: SnpFeatureInfo = fw.mem.read(buffer)?;
    wire::exact_len::<SnpFeatureInfo>(cmd.length)?;
    if cmd.ecx_in.get() != 0 {
        return Err(Status::INVALID_PARAM);
    }
    output(fw, cmd.address.get(), &[0; 16])
}

/// SNP_PAGE_RECLAIM: a page that the firmware owns becomes reclaimable; bit 0 of the address
/// says 2 MiB.
pub fn page_reclaim(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: SnpAddress = fw.mem.read(buffer)?;
    initialized(fw)?;
    let address = cmd.address.get();
    let large = address & 1 != 0;
    let size = if large { 2 << 20 } else { PAGE as u64 };
    let spa = fw.mem.spa(address & !1).aligned(size)?;
    let entry = Entry::read(fw, spa).ok_or(Status::INVALID_ADDRESS)?;
    if entry.is_2m() != large {
        return Err(Status::INVALID_PAGE_SIZE);
    }
    match entry.state() {
        PageState::Firmware | PageState::Reclaim => entry.reclaimed().write(fw, spa),
        PageState::Hypervisor | PageState::HvFixed | PageState::Guest => {
            Err(Status::INVALID_PAGE_STATE)
        }
    }
}
