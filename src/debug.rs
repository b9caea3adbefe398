// SPDX-License-Identifier: GPL-2.0
//! What debugfs shows: `/sys/kernel/debug/kvm_amd_sev/{pool,contexts,rejections}`.

use kernel::debugfs::{Dir, File, Writer};
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::asid::Asids;
use crate::rejections::Rejections;
use crate::vm::Registry;

/// `pool`: how many ASIDs are in which state, and how often they were recycled.
struct PoolFile(Arc<Asids>);

impl Writer for PoolFile {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let split = self.0.split();

        writeln!(f, "kind first last free leased dirty leaked")?;
        // Usually SEV-SNP guests share those of SEV-ES guests.
        let snp = split.snp.filter(|_| split.snp != split.es);

        for (kind, range) in [("sev", split.sev), ("es", split.es), ("snp", snp)] {
            let Some(range) = range else { continue };
            let usage = self.0.usage(range);

            writeln!(
                f,
                "{kind} {} {} {} {} {} {}",
                range.first().get(),
                range.last().get(),
                usage.free,
                usage.leased,
                usage.dirty,
                usage.leaked,
            )?;
        }
        writeln!(f, "flushes {}", self.0.flushes())
    }
}

/// `contexts`: a line for each encryption context.
struct ContextsFile(Arc<Registry>);

impl Writer for ContextsFile {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_table(f)
    }
}

/// `rejections`: a line for each of the last ioctls that were rejected.
struct RejectionsFile(Arc<Rejections>);

impl Writer for RejectionsFile {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_table(f)
    }
}

/// The files, which exist as long as the value.
#[pin_data]
pub(crate) struct Debug {
    #[pin]
    pool: File<PoolFile>,
    #[pin]
    contexts: File<ContextsFile>,
    #[pin]
    rejections: File<RejectionsFile>,
    /// Dropped after its files.
    dir: Dir,
}

impl Debug {
    pub(crate) fn new(
        asids: Arc<Asids>,
        registry: Arc<Registry>,
        rejections: Arc<Rejections>,
    ) -> impl PinInit<Self, Error> {
        let dir = Dir::new(c"kvm_amd_sev");

        try_pin_init!(Self {
            pool <- dir.read_only_file(c"pool", PoolFile(asids)),
            contexts <- dir.read_only_file(c"contexts", ContextsFile(registry)),
            rejections <- dir.read_only_file(c"rejections", RejectionsFile(rejections)),
            dir: dir.clone(),
        })
    }
}
