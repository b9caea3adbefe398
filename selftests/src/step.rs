// SPDX-License-Identifier: GPL-2.0-or-later
//! One VMGEXIT at a time, with any GHCB and any value of the GHCB MSR.
//!
//! The guest program needs no #VC handler: it takes a value from a mailbox in shared
//! memory, writes it to the GHCB MSR, executes VMGEXIT, puts the MSR's value into the mailbox
//! and halts. Exceptions that KVM injects are noted there too. The GHCB is shared memory, so the test writes it directly.

use std::fmt::{self, Write};

use anyhow::{Result, bail, ensure};
use kvm_ioctls::VcpuExit;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::context::beside;
use crate::es::{self, Guest, Setup};
use crate::ghcb::{ANSWERED, Field, Ghcb, VALID_WORDS, answer};
use crate::guest;
use crate::host::{Host, VmType};
use crate::ktap::Test;
use crate::mem::PAGE;
use crate::program;
use crate::vm::Vm;

/// Page of the mailbox: MSR value in, MSR value out, number of steps made, vectors of
/// exceptions (a byte each).
pub const MAILBOX: u64 = guest::SHARED.start;
/// Page of the GHCB.
pub const GHCB: u64 = MAILBOX + PAGE as u64;
/// Shared pages for scratch areas outside the GHCB.
pub const OUTSIDE: u64 = GHCB + PAGE as u64;
/// End of those pages.
pub const OUTSIDE_END: u64 = guest::SHARED.end;

/// Exits to userspace in one step before it counts as endless: a scratch area of 64 KiB takes
/// 8192 MMIO exits.
const MOST_EXITS: u32 = 20_000;
/// What an outcome shows if the VMGEXIT was answered without userspace.
pub const NO_EXIT: &str = "-";
/// Exits that an outcome shows in full.
const SHOWN: u32 = 3;

program! {
    /// Serves the mailbox at RDI.
    mailbox:
    "2: mov ecx, 0xc0010130"
    "mov eax, [rdi]"
    "mov edx, [rdi + 4]"
    "wrmsr"
    "rep vmmcall"
    "rdmsr"
    "mov [rdi + 8], eax"
    "mov [rdi + 12], edx"
    "inc qword ptr [rdi + 16]"
    "hlt"
    "jmp 2b"
}

program! {
    /// Notes exceptions of [`mailbox`]; gives up at the eighth.
    note_exception:
    "push rax"
    "mov rax, [rdi + 24]"
    "shl rax, 8"
    "mov al, [rsp + 8]"
    "mov [rdi + 24], rax"
    "shr rax, 56"
    "jz 3f"
    "2: hlt"
    "jmp 2b"
    "3: pop rax"
    "add rsp, 16"
    "iretq"
}

/// FNV-1a, for bytes that are too many to print.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What became of one VMGEXIT.
pub struct Outcome {
    /// Exits to userspace, as text; [`NO_EXIT`] if there is none, a digest of those beyond the
    /// first three.
    pub exits: String,
    /// The GHCB before.
    pub before: Ghcb,
    /// The GHCB after.
    pub after: Ghcb,
    /// The MSR before.
    pub msr_before: u64,
    /// The MSR after.
    pub msr: u64,
    /// Vectors of the exceptions that the guest got, a byte each.
    pub exceptions: u64,
    /// A digest of the pages at [`OUTSIDE`], if they changed.
    pub outside: Option<Digest>,
}

impl Outcome {
    /// The two words of the answer.
    pub fn answer(&self) -> (u64, u64) {
        (self.after.get(Field::Info1), self.after.get(Field::Info2))
    }
}

impl fmt::Display for Outcome {
    /// What changed in the page, by offset; of the bit map only what is not as after every
    /// answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        write!(f, "exits={}", self.exits)?;
        let mut rest = Digest::default();
        let offsets =
            (0..PAGE).step_by(8).filter(|at| self.before.word(*at) != self.after.word(*at));
        let changed: Vec<usize> = offsets.collect();
        if changed.is_empty() {
            write!(f, " ghcb=kept")?;
        } else if self.after.valid() != ANSWERED {
            write!(f, " valid={:x?}", self.after.valid())?;
        }
        let changed: Vec<_> = changed.iter().filter(|at| !VALID_WORDS.contains(at)).collect();
        for (number, offset) in changed.iter().enumerate() {
            let word = self.after.word(**offset);
            if number < SHOWN {
                write!(f, " {offset:03x}={word:x}")?;
            } else {
                rest.add(&word.to_le_bytes());
            }
        }
        if changed.len() > SHOWN {
            write!(f, " +{}#{rest}", changed.len() - SHOWN)?;
        }
        if self.msr != self.msr_before {
            write!(f, " msr={:#x}", self.msr)?;
        }
        if self.exceptions != 0 {
            write!(f, " exceptions={:x}", self.exceptions)?;
        }
        match self.outside {
            Some(digest) => write!(f, " outside=#{digest}"),
            None => Ok(()),
        }
    }
}

