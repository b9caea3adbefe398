// SPDX-License-Identifier: GPL-2.0-or-later
//! INIT, INIT_EX, SHUTDOWN, PLATFORM_RESET, PLATFORM_STATUS, DF_FLUSH, GET_ID,
//! DOWNLOAD_FIRMWARE, NOP.

use core::mem::offset_of;

use sha2::{Digest, Sha256};
use zerocopy::little_endian::U32;

use super::identity::Identity;
use super::nv::{self, Content, NV_SIZE};
use super::{Home, Running};
use crate::firmware::{API, BUILD, Firmware};
use crate::host::Level;
use crate::memory::Spa;
use crate::status::{Result, Status};
use crate::wire::{self, Buffer};

const MSR_SYSCFG: u32 = 0xc001_0010;
/// SYSCFG[MemEncryptionModEn].
const SYSCFG_MEM_ENCRYPT: u64 = 1 << 23;

const FLAG_ES: u32 = 1;
/// Size and alignment of the trusted memory region that SEV-ES needs (Linux `sev-dev.c`).
const TMR_SIZE: u32 = 1 << 20;
/// The same once SNP is initialised.
const SNP_TMR_SIZE: u32 = 2 << 20;

const STATUS_OWNED: u32 = 1;
const STATUS_ES: u32 = 1 << 8;

fn check_tmr(fw: &Firmware, address: u64, len: u32) -> Result {
    let size = if fw.snp.is_initialized() {
        SNP_TMR_SIZE
    } else {
        TMR_SIZE
    };
    if len < size {
        return Err(Status::INVALID_LENGTH);
    }
    let tmr = fw.mem.spa(address).aligned(u64::from(size))?;
    let mut probe = [0];
    fw.mem.read_bytes(tmr, &mut probe)?;
    let last = tmr.offset(u64::from(len).saturating_sub(1))?;
    fw.mem.read_bytes(last, &mut probe)
}

/// Every core must have memory encryption enabled: INVALID_CONFIG.
fn check_cores(fw: &Firmware) -> Result {
    for core in 0..fw.host.ncpus() {
        match fw.host.msr_get(core, MSR_SYSCFG) {
            Ok(syscfg) if syscfg & SYSCFG_MEM_ENCRYPT != 0 => {}
            Ok(_) => return Err(Status::INVALID_CONFIG),
            Err(_) => return Err(Status::HWERROR_PLATFORM),
        }
    }
    Ok(())
}

fn start(fw: &mut Firmware, flags: u32, tmr: (u64, u32), home: Home) -> Result {
    if flags & !FLAG_ES != 0 {
        return Err(Status::INVALID_PARAM);
    }
    let es = flags & FLAG_ES != 0;
    if es {
        check_tmr(fw, tmr.0, tmr.1)?;
    }
    check_cores(fw)?;
    let content = match home {
        Home::Flash => fw.platform.flash.load().map_err(|error| {
            let line = format!("the persistent state cannot be read: {error}");
            fw.host.log(Level::Error, &line);
            Status::HWERROR_PLATFORM
        })?,
        Home::Buffer(_) if fw.platform.reset_pending => Vec::new(),
        Home::Buffer(spa) => {
            let mut area = nv::blank();
            fw.mem.read_bytes(spa, &mut area)?;
            area
        }
    };
    let identity = match nv::open(&content, &fw.platform.chip) {
        Content::Valid(identity) => identity,
        Content::Blank => {
            let identity = Box::new(Identity::generate(&fw.platform.chip, &mut fw.rng));
            save(fw, &identity, home)?;
            identity
        }
        Content::Corrupt => {
            // The next attempt starts afresh: Linux `__sev_platform_init_locked` counts on it.
            let line = "the persistent state failed its check and was discarded";
            fw.host.log(Level::Error, line);
            store(fw, &nv::blank(), home)?;
            return Err(Status::SECURE_DATA_INVALID);
        }
    };
    if let Home::Buffer(_) = home {
        fw.platform.reset_pending = false;
    }
    fw.asids.mark_all_dirty(fw.running_cores());
    fw.platform.running = Some(Running { es, identity, home });
    Ok(())
}

/// Writes an area to where the persistent state lives.
fn store(fw: &mut Firmware, area: &[u8], home: Home) -> Result {
    match home {
        Home::Buffer(spa) => {
            fw.mem.write_bytes(spa, area)?;
            fw.platform.last_buffer = Some((spa, Sha256::digest(area).into()));
            Ok(())
        }
        Home::Flash => fw.platform.flash.store(area).map_err(|error| {
            let line = format!("the persistent state cannot be written: {error}");
            fw.host.log(Level::Error, &line);
            Status::HWERROR_PLATFORM
        }),
    }
}

