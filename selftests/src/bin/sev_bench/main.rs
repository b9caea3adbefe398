// SPDX-License-Identifier: GPL-2.0-or-later
//! Counts what the operations of the SEV interface cost, for `make bench`.
//!
//! Runs on an emulated host whose clock counts instructions (`tools/vm/run --icount --smp 1`):
//! there the TSC advances by the same amount with every instruction, so a difference of two
//! readings is a number of instructions. Of several rounds the least counts, as interrupts and
//! other tasks only ever add to it. Each row of the output is
//! `bench NAME instructions=N allocations=N kept=BYTES commands=A,B,... wbinvd=N rmpupdate=N`.
//! On a host with SEV-SNP only rows about that are measured.

mod memory;
mod snp;

use std::arch::x86_64::_rdtsc;
use std::collections::BTreeMap;
use std::ops::DerefMut;
use std::os::fd::AsRawFd;

use anyhow::{Result, ensure};
use kvm_bindings::*;
use kvm_ioctls::VmFd;

use sev_vm::es::Setup;
use sev_vm::ghcb::{Field, Ghcb, exit};
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::mem::{GuestMemory, Mapping, PAGE};
use sev_vm::program;
use sev_vm::psp::Psp;
use sev_vm::vcpu::Exit;
use sev_vm::vm::{Vm, addr_of};

use memory::{Allocations, allocations};

/// Rounds of each measurement.
const ROUNDS: usize = 12;
/// Rounds in which allocations are counted: in some of them the allocator itself needs pages.
const MEMORY_ROUNDS: usize = 4;
/// Instructions of the loop that shows what an instruction is worth.
const CALIBRATION: u64 = 2_000_000;

fn tsc() -> u64 {
    // SAFETY: every x86-64 has a TSC.
    unsafe { _rdtsc() }
}

/// Ticks of the TSC for an instruction.
fn ticks_per_instruction() -> u64 {
    let least = (0..ROUNDS).map(|_| {
        let start = tsc();
        // SAFETY: the loop changes nothing but the register that it says.
        unsafe {
            std::arch::asm!("2: dec {0}", "jnz 2b", inout(reg) CALIBRATION / 2 => _, options(nomem, nostack));
        }
        tsc() - start
    });
    least.min().unwrap_or(0) / CALIBRATION
}

/// The open devices, and what has been measured.
struct Bench {
    host: Host,
    psp: Psp,
    ticks: u64,
}

impl Bench {
    fn open() -> Result<Self> {
        let ticks = ticks_per_instruction();
        ensure!(ticks > 0, "the clock does not count instructions: run this with --icount");
        Ok(Self { host: Host::open()?, psp: Psp::open()?, ticks })
    }

    /// Measures `operation` on what `prepare` makes anew for each round.
    fn row<T>(
        &mut self,
        name: &str,
        mut prepare: impl FnMut(&Host) -> Result<T>,
        mut operation: impl FnMut(&Host, &mut T) -> Result<()>,
    ) -> Result<()> {
        let mut least = u64::MAX;
        for _ in 0..ROUNDS {
            let mut subject = prepare(&self.host)?;
            let start = tsc();
            let result = operation(&self.host, &mut subject);
            let end = tsc();
            result?;
            least = least.min(end - start);
        }
        // In rounds of their own: tracing and the port cost instructions, too.
        let mut memory = Allocations { count: u64::MAX, kept: u64::MAX };
        for _ in 0..MEMORY_ROUNDS {
            let mut subject = prepare(&self.host)?;
            let ((), counted) = allocations(|| operation(&self.host, &mut subject))?;
            memory = memory.min(counted);
        }
        let mut subject = prepare(&self.host)?;
        let before = self.psp.machine()?;
        let host = &self.host;
        let ((), log) = self.psp.logged(|| operation(host, &mut subject))?;
        let after = self.psp.machine()?;
        let (wbinvd, rmpupdate) =
            (after.wbinvd - before.wbinvd, after.rmpupdate - before.rmpupdate);

        let mut commands = BTreeMap::<String, u32>::new();
        for entry in log {
            *commands.entry(entry.cmd).or_default() += 1;
        }
        let commands: Vec<_> = commands.iter().map(|(name, n)| format!("{name}:{n}")).collect();
        let instructions = least / self.ticks;
        let commands = if commands.is_empty() { "-".into() } else { commands.join(",") };
        let Allocations { count, kept } = memory;
        println!(
            "bench {name} instructions={instructions} allocations={count} kept={kept} \
             commands={commands} wbinvd={wbinvd} rmpupdate={rmpupdate}"
        );
        Ok(())
    }
}

