// SPDX-License-Identifier: GPL-2.0-or-later
//! The library through its C ABI, as the device uses it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use sevfw::ffi::*;

/// Memory, and the last log line.
struct Device {
    ram: Vec<u8>,
    log: String,
}

unsafe fn device<'a>(opaque: *mut c_void) -> &'a mut Device {
    // SAFETY: every host below has a Device behind `opaque`.
    unsafe { &mut *opaque.cast::<Device>() }
}

unsafe extern "C" fn mem_read(
    o: *mut c_void,
    spa: u64,
    _: u32,
    buf: *mut c_void,
    n: usize,
) -> c_int {
    // SAFETY: as above; `buf` has n bytes.
    let (ram, buf) = unsafe {
        (
            &device(o).ram,
            std::slice::from_raw_parts_mut(buf.cast::<u8>(), n),
        )
    };
    match ram.get(spa as usize..).and_then(|ram| ram.get(..n)) {
        Some(bytes) => buf.copy_from_slice(bytes),
        None => return -1,
    }
    0
}

unsafe extern "C" fn mem_write(
    o: *mut c_void,
    spa: u64,
    _: u32,
    data: *const c_void,
    n: usize,
) -> c_int {
    // SAFETY: as above; `data` has n bytes.
    let (ram, data) = unsafe {
        (
            &mut device(o).ram,
            std::slice::from_raw_parts(data.cast::<u8>(), n),
        )
    };
    match ram.get_mut(spa as usize..).and_then(|ram| ram.get_mut(..n)) {
        Some(bytes) => bytes.copy_from_slice(data),
        None => return -1,
    }
    0
}

unsafe extern "C" fn asid_key(_: *mut c_void, _: u32, _: *const u8) -> c_int {
    0
}

unsafe extern "C" fn vmsa_seal(_: *mut c_void, _: u64, _: u32) -> c_int {
    -1
}

unsafe extern "C" fn rmp_init(_: *mut c_void) -> c_int {
    -1
}

unsafe extern "C" fn rmp_get(_: *mut c_void, _: u64, _: *mut u64) -> c_int {
    -1
}

unsafe extern "C" fn rmp_set(_: *mut c_void, _: u64, _: *const u64) -> c_int {
    -1
}

unsafe extern "C" fn snp_disable(_: *mut c_void) -> c_int {
    -1
}

unsafe extern "C" fn iommu_pages(_: *mut c_void, _: u32, _: *mut u64, _: *mut u64) -> c_int {
    -1
}

unsafe extern "C" fn ncpus(_: *mut c_void) -> u32 {
    1
}

unsafe extern "C" fn msr_get(_: *mut c_void, _: u32, _: u32, value: *mut u64) -> c_int {
    // SAFETY: `value` is writable.
    unsafe { *value = 1 << 23 };
    0
}

unsafe extern "C" fn cpu_is_parked(_: *mut c_void, _: u32) -> u32 {
    0
}

unsafe extern "C" fn entropy(_: *mut c_void, _: *mut c_void, _: usize) -> c_int {
    -1
}

unsafe extern "C" fn log(o: *mut c_void, _: c_int, text: *const c_char, n: usize) {
    // SAFETY: as above; `text` has n bytes.
    let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), n) };
    unsafe { device(o) }.log = String::from_utf8_lossy(text).into_owned();
}

fn host(device: &mut Device) -> SevFwHost {
    SevFwHost {
        abi: SEVFW_ABI,
        size: size_of::<SevFwHost>() as u32,
        opaque: ptr::from_mut(device).cast(),
        mem_read,
        mem_write,
        asid_key,
        vmsa_seal,
        rmp_init,
        rmp_get,
        rmp_set,
        snp_disable,
        iommu_pages,
        ncpus,
        msr_get,
        cpu_is_parked,
        entropy,
        log,
    }
}

fn new(device: &mut Device, config: &str) -> *mut SevFw {
    let config = CString::new(config).unwrap();
    let host = host(device);
    // SAFETY: `host` outlives the call; its functions and the device outlive the firmware.
    unsafe { sevfw_new(&host, config.as_ptr()) }
}

fn machine() -> Device {
    Device {
        ram: vec![0; 0x10000],
        log: String::new(),
    }
}

