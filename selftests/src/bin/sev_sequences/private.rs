// SPDX-License-Identifier: GPL-2.0-or-later
//! Private memory of SEV-SNP VMs: attributes, holes, faults in advance; identities of guests.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use kvm_bindings::*;
use kvm_ioctls::VmFd;
use sev::measurement::snp::SnpLaunchDigest;
use sev_vm::cmd::Answer;
use sev_vm::mem::PAGE;
use sev_vm::snp::guest_memfd;
use sev_vm::snp_guest::punch;
use sev_vm::snp_identity::Owner;

use crate::places::GUEST;
use crate::script::Op;
use crate::world::{Guest, World, by};

/// A VM's private memory and a slot for both halves.
pub fn with_private(fd: &VmFd, memory: u64) -> Result<(OwnedFd, kvm_userspace_memory_region2)> {
    use std::os::fd::AsRawFd;
    let private = guest_memfd(fd, GUEST)?;
    let slot = kvm_userspace_memory_region2 {
        flags: KVM_MEM_GUEST_MEMFD,
        memory_size: GUEST as u64,
        userspace_addr: memory,
        guest_memfd: private.as_raw_fd() as u32,
        ..Default::default()
    };
    Ok((private, slot))
}

/// `private V at=X len=N to=B` and `punch V at=X len=N`: X is a guest physical address.
pub fn on_memory(vm: &Guest, op: Op<'_>) -> Result<Answer> {
    let (address, size) = (op.number("at")?, op.number("len")?);
    if op.word(0)? == "private" {
        let attributes = op.number("to")? * u64::from(KVM_MEMORY_ATTRIBUTE_PRIVATE);
        let argument = kvm_memory_attributes { address, size, attributes, flags: 0 };
        return by(op, || Answer::from_result(vm.fd.set_memory_attributes(argument)));
    }
    let Some(private) = &vm.private else { return Ok(Answer::OK_KEPT) };
    by(op, || match punch(private, address..address.wrapping_add(size)) {
        Ok(()) => Answer::OK_KEPT,
        Err(errno) => Answer::refused(errno),
    })
}

impl World {
    /// `identity policy=N`: of a guest of which nothing was loaded, to `cert`.
    pub(crate) fn identity(&self, op: Op<'_>) -> Result<String> {
        let identity =
            Owner::new()?.identify(SnpLaunchDigest::default(), op.number("policy")?)?.memory;
        self.places.write(self.at("cert")?, &identity.read(0, 96));
        self.places.write(self.at("cert+0x1000")?, &identity.read(PAGE, PAGE));
        Ok("signed".into())
    }

    /// `prefault V n=I at=X len=N`.
    pub(crate) fn prefault(&mut self, op: Op<'_>) -> Result<String> {
        let mut range = kvm_pre_fault_memory {
            gpa: op.number("at")?,
            size: op.number("len")?,
            ..Default::default()
        };
        let Some(cpu) = self.cpus.get(op.word(1)?, op.number("n")?) else {
            return Ok("none".into());
        };
        let answer = sev_vm::snp::pre_fault(cpu.fd(), &mut range);
        Ok(format!("{answer} left={:#x}", range.size))
    }

    /// `certificates`: this platform's, to send guests to, to `cert` and `cert+0x1000`.
    pub(crate) fn certificates(&self) -> Result<String> {
        use sev::parser::Encoder;
        let chain = sev_vm::tenant::firmware()?.pdh_cert_export();
        let Ok(chain) = chain else { return Ok("refused".into()) };
        let (mut pdh, mut platform) = (Vec::new(), Vec::new());
        chain.pdh.encode(&mut pdh, ()).context("PDH")?;
        for certificate in [&chain.pek, &chain.oca, &chain.cek] {
            certificate.encode(&mut platform, ())?;
        }
        self.places.write(self.at("cert")?, &pdh);
        self.places.write(self.at("cert+0x1000")?, &platform);
        Ok(format!("{} {}", pdh.len(), platform.len()))
    }
}