/// A running guest with the program [`mailbox`].
pub struct Stepper {
    /// The VM; vCPU 0 serves the mailbox.
    pub vm: Vm,
    steps: u64,
}

impl Stepper {
    /// Launches the guest. Without interrupt controllers in the kernel `hlt` comes here.
    pub fn new(host: &Host, setup: Setup) -> Result<Self> {
        ensure!(!setup.irqchip, "the mailbox guest halts");
        let guest = Guest { program: mailbox(), handler: Some(note_exception()) };
        Ok(Self { vm: setup.launch(host, guest, &[[MAILBOX, 0, 0, 0]])?, steps: 0 })
    }

    /// The same in a mirror, which shares its owner's memory; the owner, too.
    pub fn mirror(host: &Host, setup: Setup) -> Result<(Self, Vm)> {
        let guest = Guest { program: mailbox(), handler: Some(note_exception()) };
        let owner = setup.start(host)?;
        let mut vm = beside(host, VmType::SevEs, &owner)?;
        let answer = vm.copy_from(&owner);
        ensure!(answer.is_ok(), "copy: {answer}");
        es::prepare(&mut vm, host, guest, &[[MAILBOX, 0, 0, 0]])?;
        owner.encrypt(guest::LAUNCHED)?;
        let answer = vm.launch_update_vmsa();
        ensure!(answer.is_ok(), "KVM_SEV_LAUNCH_UPDATE_VMSA: {answer}");
        owner.measurement()?;
        let answer = owner.launch_finish();
        ensure!(answer.is_ok(), "KVM_SEV_LAUNCH_FINISH: {answer}");
        Ok((Self { vm, steps: 0 }, owner))
    }

    /// One VMGEXIT with this GHCB.
    pub fn step(&mut self, ghcb: &Ghcb) -> Result<Outcome> {
        self.step_with(ghcb, GHCB)
    }

    /// One VMGEXIT with this value of the GHCB MSR.
    pub fn msr(&mut self, value: u64) -> Result<Outcome> {
        self.step_with(&Ghcb::empty(), value)
    }

    /// One VMGEXIT with both: `ghcb` is in memory, whether or not `msr` is its address.
    pub fn step_with(&mut self, ghcb: &Ghcb, msr: u64) -> Result<Outcome> {
        self.post(ghcb, msr);
        self.end(ghcb, msr, 0)
    }

    /// Lets a step that [`Stepper::begin`] began with `ghcb` come to its end.
    pub fn complete(&mut self, ghcb: &Ghcb) -> Result<Outcome> {
        self.end(ghcb, GHCB, 1)
    }

    fn end(&mut self, ghcb: &Ghcb, msr: u64, answered: u32) -> Result<Outcome> {
        let exits = self.run(answered)?;
        let memory = &self.vm.memory;
        let (mut digest, mut changed) = (Digest::default(), false);
        for offset in (OUTSIDE..OUTSIDE_END).step_by(8) {
            let word = memory.read_u64(offset as usize);
            changed |= word != pattern(offset);
            digest.add(&word.to_le_bytes());
        }
        Ok(Outcome {
            exits,
            before: ghcb.clone(),
            after: Ghcb(memory.read(GHCB as usize, PAGE)),
            msr_before: msr,
            msr: memory.read_u64(MAILBOX as usize + 8),
            exceptions: memory.read_u64(MAILBOX as usize + 24),
            outside: changed.then_some(digest),
        })
    }

    /// Starts a step and leaves the guest at its first exit to userspace, which is returned.
    pub fn begin(&mut self, ghcb: &Ghcb) -> Result<String> {
        self.post(ghcb, GHCB);
        one_exit(&mut self.vm, 0)
    }

    fn post(&self, ghcb: &Ghcb, msr: u64) {
        let memory = &self.vm.memory;
        memory.write(GHCB as usize, &ghcb.0);
        for offset in (OUTSIDE..OUTSIDE_END).step_by(8) {
            memory.write_u64(offset as usize, pattern(offset));
        }
        memory.write_u64(MAILBOX as usize, msr);
        memory.write_u64(MAILBOX as usize + 8, 0);
        memory.write_u64(MAILBOX as usize + 24, 0);
    }

