// SPDX-License-Identifier: GPL-2.0-or-later
//! The C ABI between the machine's PSP device and this library, version 5. It mirrors
//! `include/hw/misc/sevfw.h` of the QEMU series. The only file with unsafe code.
//!
//! Contract with the device, on which every block below relies:
//! - the functions and `opaque` of [`SevFwHost`] stay valid until `sevfw_free`;
//! - a `SevFw` pointer comes from `sevfw_new`, is not used after `sevfw_free`, and calls on it
//!   are serialised; host functions do not call back into the library;
//! - strings are NUL-terminated, output pointers are writable.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::rc::Rc;

use crate::firmware::{Event, Firmware};
use crate::host::{Host, HostError, Level};

/// Version of the interface.
pub const SEVFW_ABI: u32 = 5;

const EVENT_RESET: u32 = 1;
const EVENT_WBINVD: u32 = 2;

/// Services of the machine; functions return 0 on success.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs)] // see trait Host
pub struct SevFwHost {
    pub abi: u32,
    pub size: u32,
    pub opaque: *mut c_void,
    pub mem_read: unsafe extern "C" fn(*mut c_void, u64, u32, *mut c_void, usize) -> c_int,
    pub mem_write: unsafe extern "C" fn(*mut c_void, u64, u32, *const c_void, usize) -> c_int,
    pub asid_key: unsafe extern "C" fn(*mut c_void, u32, *const u8) -> c_int,
    pub vmsa_seal: unsafe extern "C" fn(*mut c_void, u64, u32) -> c_int,
    pub rmp_init: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub rmp_get: unsafe extern "C" fn(*mut c_void, u64, *mut u64) -> c_int,
    pub rmp_set: unsafe extern "C" fn(*mut c_void, u64, *const u64) -> c_int,
    pub snp_disable: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub iommu_pages: unsafe extern "C" fn(*mut c_void, u32, *mut u64, *mut u64) -> c_int,
    pub ncpus: unsafe extern "C" fn(*mut c_void) -> u32,
    pub msr_get: unsafe extern "C" fn(*mut c_void, u32, u32, *mut u64) -> c_int,
    pub cpu_is_parked: unsafe extern "C" fn(*mut c_void, u32) -> u32,
    pub entropy: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> c_int,
    pub log: unsafe extern "C" fn(*mut c_void, c_int, *const c_char, usize),
}

/// The outcome of a command.
#[repr(C)]
pub struct SevFwReply {
    /// Status code.
    pub status: u32,
    /// Microseconds that the command is to take.
    pub delay_us: u32,
}

/// A firmware with the reply of a control request that did not fit into its buffer: a repeated
/// request gets it instead of being executed again.
pub struct SevFw {
    firmware: Firmware,
    kept: Option<(Vec<u8>, String)>,
}

fn check(code: c_int) -> Result<(), HostError> {
    if code == 0 { Ok(()) } else { Err(HostError) }
}

impl Host for SevFwHost {
    fn mem_read(&self, spa: u64, asid: u32, buf: &mut [u8]) -> Result<(), HostError> {
        // SAFETY: `buf` is valid for its length; the rest is the device's contract.
        check(unsafe {
            (self.mem_read)(self.opaque, spa, asid, buf.as_mut_ptr().cast(), buf.len())
        })
    }

    fn mem_write(&self, spa: u64, asid: u32, data: &[u8]) -> Result<(), HostError> {
        // SAFETY: `data` is valid for its length; the rest is the device's contract.
        check(unsafe { (self.mem_write)(self.opaque, spa, asid, data.as_ptr().cast(), data.len()) })
    }

    fn asid_key(&self, asid: u32, key: Option<&[u8; 16]>) -> Result<(), HostError> {
        let key = key.map_or(std::ptr::null(), |key| key.as_ptr());
        // SAFETY: `key` is NULL or points to 16 bytes, as the function wants.
        check(unsafe { (self.asid_key)(self.opaque, asid, key) })
    }

    fn vmsa_seal(&self, spa: u64, asid: u32) -> Result<(), HostError> {
        // SAFETY: the device's contract.
        check(unsafe { (self.vmsa_seal)(self.opaque, spa, asid) })
    }

    fn rmp_init(&self) -> Result<(), HostError> {
        // SAFETY: the device's contract.
        check(unsafe { (self.rmp_init)(self.opaque) })
    }

    fn rmp_get(&self, spa: u64) -> Result<[u64; 2], HostError> {
        let mut entry = [0; 2];
        // SAFETY: `entry` has the two elements that the function writes.
        check(unsafe { (self.rmp_get)(self.opaque, spa, entry.as_mut_ptr()) })?;
        Ok(entry)
    }

    fn rmp_set(&self, spa: u64, entry: [u64; 2]) -> Result<(), HostError> {
        // SAFETY: `entry` has the two elements that the function reads.
        check(unsafe { (self.rmp_set)(self.opaque, spa, entry.as_ptr()) })
    }

    fn snp_disable(&self) -> Result<(), HostError> {
        // SAFETY: the device's contract.
        check(unsafe { (self.snp_disable)(self.opaque) })
    }

    fn iommu_pages(&self, index: u32) -> Option<(u64, u64)> {
        let (mut spa, mut size) = (0, 0);
        // SAFETY: `spa` and `size` are what the function writes.
        check(unsafe { (self.iommu_pages)(self.opaque, index, &raw mut spa, &raw mut size) })
            .ok()?;
        Some((spa, size))
    }

