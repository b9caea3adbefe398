// SPDX-License-Identifier: GPL-2.0-or-later
//! The CPUID page of an SNP guest: firmware checks it, and shows what it would accept.
//!
//! Layout: SEV-SNP firmware ABI, "CPUID Page" (kernel: struct snp_cpuid_table).

use std::process::ExitCode;

use anyhow::Result;
use kvm_bindings::*;
use sev_vm::cmd::{Answer, status};
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::snp::{PageType, Snp, policy};

const AREA: usize = guest::PRIVATE as usize;
/// Bytes of a function in the table.
const FUNCTION: usize = 48;
/// Where the first is.
const FIRST: usize = 16;
/// Functions that fit.
const MOST: u32 = 64;
/// Status for values that firmware has corrected.
const INVALID_PARAM: u32 = 0x16;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("good", good),
            ("corrected", corrected),
            ("counts", counts),
            ("shared_source", shared_source),
            ("second_page", second_page),
            ("other_failure", other_failure),
        ],
    )
}

/// A table of functions: leaf, subleaf, EAX, EBX, ECX, EDX.
fn table(functions: &[[u32; 6]]) -> Vec<u8> {
    let mut page = vec![0u8; PAGE];
    page[..4].copy_from_slice(&(functions.len() as u32).to_le_bytes());
    for (number, [leaf, subleaf, eax, ebx, ecx, edx]) in functions.iter().enumerate() {
        let words = [*leaf, *subleaf, 0, 0, 0, 0, *eax, *ebx, *ecx, *edx];
        for (word, value) in words.iter().enumerate() {
            let at = FIRST + number * FUNCTION + 4 * word;
            page[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    page
}

/// KVM's own values, without those that firmware does not let through (QEMU, `sev_snp_mask_cpuid_features`).
fn usual(host: &Host) -> Result<Vec<[u32; 6]>> {
    let entries = host.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let functions = entries.as_slice().iter().map(|e| {
        let mut f = [e.function, e.index, e.eax, e.ebx, e.ecx, e.edx];
        match (e.function, e.index) {
            (1, _) => f[4] &= !(1 << 24),
            (7, 0) => {
                f[3] &= !(1 << 1);
                f[5] = 0;
            }
            (0x8000_0008, _) => f[3] &= !(1 << 25),
            _ => {}
        }
        f
    });
    Ok(functions
        .filter(|f| f[0] != 0x4000_0000 && f[0] != 0x4000_0001)
        .take(MOST as usize)
        .collect())
}

fn load(vm: &Snp, source: &Mapping) -> (Answer, kvm_sev_snp_launch_update) {
    let mut argument = kvm_sev_snp_launch_update {
        uaddr: source.addr(),
        ..vm.update_of(PageType::Cpuid, AREA..AREA + PAGE)
    };
    (vm.snp_launch_update(&mut argument), argument)
}

fn good(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, functions) in [("empty", Vec::new()), ("usual", usual(&host)?)] {
        let vm = Snp::started(&host, policy::DEFAULT)?;
        let source = Mapping::anonymous(PAGE)?;
        let page = table(&functions);
        source.write(0, &page);
        let (answer, after) = load(&vm, &source);
        t.case(name, answer, Answer::OK_KEPT);
        t.value(&format!("{name}_len"), after.len, 0);
        t.check(&format!("{name}_source_is_kept"), source.read(0, PAGE) == page);
    }
    Ok(())
}

/// A feature that firmware refuses: the page comes back with what it would accept, and that it
/// accepts. Nothing else of it has changed.
fn corrected(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let base = usual(&host)?;
    for (name, leaf, register, bit) in
        [("tsc_deadline", 1, 4, 24), ("tsc_adjust", 7, 3, 1), ("virt_ssbd", 0x8000_0008, 3, 25)]
    {
        let vm = Snp::started(&host, policy::DEFAULT)?;
        let mut bad = base.clone();
        let function = bad.iter_mut().find(|f| f[0] == leaf && f[1] == 0);
        let Some(function) = function else {
            t.check(&format!("{name}_leaf"), false);
            continue;
        };
        function[register] |= 1 << bit;
        let source = Mapping::anonymous(PAGE)?;
        source.write(0, &table(&bad));
        let (answer, after) = load(&vm, &source);
        t.case(name, answer, Answer::firmware(INVALID_PARAM));
        t.value(&format!("{name}_len"), after.len, PAGE as u64);
        t.check(&format!("{name}_is_corrected"), source.read(0, PAGE) == table(&base));
        let (answer, _) = load(&vm, &source);
        t.case(&format!("{name}_retry"), answer, Answer::OK_KEPT);
        t.check(&format!("{name}_retry_kept"), source.read(0, PAGE) == table(&base));
        vm.seal()?;
    }
    Ok(())
}

fn counts(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for count in [0, 1, MOST, MOST + 1, u32::MAX] {
        let vm = Snp::started(&host, policy::DEFAULT)?;
        let source = Mapping::anonymous(PAGE)?;
        let mut page = table(&[]);
        page[..4].copy_from_slice(&count.to_le_bytes());
        source.write(0, &page);
        let (answer, _) = load(&vm, &source);
        let expected =
            if count <= MOST { Answer::OK_KEPT } else { Answer::firmware(INVALID_PARAM) };
        t.case(&format!("{count}"), answer, expected);
    }
    Ok(())
}

/// A bad table.
fn bad(host: &Host) -> Result<Vec<u8>> {
    let mut functions = usual(host)?;
    functions.iter_mut().filter(|f| f[0] == 1).for_each(|f| f[4] |= 1 << 24);
    Ok(table(&functions))
}

/// Written back to where it came from, also if somebody else maps that.
fn shared_source(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::started(&host, policy::DEFAULT)?;
    vm.memory.write(AREA, &bad(&host)?);
    let view = vm.memory.second_view()?;
    let mut argument = vm.update_of(PageType::Cpuid, AREA..AREA + PAGE);
    let answer = vm.snp_launch_update(&mut argument);
    t.case("refused", answer, Answer::firmware(INVALID_PARAM));
    t.check("seen_elsewhere", view.read(AREA, PAGE) == table(&usual(&host)?));
    t.check("neighbours_kept", view.read(AREA + PAGE, PAGE) == vec![0; PAGE]);
    // Only tables of CPUID values come back.
    let page = bad(&host)?;
    vm.memory.write(AREA, &page);
    let mut argument = vm.update_of(PageType::Unmeasured, AREA..AREA + PAGE);
    t.psp.fail("SNP_LAUNCH_UPDATE", 1, INVALID_PARAM)?;
    let answer = vm.snp_launch_update(&mut argument);
    t.case("not_cpuid", answer, Answer::firmware(INVALID_PARAM));
    t.check("not_cpuid_kept", vm.memory.read(AREA, PAGE) == page);
    Ok(())
}

/// Of several pages the second is refused.
fn second_page(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::started(&host, policy::DEFAULT)?;
    let source = Mapping::anonymous(2 * PAGE)?;
    source.write(0, &table(&[]));
    source.write(PAGE, &bad(&host)?);
    let mut argument = kvm_sev_snp_launch_update {
        uaddr: source.addr(),
        ..vm.update_of(PageType::Cpuid, AREA..AREA + 2 * PAGE)
    };
    t.case("first", vm.snp_launch_update(&mut argument), Answer::OK_KEPT);
    t.value("first_len", argument.len, PAGE as u64);
    t.check("second_is_corrected", source.read(PAGE, PAGE) == table(&usual(&host)?));
    t.case("second", vm.snp_launch_update(&mut argument), Answer::OK_KEPT);
    t.value("second_len", argument.len, 0);
    Ok(())
}

/// After any other failure the source is as it was.
fn other_failure(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let vm = Snp::started(&host, policy::DEFAULT)?;
    let source = Mapping::anonymous(PAGE)?;
    let page = table(&usual(&host)?);
    source.write(0, &page);
    t.psp.fail("SNP_LAUNCH_UPDATE", 1, status::HWERROR_PLATFORM)?;
    t.case("fails", load(&vm, &source).0, Answer::firmware(status::HWERROR_PLATFORM));
    t.check("kept", source.read(0, PAGE) == page);
    t.case("retry", load(&vm, &source).0, Answer::OK_KEPT);
    Ok(())
}
