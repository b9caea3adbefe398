// SPDX-License-Identifier: GPL-2.0-or-later
//! PEK_GEN, PEK_CSR, PEK_CERT_IMPORT, PDH_GEN, PDH_CERT_EXPORT.

use core::mem::offset_of;

use super::Platform;
use super::identity::Identity;
use super::state::replace_identity;
use crate::crypto::cert::Certificate;
use crate::firmware::Firmware;
use crate::memory::Spa;
use crate::status::{Result, Status};
use crate::wire::{self, Buffer, PdhCertExport, PekCertImport};

impl Platform {
    /// The identity of the initialised platform.
    pub(crate) fn identity(&self) -> Result<&Identity> {
        match &self.running {
            Some(running) => Ok(&running.identity),
            None => Err(Status::INVALID_PLATFORM_STATE),
        }
    }
}

/// PEK_GEN: new PEK and PDH; the platform is self-owned afterwards.
pub fn pek_gen(fw: &mut Firmware, _: Spa) -> Result {
    let identity = fw.platform.identity()?;
    let new = identity.new_pek(&fw.platform.chip, &mut fw.rng);
    replace_identity(fw, new)
}

/// PDH_GEN: new PDH.
pub fn pdh_gen(fw: &mut Firmware, _: Spa) -> Result {
    let new = fw.platform.identity()?.new_pdh(&mut fw.rng);
    replace_identity(fw, new)
}

/// PEK_CSR: the PEK certificate for an owner to sign. With too short a buffer: its length.
pub fn pek_csr(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Buffer = fw.mem.read(buffer)?;
    let csr = fw.platform.identity()?.pek_csr();
    let size = size_of::<Certificate>();
    fw.mem.write_len(buffer, offset_of!(Buffer, len), size)?;
    if (cmd.len.get() as usize) < size {
        return Err(Status::INVALID_LENGTH);
    }
    let to = fw.mem.spa(cmd.address.get());
    fw.mem.write(to, &csr)
}

/// PEK_CERT_IMPORT: an owner takes the platform over. It keeps its PEK and gets a new PDH.
pub fn pek_cert_import(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: PekCertImport = fw.mem.read(buffer)?;
    wire::must_be_zero(&[cmd.reserved])?;
    let identity = fw.platform.identity()?;
    if identity.is_externally_owned() {
        return Err(Status::ALREADY_OWNED);
    }
    wire::exact_len::<Certificate>(cmd.pek_len)?;
    wire::exact_len::<Certificate>(cmd.oca_len)?;
    let pek: Certificate = fw.mem.read(fw.mem.spa(cmd.pek_address.get()))?;
    let oca: Certificate = fw.mem.read(fw.mem.spa(cmd.oca_address.get()))?;
    let new = identity.adopt(&pek, &oca, &fw.platform.chip, &mut fw.rng)?;
    replace_identity(fw, new)
}

/// PDH_CERT_EXPORT: PDH and the chain PEK, OCA, CEK. With too short a buffer: both lengths.
pub fn pdh_cert_export(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: PdhCertExport = fw.mem.read(buffer)?;
    wire::must_be_zero(&[cmd.reserved])?;
    let identity = fw.platform.identity()?;
    let (pdh_size, chain_size) = (size_of::<Certificate>(), size_of::<[Certificate; 3]>());
    fw.mem
        .write_len(buffer, offset_of!(PdhCertExport, pdh_len), pdh_size)?;
    fw.mem
        .write_len(buffer, offset_of!(PdhCertExport, chain_len), chain_size)?;
    if (cmd.pdh_len.get() as usize) < pdh_size || (cmd.chain_len.get() as usize) < chain_size {
        return Err(Status::INVALID_LENGTH);
    }
    let chain = identity.chain(&fw.platform.chip)?;
    fw.mem
        .write(fw.mem.spa(cmd.pdh_address.get()), &identity.pdh_cert)?;
    fw.mem.write(fw.mem.spa(cmd.chain_address.get()), &chain)
}
