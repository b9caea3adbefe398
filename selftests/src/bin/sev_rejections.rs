// SPDX-License-Identifier: GPL-2.0-or-later
//! Why an ioctl is rejected: the error number is the same on both modules; ours says in debugfs
//! which of its meanings it is. The stock module says nothing.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use kvm_bindings::*;
use nix::errno::Errno::{self, EBADF, EFAULT, EINVAL, EIO, ENOMEM, ENOTTY, EPERM};
use sev_vm::cmd::{Answer, issue, status};
use sev_vm::host::{Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::PAGE;
use sev_vm::snp::{self, PageType, Snp, policy};
use sev_vm::vm::{Vm, addr_of};

const FILE: &str = "/sys/kernel/debug/kvm_amd_sev/rejections";

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("initialising", initialising),
            ("launching", launching),
            ("sharing", sharing),
            ("snp", snp),
            ("firmware", firmware),
            ("remembered", remembered),
        ],
    )
}

/// A line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Rejection {
    number: u64,
    errno: i32,
    reason: String,
    ioctl: String,
    pid: u32,
    command: String,
}

/// What our module tells, the newest first.
fn told() -> Result<Vec<Rejection>> {
    let table = fs::read_to_string(FILE)?;
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let mut next = || fields.next().with_context(|| line.to_owned());
        Ok(Rejection {
            number: next()?.parse()?,
            errno: next()?.parse()?,
            reason: next()?.into(),
            ioctl: next()?.into(),
            pid: next()?.parse()?,
            command: next()?.into(),
        })
    };
    table.lines().skip(1).map(line).collect()
}

/// Rejections one after the other.
struct Watch {
    ours: bool,
}

impl Watch {
    fn new(host: &Host) -> Result<Self> {
        let ours = host.is_ours();
        ensure!(Path::new(FILE).exists() == ours, "{FILE} is the other module's");
        Ok(Self { ours })
    }

    /// `action` is answered by `errno`, for this reason.
    fn rejected(
        &self,
        t: &mut Test,
        (ioctl, reason, errno): (&str, &str, Errno),
        action: impl FnOnce() -> Answer,
    ) -> Result<()> {
        let number = self.last()?;
        let answer = action();
        t.value(&format!("{ioctl}.{reason}"), answer.errno, errno as i32);
        if self.ours {
            let told = told()?;
            let expected = Rejection {
                number: number + 1,
                errno: -(errno as i32),
                reason: reason.into(),
                ioctl: ioctl.into(),
                pid: std::process::id(),
                command: env!("CARGO_BIN_NAME").into(),
            };
            ensure!(told.first() == Some(&expected), "told {:?}, not {expected:?}", told.first());
        }
        Ok(())
    }

    /// Number of the last rejection.
    fn last(&self) -> Result<u64> {
        Ok(if self.ours { told()?.first().map_or(0, |last| last.number) } else { 0 })
    }
}

/// The commands that make a VM a SEV VM, and those before that.
fn initialising(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let watch = Watch::new(&host)?;
    let plain = Vm::bare(&host, VmType::Default)?;
    let vm = Vm::bare(&host, VmType::Sev)?;
    watch.rejected(t, ("LAUNCH_START", "not_sev", ENOTTY), || {
        plain.launch_start(&mut Default::default())
    })?;
    watch.rejected(t, ("INIT2", "vm_type", EINVAL), || plain.init2(&mut Default::default()))?;
    watch.rejected(t, ("INIT", "vm_type", EINVAL), || vm.command(sev_cmd_id_KVM_SEV_INIT, 0))?;
    watch.rejected(t, ("INIT2", "flags", EINVAL), || {
        vm.init2(&mut kvm_sev_init { flags: 1, ..Default::default() })
    })?;
    watch.rejected(t, ("INIT2", "vmsa_features", EINVAL), || {
        vm.init2(&mut kvm_sev_init { vmsa_features: 1 << 5, ..Default::default() })
    })?;
    watch.rejected(t, ("INIT2", "ghcb_version", EINVAL), || {
        vm.init2(&mut kvm_sev_init { ghcb_version: 2, ..Default::default() })
    })?;
    watch.rejected(t, ("INIT2", "user_memory", EFAULT), || {
        vm.command(sev_cmd_id_KVM_SEV_INIT2, 1)
    })?;
    watch.rejected(t, ("MEMORY_ENCRYPT_OP", "unknown_command", EINVAL), || vm.command(999, 0))?;
    t.check("then", vm.init2(&mut Default::default()).is_ok());
    watch.rejected(t, ("INIT2", "initialised", EINVAL), || vm.init2(&mut Default::default()))
}

