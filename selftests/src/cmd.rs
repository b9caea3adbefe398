// SPDX-License-Identifier: GPL-2.0-or-later
//! `KVM_MEMORY_ENCRYPT_OP`: the command block and the three parts of an answer.
//!
//! Source: Documentation/virt/kvm/x86/amd-memory-encryption.rst and the uapi header.

use std::fmt;
use std::os::fd::RawFd;

use kvm_bindings::{kvm_enc_region, kvm_sev_cmd};
use kvm_ioctls::VmFd;
use nix::errno::Errno;
use vmm_sys_util::ioctl::ioctl_with_val;
use vmm_sys_util::ioctl_ior_nr;

/// Value of `error` before every command: whoever leaves it alone is seen to.
pub const KEPT: u32 = 0x5a5a_5a5a;

/// What a SEV ioctl answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0, or the error number.
    pub errno: i32,
    /// `kvm_sev_cmd.error` afterwards; [`KEPT`] if nobody wrote it.
    pub fw: u32,
}

impl Answer {
    /// Success, told by firmware.
    pub const OK: Answer = Answer { errno: 0, fw: 0 };
    /// Success without asking firmware.
    pub const OK_KEPT: Answer = Answer { errno: 0, fw: KEPT };

    /// A refusal by KVM itself: firmware was not asked.
    pub const fn refused(errno: Errno) -> Self {
        Answer { errno: errno as i32, fw: KEPT }
    }

    /// A refusal by firmware: `EIO` and the status.
    pub const fn firmware(status: u32) -> Self {
        Answer { errno: Errno::EIO as i32, fw: status }
    }

    /// From the result of an ioctl that has no firmware error.
    pub fn from_result<T>(result: Result<T, kvm_ioctls::Error>) -> Self {
        Answer { errno: result.err().map_or(0, |e| e.errno()), fw: KEPT }
    }

    /// Whether the ioctl succeeded.
    pub fn is_ok(&self) -> bool {
        self.errno == 0
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            0 => write!(f, "ret=0 errno=0")?,
            // Errno's Debug form is the symbol.
            e => write!(f, "ret=-1 errno={:?}", Errno::from_raw(e))?,
        }
        match self.fw {
            KEPT => write!(f, " fw=kept"),
            fw => write!(f, " fw={fw:#x}"),
        }
    }
}

/// Firmware status codes used by the tests (uapi/linux/psp-sev.h).
pub mod status {
    /// The platform is not in the state that the command needs.
    pub const INVALID_PLATFORM_STATE: u32 = 0x1;
    /// The guest is not in the state that the command needs.
    pub const INVALID_GUEST_STATE: u32 = 0x2;
    /// A buffer is too small, or a length is wrong.
    pub const INVALID_LEN: u32 = 0x4;
    /// The policy forbids it.
    pub const POLICY_FAILURE: u32 = 0x7;
    /// An address is misaligned or out of range.
    pub const INVALID_ADDRESS: u32 = 0x9;
    /// A MAC does not match the data.
    pub const BAD_MEASUREMENT: u32 = 0xb;
    /// The ASID is bound to a guest.
    pub const ASID_OWNED: u32 = 0xc;
    /// DF_FLUSH has to come before the ASID can be used again.
    pub const DFFLUSH_REQUIRED: u32 = 0xf;
    /// No guest has this handle.
    pub const INVALID_GUEST: u32 = 0x10;
    /// No free guest context.
    pub const RESOURCE_LIMIT: u32 = 0x17;
    /// A hardware condition that leaves the platform usable.
    pub const HWERROR_PLATFORM: u32 = 0x13;
}

/// Issues command `id` on `vm` with `data` as its argument address.
///
/// `data` may be any number: the kernel validates it. It must not be the address of a Rust
/// object that is borrowed elsewhere; the callers pass addresses of [`crate::mem::Mapping`]s
/// and of structures that they hold exclusively.
pub fn issue(vm: &VmFd, id: u32, data: u64, sev_fd: RawFd) -> Answer {
    let mut cmd =
        kvm_sev_cmd { id, data, error: KEPT, sev_fd: sev_fd as u32, ..Default::default() };
    let result = vm.encrypt_op_sev(&mut cmd);
    Answer { errno: result.err().map_or(0, |e| e.errno()), fw: cmd.error }
}

const KVMIO: u32 = 0xae;
ioctl_ior_nr!(KVM_MEMORY_ENCRYPT_REG_REGION, KVMIO, 0xbb, kvm_enc_region);
ioctl_ior_nr!(KVM_MEMORY_ENCRYPT_UNREG_REGION, KVMIO, 0xbc, kvm_enc_region);

/// Issues `KVM_MEMORY_ENCRYPT_REG_REGION` and then `KVM_MEMORY_ENCRYPT_UNREG_REGION` with the
/// region at `address`, which the kernel only reads.
pub fn regions_at(vm: &VmFd, address: u64) -> [Answer; 2] {
    [KVM_MEMORY_ENCRYPT_REG_REGION(), KVM_MEMORY_ENCRYPT_UNREG_REGION()].map(|request| {
        // SAFETY: the kernel checks the address and only reads there.
        let ret = unsafe { ioctl_with_val(vm, request, address) };
        Answer::from_result(if ret < 0 { Err(kvm_ioctls::Error::last()) } else { Ok(()) })
    })
}

/// Issues `KVM_MEMORY_ENCRYPT_OP` with the command block itself at `address`.
pub fn issue_at(vm: &VmFd, address: u64) -> Answer {
    // SAFETY: the kernel copies the block from and to user addresses that it checks; as with
    // `issue`, no caller passes an address of borrowed Rust memory.
    Answer::from_result(unsafe { vm.encrypt_op(address as *mut kvm_sev_cmd) })
}
