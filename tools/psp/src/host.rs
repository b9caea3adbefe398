// SPDX-License-Identifier: GPL-2.0-or-later
//! What the machine offers the firmware: memory, keys, the RMP, cores, entropy, a log.

/// A service of the machine failed; the reason is the machine's to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostError;

/// How serious a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Level {
    /// The firmware cannot do what it was asked to for reasons outside the command.
    Error = 0,
    /// Something the operator of the machine wants to know.
    Info = 1,
}

/// Services of the machine. The calls are serialised: no core runs while a command does.
///
/// Addresses are system physical without the C-bit. ASID 0 means the bus view: ciphertext
/// where the memory is encrypted.
pub trait Host {
    /// Reads memory through the key of `asid`; any length, may cross pages.
    fn mem_read(&self, spa: u64, asid: u32, buf: &mut [u8]) -> Result<(), HostError>;
    /// Writes memory through the key of `asid`; any length, may cross pages.
    fn mem_write(&self, spa: u64, asid: u32, data: &[u8]) -> Result<(), HostError>;
    /// Installs or removes the memory encryption key of an ASID.
    fn asid_key(&self, asid: u32, key: Option<&[u8; 16]>) -> Result<(), HostError>;
    /// Makes a page, encrypted with the key of `asid`, the VMSA of an SEV-ES guest.
    fn vmsa_seal(&self, spa: u64, asid: u32) -> Result<(), HostError>;
    /// Sets every RMP entry to its default and protects the table itself.
    fn rmp_init(&self) -> Result<(), HostError>;
    /// The raw RMP entry of the 4 KiB page at `spa`.
    fn rmp_get(&self, spa: u64) -> Result<[u64; 2], HostError>;
    /// Replaces the raw RMP entry of the 4 KiB page at `spa`.
    fn rmp_set(&self, spa: u64, entry: [u64; 2]) -> Result<(), HostError>;
    /// Disables SNP on all cores, which do not look at the RMP any more.
    fn snp_disable(&self) -> Result<(), HostError>;
    /// A region that an IOMMU writes for itself, whole pages: address and bytes. `None` if there
    /// are no more than `index`.
    fn iommu_pages(&self, index: u32) -> Option<(u64, u64)>;
    /// Number of cores (logical processors) of the machine.
    fn ncpus(&self) -> u32;
    /// A model-specific register of a core.
    fn msr_get(&self, cpu: u32, msr: u32) -> Result<u64, HostError>;
    /// Whether a core has halted for good with nothing of an encrypted guest in its caches.
    fn cpu_is_parked(&self, cpu: u32) -> bool;
    /// Fills `buf` with unpredictable bytes.
    fn entropy(&self, buf: &mut [u8]) -> Result<(), HostError>;
    /// Adds a line to the machine's log.
    fn log(&self, level: Level, line: &str);
}