fn save(fw: &mut Firmware, identity: &Identity, home: Home) -> Result {
    let area = nv::seal(identity, &fw.platform.chip, &mut fw.rng);
    store(fw, &area, home)
}

/// Replaces the identity of the initialised platform and makes it persistent.
pub(super) fn replace_identity(fw: &mut Firmware, identity: Identity) -> Result {
    let home = match &fw.platform.running {
        Some(running) => running.home,
        None => return Err(Status::INVALID_PLATFORM_STATE),
    };
    save(fw, &identity, home)?;
    if let Some(running) = &mut fw.platform.running {
        *running.identity = identity;
    }
    Ok(())
}

/// INIT: the persistent state is in the chip's own store.
pub fn init(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: wire::Init = fw.mem.read(buffer)?;
    wire::must_be_zero(&[cmd.reserved])?;
    let tmr = (cmd.tmr_address.get(), cmd.tmr_len.get());
    start(fw, cmd.flags.get(), tmr, Home::Flash)
}

/// INIT_EX: the persistent state is in a buffer that the driver fills and saves.
pub fn init_ex(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: wire::InitEx = fw.mem.read(buffer)?;
    wire::exact_len::<wire::InitEx>(cmd.length)?;
    wire::must_be_zero(&[cmd.reserved])?;
    if cmd.nv_len.get() as usize != NV_SIZE {
        return Err(Status::INVALID_LENGTH);
    }
    let area = fw.mem.spa(cmd.nv_address.get()).aligned(4096)?;
    let tmr = (cmd.tmr_address.get(), cmd.tmr_len.get());
    start(fw, cmd.flags.get(), tmr, Home::Buffer(area))
}

/// SHUTDOWN: every guest is deleted.
pub fn shutdown(fw: &mut Firmware, _: Spa) -> Result {
    fw.drop_all_guests();
    fw.platform.running = None;
    Ok(())
}

/// PLATFORM_RESET: the persistent state is deleted, wherever it is.
///
/// The buffer of the last INIT_EX is blanked only while it still holds what was written there:
/// after SHUTDOWN the driver may have freed it. unspecified.
pub fn reset(fw: &mut Firmware, _: Spa) -> Result {
    if let Some((spa, digest)) = fw.platform.last_buffer {
        let mut area = nv::blank();
        let ours = fw.mem.read_bytes(spa, &mut area).is_ok()
            && Sha256::digest(&area)[..] == digest
            && store(fw, &nv::blank(), Home::Buffer(spa)).is_ok();
        fw.platform.reset_pending = !ours;
    } else {
        fw.platform.reset_pending = true;
    }
    store(fw, &nv::blank(), Home::Flash)
}

/// PLATFORM_STATUS.
pub fn status(fw: &mut Firmware, buffer: Spa) -> Result {
    let mut flags = 0;
    if let Some(running) = &fw.platform.running {
        if running.identity.is_externally_owned() {
            flags |= STATUS_OWNED;
        }
        if running.es {
            flags |= STATUS_ES;
        }
    }
    let status = wire::PlatformStatus {
        api_major: API[0],
        api_minor: API[1],
        state: fw.state() as u8,
        flags: U32::new(flags),
        build: BUILD,
        guest_count: U32::new(u32::try_from(fw.guests.len()).unwrap_or(u32::MAX)),
    };
    fw.mem.write(buffer, &status)
}

/// DF_FLUSH: released ASIDs become usable again.
pub fn df_flush(fw: &mut Firmware, _: Spa) -> Result {
    crate::snp::platform::flush(fw)
}

/// GET_ID: the identifier of the only socket.
pub fn get_id(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: Buffer = fw.mem.read(buffer)?;
    let id = fw.platform.chip.id();
    fw.mem
        .write_len(buffer, offset_of!(Buffer, len), id.len())?;
    if (cmd.len.get() as usize) < id.len() {
        return Err(Status::INVALID_LENGTH);
    }
    let to = fw.mem.spa(cmd.address.get());
    fw.mem.write_bytes(to, &id)
}

/// DOWNLOAD_FIRMWARE and SNP_DOWNLOAD_FIRMWARE_EX: no image can be signed for this chip, and
/// there is nothing to replace: UNSUPPORTED.
pub fn download_firmware(fw: &mut Firmware, _: Spa) -> Result {
    let line = "the emulated firmware cannot be replaced by an image; use another library";
    fw.host.log(Level::Info, line);
    Err(Status::UNSUPPORTED)
}

/// NOP.
pub fn nop(_: &mut Firmware, _: Spa) -> Result {
    Ok(())
}
