// SPDX-License-Identifier: GPL-2.0-or-later
//! The host: `/dev/kvm`, `/dev/sev`, what they offer.

use std::arch::x86_64::__cpuid_count;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result};
use kvm_bindings::{KVM_CAP_VM_TYPES, KVM_X86_GRP_SEV, kvm_device_attr};
use kvm_ioctls::{Kvm, VmFd};
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::ioctl_iow_nr;

/// `KVM_CREATE_VM` types of x86.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum VmType {
    /// A plain VM, or one made SEV by the old `KVM_SEV_INIT`.
    Default = 0,
    /// SEV, made with `KVM_SEV_INIT2`.
    Sev = 2,
    /// SEV-ES.
    SevEs = 3,
    /// SEV-SNP.
    Snp = 4,
}

/// Device attribute `KVM_X86_SEV_IMPL` and its value (uapi/asm/kvm_sev_impl.h).
pub const SEV_IMPL: u64 = 0x5255_0000;
/// Device attribute `KVM_X86_SEV_IMPL_VERSION`.
pub const SEV_IMPL_VERSION: u64 = SEV_IMPL + 1;
/// Device attribute `KVM_X86_SEV_IMPL_FEATURES`.
pub const SEV_IMPL_FEATURES: u64 = SEV_IMPL + 2;
/// The letters "SEV-Rust".
pub const SEV_IMPL_ID: u64 = u64::from_le_bytes(*b"SEV-Rust");

const KVMIO: u32 = 0xae;
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);
ioctl_iow_nr!(KVM_HAS_DEVICE_ATTR, KVMIO, 0xe3, kvm_device_attr);

/// The two device files that every SEV VMM opens.
pub struct Host {
    /// `/dev/kvm`.
    pub kvm: Kvm,
    sev: File,
}

impl Host {
    /// Opens both devices.
    pub fn open() -> Result<Self> {
        let sev = open_sev().context("open /dev/sev (is ccp loaded, is there a PSP?)")?;
        Ok(Self { kvm: Kvm::new().context("open /dev/kvm")?, sev })
    }

    /// The `/dev/sev` descriptor to pass with commands.
    pub fn sev_fd(&self) -> RawFd {
        self.sev.as_raw_fd()
    }

    /// A bare VM of the given type: no memory, no vCPU, not initialised for SEV.
    pub fn create_vm(&self, kind: VmType) -> Result<VmFd, kvm_ioctls::Error> {
        self.kvm.create_vm_with_type(kind as u64)
    }

    /// The bit mask of VM types that KVM advertises.
    pub fn vm_types(&self) -> u32 {
        self.kvm.check_extension_raw(u64::from(KVM_CAP_VM_TYPES)) as u32
    }

    /// Whether a VM type is advertised.
    pub fn offers(&self, kind: VmType) -> bool {
        self.vm_types() & (1 << kind as u64) != 0
    }

    /// Reads a device attribute of `/dev/kvm`.
    pub fn device_attr(&self, group: u32, attr: u64) -> Result<u64, kvm_ioctls::Error> {
        let mut value = 0u64;
        let mut request = attribute(group, attr, &raw mut value as u64);
        // SAFETY: `request.addr` is a u64 of ours that outlives the call.
        let ret = unsafe { ioctl_with_mut_ref(&self.kvm, KVM_GET_DEVICE_ATTR(), &mut request) };
        if ret < 0 {
            return Err(kvm_ioctls::Error::last());
        }
        Ok(value)
    }

    /// Asks whether `/dev/kvm` has a device attribute.
    pub fn has_device_attr(&self, group: u32, attr: u64) -> Result<(), kvm_ioctls::Error> {
        let request = attribute(group, attr, 0);
        // SAFETY: the kernel only reads `request`.
        let ret = unsafe { ioctl_with_ref(&self.kvm, KVM_HAS_DEVICE_ATTR(), &request) };
        if ret < 0 {
            return Err(kvm_ioctls::Error::last());
        }
        Ok(())
    }

