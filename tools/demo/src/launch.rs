// SPDX-License-Identifier: GPL-2.0-or-later
//! One guest: launched, measured, trusted with a secret, run, looked into, closed. And another
//! that its owner does not trust.

use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use sev_vm::cmd::Answer;
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::psp::Psp;
use sev_vm::tenant::{self, Owner, Packet, Verdict, VerifiedSession};
use sev_vm::vcpu::{Exit, Vcpu};
use sev_vm::vm::{Vm, guest_state, policy};

use crate::guest::{GREETING, shared, story as program};
use crate::story::{Story, hex};

const SECRET: &[u8; 32] = b"key of the owner's disk, 32 byte";
const POLICY: u32 = policy::NO_SEND;
const ROUNDS: u64 = 1000;
const REGISTER: u64 = 0x1234_5678;
const PRIVATE: usize = guest::PRIVATE as usize;

fn require(what: &str, answer: Answer) -> Result<()> {
    ensure!(answer.is_ok(), "{what}: {answer}");
    Ok(())
}

/// LAUNCH_START with the owner's session, then the program with page tables; `change` is
/// applied before the content is encrypted. The owner expects the unchanged content.
fn launch(host: &Host, change: impl FnOnce(&Vm)) -> Result<(Vm, Vec<u8>, Verdict)> {
    let owner = Owner::prepare(POLICY)?;
    let vm = Vm::sev(host)?;
    require("LAUNCH_START", owner.launch_start(&vm, POLICY))?;
    vm.load(program());
    let expected = vm.memory.read(0, guest::LAUNCHED.end);
    change(&vm);
    vm.encrypt(guest::LAUNCHED)?;
    let measurement = vm.measurement()?;
    let verdict = owner.verify(tenant::build()?, &[&expected], &measurement)?;
    Ok((vm, measurement, verdict))
}

/// Launch and measurement.
pub fn measure(story: &mut Story, host: &Host) -> Result<(Vm, VerifiedSession)> {
    story.chapter("A guest is launched and measured");
    let (vm, measurement, verdict) = launch(host, |_| ())?;
    story.fact("policy", format!("{POLICY:#x} (debugging allowed, no migration)"));
    story.fact("program", format!("{} bytes of assembly", program().code().len()));
    story.fact(
        "encrypted in place",
        format!("{} KiB with page tables", guest::LAUNCHED.len() >> 10),
    );
    story.fact("measurement", hex(&measurement[..32]));
    story.fact("nonce", hex(&measurement[32..]));
    story.check("guest waits for its owner's secret", vm.state()? == guest_state::SECRET);
    let code = vm.memory.read(guest::CODE as usize, program().code().len());
    story.check("the host cannot read the program any more", code != program().code());
    match verdict {
        Verdict::Genuine(session) => {
            story.check("the owner (crate sev) computes the same measurement", true);
            Ok((vm, session))
        }
        Verdict::Tampered => bail!("the owner computes another measurement"),
    }
}

/// Secret, two vCPUs, ports, MMIO.
pub fn run(
    story: &mut Story,
    host: &Host,
    psp: &mut Psp,
    mut vm: Vm,
    session: &VerifiedSession,
) -> Result<Vm> {
    story.chapter("It gets a secret and runs on two vCPUs");
    let packet = Packet::new(session, SECRET)?;
    let page = vm.memory.addr() + guest::SECRET;
    require("LAUNCH_SECRET", vm.launch_secret(&mut packet.argument(page)))?;
    require("LAUNCH_FINISH", vm.launch_finish())?;
    vm.register_memory()?;
    story.check("guest may run", vm.state()? == guest_state::RUNNING);
    for cpu in 0..2 {
        vm.add_vcpu(host, [guest::SHARED.start, guest::SECRET, ROUNDS, cpu])?;
    }
    let transitions = psp.machine()?.page_transitions;
    let [first, second] = &mut vm.vcpus[..] else { bail!("two vCPUs were added") };
    let (console, register) = thread::scope(|scope| {
        let other = scope.spawn(|| second.run_to_halt());
        let seen = serve(first);
        other.join().map_err(|_| anyhow!("vCPU 1 panicked"))??;
        seen
    })?;
    let transitions = psp.machine()?.page_transitions - transitions;
    let at = guest::SHARED.start as usize;
    let word = |offset: usize| vm.memory.read_u64(at + offset);
    let seen = vm.memory.read(at + shared::SECRET, SECRET.len());
    story.fact("on the serial port", format!("{console:?}"));
    story.fact("device register", format!("read {REGISTER:#x}, written {register:#x}"));
    story.fact("secret, as guest read", format!("{:?}", String::from_utf8_lossy(&seen)));
    let turns = [word(shared::TURNS), word(shared::TURNS + 8)];
    story.fact(
        "turns on one word",
        format!("{} and {}, word {}", turns[0], turns[1], word(shared::WORD)),
    );
    story.fact("pages that changed key", transitions);
    story.check("the greeting arrived through port I/O", console == GREETING);
    story.check(
        "MMIO was emulated from the encrypted guest's instructions",
        register == REGISTER + 1,
    );
    story.check("the guest has read the secret", seen == SECRET);
    story.check(
        "both vCPUs took every turn",
        turns == [ROUNDS; 2] && word(shared::WORD) == 2 * ROUNDS,
    );
    story.check("they started together", vm.memory.read(at + shared::READY, 1) == [1]);
    Ok(vm)
}