    fn ncpus(&self) -> u32 {
        // SAFETY: the device's contract.
        unsafe { (self.ncpus)(self.opaque) }
    }

    fn msr_get(&self, cpu: u32, msr: u32) -> Result<u64, HostError> {
        let mut value = 0;
        // SAFETY: `value` is what the function writes.
        check(unsafe { (self.msr_get)(self.opaque, cpu, msr, &raw mut value) })?;
        Ok(value)
    }

    fn cpu_is_parked(&self, cpu: u32) -> bool {
        // SAFETY: the device's contract.
        unsafe { (self.cpu_is_parked)(self.opaque, cpu) != 0 }
    }

    fn entropy(&self, buf: &mut [u8]) -> Result<(), HostError> {
        // SAFETY: `buf` is valid for its length.
        check(unsafe { (self.entropy)(self.opaque, buf.as_mut_ptr().cast(), buf.len()) })
    }

    fn log(&self, level: Level, line: &str) {
        // SAFETY: `line` is valid for its length, and the function does not keep it.
        unsafe {
            (self.log)(
                self.opaque,
                level as c_int,
                line.as_ptr().cast(),
                line.len(),
            )
        }
    }
}

/// The ABI version of the library.
#[unsafe(no_mangle)]
pub extern "C" fn sevfw_abi() -> u32 {
    SEVFW_ABI
}

/// Makes a firmware; NULL if the host is of another version or the configuration is bad, with
/// the reason in the host's log where there is one.
///
/// # Safety
/// `host` points to a host structure of any version or is NULL; `config` is a string or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sevfw_new(host: *const SevFwHost, config: *const c_char) -> *mut SevFw {
    if host.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: every version of the structure begins with `abi` and `size`.
    let (abi, size) = unsafe { (*host.cast::<u32>(), *host.cast::<u32>().add(1)) };
    if abi != SEVFW_ABI || (size as usize) < size_of::<SevFwHost>() {
        return std::ptr::null_mut();
    }
    // SAFETY: version and size were checked.
    let host = unsafe { *host };
    let config = if config.is_null() {
        c""
    } else {
        // SAFETY: a NUL-terminated string.
        unsafe { CStr::from_ptr(config) }
    };
    let made = match config.to_str() {
        Ok(config) => Firmware::new(Rc::new(host), config),
        Err(_) => Err("config: not UTF-8".into()),
    };
    match made {
        Ok(firmware) => Box::into_raw(Box::new(SevFw {
            firmware,
            kept: None,
        })),
        Err(error) => {
            host.log(Level::Error, &error);
            std::ptr::null_mut()
        }
    }
}

/// Frees a firmware.
///
/// # Safety
/// `fw` comes from `sevfw_new` or is NULL, and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sevfw_free(fw: *mut SevFw) {
    if !fw.is_null() {
        // SAFETY: made by Box::into_raw in sevfw_new.
        drop(unsafe { Box::from_raw(fw) });
    }
}

/// Executes a command.
///
/// # Safety
/// `fw` comes from `sevfw_new`; `reply` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sevfw_command(
    fw: *mut SevFw,
    cmd: u32,
    cmdbuf_spa: u64,
    reply: *mut SevFwReply,
) {
    // SAFETY: a live firmware, and calls are serialised.
    let fw = unsafe { &mut *fw };
    let outcome = fw.firmware.command(cmd, cmdbuf_spa);
    // SAFETY: writable.
    unsafe {
        *reply = SevFwReply {
            status: outcome.status.0.into(),
            delay_us: outcome.delay_us,
        };
    }
}

/// Reports an event; unknown ones are ignored.
///
/// # Safety
/// `fw` comes from `sevfw_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sevfw_event(fw: *mut SevFw, event: u32, arg: u32) {
    // SAFETY: a live firmware, and calls are serialised.
    let fw = unsafe { &mut *fw };
    match event {
        EVENT_RESET => fw.firmware.event(Event::Reset),
        EVENT_WBINVD => fw.firmware.event(Event::Wbinvd(arg)),
        _ => {}
    }
}

/// Answers a control request. As much of the NUL-terminated reply as fits into `size` bytes is
/// written; the result is the size that the whole needs, with the NUL. A caller whose buffer was
/// too small repeats the same request with a larger one and gets the rest of the same reply.
///
/// # Safety
/// `fw` comes from `sevfw_new`; `request` is a string; `reply` has `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sevfw_control(
    fw: *mut SevFw,
    request: *const c_char,
    reply: *mut c_char,
    size: usize,
) -> usize {
    // SAFETY: a live firmware, and calls are serialised.
    let fw = unsafe { &mut *fw };
    // SAFETY: a NUL-terminated string.
    let request = unsafe { CStr::from_ptr(request) }.to_bytes();
    let text = match fw.kept.take() {
        Some((kept_request, text)) if kept_request == request => text,
        _ => fw.firmware.control(&String::from_utf8_lossy(request)),
    };
    let needed = text.len().saturating_add(1);
    if size > 0 {
        let n = text.len().min(size.saturating_sub(1));
        // SAFETY: n + 1 ≤ size bytes of `reply` are writable, n ≤ the length of `text`, and the
        // caller's buffer does not overlap our string.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr().cast(), reply, n);
            *reply.add(n) = 0;
        }
    }
    if needed > size {
        fw.kept = Some((request.to_vec(), text));
    }
    needed
}
