// SPDX-License-Identifier: GPL-2.0
//! ASIDs and the ranges that CPUID divides them into. Pure: no kernel dependencies.
//!
//! Source: APM volume 3, CPUID Fn8000_001F ECX (number of encrypted guests) and EDX (lowest ASID
//! of a guest that is not SEV-ES); SEV-ES and SEV-SNP guests use the ASIDs below it.

#[cfg(test)]
use core::fmt;
use core::num::NonZeroU32;

#[cfg(not(test))]
use kernel::fmt;

use super::kind::Kind;

/// Address space identifier of an encrypted guest; 0 is the host and cannot be represented.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Asid(NonZeroU32);

impl Asid {
    /// `None` for 0, the ASID of the host.
    pub(crate) const fn new(n: u32) -> Option<Self> {
        match NonZeroU32::new(n) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    pub(crate) const fn get(self) -> u32 {
        self.0.get()
    }

    /// Position in a table that has one entry for each ASID, and one unused for the host.
    pub(crate) const fn index(self) -> usize {
        self.get() as usize
    }
}

impl fmt::Display for Asid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

/// A non-empty, inclusive range of ASIDs.
///
/// A kind of guest that was given no ASIDs has no range (`None`), so a range that ends before it
/// starts ("ASIDs 1007 - 1006") does not exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    first: Asid,
    last: Asid,
}

impl Range {
    /// `None` if the range would be empty or contain the host's ASID.
    pub(crate) const fn new(first: u32, last: u32) -> Option<Self> {
        if first > last {
            return None;
        }
        match (Asid::new(first), Asid::new(last)) {
            (Some(first), Some(last)) => Some(Self { first, last }),
            _ => None,
        }
    }

    pub(crate) const fn first(self) -> Asid {
        self.first
    }

    pub(crate) const fn last(self) -> Asid {
        self.last
    }

    /// Number of ASIDs, at least 1.
    pub(crate) const fn count(self) -> u32 {
        // 1 <= first <= last: nothing can overflow.
        self.last
            .get()
            .wrapping_sub(self.first.get())
            .wrapping_add(1)
    }

    /// The range as table positions.
    pub(crate) fn indices(self) -> core::ops::RangeInclusive<usize> {
        self.first.index()..=self.last.index()
    }
}

/// How CPUID Fn8000_001F divides the ASIDs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Split {
    /// Highest ASID of any encrypted guest (ECX).
    pub(crate) max: Asid,
    /// For plain SEV guests; `None` if the firmware gave all ASIDs to the other kinds.
    pub(crate) sev: Option<Range>,
    /// For SEV-ES guests; with [`Split::hide_ciphertext`] not for SEV-SNP guests, too.
    pub(crate) es: Option<Range>,
    /// For SEV-SNP guests.
    pub(crate) snp: Option<Range>,
}

impl Split {
    /// The ASIDs of a kind of guest.
    pub(crate) const fn range(self, kind: Kind) -> Option<Range> {
        match kind {
            Kind::Sev => self.sev,
            Kind::SevEs => self.es,
            Kind::Snp => self.snp,
        }
    }

    /// Number of ASIDs of guests whose ciphertext is hidden.
    pub(crate) fn hidden(self) -> u32 {
        match self.snp {
            Some(snp) if self.snp != self.es => snp.count(),
            _ => 0,
        }
    }

    /// Number of ASIDs for guests with protected registers.
    pub(crate) fn protected(self) -> u32 {
        let count = |range: Option<Range>| range.map_or(0, Range::count);

        if self.es == self.snp {
            count(self.es)
        } else {
            count(self.es).saturating_add(count(self.snp))
        }
    }

    /// From ECX and EDX; `None` if the processor runs no encrypted guests.
    pub(crate) fn from_cpuid(ecx: u32, edx: u32) -> Option<Self> {
        // EDX may exceed ECX when plain SEV was given nothing, by any amount.
        let protected = Range::new(1, edx.saturating_sub(1).min(ecx));

        Some(Self {
            max: Asid::new(ecx)?,
            // A lowest ASID of 0 would be the host's: the range then starts at 1.
            sev: Range::new(edx.max(1), ecx),
            es: protected,
            snp: protected,
        })
    }

    /// The firmware hides the ciphertext of the guests with the first `count` ASIDs from the host,
    /// if that is not 0. These are for SEV-SNP guests only, which cannot have others then.
    pub(crate) fn hide_ciphertext(self, count: u32) -> Self {
        match self.es {
            Some(both) if count != 0 => Self {
                es: Range::new(count.saturating_add(1), both.last().get()),
                snp: Range::new(1, count.min(both.last().get())),
                ..self
            },
            _ => self,
        }
    }
}

#[cfg(any(test, CONFIG_KUNIT))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(kvm_sev_asid))]
mod tests {
    use super::*;

    #[test]
    fn host_asid_is_not_representable() {
        assert!(Asid::new(0).is_none());
        assert!(Range::new(0, 5).is_none());
    }

    #[test]
    fn empty_ranges_do_not_exist() {
        assert!(Range::new(1007, 1006).is_none());
        assert!(Range::new(7, 7).is_some_and(|r| r.count() == 1));
    }

    #[test]
    fn usual_split() {
        let s = Split::from_cpuid(509, 100);
        assert!(s.is_some_and(|s| s.sev == Range::new(100, 509) && s.es == Range::new(1, 99)));
    }

    #[test]
    fn all_asids_for_es() {
        // "SEV ASIDs 1007 - 1006": the firmware left none for plain SEV.
        let s = Split::from_cpuid(1006, 1007);
        assert!(s.is_some_and(|s| s.sev.is_none() && s.es == Range::new(1, 1006)));
    }

    #[test]
    fn all_asids_for_sev() {
        for edx in [0, 1] {
            let s = Split::from_cpuid(15, edx);
            assert!(s.is_some_and(|s| s.sev == Range::new(1, 15) && s.es.is_none()));
        }
    }

    #[test]
    fn hidden_ciphertext_divides_the_protected() {
        let hide = |count| Split::from_cpuid(509, 100).map(|s| s.hide_ciphertext(count));

        assert!(hide(0).is_some_and(|s| s.es == Range::new(1, 99) && s.snp == Range::new(1, 99)));
        assert!(hide(60).is_some_and(|s| s.es == Range::new(61, 99) && s.snp == Range::new(1, 60)));
        assert!(hide(99).is_some_and(|s| s.es.is_none() && s.snp == Range::new(1, 99)));
        assert!(hide(60).is_some_and(|s| s.sev == Range::new(100, 509)));
        assert!([0, 60, 99]
            .into_iter()
            .filter_map(hide)
            .all(|s| s.protected() == 99));
    }

    #[test]
    fn no_encrypted_guests() {
        assert!(Split::from_cpuid(0, 1).is_none());
    }
}
