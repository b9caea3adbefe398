// SPDX-License-Identifier: GPL-2.0-or-later
//! `sev V COMMAND`: arguments by field, and what the command changed of them.
//!
//! A field is a number, a place, `#N` for the N-th handle that firmware returned, or left 0.
//! `at=P` passes P for the argument's address instead of that of a filled-in one. With `by=race`
//! two threads issue it at once.

use anyhow::{Context, Result};
use sev_vm::cmd::{Answer, issue};
use sev_vm::host::VmType;
use sev_vm::mem::PAGE;

use crate::places::number;
use crate::script::Op;
use crate::table::Field;
use crate::world::{World, by, digest};

/// Where the argument of the second of two commands is that race, behind the first.
const SECOND: u64 = 0x800;
/// Value of `session_uaddr` with which a guest is launched for the owner.
const OWNERS_SESSION: &str = "cert+0x1000";

impl World {
    /// Performs `sev ...`.
    pub(crate) fn command(&mut self, op: Op<'_>) -> Result<String> {
        let (name, wanted) = (op.word(1)?, op.word(2)?);
        if !self.vms.contains_key(name) {
            return Ok("none".into());
        }
        let find = self.commands.iter().find(|command| command.name == wanted);
        let command = find.with_context(|| format!("{:?}: no such command", op.line()))?;
        let (id, fields, outputs) = (command.id, command.fields.clone(), command.outputs);

        let argument = self.at("arg")?;
        self.places.write(argument, &[0; 256]);
        for &(field, offset, size) in &fields {
            let Some(text) = op.value(field) else { continue };
            let bytes = self.field(text)?.to_le_bytes();
            // More than 8 bytes: repeated.
            let bytes: Vec<u8> = bytes.iter().copied().cycle().take(size).collect();
            self.places.write(argument + offset as u64, &bytes);
        }
        let data = op.value("at").map_or(Ok(argument), |place| self.at(place))?;
        let before = self.places.read(argument, 256);
        let get = |bytes: &[u8], name: &str| value(bytes, &fields, name);
        let address = |name| get(&before, name);
        for output in outputs {
            self.fill(address(output));
        }
        if wanted == "LAUNCH_UPDATE_DATA" {
            let bytes = self.places.read(address("uaddr"), address("len") as usize);
            if let Some(vm) = self.vms.get_mut(name).filter(|vm| vm.owner.is_some()) {
                vm.parts.push(bytes);
            }
        }

        let fd = self.descriptor(op)?;
        let vm = self.vms.get(name).context("gone")?;
        let vm_kind = vm.kind;
        if op.value("by") == Some("race") {
            self.places.write(argument + SECOND, &before);
            let second = if data == argument { argument + SECOND } else { data };
            let answers = race([data, second], |data| issue(&vm.fd, id, data, fd))?;
            self.lease(wanted, vm_kind);
            let good = answers.iter().find(|answer| answer.is_ok()).unwrap_or(&answers[0]);
            self.track(name, wanted, op, *good, false, &[]);
            return Ok(answers.map(|answer| answer.to_string()).join(" & "));
        }
        let answer = by(op, || issue(&vm.fd, id, data, fd))?;

        let after = self.places.read(argument, 256);
        let mut text = answer.to_string();
        for (field, ..) in &fields {
            let (old, new) = (get(&before, field), get(&after, field));
            if old != new && *field == "handle" {
                text += &format!(" handle={}", self.handle(new as u32));
            } else if old != new {
                text += &format!(" {field}={new:#x}");
            }
        }
        let owned = self.vms.get(name).is_some_and(|vm| vm.owner.is_some());
        for output in outputs {
            let address = address(output);
            if owned && wanted == "LAUNCH_MEASURE" {
                // The owner's keys are random.
                let measurement = self.places.read(address, 48);
                if answer.is_ok() && measurement.len() == 48 {
                    text += self.verify(name, &measurement)?;
                }
                self.fill(address);
            } else if let Some((start, len)) = self.buffer(address) {
                text += &format!(" {output}={}", digest(&self.places.read(start, len)));
            }
        }
        self.lease(wanted, vm_kind);
        let uaddrs: Vec<u64> = fields
            .iter()
            .filter(|(field, ..)| field.ends_with("uaddr") && !field.starts_with("src"))
            .map(|(field, ..)| address(field))
            .collect();
        let whole = text.contains(" len=0x0");
        self.track(name, wanted, op, answer, whole, &uaddrs);
        Ok(text)
    }

