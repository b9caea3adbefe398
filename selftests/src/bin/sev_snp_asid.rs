// SPDX-License-Identifier: GPL-2.0-or-later
//! ASIDs of SNP guests: exhaustion, recycling, which guests share them, limits of the misc cgroup,
//! and VMs that are closed in any order.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use kvm_bindings::*;
use kvm_ioctls::VmFd;
use nix::errno::Errno::EBUSY;
use sev_vm::cgroup::{self, Cgroup};
use sev_vm::cmd::{Answer, issue};
use sev_vm::guest;
use sev_vm::host::{EncryptionLeaf, Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::snp::{Snp, policy, start};
use sev_vm::vm::addr_of;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("exhaustion", exhaustion),
            ("contexts", contexts),
            ("shared_with_es", shared_with_es),
            ("recycling", recycling),
            ("cgroup_limit", cgroup_limit),
            ("close_order", close_order),
        ],
    )
}

/// A VM of nothing but an ASID.
fn init(host: &Host, kind: VmType) -> Result<(VmFd, Answer)> {
    let fd = host.create_vm(kind)?;
    let mut argument = kvm_sev_init::default();
    let answer = issue(&fd, sev_cmd_id_KVM_SEV_INIT2, addr_of(&mut argument), host.sev_fd());
    Ok((fd, answer))
}

fn launch(host: &Host, vm: &VmFd) -> Answer {
    let mut argument = start(policy::DEFAULT);
    issue(vm, sev_cmd_id_KVM_SEV_SNP_LAUNCH_START, addr_of(&mut argument), host.sev_fd())
}

/// VMs until the first refusal, and that refusal.
fn fill(host: &Host) -> Result<(Vec<VmFd>, Answer)> {
    let mut vms = Vec::new();
    loop {
        let (fd, answer) = init(host, VmType::Snp)?;
        if !answer.is_ok() {
            return Ok((vms, answer));
        }
        vms.push(fd);
    }
}

/// ASIDs for guests with encrypted state.
fn asids() -> usize {
    EncryptionLeaf::read().min_sev_asid as usize - 1
}

fn exhaustion(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut vms, refusal) = fill(&host)?;
    t.value("vms", vms.len(), asids());
    t.case("one_too_many", refusal, Answer::refused(EBUSY));
    let (late, answer) = init(&host, VmType::Snp)?;
    t.case("again", answer, Answer::refused(EBUSY));
    let mut argument = kvm_sev_init::default();
    let mut retry =
        || issue(&late, sev_cmd_id_KVM_SEV_INIT2, addr_of(&mut argument), host.sev_fd());
    vms.pop();
    t.case("retry_after_close", retry(), Answer::OK_KEPT);
    let (_plain, answer) = init(&host, VmType::Sev)?;
    t.case("others_are_not_concerned", answer, Answer::OK_KEPT);
    Ok(())
}

/// Every ASID can be bound to a guest at the same time.
fn contexts(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (vms, _) = fill(&host)?;
    let started = vms.iter().filter(|vm| launch(&host, vm) == Answer::OK).count();
    t.value("started", started, asids());
    t.contexts(asids() as u64)?;
    drop(vms);
    t.contexts(0)
}

/// SEV-ES and SNP guests take them from the same pool.
fn shared_with_es(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let (mut vms, _) = fill(&host)?;
    let (_none, answer) = init(&host, VmType::SevEs)?;
    t.case("es_when_full", answer, Answer::refused(EBUSY));
    vms.truncate(asids() - 1);
    let (_es, answer) = init(&host, VmType::SevEs)?;
    t.case("es_when_not", answer, Answer::OK_KEPT);
    let (_none, answer) = init(&host, VmType::Snp)?;
    t.case("snp_when_full", answer, Answer::refused(EBUSY));
    Ok(())
}

