// SPDX-License-Identifier: GPL-2.0
//! Kinds of encrypted guests. Pure: no kernel dependencies.

/// What is encrypted; each kind has its own ASIDs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// Memory.
    Sev,
    /// And registers.
    SevEs,
}

impl Kind {
    /// The name in logs and tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Sev => "sev",
            Kind::SevEs => "sev-es",
        }
    }
}