/// VMGEXITs of a run.
const EXITS: u64 = 64;
/// Pages shared with the host: least number of ticks, the GHCB, and what it holds before each exit.
const LEAST: u64 = guest::SHARED.start;
const GHCB: u64 = LEAST + PAGE as u64;
const REQUEST: u64 = GHCB + PAGE as u64;
/// Free for what a request is about.
const VALUES: u64 = REQUEST + PAGE as u64;

program! {
    /// Makes one VMGEXIT with the value RSI of the GHCB MSR if it is not 0. Makes RDX VMGEXITs with the value RCX of the GHCB MSR, and with the page at [`REQUEST`] in
    /// the GHCB; stores the ticks of the fastest at [`LEAST`] and halts.
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
fn answered_vmgexits(bench: &mut Bench) -> Result<()> {
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
fn answered<V: DerefMut<Target = Vm>>(
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

fn good(what: &str, answer: sev_vm::cmd::Answer) -> Result<()> {
    ensure!(answer.is_ok(), "{what}: {answer}");
    Ok(())
}

/// A VM and a buffer for what a command writes.
type WithBuffer = (Vm, Mapping);

fn with_buffer(vm: Vm) -> Result<WithBuffer> {
    Ok((vm, Mapping::anonymous(PAGE)?))
}

fn capability(vm: &VmFd, cap: u32, source: &VmFd) -> Result<()> {
    let mut request = kvm_enable_cap { cap, ..Default::default() };
    request.args[0] = source.as_raw_fd() as u64;
    Ok(vm.enable_cap(&request)?)
}

fn launching(bench: &mut Bench) -> Result<()> {
    bench.row(
        "KVM_SEV_INIT2",
        |host| Vm::bare(host, VmType::Sev),
        |_, vm| good("INIT2", vm.init2(&mut kvm_sev_init::default())),
    )?;
    bench.row("LAUNCH_START", Vm::sev, |_, vm| {
        good("LAUNCH_START", vm.launch_start(&mut kvm_sev_launch_start::default()))
    })?;
    for (name, pages) in [("LAUNCH_UPDATE_DATA 4 KiB", 1), ("LAUNCH_UPDATE_DATA 64 KiB", 16)] {
        bench.row(
            name,
            |host| {
                let vm = Vm::started(host, 0)?;
                // Pages that are there already.
                (0..pages).for_each(|page| vm.memory.write(0x1_0000 + page * PAGE, &[1]));
                Ok(vm)
            },
            |_, vm| vm.encrypt(0x1_0000..0x1_0000 + pages * PAGE),
        )?;
    }
    bench.row("LAUNCH_MEASURE", |host| Vm::started(host, 0), |_, vm| vm.measurement().map(drop))?;
    bench.row(
        "LAUNCH_FINISH",
        |host| {
            let vm = Vm::started(host, 0)?;
            vm.measurement()?;
            Ok(vm)
        },
        |_, vm| good("LAUNCH_FINISH", vm.launch_finish()),
    )?;
    bench.row(
        "close of a launched VM",
        |host| Ok(Some(Vm::started(host, 0)?)),
        |_, vm| {
            drop(vm.take());
            Ok(())
        },
    )
}

fn running(bench: &mut Bench) -> Result<()> {
    let launched = |host: &Host| Vm::launched(host, 0, guest::idle());

    bench.row("GUEST_STATUS", launched, |_, vm| vm.state().map(drop))?;
    for (name, len) in [("DBG_DECRYPT 4 KiB", 4096), ("DBG_DECRYPT 20 bytes", 20)] {
        bench.row(
            name,
            |host| with_buffer(launched(host)?),
            |_, (vm, buffer)| {
                let source = vm.memory.addr() + guest::PRIVATE;
                good("DBG_DECRYPT", vm.dbg_decrypt(source, buffer.addr(), len))
            },
        )?;
    }
    bench.row(
        "DBG_ENCRYPT 4 KiB",
        |host| with_buffer(launched(host)?),
        |_, (vm, buffer)| {
            let target = vm.memory.addr() + guest::PRIVATE;
            good("DBG_ENCRYPT", vm.dbg_encrypt(buffer.addr(), target, 4096))
        },
    )?;
    bench.row("GET_ATTESTATION_REPORT", launched, |_, vm| {
        let mut blob = [0u8; 0xd0];
        let mut report = kvm_sev_attestation_report {
            uaddr: addr_of(&mut blob),
            len: 0xd0,
            ..Default::default()
        };
        let id = sev_cmd_id_KVM_SEV_GET_ATTESTATION_REPORT;
        good("GET_ATTESTATION_REPORT", vm.command(id, addr_of(&mut report)))
    })?;
    bench.row(
        "KVM_RUN, halt",
        |host| {
            let mut vm = launched(host)?;
            vm.add_vcpu(host, [0; 4])?;
            // The first run maps the pages.
            vm.vcpus[0].run_to_halt()?;
            Ok(vm)
        },
        |_, vm| vm.vcpus[0].run_to_halt(),
    )?;
    bench.row(
        "KVM_RUN, port output",
        |host| {
            let mut vm = Vm::launched(host, 0, guest::ports())?;
            vm.add_vcpu(host, [0; 4])?;
            ensure!(vm.vcpus[0].run()? == Exit::Out(0x3f8, vec![1]), "not the first output");
            Ok(vm)
        },
        |_, vm| {
            ensure!(vm.vcpus[0].run()? == Exit::Out(0x3f8, vec![1, 0]), "not the second output");
            Ok(())
        },
    )
}

fn memory(bench: &mut Bench) -> Result<()> {
    for (name, pages) in [("REG_REGION 4 KiB", 1), ("REG_REGION 1 MiB", 256)] {
        bench.row(name, Vm::sev, |_, vm| {
            let region = kvm_enc_region { addr: vm.memory.addr(), size: (pages * PAGE) as u64 };
            good("REG_REGION", vm.register(&region))
        })?;
    }
    bench.row(
        "UNREG_REGION 1 MiB",
        |host| {
            let vm = Vm::sev(host)?;
            let region = kvm_enc_region { addr: vm.memory.addr(), size: 1 << 20 };
            good("REG_REGION", vm.register(&region))?;
            Ok((vm, region))
        },
        |_, (vm, region)| good("UNREG_REGION", vm.unregister(region)),
    )
}

fn transfers(bench: &mut Bench) -> Result<()> {
    let pair = |host: &Host| {
        let source = Vm::launched(host, 0, guest::idle())?;
        let destination = Vm::with_memory(host, VmType::Sev, GuestMemory::new(guest::MEMORY)?)?;
        Ok((source, destination))
    };

    bench.row("COPY_ENC_CONTEXT_FROM", pair, |_, (source, destination)| {
        capability(&destination.fd, KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, &source.fd)
    })?;
    bench.row("MOVE_ENC_CONTEXT_FROM", pair, |_, (source, destination)| {
        capability(&destination.fd, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, &source.fd)
    })?;
    bench.row(
        "close of a mirror",
        |host| {
            let (source, destination) = pair(host)?;
            capability(&destination.fd, KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, &source.fd)?;
            Ok((source, Some(destination)))
        },
        |_, (_, destination)| {
            drop(destination.take());
            Ok(())
        },
    )
}

fn main() -> Result<()> {
    let mut bench = Bench::open()?;

    if bench.host.offers(VmType::Snp) {
        return snp::rows(&mut bench);
    }
    launching(&mut bench)?;
    running(&mut bench)?;
    memory(&mut bench)?;
    transfers(&mut bench)?;
    answered_vmgexits(&mut bench)
}