/// The commands of a launch, and regions.
fn launching(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let watch = Watch::new(&host)?;
    let vm = Vm::sev(&host)?;
    let data = |uaddr, len| kvm_sev_launch_update_data { uaddr, len, ..Default::default() };
    let region = |addr, size| kvm_enc_region { addr, size };
    let memory = vm.memory.addr();
    let page = PAGE as u64;

    watch.rejected(t, ("LAUNCH_FINISH", "not_launched", EBADF), || vm.launch_finish())?;
    watch.rejected(t, ("LAUNCH_START", "blob", EINVAL), || {
        vm.launch_start(&mut kvm_sev_launch_start {
            dh_uaddr: memory,
            dh_len: (16 << 10) + 1,
            ..Default::default()
        })
    })?;
    watch.rejected(t, ("LAUNCH_START", "sev_fd", EBADF), || {
        let mut start = kvm_sev_launch_start::default();
        let address = addr_of(&mut start);
        issue(&vm.fd, sev_cmd_id_KVM_SEV_LAUNCH_START, address, -1)
    })?;
    t.check("started", vm.launch_start(&mut Default::default()).is_ok());
    watch.rejected(t, ("LAUNCH_UPDATE_DATA", "range", EINVAL), || {
        vm.launch_update_data(&mut data(memory, 0))
    })?;
    watch.rejected(t, ("LAUNCH_UPDATE_DATA", "not_pinned", ENOMEM), || {
        vm.launch_update_data(&mut data(page, PAGE as u32))
    })?;
    watch.rejected(t, ("DBG_DECRYPT", "no_address", EINVAL), || vm.dbg_decrypt(0, memory, 16))?;
    watch.rejected(t, ("LAUNCH_UPDATE_VMSA", "not_sev_es", ENOTTY), || {
        vm.command(sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA, 0)
    })?;
    watch.rejected(t, ("SNP_LAUNCH_START", "not_snp", ENOTTY), || {
        vm.snp_launch_start(&mut snp::start(policy::DEFAULT))
    })?;
    watch.rejected(t, ("REG_REGION", "range", EINVAL), || vm.register(&region(memory, 0)))?;
    watch.rejected(t, ("REG_REGION", "too_much", EINVAL), || {
        vm.register(&region(memory, 1 << 40))
    })?;
    watch
        .rejected(t, ("UNREG_REGION", "no_region", EINVAL), || vm.unregister(&region(memory, page)))
}

/// Copies and moves of contexts.
fn sharing(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let watch = Watch::new(&host)?;
    let (copied, moved) = ("COPY_ENC_CONTEXT_FROM", "MOVE_ENC_CONTEXT_FROM");
    let owner = Vm::sev(&host)?;
    let plain = Vm::bare(&host, VmType::Default)?;
    let [mirror, empty, other] = [(); 3].map(|()| Vm::bare(&host, VmType::Sev));
    let (mirror, empty, other) = (mirror?, empty?, other?);

    watch.rejected(t, (copied, "source_fd", EBADF), || empty.copy_from_fd(-1))?;
    watch.rejected(t, (copied, "source_fd", EBADF), || empty.copy_from_fd(host.sev_fd()))?;
    watch.rejected(t, (copied, "same_vm", EINVAL), || owner.copy_from(&owner))?;
    watch.rejected(t, (copied, "not_sev", EINVAL), || empty.copy_from(&mirror))?;
    t.check("copied", mirror.copy_from(&owner).is_ok());
    watch.rejected(t, (copied, "initialised", EINVAL), || mirror.copy_from(&owner))?;
    watch.rejected(t, (copied, "mirror", EINVAL), || empty.copy_from(&mirror))?;
    watch.rejected(t, ("LAUNCH_START", "mirror", EINVAL), || {
        mirror.launch_start(&mut Default::default())
    })?;
    watch.rejected(t, ("REG_REGION", "mirror", EINVAL), || {
        mirror.register(&kvm_enc_region { addr: mirror.memory.addr(), size: PAGE as u64 })
    })?;
    watch.rejected(t, (moved, "vm_type", EINVAL), || plain.move_from(&owner))?;
    watch.rejected(t, (moved, "not_sev", EINVAL), || empty.move_from(&other))
}

