// SPDX-License-Identifier: GPL-2.0-or-later
//! A guest's way from this platform to itself, with the buffers for what goes along.
//!
//! Lengths: kernel, Documentation/virt/kvm/x86/amd-memory-encryption.rst, and the SEV API for what
//! a session and a packet header are.

use anyhow::{Result, anyhow};
use kvm_bindings::*;
use sev::parser::Encoder;
use sev_vm::cmd::Answer;
use sev_vm::mem::{Mapping, PAGE};
use sev_vm::tenant::firmware;
use sev_vm::vm::{Vm, addr_of};

/// Bytes of a session.
const SESSION: u32 = 128;
/// Bytes of a packet's header.
const HEADER: u32 = 52;
/// Bytes of guest memory in the packet.
const DATA: u32 = 256;

/// Certificates, session, one packet.
pub struct Parcel {
    pdh: Vec<u8>,
    platform: Vec<u8>,
    session: Mapping,
    packet: Mapping,
    /// The guest's policy, once it is known.
    policy: u32,
}

/// A command with its argument.
pub fn issue<T>(vm: &Vm, id: sev_cmd_id, argument: &mut T) -> Answer {
    vm.command(id, addr_of(argument))
}

impl Parcel {
    /// With the certificates of this platform.
    pub fn new() -> Result<Self> {
        let chain = firmware()?.pdh_cert_export().map_err(|e| anyhow!("PDH_CERT_EXPORT: {e:?}"))?;
        let (mut pdh, mut platform) = (Vec::new(), Vec::new());
        chain.pdh.encode(&mut pdh, ())?;
        for certificate in [&chain.pek, &chain.oca, &chain.cek] {
            certificate.encode(&mut platform, ())?;
        }
        let (session, packet) = (Mapping::anonymous(PAGE)?, Mapping::anonymous(2 * PAGE)?);
        // As with `Subject`'s buffer.
        session.fill(0);
        packet.fill(0);
        Ok(Self { pdh, platform, session, packet, policy: 0 })
    }

    /// SEND_START. The policy does not ask for AMD's certificates to be checked, so any will do.
    pub fn send_start(&mut self, vm: &Vm) -> Answer {
        let certificates = (self.platform.as_ptr() as u64, self.platform.len() as u32);
        let mut argument = kvm_sev_send_start {
            pdh_cert_uaddr: self.pdh.as_ptr() as u64,
            pdh_cert_len: self.pdh.len() as u32,
            plat_certs_uaddr: certificates.0,
            plat_certs_len: certificates.1,
            amd_certs_uaddr: certificates.0,
            amd_certs_len: certificates.1,
            session_uaddr: self.session.addr(),
            session_len: SESSION,
            ..Default::default()
        };
        let answer = issue(vm, sev_cmd_id_KVM_SEV_SEND_START, &mut argument);
        self.policy = argument.policy;
        answer
    }

    /// SEND_UPDATE_DATA of the memory at `offset`.
    pub fn send_update(&self, vm: &Vm, offset: usize) -> Answer {
        let mut argument = kvm_sev_send_update_data {
            hdr_uaddr: self.packet.addr(),
            hdr_len: HEADER,
            guest_uaddr: vm.memory.addr() + offset as u64,
            guest_len: DATA,
            trans_uaddr: self.packet.addr() + PAGE as u64,
            trans_len: DATA,
            ..Default::default()
        };
        issue(vm, sev_cmd_id_KVM_SEV_SEND_UPDATE_DATA, &mut argument)
    }

    /// RECEIVE_START with the session that SEND_START wrote.
    pub fn receive_start(&self, vm: &Vm) -> Answer {
        let mut argument = kvm_sev_receive_start {
            policy: self.policy,
            pdh_uaddr: self.pdh.as_ptr() as u64,
            pdh_len: self.pdh.len() as u32,
            session_uaddr: self.session.addr(),
            session_len: SESSION,
            ..Default::default()
        };
        issue(vm, sev_cmd_id_KVM_SEV_RECEIVE_START, &mut argument)
    }

    /// RECEIVE_UPDATE_DATA of the packet that SEND_UPDATE_DATA wrote.
    pub fn receive_update(&self, vm: &Vm, offset: usize) -> Answer {
        let mut argument = kvm_sev_receive_update_data {
            hdr_uaddr: self.packet.addr(),
            hdr_len: HEADER,
            guest_uaddr: vm.memory.addr() + offset as u64,
            guest_len: DATA,
            trans_uaddr: self.packet.addr() + PAGE as u64,
            trans_len: DATA,
            ..Default::default()
        };
        issue(vm, sev_cmd_id_KVM_SEV_RECEIVE_UPDATE_DATA, &mut argument)
    }
}
