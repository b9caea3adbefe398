// SPDX-License-Identifier: GPL-2.0
//! Kinds of encrypted guests. Pure: no kernel dependencies.

/// What is encrypted; each kind has its own ASIDs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// Memory.
    Sev,
    /// And registers.
    SevEs,
    /// And nobody but the guest can change where its memory is, or what is in it.
    Snp,
}

impl Kind {
    /// The name in logs and tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Sev => "sev",
            Kind::SevEs => "sev-es",
            Kind::Snp => "snp",
        }
    }

    /// Whether the registers of such a guest are encrypted, too.
    pub(crate) const fn protects_registers(self) -> bool {
        !matches!(self, Kind::Sev)
    }
}