/// The commands of SEV-SNP guests.
fn snp(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let watch = Watch::new(&host)?;
    if !host.offers(VmType::Snp) {
        return Ok(());
    }
    let (start, update) = ("SNP_LAUNCH_START", "SNP_LAUNCH_UPDATE");
    let vm = Snp::initialised(&host)?;
    let page = || vm.update_of(PageType::Normal, 0..PAGE);

    watch.rejected(t, ("LAUNCH_MEASURE", "snp", EPERM), || {
        vm.launch_measure(&mut Default::default())
    })?;
    watch.rejected(t, (update, "not_launched", EINVAL), || vm.snp_launch_update(&mut page()))?;
    watch.rejected(t, (start, "policy", EINVAL), || vm.snp_launch_start(&mut snp::start(0)))?;
    watch.rejected(t, (start, "flags", EINVAL), || {
        let mut argument = snp::start(policy::DEFAULT);
        argument.flags = 1;
        vm.snp_launch_start(&mut argument)
    })?;
    watch.rejected(t, (start, "sev_fd", ENOTTY), || {
        let address = addr_of(&mut snp::start(policy::DEFAULT));
        issue(&vm.fd, sev_cmd_id_KVM_SEV_SNP_LAUNCH_START, address, -1)
    })?;
    t.check("started", vm.snp_launch_start(&mut snp::start(policy::DEFAULT)).is_ok());
    watch.rejected(t, (start, "launched", EINVAL), || {
        vm.snp_launch_start(&mut snp::start(policy::DEFAULT))
    })?;
    let changed = |change: fn(&mut kvm_sev_snp_launch_update)| {
        let mut argument = page();
        change(&mut argument);
        vm.snp_launch_update(&mut argument)
    };
    watch.rejected(t, (update, "page_type", EINVAL), || changed(|a| a.type_ = 0xff))?;
    watch.rejected(t, (update, "range", EINVAL), || changed(|a| a.len = 0))?;
    watch.rejected(t, (update, "unaligned", EINVAL), || changed(|a| a.len = 1))?;
    watch.rejected(t, (update, "unaligned", EINVAL), || changed(|a| a.uaddr += 1))?;
    watch
        .rejected(t, (update, "no_private_slot", EINVAL), || changed(|a| a.gfn_start = 1 << 30))?;
    watch.rejected(t, (update, "not_private", EIO), || vm.snp_launch_update(&mut page()))?;
    vm.set_private(0..PAGE, true)?;
    watch.rejected(t, (update, "user_memory", EIO), || changed(|a| a.uaddr = PAGE as u64))?;
    t.check("loaded", vm.snp_launch_update(&mut page()).is_ok());
    watch.rejected(t, (update, "assigned", EIO), || vm.snp_launch_update(&mut page()))?;
    watch.rejected(t, ("SNP_LAUNCH_FINISH", "flags", EINVAL), || {
        vm.snp_launch_finish(&mut kvm_sev_snp_launch_finish { flags: 1, ..Default::default() })
    })
}

/// What the firmware refuses is not among them: its status is the reason.
fn firmware(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let watch = Watch::new(&host)?;
    let vm = Vm::sev(&host)?;
    let before = watch.last()?;
    t.psp.fail("LAUNCH_START", 1, status::RESOURCE_LIMIT)?;
    let answer = vm.launch_start(&mut Default::default());
    t.case("refused", answer, Answer::firmware(status::RESOURCE_LIMIT));
    ensure!(watch.last()? == before, "{:?}", told()?.first());
    Ok(())
}

/// The last ones stay, in order; older ones are forgotten.
fn remembered(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let watch = Watch::new(&host)?;
    let vm = Vm::sev(&host)?;
    let before = watch.last()?;
    for id in 0..100 {
        t.value("refused", vm.command(999 + id, 0).errno, EINVAL as i32);
    }
    if watch.ours {
        let numbers: Vec<u64> = told()?.iter().map(|told| told.number).collect();
        let expected: Vec<u64> = (before + 69..=before + 100).rev().collect();
        ensure!(numbers == expected, "{numbers:?}");
    }
    Ok(())
}
