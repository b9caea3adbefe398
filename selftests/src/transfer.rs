// SPDX-License-Identifier: GPL-2.0-or-later
//! SEND and RECEIVE commands: a guest's way from one platform to another.

use anyhow::{Result, anyhow, ensure};
use kvm_bindings::*;
use serde::{Deserialize, Serialize};

use crate::cmd::Answer;
use crate::context::Kind;
use crate::guest;
use crate::host::{Host, VmType};
use crate::mem::PAGE;
use crate::tenant::{bytes_of, firmware};
use crate::vm::{Vm, addr_of};

/// Bytes of a session blob (sev-tool, `sev_session_buf`).
pub const SESSION_LEN: u32 = 128;
/// Bytes of a packet's header (sev-tool, flags, IV and MAC).
pub const HEADER_LEN: u32 = 52;

/// Word that the guest of [`sender`] shows.
pub const VALUE: u64 = 0x1122_3344_5566_7788;
/// What the guest of [`sender`] starts with: it stores [`VALUE`] in its private memory, and shows
/// what is there at each turn.
pub const ARGUMENTS: [u64; 4] = [guest::PRIVATE, guest::SHARED.start, VALUE, 0];

/// A launched SEV VM that can be sent.
pub fn sender(host: &Host) -> Result<Vm> {
    Kind::Sev.launched(host, VmType::Sev, guest::store_and_watch(), &[ARGUMENTS])
}

/// What a platform shows to those who send it guests.
#[derive(Clone, Serialize, Deserialize)]
pub struct Certificates {
    /// The Diffie-Hellman key.
    pub pdh: Vec<u8>,
    /// PEK, OCA, CEK.
    pub platform: Vec<u8>,
    /// AMD's own. Firmware looks at them if the guest's policy demands an AMD platform.
    pub amd: Vec<u8>,
}

impl Certificates {
    /// Those of this machine.
    pub fn own() -> Result<Self> {
        let chain = firmware()?.pdh_cert_export().map_err(|e| anyhow!("PDH_CERT_EXPORT: {e:?}"))?;
        let platform = [&chain.pek, &chain.oca, &chain.cek].map(bytes_of).concat();
        Ok(Self { pdh: bytes_of(&chain.pdh), platform, amd: vec![0; 64] })
    }
}

/// One piece of memory on its way.
#[derive(Clone, Serialize, Deserialize)]
pub struct Packet {
    /// Flags, IV and MAC.
    pub header: Vec<u8>,
    /// The encrypted bytes.
    pub data: Vec<u8>,
}

impl Vm {
    /// `KVM_SEV_SEND_START`.
    pub fn send_start(&self, argument: &mut kvm_sev_send_start) -> Answer {
        self.command(sev_cmd_id_KVM_SEV_SEND_START, addr_of(argument))
    }

    /// `KVM_SEV_SEND_UPDATE_DATA`.
    pub fn send_update_data(&self, argument: &mut kvm_sev_send_update_data) -> Answer {
        self.command(sev_cmd_id_KVM_SEV_SEND_UPDATE_DATA, addr_of(argument))
    }

    /// `KVM_SEV_SEND_FINISH`.
    pub fn send_finish(&self) -> Answer {
        self.command(sev_cmd_id_KVM_SEV_SEND_FINISH, 0)
    }

    /// `KVM_SEV_SEND_CANCEL`.
    pub fn send_cancel(&self) -> Answer {
        self.command(sev_cmd_id_KVM_SEV_SEND_CANCEL, 0)
    }

    /// `KVM_SEV_RECEIVE_START`.
    pub fn receive_start(&self, argument: &mut kvm_sev_receive_start) -> Answer {
        self.command(sev_cmd_id_KVM_SEV_RECEIVE_START, addr_of(argument))
    }

    /// `KVM_SEV_RECEIVE_UPDATE_DATA`.
    pub fn receive_update_data(&self, argument: &mut kvm_sev_receive_update_data) -> Answer {
        self.command(sev_cmd_id_KVM_SEV_RECEIVE_UPDATE_DATA, addr_of(argument))
    }

    /// `KVM_SEV_RECEIVE_FINISH`.
    pub fn receive_finish(&self) -> Answer {
        self.command(sev_cmd_id_KVM_SEV_RECEIVE_FINISH, 0)
    }

    /// SEND_START for the platform with these certificates: the guest's policy and the session.
    pub fn send_to(&self, to: &Certificates) -> Result<(u32, Vec<u8>)> {
        let mut session = vec![0u8; SESSION_LEN as usize];
        let mut argument = send_argument(to, &mut session);
        let answer = self.send_start(&mut argument);
        ensure!(answer.is_ok(), "SEND_START: {answer}");
        ensure!(argument.session_len == SESSION_LEN, "a session of {}", argument.session_len);
        Ok((argument.policy, session))
    }

    /// SEND_UPDATE_DATA of the page at `offset` of guest memory.
    pub fn send_page(&self, offset: usize) -> Result<Packet> {
        let mut packet = Packet { header: vec![0; HEADER_LEN as usize], data: vec![0; PAGE] };
        let answer = self.send_update_data(&mut kvm_sev_send_update_data {
            hdr_uaddr: packet.header.as_mut_ptr() as u64,
            hdr_len: HEADER_LEN,
            guest_uaddr: self.memory.addr() + offset as u64,
            guest_len: PAGE as u32,
            trans_uaddr: packet.data.as_mut_ptr() as u64,
            trans_len: PAGE as u32,
            ..Default::default()
        });
        ensure!(answer.is_ok(), "SEND_UPDATE_DATA at {offset:#x}: {answer}");
        Ok(packet)
    }

    /// RECEIVE_START of a guest that the platform with the key `pdh` sends.
    pub fn receive_from(&self, pdh: &[u8], session: &[u8], policy: u32) -> Answer {
        self.receive_start(&mut kvm_sev_receive_start {
            policy,
            pdh_uaddr: pdh.as_ptr() as u64,
            pdh_len: pdh.len() as u32,
            session_uaddr: session.as_ptr() as u64,
            session_len: session.len() as u32,
            ..Default::default()
        })
    }

    /// RECEIVE_UPDATE_DATA of the page at `offset` of guest memory.
    pub fn receive_page(&self, offset: usize, packet: &Packet) -> Answer {
        self.receive_update_data(&mut kvm_sev_receive_update_data {
            hdr_uaddr: packet.header.as_ptr() as u64,
            hdr_len: packet.header.len() as u32,
            guest_uaddr: self.memory.addr() + offset as u64,
            guest_len: packet.data.len() as u32,
            trans_uaddr: packet.data.as_ptr() as u64,
            trans_len: packet.data.len() as u32,
            ..Default::default()
        })
    }
}

/// The argument of SEND_START to the platform `to`, the session to be put into `session`.
pub fn send_argument(to: &Certificates, session: &mut [u8]) -> kvm_sev_send_start {
    kvm_sev_send_start {
        pdh_cert_uaddr: to.pdh.as_ptr() as u64,
        pdh_cert_len: to.pdh.len() as u32,
        plat_certs_uaddr: to.platform.as_ptr() as u64,
        plat_certs_len: to.platform.len() as u32,
        amd_certs_uaddr: to.amd.as_ptr() as u64,
        amd_certs_len: to.amd.len() as u32,
        session_uaddr: session.as_mut_ptr() as u64,
        session_len: session.len() as u32,
        ..Default::default()
    }
}