/// More guests in a row than there are ASIDs.
fn recycling(t: &mut Test) -> Result<()> {
    const GUESTS: u64 = 250;
    let host = Host::open()?;
    let before = t.psp.counters()?;
    for guest in 0..GUESTS {
        let (vm, answer) = init(&host, VmType::Snp)?;
        ensure!(answer.is_ok(), "KVM_SEV_INIT2 of guest {guest}: {answer}");
        let answer = launch(&host, &vm);
        ensure!(answer.is_ok(), "LAUNCH_START of guest {guest}: {answer}");
    }
    let after = t.psp.counters()?;
    for name in ["SNP_GCTX_CREATE", "SNP_LAUNCH_START", "SNP_ACTIVATE", "SNP_DECOMMISSION"] {
        t.value(name, after.count(name) - before.count(name), GUESTS);
    }
    let flushes = after.flushes() - before.flushes();
    let least = GUESTS / asids() as u64;
    t.check("flushed", flushes >= least && flushes <= least + 1);
    t.check("no_failure", after.failures == before.failures);
    Ok(())
}

/// SNP guests are charged as SEV-ES guests are.
fn cgroup_limit(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let group = Cgroup::new("snp", "sev_es 2")?;
    group.enter()?;
    let show = |t: &mut Test, case: &str| -> Result<()> {
        let (sev, es) = group.charges()?;
        t.observe(case, format!("sev={sev} sev_es={es}"));
        Ok(())
    };
    let first = Snp::initialised(&host)?;
    show(t, "one")?;
    let second = Snp::started(&host, policy::DEFAULT)?;
    show(t, "two")?;
    t.value("charged", group.charges()?.1, 2);
    let third = Snp::bare(&host)?;
    let answer = third.init2(&mut kvm_sev_init::default());
    t.case("third", answer, Answer::refused(EBUSY));
    show(t, "refused")?;
    let (_es, answer) = init(&host, VmType::SevEs)?;
    t.case("es", answer, Answer::refused(EBUSY));
    drop(first);
    let answer = third.init2(&mut kvm_sev_init::default());
    t.case("third_after_close", answer, Answer::OK_KEPT);
    // The group that pays is that of INIT2.
    cgroup::leave()?;
    drop(second);
    show(t, "closed_elsewhere")?;
    drop(third);
    t.value("at_the_end", group.charges()?.1, 0);
    Ok(())
}

/// VM, vCPU, guest_memfd and another descriptor of the VM: each keeps it alive, in whatever order
/// they are closed.
fn close_order(t: &mut Test) -> Result<()> {
    const ORDERS: [[usize; 4]; 6] =
        [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 0, 3, 1], [2, 3, 0, 1], [1, 2, 3, 0]];
    let host = Host::open()?;
    for order in ORDERS {
        for launched in [false, true] {
            let name = format!("{order:?}_{launched}").replace(", ", "");
            let mut vm = Snp::started(&host, policy::DEFAULT)?;
            vm.prepare(&host, guest::idle(), &[[0; 4]])?;
            if launched {
                vm.seal()?;
            }
            let private = vm.private.try_clone()?;
            // SAFETY: the descriptor is open as long as `vm` is.
            let vm_file = unsafe { BorrowedFd::borrow_raw(vm.vm.fd.as_raw_fd()) };
            let vm_file = vm_file.try_clone_to_owned()?;
            let vcpu = vm.vm.vcpus.pop();
            let (Snp { vm, private: first }, mut files) = (vm, [const { None }; 4]);
            drop(first);
            files[0] = Some(Box::new(vm) as Box<dyn std::any::Any>);
            files[1] = Some(Box::new(vcpu));
            files[2] = Some(Box::new(private));
            files[3] = Some(Box::new(vm_file));
            for (closed, which) in order.into_iter().enumerate() {
                files[which] = None;
                let alive = t.psp.counters()?.contexts;
                t.value(&format!("{name}_{closed}"), alive, u64::from(closed < 3));
            }
        }
    }
    Ok(())
}
