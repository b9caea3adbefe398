// SPDX-License-Identifier: GPL-2.0-or-later
//! A firmware image for SNP guests, which programs that compute launch digests (crate `sev`,
//! `sev-snp-measure`) can read, and its launch in the way of QEMU.
//!
//! The image does nothing; it has what such programs look for: a table of identified entries at
//! its end, with the entry point of APs and a list of pages to load (edk2,
//! OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm and X64/OvmfSevMetadata.asm).

use std::fs;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kvm_bindings::*;
use sev::measurement::ovmf::guid_le_to_slice;
use sev::measurement::snp::{SnpLaunchDigest, SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType};

use crate::host::Host;
use crate::mem::{GuestMemory, PAGE};
use crate::snp::{PageType, Snp, features, slot};

/// Bytes of the image.
pub const SIZE: usize = 16 * PAGE;
/// Where it is in the guest: its end is at 4 GiB.
pub const GPA: u64 = (1 << 32) - SIZE as u64;
/// The processor that the guest believes to have.
pub const CPU: CpuType = CpuType::EpycMilan;
/// Entry point of the first vCPU.
const RESET: u32 = 0xffff_fff0;
/// Entry point of the others.
const AP_RESET: u32 = 0xffff_f004;
/// Distance of the list of pages from the end.
const LIST: usize = PAGE;

const FOOTER: &str = "96b582de-1fb2-45f7-baea-a366c55a082d";
const RESET_BLOCK: &str = "00f771de-1a7e-4fcb-890e-68c77e2fb44e";
const METADATA: &str = "dc886566-984a-4798-a75e-5585a7bf67cc";

/// Pages besides the image, as the list has them: its number of the type, type, range.
const PAGES: [(u32, PageType, Range<usize>); 5] = [
    (1, PageType::Zero, 0x0..0x9000),
    (2, PageType::Secrets, 0xd000..0xe000),
    (3, PageType::Cpuid, 0xe000..0xf000),
    (4, PageType::Zero, 0xf000..0x1_0000),
    (1, PageType::Zero, 0x1_0000..0x2_0000),
];

/// An entry of the table: content, length, identifier.
fn entry(identifier: &str, content: u32) -> Result<Vec<u8>> {
    Ok([&content.to_le_bytes()[..], &22u16.to_le_bytes(), &guid_le_to_slice(identifier)?].concat())
}

/// The image; `seed` varies its content.
pub fn image(seed: u8) -> Result<Vec<u8>> {
    let mut image: Vec<u8> = (0..SIZE).map(|i| (i * 7 + i / PAGE) as u8 ^ seed).collect();
    let mut list = [&b"ASEV"[..]].concat();
    for word in [16 + 12 * PAGES.len() as u32, 1, PAGES.len() as u32] {
        list.extend(word.to_le_bytes());
    }
    for (kind, _, range) in PAGES {
        for word in [range.start as u32, range.len() as u32, kind] {
            list.extend(word.to_le_bytes());
        }
    }
    image[SIZE - LIST..][..list.len()].copy_from_slice(&list);
    let mut table = [entry(METADATA, LIST as u32)?, entry(RESET_BLOCK, AP_RESET)?].concat();
    let length = table.len() as u16 + 18;
    table.extend(length.to_le_bytes());
    table.extend(guid_le_to_slice(FOOTER)?);
    image[SIZE - 32 - table.len()..SIZE - 32].copy_from_slice(&table);
    Ok(image)
}

/// Writes the image to a file.
pub fn save(seed: u8, path: &Path) -> Result<()> {
    fs::write(path, image(seed)?).with_context(|| path.display().to_string())
}

/// The digest of a guest with this image, by the crate `sev`.
pub fn digest(seed: u8, vcpus: u32, vmsa_features: u64) -> Result<SnpLaunchDigest> {
    let file = PathBuf::from(format!("/tmp/image-{seed}"));
    save(seed, &file)?;
    Ok(snp_calc_launch_digest(SnpMeasurementArgs {
        vcpus,
        vcpu_type: CPU,
        ovmf_file: file,
        guest_features: GuestFeatures(vmsa_features | features::SNP_ACTIVE),
        kernel_file: None,
        initrd_file: None,
        append: None,
        ovmf_hash_str: None,
        vmm_type: Some(VMMType::QEMU),
    })?)
}

/// A guest with the image, all but LAUNCH_FINISH.
pub struct Imaged {
    /// The VM.
    pub snp: Snp,
    memory: GuestMemory,
    private: OwnedFd,
}

impl Imaged {
    /// LAUNCH_START with `policy`, and LAUNCH_UPDATE of everything, in the image's order.
    pub fn load(
        host: &Host,
        policy: u64,
        seed: u8,
        vcpus: u32,
        vmsa_features: u64,
    ) -> Result<Self> {
        let mut init = kvm_sev_init { vmsa_features, ..Default::default() };
        let mut snp = Snp::initialised_with(host, &mut init)?.start(policy)?;
        let memory = GuestMemory::new(SIZE)?;
        memory.write(0, &image(seed)?);
        let private = snp.guest_memfd(SIZE)?;
        let region = kvm_userspace_memory_region2 {
            slot: 1,
            guest_phys_addr: GPA,
            memory_size: SIZE as u64,
            userspace_addr: memory.addr(),
            ..slot(&snp, &private)
        };
        // SAFETY: the range is mapped as long as `memory` lives, which is longer than the VM.
        unsafe { snp.fd.set_user_memory_region2(region)? };
        snp.set_private(GPA as usize..GPA as usize + SIZE, true)?;
        let mut argument = kvm_sev_snp_launch_update {
            gfn_start: GPA / PAGE as u64,
            uaddr: memory.addr(),
            len: SIZE as u64,
            type_: PageType::Normal as u8,
            ..Default::default()
        };
        let answer = snp.snp_launch_update(&mut argument);
        ensure!(answer.is_ok() && argument.len == 0, "LAUNCH_UPDATE of the image: {answer}");
        for (_, kind, range) in PAGES {
            snp.update(kind, range)?;
        }
        for number in 0..vcpus {
            snp.add_bare_vcpu()?;
            let fd = snp.vm.vcpus[number as usize].fd();
            fd.set_cpuid2(&host.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
            let reset = if number == 0 { RESET } else { AP_RESET };
            let mut sregs = fd.get_sregs()?;
            // Accessed, and a busy 32-bit TSS: as QEMU sets them, not as KVM makes them.
            sregs.cs.base = u64::from(reset & 0xffff_0000);
            (sregs.cs.type_, sregs.tr.type_) = (11, 11);
            for data in [&mut sregs.ds, &mut sregs.es, &mut sregs.ss, &mut sregs.fs, &mut sregs.gs]
            {
                data.type_ = 3;
            }
            fd.set_sregs(&sregs)?;
            let mut regs = fd.get_regs()?;
            (regs.rip, regs.rdx) = (u64::from(reset & 0xffff), CPU.sig() as u64);
            fd.set_regs(&regs)?;
        }
        Ok(Self { snp, memory, private })
    }

    /// The VM, and the image's memory, which has to live as long.
    pub fn into_parts(self) -> (Snp, (GuestMemory, OwnedFd)) {
        (self.snp, (self.memory, self.private))
    }
}
