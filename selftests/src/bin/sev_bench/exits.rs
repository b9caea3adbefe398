// SPDX-License-Identifier: GPL-2.0-or-later
//! VMGEXITs that are answered without userspace, by the guest's own clock.

use std::ops::DerefMut;

use anyhow::{Result, ensure};
use sev_vm::es::Setup;
use sev_vm::ghcb::{Field, Ghcb, exit};
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::mem::PAGE;
use sev_vm::program;
use sev_vm::vm::Vm;

use crate::Bench;
use crate::memory::{Allocations, allocations};
use crate::watch::Watched;

/// VMGEXITs of a run.
const EXITS: u64 = 64;
/// Pages shared with the host: least number of ticks, the GHCB, and what it holds before each exit.
const LEAST: u64 = guest::SHARED.start;
pub const GHCB: u64 = LEAST + PAGE as u64;
const REQUEST: u64 = GHCB + PAGE as u64;
/// Free for what a request is about.
pub const VALUES: u64 = REQUEST + PAGE as u64;

program! {
    /// Makes one VMGEXIT with the value RSI of the GHCB MSR if it is not 0. Makes RDX VMGEXITs with
    /// the value RCX of the GHCB MSR, and with the page at [`REQUEST`] in the GHCB; stores the ticks
    /// of the fastest at [`LEAST`] and halts.
    vmgexits:
    "mov r8, rdx"
    "mov r9, rcx"
    "mov r12, -1"
    "test rsi, rsi"
    "jz 2f"
    "mov ecx, 0xc0010130"
    "mov eax, esi"
    "xor edx, edx"
    "wrmsr"
    "rep vmmcall"
    "2: mov esi, 0x22000"
    "mov edi, 0x21000"
    "mov ecx, 512"
    "rep movsq"
    "mov ecx, 0xc0010130"
    "mov eax, r9d"
    "mov rdx, r9"
    "shr rdx, 32"
    "wrmsr"
    "rdtsc"
    "mov r10d, eax"
    "mov r11d, edx"
    "rep vmmcall"
    "rdtsc"
    "shl rdx, 32"
    "mov eax, eax"
    "or rax, rdx"
    "shl r11, 32"
    "or r10, r11"
    "sub rax, r10"
    "cmp rax, r12"
    "cmovb r12, rax"
    "dec r8"
    "jnz 2b"
    "mov [0x20000], r12"
    "hlt"
}

/// From VMGEXIT to the instruction after it, by the guest's own clock. Only exits that are
/// answered without userspace.
pub fn rows(bench: &mut Bench) -> Result<()> {
    ensure!([LEAST, GHCB, REQUEST] == [0x2_0000, 0x2_1000, 0x2_2000], "the program's addresses");
    let requests = [
        ("CPUID", Ghcb::request(exit::CPUID, 0, 0).with(Field::Rax, 0).with(Field::Rcx, 0)),
        ("MSR read", Ghcb::request(exit::MSR, 0, 0).with(Field::Rcx, 0x1b)),
        ("hypervisor features", Ghcb::request(exit::HV_FEATURES, 0, 0)),
        ("AP jump table", Ghcb::request(exit::AP_JUMP_TABLE, 1, 0)),
        ("NMI complete", Ghcb::request(exit::NMI_COMPLETE, 0, 0)),
        ("port output of nothing", Ghcb::request(exit::IOIO, 0, 0).with(Field::Rax, 0)),
        ("malformed", Ghcb::request(exit::CPUID, 0, 0)),
    ];
    // CPUID 0, EBX; the protocol's versions.
    let msrs = [("MSR protocol, CPUID", (1 << 30) | 4), ("MSR protocol, versions", 2)];
    let by_page = requests.map(|(name, ghcb)| (name, Some(ghcb), GHCB));
    let by_msr = msrs.map(|(name, value)| (name, None, value));

    for (name, ghcb, msr) in by_page.into_iter().chain(by_msr) {
        let launch = |host: &Host, exits| {
            let arguments = [[0, 0, exits, msr]];
            Setup::version(2).launch(host, vmgexits(), &arguments).map(Box::new)
        };
        answered(bench, &format!("VMGEXIT, {name}"), ghcb.as_ref(), launch)?;
    }
    Ok(())
}

/// Measures exits of guests that `launch` makes for so many of them.
pub fn answered<V: DerefMut<Target = Vm>>(
    bench: &mut Bench,
    name: &str,
    ghcb: Option<&Ghcb>,
    launch: impl Fn(&Host, u64) -> Result<V>,
) -> Result<()> {
    let prepare = |exits| -> Result<V> {
        let vm = launch(&bench.host, exits)?;
        if let Some(ghcb) = ghcb {
            vm.memory.write(REQUEST as usize, &ghcb.0);
        }
        Ok(vm)
    };
    if let Some(watch) = &bench.watch {
        let mut runs = [Watched::default(); 2];
        for (run, exits) in runs.iter_mut().zip([EXITS, 3 * EXITS]) {
            let mut vm = prepare(exits)?;
            *run = watch.during(|| vm.vcpus[0].run_to_halt())?;
        }
        println!("bench {name} {}", runs[1].more_than(runs[0], 2 * EXITS));
        return Ok(());
    }
    let mut vm = prepare(EXITS)?;
    let ((), log) = bench.psp.logged(|| vm.vcpus[0].run_to_halt())?;
    let instructions = vm.memory.read_u64(LEAST as usize) / bench.ticks;
    let commands = match log.first() {
        Some(entry) => format!("{}:{}", entry.cmd, log.len() as u64 / EXITS),
        None => "-".into(),
    };

    // What more exits cost more: the first ones map the guest's pages.
    let mut runs = [Allocations::default(); 2];
    for (run, exits) in runs.iter_mut().zip([EXITS, 3 * EXITS]) {
        let mut vm = prepare(exits)?;
        (_, *run) = allocations(|| vm.vcpus[0].run_to_halt())?;
    }
    let more =
        |of: fn(&Allocations) -> u64| of(&runs[1]).saturating_sub(of(&runs[0])) / (2 * EXITS);
    let (count, kept) = (more(|run| run.count), more(|run| run.kept));
    println!(
        "bench {name} instructions={instructions} allocations={count} kept={kept} \
         commands={commands} wbinvd=0 rmpupdate=0"
    );
    Ok(())
}
