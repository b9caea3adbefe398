// SPDX-License-Identifier: GPL-2.0-or-later
//! Exits of SEV-ES guests for which KVM maps or copies guest memory: with the first version of the
//! protocol the data may be anywhere.
//!
//! If KVM_RUN fails, the exit is over, since the guest's instruction is: the guest runs on, and
//! makes the next one.

use std::mem;

use anyhow::{Result, ensure};
use kvm_ioctls::VcpuExit;
use nix::errno::Errno::ENOTTY;
use sev_vm::cmd::Answer;
use sev_vm::es::Setup;
use sev_vm::ghcb::{BUFFER, Field, Ghcb, answer, exit, ioio};
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::mem::PAGE;
use sev_vm::step::{GHCB, MAILBOX, OUTSIDE, Stepper};

use crate::calls::{Call, Subject, call};

/// What devices answer, and what the guest writes: bytes of these values.
const INPUT: u8 = 0xa5;
const OUTPUT: u8 = 0x5a;
/// In the GHCB.
const INSIDE: u64 = GHCB + BUFFER as u64;
/// Outside of the GHCB, on two pages.
const ACROSS: u64 = OUTSIDE + PAGE as u64 - 8;
const SMALL: u64 = 16;
/// More than the buffer of every vCPU has.
const LARGE: u64 = 3 * PAGE as u64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Device {
    Memory,
    Port,
}

/// An exit for the access of a device.
struct Access {
    device: Device,
    /// To the guest.
    input: bool,
    scratch: u64,
    len: u64,
}

impl Access {
    fn ghcb(&self) -> Ghcb {
        let ghcb = match (self.device, self.input) {
            (Device::Memory, true) => Ghcb::request(exit::MMIO_READ, guest::MMIO.start, self.len),
            (Device::Memory, false) => Ghcb::request(exit::MMIO_WRITE, guest::MMIO.start, self.len),
            (Device::Port, input) => {
                let flags = ioio::STRING | ioio::REP | if input { ioio::IN } else { 0 };
                Ghcb::request(exit::IOIO, ioio::info(0x3f8, 1, flags), self.len)
            }
        };
        ghcb.with(Field::Scratch, self.scratch)
    }

    fn filled_with(&self, subject: &Subject, byte: u8) -> bool {
        let data = subject.vm.memory.read(self.scratch as usize, self.len as usize);
        data.iter().all(|found| *found == byte)
    }

    fn make(&self, subject: &mut Subject) -> Answer {
        if mem::take(&mut subject.in_exit) {
            let (answer, _) = run(subject);
            if !answer.is_ok() {
                return answer;
            }
        }
        subject.vm.memory.write(GHCB as usize, &self.ghcb().0);
        subject.vm.memory.write(self.scratch as usize, &vec![OUTPUT; self.len as usize]);
        subject.vm.memory.write_u64(MAILBOX as usize, GHCB);

        let (answer, written) = run(subject);
        if !answer.is_ok() {
            return answer;
        }
        let good = if self.input {
            self.filled_with(subject, INPUT) && written.is_empty()
        } else {
            self.filled_with(subject, OUTPUT) && written == vec![OUTPUT; self.len as usize]
        };
        let info1 = subject.vm.memory.read_u64(GHCB as usize + Field::Info1 as usize);
        // What no KVM_RUN answers.
        if good && info1 == answer::DONE { Answer::OK_KEPT } else { Answer::refused(ENOTTY) }
    }
}

/// Runs the guest until it halts, and serves its devices; what it wrote there.
fn run(subject: &mut Subject) -> (Answer, Vec<u8>) {
    let mut written = Vec::new();
    subject.in_exit = true;
    let answer = loop {
        match subject.vm.vcpus[0].fd().run() {
            Ok(VcpuExit::Hlt) => break Answer::OK_KEPT,
            Ok(VcpuExit::IoIn(_, data) | VcpuExit::MmioRead(_, data)) => data.fill(INPUT),
            Ok(VcpuExit::IoOut(_, data) | VcpuExit::MmioWrite(_, data)) => {
                written.extend_from_slice(data);
            }
            Ok(_) => break Answer::refused(ENOTTY),
            Err(error) => break Answer::from_result::<()>(Err(error)),
        }
    };
    if answer.is_ok() {
        subject.in_exit = false;
    }
    (answer, written)
}

/// A guest that has never run.
fn fresh(host: &Host) -> Result<Subject> {
    Subject::new(Stepper::new(host, Setup::version(1))?.vm)
}

/// A guest that has made an exit: what KVM allocates for the first one is there.
fn warm(host: &Host) -> Result<Subject> {
    let mut subject = fresh(host)?;
    let answer = IN_GHCB.make(&mut subject);
    ensure!(answer.is_ok(), "an exit: {answer}");
    Ok(subject)
}

const IN_GHCB: Access = Access { device: Device::Memory, input: true, scratch: INSIDE, len: SMALL };

const fn exit(
    prepare: fn(&Host) -> Result<Subject>,
    act: fn(&Host, &mut Subject) -> Answer,
) -> Call {
    Call { kind: VmType::SevEs, ..call(prepare, act, 0) }
}

fn access(subject: &mut Subject, device: Device, input: bool, len: u64) -> Answer {
    Access { device, input, scratch: ACROSS, len }.make(subject)
}

pub const RUN_ES: Call = exit(fresh, |_, s| IN_GHCB.make(s));
pub const EXIT: Call = exit(warm, |_, s| IN_GHCB.make(s));
pub const MMIO_READ: Call = exit(warm, |_, s| access(s, Device::Memory, true, SMALL));
pub const MMIO_WRITE: Call = exit(warm, |_, s| access(s, Device::Memory, false, SMALL));
pub const INS: Call = exit(warm, |_, s| access(s, Device::Port, true, LARGE));
pub const OUTS: Call = exit(warm, |_, s| access(s, Device::Port, false, LARGE));
