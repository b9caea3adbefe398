// SPDX-License-Identifier: GPL-2.0-or-later
//! vCPUs, and the program that they run.

use std::collections::BTreeMap;

use anyhow::Result;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::alarm;
use sev_vm::cmd::Answer;
use sev_vm::guest::{self, store_and_watch};
use sev_vm::host::{EncryptionLeaf, Host};
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::vcpu::Vcpu;

use crate::places::Places;
use crate::world::Guest;

/// Seconds after which a guest is stopped.
const LIMIT: u32 = 20;
/// What the program stores.
const WORD: u64 = 0x1122_3344_5566_7788;

/// vCPUs by VM and number. They may outlive their VM's file.
#[derive(Default)]
pub struct Cpus {
    cpus: BTreeMap<(String, u64), Vcpu>,
}

impl Cpus {
    /// Whether a VM has any.
    pub fn any_of(&self, vm: &str) -> bool {
        self.cpus.keys().any(|(name, _)| name == vm)
    }

    /// Creates one, ready to start the program.
    pub fn add(&mut self, host: &Host, name: &str, vm: &Guest, n: u64) -> Result<String> {
        let fd = match vm.fd.create_vcpu(n) {
            Ok(fd) => fd,
            Err(error) => return Ok(Answer::from_result::<()>(Err(error)).to_string()),
        };
        let c_mask = if vm.kind == 0 { 0 } else { EncryptionLeaf::read().c_mask() };
        let args = [guest::PRIVATE, guest::SHARED.start, WORD, 0];
        Ok(match Vcpu::start(host, fd, n, c_mask, args) {
            Ok(vcpu) => {
                self.cpus.insert((name.into(), n), vcpu);
                Answer::OK_KEPT.to_string()
            }
            Err(error) => format!("created, not set up: {error:#}"),
        })
    }

    /// One of them.
    pub fn get(&mut self, vm: &str, n: u64) -> Option<&mut Vcpu> {
        self.cpus.get_mut(&(vm.to_owned(), n))
    }

    /// Closes one.
    pub fn close(&mut self, vm: &str, n: u64) -> &'static str {
        if self.cpus.remove(&(vm.into(), n)).is_some() { "closed" } else { "none" }
    }

    /// Runs one until it halts; what it wrote to shared memory.
    pub fn run(&mut self, vm: &str, n: u64, places: &Places, memory: u64) -> Result<String> {
        extern "C" fn nothing(_: nix::libc::c_int) {}
        let Some(cpu) = self.cpus.get_mut(&(vm.to_owned(), n)) else { return Ok("none".into()) };
        let handler = SigHandler::Handler(nothing);
        // SAFETY: the handler does nothing; the signal only interrupts KVM_RUN.
        unsafe {
            sigaction(
                Signal::SIGALRM,
                &SigAction::new(handler, SaFlags::empty(), SigSet::empty()),
            )?;
        }
        alarm::set(LIMIT);
        let exit = cpu.run();
        alarm::cancel();
        let shared = places.read(memory + guest::SHARED.start, 8);
        Ok(match exit {
            Ok(exit) => format!("{exit:?} shared={shared:02x?}"),
            Err(error) => format!("error: {error:#}"),
        })
    }
}

/// Page tables and program: offsets in guest memory, and bytes.
pub fn program(c_mask: u64) -> Result<Vec<(u64, Vec<u8>)>> {
    let tables = Mapping::anonymous(guest::MEMORY)?;
    guest::write_page_tables(&tables, c_mask);
    let at = guest::TABLES as usize;
    Ok(vec![
        (guest::TABLES, tables.read(at, 5 * PAGE)),
        (guest::CODE, store_and_watch().code().to_vec()),
    ])
}