    /// Whether kvm_amd's SEV half is this project's (uapi/asm/kvm_sev_impl.h).
    pub fn is_ours(&self) -> bool {
        self.sev_attr(SEV_IMPL).is_ok_and(|id| id == SEV_IMPL_ID)
    }

    /// Reads a device attribute of the group `KVM_X86_GRP_SEV`.
    pub fn sev_attr(&self, attr: u64) -> Result<u64, kvm_ioctls::Error> {
        self.device_attr(KVM_X86_GRP_SEV, attr)
    }
}

fn attribute(group: u32, attr: u64, addr: u64) -> kvm_device_attr {
    kvm_device_attr { flags: 0, group, attr, addr }
}

/// Opens `/dev/sev` once more.
pub fn open_sev() -> Result<File> {
    Ok(OpenOptions::new().read(true).write(true).open("/dev/sev")?)
}

/// What CPUID leaf 0x8000001F says of memory encryption (APM volume 3).
#[derive(Clone, Copy, Debug)]
pub struct EncryptionLeaf {
    /// Position of the C-bit in a page-table entry.
    pub c_bit: u32,
    /// Highest ASID usable by encrypted guests.
    pub max_asid: u32,
    /// Lowest ASID for SEV guests without encrypted state.
    pub min_sev_asid: u32,
    /// SEV, SEV-ES and SEV-SNP in hardware.
    pub sev: bool,
    /// See `sev`.
    pub es: bool,
    /// See `sev`.
    pub snp: bool,
    /// Caches hold plaintext and ciphertext of a page coherently: nothing has to be flushed.
    pub coherent: bool,
}

impl EncryptionLeaf {
    /// Reads the leaf.
    pub fn read() -> Self {
        // SAFETY: every x86-64 CPU has CPUID; the leaf is answered with zeroes if unknown.
        let leaf = unsafe { __cpuid_count(0x8000_001f, 0) };
        Self {
            c_bit: leaf.ebx & 0x3f,
            max_asid: leaf.ecx,
            min_sev_asid: leaf.edx,
            sev: leaf.eax & (1 << 1) != 0,
            es: leaf.eax & (1 << 3) != 0,
            snp: leaf.eax & (1 << 4) != 0,
            coherent: leaf.eax & (1 << 10) != 0,
        }
    }

    /// ASIDs for plain SEV guests.
    pub fn sev_asids(&self) -> u32 {
        (self.max_asid + 1).saturating_sub(self.min_sev_asid)
    }

    /// ASIDs for SEV-ES guests.
    pub fn es_asids(&self) -> u32 {
        self.min_sev_asid.saturating_sub(1).min(self.max_asid)
    }

    /// The C-bit as a page-table mask.
    pub fn c_mask(&self) -> u64 {
        1 << self.c_bit
    }
}

/// A parameter of the kvm_amd module as sysfs shows it.
pub fn parameter(name: &str) -> Result<String> {
    let path = format!("/sys/module/kvm_amd/parameters/{name}");
    Ok(fs::read_to_string(&path).with_context(|| path.clone())?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_those_of_the_header() {
        let header = include_str!("../../uapi/asm/kvm_sev_impl.h");
        for (name, value) in [
            ("KVM_X86_SEV_IMPL", SEV_IMPL),
            ("KVM_X86_SEV_IMPL_VERSION", SEV_IMPL_VERSION),
            ("KVM_X86_SEV_IMPL_FEATURES", SEV_IMPL_FEATURES),
            ("KVM_SEV_IMPL_ID", SEV_IMPL_ID),
        ] {
            let defined = header.lines().find_map(|line| {
                let (found, number) = line.strip_prefix("#define ")?.split_once('\t')?;
                (found == name).then(|| number.trim())
            });
            let number = defined.and_then(|number| number.strip_prefix("0x")).expect(name);
            assert_eq!(u64::from_str_radix(number, 16), Ok(value), "{name}");
        }
    }
}