/// One call of sevfw_control with a buffer of that size: text, size needed.
fn control(fw: *mut SevFw, request: &str, size: usize) -> (String, usize) {
    let request = CString::new(request).unwrap();
    let mut buf = vec![0x55u8; size + 1];
    // SAFETY: a live firmware, a string, `size` writable bytes.
    let needed = unsafe { sevfw_control(fw, request.as_ptr(), buf.as_mut_ptr().cast(), size) };
    assert_eq!(buf[size], 0x55, "written beyond the buffer");
    if size == 0 {
        return (String::new(), needed);
    }
    let text = CStr::from_bytes_until_nul(&buf).unwrap();
    (text.to_str().unwrap().into(), needed)
}

/// A struct of 2 u32, a pointer and fourteen functions on x86-64: sevfw.h.
#[test]
fn layout_is_that_of_the_header() {
    assert_eq!(size_of::<SevFwHost>(), 8 + 15 * 8);
    assert_eq!(std::mem::offset_of!(SevFwHost, opaque), 8);
    assert_eq!(std::mem::offset_of!(SevFwHost, asid_key), 32);
    assert_eq!(std::mem::offset_of!(SevFwHost, cpu_is_parked), 104);
    assert_eq!(std::mem::offset_of!(SevFwHost, log), 120);
    assert_eq!(size_of::<SevFwReply>(), 8);
    assert_eq!(sevfw_abi(), 5);
}

#[test]
fn commands_and_control_work_through_the_abi() {
    let mut device = machine();
    let fw = new(&mut device, "seed=01");
    assert!(!fw.is_null());
    let mut reply = SevFwReply {
        status: 99,
        delay_us: 99,
    };
    // SAFETY: a live firmware and a writable reply, here and below.
    unsafe { sevfw_command(fw, 1, 0x1000, &mut reply) };
    assert_eq!((reply.status, reply.delay_us), (0, 0));
    unsafe { sevfw_command(fw, 0xa, 0, &mut reply) };
    assert_eq!(reply.status, 0xe);
    unsafe { sevfw_event(fw, 2, 0) };
    unsafe { sevfw_event(fw, 77, 0) };
    unsafe { sevfw_command(fw, 0xa, 0, &mut reply) };
    assert_eq!(reply.status, 0);
    unsafe { sevfw_event(fw, 1, 0) };
    unsafe { sevfw_command(fw, 4, 0x1000, &mut reply) };
    assert_eq!(reply.status, 0);
    assert_eq!(device.ram[0x1000..0x1003], [1, 55, 0]);

    // Too small a buffer, and the request again: executed once.
    let arm = "fault cmd=NOP n=1 delay=5";
    assert_eq!(control(fw, arm, 0), (String::new(), 12));
    assert_eq!(control(fw, arm, 5), (r#"{"ok"#[..4].into(), 12));
    assert_eq!(control(fw, arm, 12), (r#"{"ok":true}"#.into(), 12));
    for delay in [5, 0] {
        unsafe { sevfw_command(fw, 0xe, 0, &mut reply) };
        assert_eq!(reply.delay_us, delay);
    }
    // A kept reply is not for another request.
    control(fw, "counters", 1);
    assert_eq!(control(fw, "clear-faults", 64).0, r#"{"ok":true}"#);
    assert!(control(fw, "counters", 4096).0.contains("\"NOP\":2"));
    // SAFETY: the last use.
    unsafe { sevfw_free(fw) };
}

#[test]
fn what_cannot_be_made_is_null_with_a_reason() {
    let mut device = machine();
    assert!(new(&mut device, "slots=none").is_null());
    assert!(device.log.contains("slots=none"));
    assert!(new(&mut device, "").is_null());
    assert!(device.log.contains("entropy"));
    for change in [
        |host: &mut SevFwHost| host.abi = 1,
        |host: &mut SevFwHost| host.size -= 8,
    ] {
        let mut host = host(&mut device);
        change(&mut host);
        // SAFETY: a host structure of another version is allowed.
        assert!(unsafe { sevfw_new(&host, c"seed=01".as_ptr()) }.is_null());
    }
    // SAFETY: NULL is allowed.
    unsafe {
        assert!(sevfw_new(ptr::null(), ptr::null()).is_null());
        sevfw_free(ptr::null_mut());
    }
}