    /// Counts ASIDs.
    fn lease(&mut self, wanted: &str, kind: u64) {
        let es = [VmType::SevEs as u64, VmType::Snp as u64].contains(&kind) || wanted == "ES_INIT";
        self.leased[usize::from(es)] += u64::from(wanted.contains("INIT"));
    }

    fn field(&self, text: &str) -> Result<u64> {
        if let Some(handle) = text.strip_prefix('#').and_then(number) {
            return Ok(self.handles.get(handle as usize).copied().unwrap_or(0xdead).into());
        }
        self.at(text)
    }

    /// The name of a handle.
    fn handle(&mut self, handle: u32) -> String {
        let place = self.handles.iter().position(|known| *known == handle);
        let place = place.unwrap_or_else(|| {
            self.handles.push(handle);
            self.handles.len() - 1
        });
        format!("#{place}")
    }

    /// Start and length of the buffer that an address is in; guests' memory is none.
    fn buffer(&self, address: u64) -> Option<(u64, usize)> {
        self.places.whole(address).filter(|_| !self.places.is_guest(address))
    }

    /// Makes a buffer's content known.
    fn fill(&self, address: u64) {
        if let Some((start, len)) = self.buffer(address) {
            self.places.write(start, &vec![0xa5; len]);
        }
    }

    /// Keeps account of which VMs may run, and of the owner's guest.
    /// `whole`: all of a range was loaded.
    fn track(
        &mut self,
        name: &str,
        wanted: &str,
        op: Op<'_>,
        answer: Answer,
        whole: bool,
        uaddrs: &[u64],
    ) {
        let encrypts_program = |memory: u64| {
            wanted == "LAUNCH_UPDATE_DATA"
                && uaddrs == [memory]
                && op.value("len").and_then(number) >= Some(sev_vm::guest::LAUNCHED.end as u64)
                && op.value("at").is_none()
        };
        let Some(vm) = self.vms.get_mut(name) else { return };
        let launches = vm.loaded && !vm.encrypted && answer.is_ok() && encrypts_program(vm.memory);
        if wanted.ends_with("LAUNCH_FINISH") && answer.is_ok() && vm.encrypted {
            vm.runnable = true;
        }
        if wanted == "LAUNCH_START"
            && answer.is_ok()
            && op.value("session_uaddr") == Some(OWNERS_SESSION)
        {
            vm.owner = self.owner.take();
        }
        if wanted == "LAUNCH_UPDATE_DATA" && !answer.is_ok() {
            vm.parts.pop();
        }
        if launches {
            vm.encrypted = true;
            return;
        }
        if wanted.starts_with("SNP_") {
            // Memory is copied from, not changed.
            let first = op.value("gfn_start").and_then(number).unwrap_or(0) == 0;
            vm.encrypted |= vm.loaded && whole && first && uaddrs == [vm.memory];
            return;
        }
        for &address in uaddrs {
            // The program is at the beginning.
            let start = address.checked_sub(PAGE as u64 * 0x30).unwrap_or(address);
            for address in [start, address] {
                self.touched(address);
            }
        }
    }
}

/// Two threads do the same; both answers, without regard to whose is which.
fn race(arguments: [u64; 2], action: impl Fn(u64) -> Answer + Sync) -> Result<[Answer; 2]> {
    let action = &action;
    let mut answers = std::thread::scope(|scope| {
        let other = scope.spawn(move || action(arguments[1]));
        let here = action(arguments[0]);
        other.join().map(|other| [here, other])
    })
    .map_err(|_| anyhow::anyhow!("the thread panicked"))?;
    answers.sort_by_key(|answer| (answer.errno, answer.fw));
    Ok(answers)
}

/// A field's value; of longer ones the first 8 bytes.
fn value(bytes: &[u8], fields: &[Field], name: &str) -> u64 {
    let Some((_, offset, size)) = fields.iter().find(|(field, ..)| *field == name) else {
        return 0;
    };
    let mut word = [0; 8];
    let size = (*size).min(8);
    word[..size].copy_from_slice(&bytes[*offset..offset + size]);
    u64::from_le_bytes(word)
}