/// Runs vCPU 0 to its end: what it wrote to the serial port and to the device.
fn serve(vcpu: &mut Vcpu) -> Result<(String, u64)> {
    let (mut console, mut register) = (Vec::new(), None);
    loop {
        match vcpu.run_with(|gpa| if gpa == guest::MMIO.start + 4 { REGISTER } else { 0 })? {
            Exit::Out(0x3f8, bytes) => console.extend(bytes),
            Exit::MmioWrite(gpa, bytes) if gpa == guest::MMIO.start + 8 => {
                register = Some(u32::from_le_bytes(bytes[..].try_into()?).into());
            }
            Exit::Halt => break,
            other => bail!("vCPU 0 stopped with {other:?}"),
        }
    }
    Ok((String::from_utf8(console)?, register.context("no MMIO write")?))
}

/// The same page as the host and the guest see it.
pub fn look_inside(story: &mut Story, vm: &Vm) -> Result<()> {
    story.chapter("The same page, seen by host and guest");
    let plain = Mapping::anonymous(PAGE)?;
    for (what, gpa, expected) in [
        ("secret", guest::SECRET as usize, &SECRET[..]),
        ("program", guest::CODE as usize, &program().code()[..32]),
    ] {
        let host_view = vm.memory.read(gpa, 32);
        require("DBG_DECRYPT", vm.dbg_decrypt(vm.memory.addr() + gpa as u64, plain.addr(), 32))?;
        let guest_view = plain.read(0, 32);
        story.fact(&format!("{what}: host sees"), hex(&host_view));
        story.fact(&format!("{what}: guest sees"), hex(&guest_view));
        story.check(&format!("{what}: ciphertext for the host"), host_view != expected);
        story.check(
            &format!("{what}: debug decryption gives the plaintext"),
            guest_view == expected,
        );
    }
    let view = vm.memory.second_view()?;
    story.check(
        "a second mapping shows the same ciphertext",
        view.read(PRIVATE, PAGE) == vm.memory.read(PRIVATE, PAGE),
    );
    Ok(())
}

/// The guest ends; nothing is left of it.
pub fn close(story: &mut Story, psp: &mut Psp, vm: Vm) -> Result<()> {
    story.chapter("It ends");
    let before = psp.counters()?;
    let (memory, log) = psp.logged(|| Ok(vm.into_memory()))?;
    let after = psp.counters()?;
    let commands: Vec<_> = log.iter().map(|entry| entry.cmd.as_str()).collect();
    story.fact("firmware commands", commands.join(", "));
    story
        .fact("firmware contexts", format!("{} before, {} after", before.contexts, after.contexts));
    story.check("firmware has forgotten the guest", after.contexts == 0 && after.asids_bound == 0);
    story.check(
        "what it left in memory is ciphertext",
        memory.read(guest::SECRET as usize, SECRET.len()) != SECRET,
    );
    Ok(())
}

/// One bit of the program is changed before it is encrypted.
pub fn tamper(story: &mut Story, host: &Host) -> Result<()> {
    story.chapter("Another guest, with one bit of its program changed");
    let (_vm, measurement, verdict) = launch(host, |vm| {
        let byte = vm.memory.read(guest::CODE as usize, 1)[0];
        vm.memory.write(guest::CODE as usize, &[byte ^ 1]);
    })?;
    story.fact("measurement", hex(&measurement[..32]));
    story.check("its owner notices, and sends no secret", matches!(verdict, Verdict::Tampered));
    Ok(())
}
