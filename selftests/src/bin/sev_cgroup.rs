// SPDX-License-Identifier: GPL-2.0-or-later
//! The misc cgroup: ASIDs of SEV and SEV-ES VMs are charged to where the context was made, and
//! go with it when it is moved.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use nix::errno::Errno::EBUSY;
use sev_vm::cgroup::{self, Cgroup};
use sev_vm::cmd::Answer;
use sev_vm::context::{Kind, empty};
use sev_vm::guest;
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::GuestMemory;
use sev_vm::vm::Vm;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("limits", limits),
            ("mirrors", mirrors),
            ("move_within", move_within),
            ("move_between", move_between),
            ("move_es_between", move_es_between),
            ("move_mirror", move_mirror),
            ("move_mirror_between", move_mirror_between),
        ],
    )
}

fn small(host: &Host, vm_type: VmType) -> Result<Vm> {
    empty(host, vm_type, GuestMemory::new(guest::MEMORY)?)
}

/// Records what is charged to a group.
fn charges(t: &mut Test, case: &str, group: &Cgroup, expected: (u64, u64)) -> Result<()> {
    let (sev, es) = group.charges()?;
    t.value(&format!("{case}_sev"), sev, expected.0);
    t.value(&format!("{case}_sev_es"), es, expected.1);
    Ok(())
}

/// Each kind has its own limit.
fn limits(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let group = Cgroup::new("limits", "sev 1")?;
    group.limit("sev_es 2")?;
    group.enter()?;
    let (mut vms, init) = (vec![], |kind: Kind| -> Result<_> {
        let vm = small(&host, kind.vm_type())?;
        let answer = kind.init(&vm, kind.vm_type());
        Ok((vm, answer))
    });
    for (case, kind, expected) in [
        ("es_1", Kind::Es, Answer::OK_KEPT),
        ("es_2", Kind::Es, Answer::OK_KEPT),
        ("es_3", Kind::Es, Answer::refused(EBUSY)),
        ("sev_1", Kind::Sev, Answer::OK_KEPT),
        ("sev_2", Kind::Sev, Answer::refused(EBUSY)),
    ] {
        let (vm, answer) = init(kind)?;
        t.case(case, answer, expected);
        vms.push(vm);
    }
    charges(t, "full", &group, (1, 2))?;
    // The limit of a VM that was refused does not stick to it.
    cgroup::leave()?;
    t.case("es_3_outside", Kind::Es.init(&vms[2], VmType::SevEs), Answer::OK_KEPT);
    charges(t, "outside", &group, (1, 2))?;
    vms.truncate(1);
    charges(t, "one_left", &group, (0, 1))?;
    vms.clear();
    charges(t, "none_left", &group, (0, 0))
}

/// A mirror costs nothing; what it shares is charged until the last one goes.
fn mirrors(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let group = Cgroup::new("mirrors", "sev 1")?;
    group.limit("sev_es 1")?;
    for (name, kind) in Kind::ALL {
        let expected = if kind == Kind::Sev { (1, 0) } else { (0, 1) };
        group.enter()?;
        let owner = kind.started(&host, kind.vm_type())?;
        let mirror = small(&host, VmType::Default)?;
        t.case(&format!("{name}_copy"), mirror.copy_from(&owner), Answer::OK_KEPT);
        charges(t, &format!("{name}_both"), &group, expected)?;
        drop(owner);
        charges(t, &format!("{name}_mirror"), &group, expected)?;
        cgroup::leave()?;
        drop(mirror);
        charges(t, &format!("{name}_none"), &group, (0, 0))?;
    }
    Ok(())
}

/// A move within a group needs no second charge.
fn move_within(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let group = Cgroup::new("within", "sev 1")?;
    group.limit("sev_es 1")?;
    group.enter()?;
    for (name, kind) in Kind::ALL {
        let expected = if kind == Kind::Sev { (1, 0) } else { (0, 1) };
        let source = kind.started(&host, kind.vm_type())?;
        let taker = small(&host, kind.vm_type())?;
        t.case(&format!("{name}_move"), taker.move_from(&source), Answer::OK_KEPT);
        charges(t, &format!("{name}_moved"), &group, expected)?;
        drop(source);
        charges(t, &format!("{name}_source_closed"), &group, expected)?;
        drop(taker);
        charges(t, &format!("{name}_closed"), &group, (0, 0))?;
    }
    Ok(())
}

