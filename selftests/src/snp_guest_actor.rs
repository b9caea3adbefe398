// SPDX-License-Identifier: GPL-2.0-or-later
//! One vCPU of an SNP guest as a puppet of the test, and the part of a VMM that answers it.

use std::fmt::{self, Write};

use anyhow::{Result, bail, ensure};
use kvm_ioctls::{VcpuExit, VmFd};
use nix::errno::Errno;

use crate::ghcb::{Field, Ghcb};
use crate::mem::{Mapping, PAGE};
use crate::snp_guest::{MAP_GPA_RANGE, ghcb_of, mailbox_of, map, set_private};
use crate::snp_guest_program::{Command, mailbox};
use crate::vcpu::Vcpu;

/// `KVM_MEMORY_EXIT_FLAG_PRIVATE`.
const FAULT_PRIVATE: u64 = 1 << 3;
/// `KVM_EXIT_SNP_REQ_CERTS` (linux/kvm.h).
const EXIT_SNP_REQ_CERTS: u32 = 43;
/// Exits to userspace in one command before it counts as endless.
const MOST_EXITS: u32 = 2000;

/// How the VMM answers what the guest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Does it.
    Serve,
    /// Returns this number instead of doing anything.
    Return(u64),
    /// Stops the command there, without an answer.
    Stop,
}

/// The VMM's behaviour during a command.
#[derive(Clone, Copy, Debug)]
pub struct Vmm {
    /// To page state changes.
    pub hypercalls: Reply,
    /// From this hypercall of a command on, all others are served.
    pub hypercalls_from: u32,
    /// Page state changes of what is below this address fail with EINVAL.
    pub refused_below: u64,
    /// To memory faults: [`Reply::Return`] is no answer to those.
    pub faults: Reply,
    /// To requests for certificates.
    pub certificates: Reply,
    /// What is written over `npages` when certificates are asked for.
    pub pages: Option<u64>,
}

impl Default for Vmm {
    fn default() -> Self {
        Self {
            hypercalls: Reply::Serve,
            hypercalls_from: 0,
            refused_below: 0,
            faults: Reply::Stop,
            certificates: Reply::Return(0),
            pages: None,
        }
    }
}

/// An exception in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its vector.
    pub vector: u64,
    /// Its error code; 0 if it has none.
    pub code: u64,
}

impl Exception {
    /// #VC of a page that is not validated.
    pub const NOT_VALIDATED: Self = Self { vector: 29, code: 0x404 };
}

/// What became of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Exits to userspace on the way.
    pub exits: Vec<String>,
    /// The command's results.
    pub results: [u64; 2],
    /// What ended it in the guest.
    pub exception: Option<Exception>,
    /// Whether the guest came to the command's end.
    pub done: bool,
}

impl Outcome {
    /// The exits as one word; `-` for none.
    pub fn exits(&self) -> String {
        if self.exits.is_empty() { "-".into() } else { self.exits.join(",") }
    }

    /// Whether it came to its end without an exception or exit.
    pub fn quiet(&self) -> bool {
        self.done && self.exception.is_none() && self.exits.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exits={} results={:x?}", self.exits(), self.results)?;
        if let Some(Exception { vector, code }) = self.exception {
            write!(f, " exception={vector}:{code:x}")?;
        }
        if !self.done {
            write!(f, " unfinished")?;
        }
        Ok(())
    }
}

/// One vCPU, and what runs it.
pub struct Actor<'a> {
    /// The vCPU.
    pub vcpu: &'a mut Vcpu,
    /// The VM's file.
    pub vm: &'a VmFd,
    /// The guest's shared memory.
    pub memory: &'a Mapping,
    /// The vCPU's number.
    pub index: usize,
    /// How requests are answered.
    pub vmm: Vmm,
}

