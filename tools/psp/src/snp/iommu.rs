// SPDX-License-Identifier: GPL-2.0-or-later
//! The pages that IOMMUs write for themselves: event logs, PPR logs, completion-wait stores. They
//! are the firmware's while SNP is initialised, and reclaimable once SNP_SHUTDOWN_EX has disabled
//! SNP in the IOMMUs.
//!
//! Source: Linux `drivers/iommu/amd/init.c`, amd_iommu_snp_disable, and
//! `drivers/crypto/ccp/sev-dev.c`. unspecified: the states that SNP_INIT accepts, and that
//! SNP_SHUTDOWN leaves the pages to the firmware.

use super::rmp::{Entry, PageState};
use crate::firmware::Firmware;
use crate::memory::{PAGE, Spa};
use crate::status::{Result, Status};

/// Bytes of a page.
const SIZE: u64 = PAGE as u64;
/// Regions of pages. Beyond these the machine has gone wrong: it has three for each IOMMU.
const MAX_REGIONS: u32 = 256;

/// Pages in a row.
#[derive(Clone, Copy)]
pub struct Region {
    first: Spa,
    pages: u64,
}

fn regions(fw: &Firmware) -> Result<Vec<Region>> {
    let mut regions = vec![];
    for index in 0..MAX_REGIONS {
        let Some((spa, size)) = fw.host.iommu_pages(index) else {
            break;
        };
        regions.push(Region {
            first: fw.mem.spa(spa).aligned(SIZE)?,
            pages: size / SIZE,
        });
    }
    Ok(regions)
}

/// Calls `visit` for each page of the regions.
fn for_each(regions: &[Region], mut visit: impl FnMut(Spa) -> Result) -> Result {
    for region in regions {
        for page in 0..region.pages {
            visit(region.first.offset(page.saturating_mul(SIZE))?)?;
        }
    }
    Ok(())
}

/// Makes the pages the firmware's. They must be the host's, or be left from another time:
/// otherwise INVALID_PAGE_STATE, and nothing is changed.
pub fn take(fw: &Firmware) -> Result<Vec<Region>> {
    use PageState::*;
    let regions = regions(fw)?;
    for_each(&regions, |page| {
        let entry = Entry::covering(&fw.mem, page)?;
        match entry.state() {
            _ if entry.is_2m() => Err(Status::INVALID_PAGE_SIZE),
            Hypervisor | Reclaim | Firmware => Ok(()),
            _ => Err(Status::INVALID_PAGE_STATE),
        }
    })?;
    for_each(&regions, |page| {
        let entry = Entry::read(&fw.mem, page)?;
        entry.to(Firmware).write(&fw.mem, page)
    })?;
    Ok(regions)
}

/// Gives the pages up, in a state in which the host gets them.
pub fn give(fw: &Firmware, regions: &[Region], state: PageState) -> Result {
    for_each(regions, |page| {
        let entry = Entry::read(&fw.mem, page)?;
        if entry.state() == PageState::Firmware {
            entry.to(state).write(&fw.mem, page)?;
        }
        Ok(())
    })
}