/// The charge moves to the group of the mover, if there is room.
fn move_between(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (from, to) = (Cgroup::new("from", "sev 1")?, Cgroup::new("to", "sev 0")?);
    from.enter()?;
    let source = Kind::Sev.started(&host, VmType::Sev)?;
    to.enter()?;
    let taker = small(&host, VmType::Sev)?;
    t.case("no_room", taker.move_from(&source), Answer::refused(EBUSY));
    charges(t, "refused_from", &from, (1, 0))?;
    charges(t, "refused_to", &to, (0, 0))?;
    t.case("source_works", source.guest_status(&mut Default::default()), Answer::OK);
    to.limit("sev 1")?;
    t.case("room", taker.move_from(&source), Answer::OK_KEPT);
    charges(t, "moved_from", &from, (0, 0))?;
    charges(t, "moved_to", &to, (1, 0))?;
    drop(source);
    charges(t, "source_closed", &to, (1, 0))?;
    drop(taker);
    charges(t, "closed", &to, (0, 0))
}

/// As [`move_between`] with SEV-ES. The stock module charges `sev` for it. So that nothing is
/// ever below zero there, a SEV VM is charged to the first group, and the context goes back.
fn move_es_between(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (from, to) = (Cgroup::new("es-from", "sev 9")?, Cgroup::new("es-to", "sev 9")?);
    let ours = host.is_ours();
    from.enter()?;
    let ballast = Kind::Sev.started(&host, VmType::Sev)?;
    let source = Kind::Es.started(&host, VmType::SevEs)?;
    charges(t, "before", &from, (1, 1))?;
    to.enter()?;
    let taker = small(&host, VmType::SevEs)?;
    t.case("there", taker.move_from(&source), Answer::OK_KEPT);
    charges(t, "there_from", &from, if ours { (1, 0) } else { (0, 1) })?;
    charges(t, "there_to", &to, if ours { (0, 1) } else { (1, 0) })?;
    from.enter()?;
    let back = small(&host, VmType::SevEs)?;
    t.case("back", back.move_from(&taker), Answer::OK_KEPT);
    charges(t, "back_from", &from, (1, 1))?;
    charges(t, "back_to", &to, (0, 0))?;
    drop((ballast, source, taker, back));
    charges(t, "closed_from", &from, (0, 0))?;
    charges(t, "closed_to", &to, (0, 0))
}

/// A mirror that moves is charged nothing either. The stock module charges `sev` for it, for
/// ever.
fn move_mirror(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let group = Cgroup::new("mirror", "sev 9")?;
    group.enter()?;
    let owner = Kind::Sev.started(&host, VmType::Sev)?;
    let mirror = small(&host, VmType::Sev)?;
    t.case("copy", mirror.copy_from(&owner), Answer::OK_KEPT);
    charges(t, "copied", &group, (1, 0))?;
    let taker = small(&host, VmType::Sev)?;
    t.case("move", taker.move_from(&mirror), Answer::OK_KEPT);
    let leaked = if host.is_ours() { 0 } else { 1 };
    t.leaks_charges(leaked);
    charges(t, "moved", &group, (1 + leaked, 0))?;
    // Still a mirror: the owner's commands are not for it.
    t.case("status", taker.guest_status(&mut Default::default()), moved_status(&host));
    t.case("not_owner", taker.launch_finish(), Answer::refused(nix::errno::Errno::EINVAL));
    drop(mirror);
    drop(owner);
    t.contexts(1)?;
    drop(taker);
    t.contexts(0)?;
    charges(t, "closed", &group, (leaked, 0))
}

/// Whoever takes a mirror over pays nothing; the owner's group still does. Not on the stock module,
/// where the charge would never go.
fn move_mirror_between(_: &mut Test) -> Result<()> {
    let host = Host::open()?;
    if !host.is_ours() {
        return Ok(());
    }
    let (owners, takers) = (Cgroup::new("owners", "sev 1")?, Cgroup::new("takers", "sev 0")?);
    owners.enter()?;
    let owner = Kind::Sev.started(&host, VmType::Sev)?;
    let mirror = small(&host, VmType::Sev)?;
    ensure!(mirror.copy_from(&owner).is_ok(), "copy");
    takers.enter()?;
    let taker = small(&host, VmType::Sev)?;
    let answer = taker.move_from(&mirror);
    ensure!(answer.is_ok(), "move: {answer}");
    ensure!((owners.charges()?, takers.charges()?) == ((1, 0), (0, 0)), "charges");
    Ok(())
}

/// The stock module does not move the number of the descriptor along.
fn moved_status(host: &Host) -> Answer {
    if host.is_ours() { Answer::OK } else { Answer::refused(nix::errno::Errno::EBADF) }
}