    /// Runs the guest until it has made a step; the exits on the way, after `answered` others.
    fn run(&mut self, answered: u32) -> Result<String> {
        let mut seen = String::new();
        let mut rest = Digest::default();
        for number in 0..MOST_EXITS {
            let exit = one_exit(&mut self.vm, number + answered)?;
            if exit == "hlt" {
                let made = self.vm.memory.read_u64(MAILBOX as usize + 16);
                if made == self.steps + 1 {
                    self.steps = made;
                    match number {
                        0 => seen = NO_EXIT.into(),
                        1..=SHOWN => {}
                        _ => write!(seen, ",+{}#{rest}", number - SHOWN)?,
                    }
                    return Ok(seen);
                }
            }
            if exit == "shutdown" {
                bail!("the guest died");
            }
            match number {
                0 => seen = exit,
                1..SHOWN => write!(seen, ",{exit}")?,
                _ => rest.add(exit.as_bytes()),
            }
        }
        bail!("more than {MOST_EXITS} exits: {seen},...")
    }
}

/// What the pages at [`OUTSIDE`] hold before every step.
fn pattern(offset: u64) -> u64 {
    offset.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Binds the calling thread to one CPU. Some CPUID leaves hold the number of the CPU that asks
/// for them, so that otherwise the answers vary.
pub fn stay_on_cpu(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &only)?)
}

fn hex(bytes: &[u8]) -> String {
    if bytes.len() > 16 {
        let mut digest = Digest::default();
        digest.add(bytes);
        return format!("#{digest}");
    }
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Runs vCPU 0 to its next exit, which is answered; `number` varies the answers.
pub fn one_exit(vm: &mut Vm, number: u32) -> Result<String> {
    let fd = vm.vcpus[0].fd();
    let fill = |data: &mut [u8]| {
        data.iter_mut().enumerate().for_each(|(i, byte)| *byte = (0xa1 + i as u32 + number) as u8);
    };
    let mut text = match fd.run() {
        Ok(VcpuExit::Hlt) => "hlt".into(),
        Ok(VcpuExit::Shutdown) => "shutdown".into(),
        Ok(VcpuExit::IoOut(port, data)) => format!("out:{port:x}:{}", hex(data)),
        Ok(VcpuExit::IoIn(port, data)) => {
            fill(data);
            format!("in:{port:x}")
        }
        Ok(VcpuExit::MmioWrite(gpa, data)) => format!("write:{gpa:x}:{}", hex(data)),
        Ok(VcpuExit::MmioRead(gpa, data)) => {
            fill(data);
            format!("read:{gpa:x}:{}", data.len())
        }
        Ok(VcpuExit::SystemEvent(kind, data)) => format!("system_event:{kind}:{data:x?}"),
        Ok(VcpuExit::Hypercall(call)) => {
            *call.ret = 0x5ec + u64::from(number);
            format!("hypercall:{}:{:x?}:{:x}", call.nr, &call.args[..3], call.longmode)
        }
        Ok(VcpuExit::InternalError) => "internal_error".into(),
        Ok(other) => format!("{other:?}").replace(' ', ""),
        Err(error) => format!("error:{:?}", nix::errno::Errno::from_raw(error.errno())),
    };
    let run = fd.get_kvm_run();
    if text.starts_with("out:") || text.starts_with("in:") {
        // SAFETY: the exit is KVM_EXIT_IO, for which this member is set; it is plain integers.
        let io = unsafe { run.__bindgen_anon_1.io };
        write!(text, ":{}x{}", io.size, io.count)?;
    } else if text == "internal_error" {
        // SAFETY: the exit is KVM_EXIT_INTERNAL_ERROR; as above.
        let error = unsafe { run.__bindgen_anon_1.internal };
        // The second word of data is the CPU's number.
        let code = if error.ndata > 0 { error.data[0] } else { 0 };
        write!(text, ":{}:{code:x}", error.suberror)?;
    }
    Ok(text)
}

/// Requires `outcome` to be a refusal with sub-error `reason`, without exit to userspace.
pub fn refused(t: &mut Test, case: &str, outcome: &Outcome, reason: u64) {
    t.value(case, format!("{:?}", outcome.answer()), format!("{:?}", (answer::MALFORMED, reason)));
    t.value(&format!("{case}.exits"), outcome.exits.as_str(), NO_EXIT);
}

/// Requires `outcome` to be success with `exits` on the way.
pub fn done(t: &mut Test, case: &str, outcome: &Outcome, exits: &str) {
    t.value(case, outcome.answer().0, answer::DONE);
    t.value(&format!("{case}.exits"), outcome.exits.as_str(), exits);
}
