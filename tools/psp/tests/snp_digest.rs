// SPDX-License-Identifier: GPL-2.0-or-later
//! Launch digests are those that the `sev` crate computes from a guest's firmware image.

mod common;

use std::fs;
use std::path::PathBuf;

use common::request::Channel;
use common::snp::*;
use common::*;
use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType, VMSA as Vmsa};
use sev::parser::Decoder;

const ASID: u32 = 1;
const RESET_EIP: u32 = 0x80_b004;

/// SNPActive alone.
fn features() -> GuestFeatures {
    GuestFeatures::decode(&mut 1u64.to_le_bytes().as_slice(), ()).unwrap()
}

/// Sections of the image's metadata: address, pages, type (and that of LAUNCH_UPDATE).
const SECTIONS: [(u32, u32, u32, u32); 4] = [
    (0x80_0000, 3, 1, page::ZERO),
    (0x80_d000, 1, 2, page::SECRETS),
    (0x80_e000, 1, 3, page::CPUID),
    (0x81_0000, 1, 1, page::ZERO),
];

/// A GUID in the byte order of UEFI.
fn guid(text: &str) -> Vec<u8> {
    text.split('-')
        .enumerate()
        .flat_map(|(i, part)| {
            let number = u64::from_str_radix(part, 16).unwrap().to_be_bytes();
            let mut bytes = number[8 - part.len() / 2..].to_vec();
            if i < 3 {
                bytes.reverse();
            }
            bytes
        })
        .collect()
}

fn entry(table: &mut Vec<u8>, data: &[u8], name: &str) {
    table.extend(data);
    table.extend((data.len() as u16 + 18).to_le_bytes());
    table.extend(guid(name));
}

/// A firmware image of two pages in the form of OVMF, but without any code.
fn image() -> Vec<u8> {
    const METADATA_FROM_END: u32 = 0x800;
    let mut image: Vec<u8> = (0..8192u32).map(|i| (i * 7 / 3) as u8).collect();
    let mut table = vec![];
    let offset = METADATA_FROM_END.to_le_bytes();
    entry(&mut table, &offset, "dc886566-984a-4798-a75e-5585a7bf67cc");
    let eip = RESET_EIP.to_le_bytes();
    entry(&mut table, &eip, "00f771de-1a7e-4fcb-890e-68c77e2fb44e");
    let mut footer = vec![];
    let size = table.len() as u16 + 18;
    footer.extend(size.to_le_bytes());
    footer.extend(guid("96b582de-1fb2-45f7-baea-a366c55a082d"));
    table.extend(footer);
    let end = image.len() - 32;
    image[end - table.len()..end].copy_from_slice(&table);

    let mut metadata = b"ASEV".to_vec();
    let size = 16 + SECTIONS.len() as u32 * 12;
    for word in [size, 1, SECTIONS.len() as u32] {
        metadata.extend(word.to_le_bytes());
    }
    for (address, pages, kind, _) in SECTIONS {
        for word in [address, pages * 4096, kind] {
            metadata.extend(word.to_le_bytes());
        }
    }
    let at = image.len() - METADATA_FROM_END as usize;
    image[at..at + metadata.len()].copy_from_slice(&metadata);
    image
}

#[test]
fn the_digest_is_that_of_the_sev_crate() {
    let image = image();
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("firmware.fd");
    fs::write(&file, &image).unwrap();
    let arguments = SnpMeasurementArgs {
        vcpus: 2,
        vcpu_type: CpuType::EpycMilan,
        ovmf_file: file,
        guest_features: features(),
        kernel_file: None,
        initrd_file: None,
        append: None,
        ovmf_hash_str: None,
        vmm_type: Some(VMMType::QEMU),
    };
    let expected = snp_calc_launch_digest(arguments).unwrap().get_hex_ld();

    let mut psp = Psp::snp("");
    psp.snp_launching(GCTX, ASID, POLICY);
    let mut spa = GUEST;
    let mut secrets = 0;
    let mut add = |psp: &mut Psp, kind, gpa: u64, contents: &[u8]| {
        psp.machine.put(spa, contents);
        psp.rmpupdate(spa, pre_guest(ASID.into(), gpa));
        psp.snp_update(GCTX, kind, spa).unwrap();
        if kind == page::SECRETS {
            secrets = spa;
        }
        spa += 4096;
    };
    let base = (1 << 32) - image.len() as u64;
    for (i, contents) in image.chunks(4096).enumerate() {
        let gpa = base + i as u64 * 4096;
        add(&mut psp, page::NORMAL, gpa, contents);
    }
    for (address, pages, _, kind) in SECTIONS {
        for i in 0..pages {
            let gpa = u64::from(address + i * 4096);
            add(&mut psp, kind, gpa, &[0; 4096]);
        }
    }
    let vmsa = Vmsa::new(
        RESET_EIP.into(),
        CpuType::EpycMilan,
        VMMType::QEMU,
        Some(2),
        features(),
    );
    for mut contents in vmsa.pages(2).unwrap() {
        contents.resize(4096, 0);
        add(&mut psp, page::VMSA, 0xffff_ffff_f000, &contents);
    }
    psp.snp_finish(GCTX).unwrap();
    let mut channel = Channel::new(&psp, GCTX, ASID, secrets, 0);
    let report = channel.report(&mut psp, [0; 64]).unwrap().report;
    let digits: String = report
        .measurement
        .map(|byte| format!("{byte:02x}"))
        .concat();
    assert_eq!(digits, expected);
}
