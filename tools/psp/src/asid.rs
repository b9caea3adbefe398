// SPDX-License-Identifier: GPL-2.0-or-later
//! ASIDs: who owns which, which may be reused, and what must be flushed first.
//!
//! ```text
//! Free --bind--> Bound --unbind--> Dirty --[WBINVD on every core, then DF_FLUSH]--> Free
//! ```
//! After INIT every ASID is Dirty: drivers flush before the first launch (Linux
//! `__sev_platform_init_locked`).
//!
//! Invariant: an ASID is bound to at most one guest; [`crate::guest::Guest`] holds the same binding
//! from the other side.

use core::num::NonZeroU32;
use std::collections::BTreeSet;

use crate::status::{Result, Status};

/// An address space identifier; 0 is the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asid(NonZeroU32);

impl Asid {
    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Free,
    Bound,
    Dirty,
}

/// The ASIDs of the machine: 1..min for SEV-ES guests, min..=max for SEV guests.
pub struct AsidTable {
    uses: Vec<Use>,
    min_sev: u32,
    /// The highest ASID of SNP guests if ciphertext hiding is on.
    max_snp: Option<u32>,
    /// Cores that have not executed WBINVD since an ASID was last released.
    unflushed_cores: BTreeSet<u32>,
}

impl AsidTable {
    /// A table of the ASIDs 1 to `max`; SEV guests without ES get those from `min_sev` on
    /// (CPUID 8000_001F ECX and EDX).
    pub fn new(max: u32, min_sev: u32) -> Self {
        Self {
            uses: vec![Use::Free; max as usize],
            min_sev,
            max_snp: None,
            unflushed_cores: BTreeSet::new(),
        }
    }

    fn slot(&mut self, asid: Asid) -> Option<&mut Use> {
        self.uses.get_mut((asid.get() as usize).checked_sub(1)?)
    }

    fn in_range(&self, number: u32, range: core::ops::Range<u32>) -> Result<Asid> {
        match NonZeroU32::new(number) {
            Some(asid) if range.contains(&number) && number as usize <= self.uses.len() => {
                Ok(Asid(asid))
            }
            _ => Err(Status::INVALID_ASID),
        }
    }

    /// The ASID of a number if SEV guests with or without ES may use it, else INVALID_ASID.
    pub fn check_range(&self, number: u32, es: bool) -> Result<Asid> {
        if es {
            let first = self.max_snp.map_or(1, |max| max.saturating_add(1));
            self.in_range(number, first..self.min_sev)
        } else {
            self.in_range(number, self.min_sev..u32::MAX)
        }
    }

    /// The ASID of a number if SNP guests may use it, else INVALID_ASID. They share the range of
    /// SEV-ES guests or, with ciphertext hiding, have its lower part.
    pub fn check_snp_range(&self, number: u32) -> Result<Asid> {
        let end = self
            .max_snp
            .map_or(self.min_sev, |max| max.saturating_add(1));
        self.in_range(number, 1..end.min(self.min_sev))
    }

    /// Splits the range of SEV-ES guests: SNP guests have the ASIDs up to `max`. INVALID_PARAM
    /// for an ASID out of that range; `None` ends it.
    pub fn split(&mut self, max: Option<u32>) -> Result {
        if max.is_some_and(|max| max == 0 || max >= self.min_sev) {
            return Err(Status::INVALID_PARAM);
        }
        self.max_snp = max;
        Ok(())
    }

    /// Whether ciphertext hiding splits the range.
    pub fn is_split(&self) -> bool {
        self.max_snp.is_some()
    }

    /// Marks the ASID as bound.
    pub fn bind(&mut self, asid: Asid) -> Result {
        let slot = self.slot(asid).ok_or(Status::INVALID_ASID)?;
        match slot {
            Use::Bound => Err(Status::ASID_OWNED),
            Use::Dirty => Err(Status::DFFLUSH_REQUIRED),
            Use::Free => {
                *slot = Use::Bound;
                Ok(())
            }
        }
    }

    /// Releases a bound ASID: dirty until flushed, and `cores` owe a WBINVD.
    pub fn unbind(&mut self, asid: Asid, cores: BTreeSet<u32>) {
        if let Some(slot) = self.slot(asid) {
            *slot = Use::Dirty;
        }
        self.unflushed_cores = cores;
    }