impl Actor<'_> {
    /// Does a command.
    pub fn command(&mut self, command: Command, arguments: [u64; 3]) -> Result<Outcome> {
        self.post(command, arguments);
        self.resume()
    }

    /// Puts a command into the mailbox.
    pub fn post(&self, command: Command, arguments: [u64; 3]) {
        let mailbox = mailbox_of(self.index) as usize;
        self.memory.write_u64(mailbox + mailbox::COMMAND, command as u64);
        for (i, argument) in arguments.into_iter().enumerate() {
            self.memory.write_u64(mailbox + mailbox::ARGUMENTS + 8 * i, argument);
        }
        for offset in [mailbox::RESULTS, mailbox::RESULTS + 8, mailbox::VECTOR] {
            self.memory.write_u64(mailbox + offset, 0);
        }
    }

    fn word(&self, offset: usize) -> u64 {
        self.memory.read_u64(mailbox_of(self.index) as usize + offset)
    }

    /// Runs the vCPU until its command is done, or it stops for good.
    pub fn resume(&mut self) -> Result<Outcome> {
        let done = self.word(mailbox::DONE);
        let mut exits = Vec::new();
        let mut hypercalls = 0;
        let mut ended = false;
        while !ended {
            let (text, goes_on) = self.one_exit(&mut hypercalls)?;
            ended = text == "hlt" && self.word(mailbox::DONE) == done + 1;
            if !ended {
                exits.push(text);
            }
            if !goes_on {
                break;
            }
            ensure!(exits.len() < MOST_EXITS as usize, "more than {MOST_EXITS} exits");
        }
        let vector = self.word(mailbox::VECTOR);
        let exception = Exception { vector, code: self.word(mailbox::ERROR_CODE) };
        Ok(Outcome {
            exits,
            results: [self.word(mailbox::RESULTS), self.word(mailbox::RESULTS + 8)],
            exception: (vector != 0).then_some(exception),
            done: ended,
        })
    }

    /// Runs the vCPU to its next exit: the exit as text, and whether it is to run again.
    fn one_exit(&mut self, hypercalls: &mut u32) -> Result<(String, bool)> {
        let (vm, vmm) = (self.vm, self.vmm);
        let fd = self.vcpu.fd();
        Ok(match fd.run() {
            Ok(VcpuExit::Hlt) => ("hlt".into(), true),
            Ok(VcpuExit::Hypercall(call)) => {
                let [gpa, pages, attributes] = [call.args[0], call.args[1], call.args[2]];
                let text = format!("map:{gpa:x}+{pages:x}:{attributes:x}");
                ensure!(call.nr == MAP_GPA_RANGE, "hypercall {}", call.nr);
                let served = *hypercalls < vmm.hypercalls_from;
                *hypercalls += 1;
                match vmm.hypercalls {
                    Reply::Return(number) if !served => *call.ret = number,
                    Reply::Stop if !served => return Ok((text, false)),
                    _ => {
                        let range = gpa..gpa + pages * PAGE as u64;
                        let done = gpa >= vmm.refused_below
                            && set_private(vm, range, attributes & map::ENCRYPTED != 0).is_ok();
                        *call.ret = if done { 0 } else { Errno::EINVAL as u64 };
                    }
                }
                (text, true)
            }
            Ok(VcpuExit::MemoryFault { flags, gpa, size }) => {
                let private = flags & FAULT_PRIVATE != 0;
                let kind = if private { "private" } else { "shared" };
                let text = format!("fault:{gpa:x}+{size:x}:{kind}");
                if vmm.faults == Reply::Serve {
                    set_private(vm, gpa..gpa + size, private)?;
                }
                (text, vmm.faults == Reply::Serve)
            }
            Ok(VcpuExit::SystemEvent(kind, data)) => {
                (format!("system_event:{kind}:{data:x?}"), true)
            }
            Ok(VcpuExit::Shutdown) => ("shutdown".into(), false),
            Ok(VcpuExit::FailEntry(reason, _)) => (format!("fail_entry:{reason:x}"), false),
            Ok(VcpuExit::IoOut(port, _)) => (format!("out:{port:x}"), true),
            Ok(VcpuExit::Unsupported(EXIT_SNP_REQ_CERTS)) => self.certificates()?,
            Ok(other) => (format!("{other:?}").replace(' ', ""), false),
            Err(error) => (format!("error:{:?}", Errno::from_raw(error.errno())), false),
        })
    }

    /// Answers a request for certificates.
    fn certificates(&mut self) -> Result<(String, bool)> {
        let vmm = self.vmm;
        let run = self.vcpu.fd().get_kvm_run();
        // SAFETY: `padding` covers the whole union, which KVM has written; it is plain bytes.
        let bytes = unsafe { &mut run.__bindgen_anon_1.padding };
        let mut words = [0; 3];
        for (i, word) in words.iter_mut().enumerate() {
            for byte in (0..8).rev() {
                *word = (*word << 8) | u64::from(bytes[8 * i + byte] as u8);
            }
        }
        let [gpa, pages, before] = words;
        let mut text = String::new();
        write!(text, "certs:{gpa:x}+{pages:x}:{before:x}")?;
        let (pages, reply) = match vmm.certificates {
            Reply::Return(number) => (vmm.pages.unwrap_or(pages), number),
            Reply::Serve => (pages, 0),
            Reply::Stop => return Ok((text, false)),
        };
        for (i, word) in [pages, reply].into_iter().enumerate() {
            for (j, byte) in word.to_le_bytes().into_iter().enumerate() {
                bytes[8 * (i + 1) + j] = byte as _;
            }
        }
        Ok((text, true))
    }

    /// VMGEXIT with this value of the GHCB MSR.
    pub fn msr(&mut self, value: u64) -> Result<Outcome> {
        self.command(Command::VmgExit, [value, 0, 0])
    }

    /// VMGEXIT with this GHCB.
    pub fn vmgexit(&mut self, ghcb: &Ghcb) -> Result<(Outcome, Ghcb)> {
        self.put_ghcb(ghcb);
        let outcome = self.msr(ghcb_of(self.index))?;
        Ok((outcome, self.ghcb()))
    }

    /// Writes the vCPU's GHCB.
    pub fn put_ghcb(&self, ghcb: &Ghcb) {
        self.memory.write(ghcb_of(self.index) as usize, &ghcb.0);
    }

    /// Reads the vCPU's GHCB.
    pub fn ghcb(&self) -> Ghcb {
        Ghcb(self.memory.read(ghcb_of(self.index) as usize, PAGE))
    }

    /// Tells KVM where the vCPU's GHCB is.
    pub fn register(&mut self) -> Result<()> {
        let gpa = ghcb_of(self.index);
        let outcome = self.msr(gpa | 0x12)?;
        ensure!(outcome.results[0] == gpa | 0x13, "GHCB registration: {outcome}");
        Ok(())
    }

    /// PVALIDATE of 4 KiB: the result and the carry flag.
    pub fn pvalidate(&mut self, gpa: u64, validate: bool) -> Result<Outcome> {
        self.command(Command::Pvalidate, [gpa, 0, validate.into()])
    }

    /// Validates a page that is assigned; anything but a change is an error.
    pub fn validate(&mut self, gpa: u64) -> Result<()> {
        let outcome = self.pvalidate(gpa, true)?;
        if !outcome.done || outcome.exception.is_some() || outcome.results != [0, 0] {
            bail!("PVALIDATE of {gpa:#x}: {outcome}");
        }
        Ok(())
    }

    /// Reads a word at a virtual address.
    pub fn load(&mut self, address: u64) -> Result<Outcome> {
        self.command(Command::Load, [address, 0, 0])
    }

    /// Writes a word at a virtual address.
    pub fn store(&mut self, address: u64, value: u64) -> Result<Outcome> {
        self.command(Command::Store, [address, value, 0])
    }
}

/// The two words of an answer in a GHCB.
pub fn answer(ghcb: &Ghcb) -> (u64, u64) {
    (ghcb.get(Field::Info1), ghcb.get(Field::Info2))
}