    /// After INIT: every ASID that is not bound.
    pub fn mark_all_dirty(&mut self, cores: BTreeSet<u32>) {
        for slot in self.uses.iter_mut().filter(|slot| **slot == Use::Free) {
            *slot = Use::Dirty;
        }
        self.unflushed_cores = cores;
    }

    /// A core executed WBINVD.
    pub fn wbinvd(&mut self, core: u32) {
        self.unflushed_cores.remove(&core);
    }

    /// DF_FLUSH: the dirty ASIDs become free, if every core has executed WBINVD.
    pub fn flush(&mut self) -> Result {
        if !self.unflushed_cores.is_empty() {
            return Err(Status::WBINVD_REQUIRED);
        }
        for slot in &mut self.uses {
            if *slot == Use::Dirty {
                *slot = Use::Free;
            }
        }
        Ok(())
    }

    /// Number of bound ASIDs.
    pub fn bound(&self) -> usize {
        self.uses.iter().filter(|u| **u == Use::Bound).count()
    }

    /// Number of ASIDs that need DF_FLUSH.
    pub fn dirty(&self) -> usize {
        self.uses.iter().filter(|u| **u == Use::Dirty).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_the_es_split() {
        let table = AsidTable::new(509, 100);
        for (number, es, ok) in [
            (0, false, false),
            (0, true, false),
            (1, true, true),
            (1, false, false),
            (99, true, true),
            (99, false, false),
            (100, false, true),
            (100, true, false),
            (509, false, true),
            (510, false, false),
            (u32::MAX, false, false),
        ] {
            assert_eq!(table.check_range(number, es).is_ok(), ok, "{number} {es}");
        }
    }

    #[test]
    fn ciphertext_hiding_splits_the_range_of_es() {
        let mut table = AsidTable::new(509, 100);
        assert!(table.check_snp_range(99).is_ok() && table.check_snp_range(100).is_err());
        for max in [0, 100, 509, u32::MAX] {
            assert_eq!(table.split(Some(max)), Err(Status::INVALID_PARAM));
        }
        table.split(Some(10)).unwrap();
        for (number, snp, es, sev) in [
            (0, false, false, false),
            (1, true, false, false),
            (10, true, false, false),
            (11, false, true, false),
            (99, false, true, false),
            (100, false, false, true),
        ] {
            assert_eq!(table.check_snp_range(number).is_ok(), snp, "{number}");
            assert_eq!(table.check_range(number, true).is_ok(), es, "{number}");
            assert_eq!(table.check_range(number, false).is_ok(), sev, "{number}");
        }
        table.split(Some(99)).unwrap();
        assert!((0..=100).all(|number| table.check_range(number, true).is_err()));
        table.split(None).unwrap();
        assert!(table.check_range(1, true).is_ok());
    }

    #[test]
    fn a_dirty_asid_needs_wbinvd_on_every_core_and_then_df_flush() {
        let mut table = AsidTable::new(4, 2);
        let asid = table.check_range(3, false).unwrap();
        table.bind(asid).unwrap();
        assert_eq!(table.bind(asid), Err(Status::ASID_OWNED));
        table.unbind(asid, BTreeSet::from([0, 1]));
        assert_eq!(table.bind(asid), Err(Status::DFFLUSH_REQUIRED));
        assert_eq!(table.flush(), Err(Status::WBINVD_REQUIRED));
        table.wbinvd(0);
        assert_eq!(table.flush(), Err(Status::WBINVD_REQUIRED));
        table.wbinvd(1);
        assert_eq!(table.bind(asid), Err(Status::DFFLUSH_REQUIRED));
        table.flush().unwrap();
        table.bind(asid).unwrap();
        assert_eq!((table.bound(), table.dirty()), (1, 0));
    }

    #[test]
    fn a_wbinvd_before_the_release_does_not_count() {
        let mut table = AsidTable::new(4, 2);
        let asid = table.check_range(3, false).unwrap();
        table.bind(asid).unwrap();
        table.wbinvd(0);
        table.unbind(asid, BTreeSet::from([0]));
        assert_eq!(table.flush(), Err(Status::WBINVD_REQUIRED));
    }
}
