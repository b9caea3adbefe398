// SPDX-License-Identifier: GPL-2.0-or-later
//! The commands of `KVM_MEMORY_ENCRYPT_OP` by name: number, fields of the argument, buffers.

use std::mem::offset_of;

use kvm_bindings::*;
use sev_vm::snp::KVM_SEV_SNP_ENABLE_REQ_CERTS;

/// A field of an argument: name, offset, bytes.
pub type Field = (&'static str, usize, usize);

/// A command.
pub struct Command {
    /// `KVM_SEV_` and this.
    pub name: &'static str,
    /// Its number.
    pub id: u32,
    /// Fields of its argument, if it has one.
    pub fields: Vec<Field>,
    /// Fields with the address of a buffer that the command writes.
    pub outputs: &'static [&'static str],
}

fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! fields {
    ($type:ident: $($field:ident)*) => {
        vec![$((
            stringify!($field),
            offset_of!($type, $field),
            size_of_field(|argument: &$type| &argument.$field),
        )),*]
    };
}

/// All commands.
pub fn commands() -> Vec<Command> {
    let command = |name, id, fields, outputs| Command { name, id, fields, outputs };
    let start =
        || fields!(kvm_sev_launch_start: handle policy dh_uaddr dh_len session_uaddr session_len);
    let secret = || {
        fields!(kvm_sev_launch_secret:
            hdr_uaddr hdr_len guest_uaddr guest_len trans_uaddr trans_len)
    };
    let debug = || fields!(kvm_sev_dbg: src_uaddr dst_uaddr len);
    let measure = fields!(kvm_sev_launch_measure: uaddr len);
    let update = fields!(kvm_sev_launch_update_data: uaddr len);
    let init2 = fields!(kvm_sev_init: vmsa_features flags ghcb_version);
    let snp_start = fields!(kvm_sev_snp_launch_start: policy gosvw flags);
    let snp_update = fields!(kvm_sev_snp_launch_update: gfn_start uaddr len type_ flags);
    let snp_finish = fields!(kvm_sev_snp_launch_finish:
        id_block_uaddr id_auth_uaddr id_block_en auth_key_en vcek_disabled host_data flags);
    let status = fields!(kvm_sev_guest_status: handle policy state);
    let report = fields!(kvm_sev_attestation_report: mnonce uaddr len);
    let send = fields!(kvm_sev_send_start:
        policy pdh_cert_uaddr pdh_cert_len plat_certs_uaddr plat_certs_len
        amd_certs_uaddr amd_certs_len session_uaddr session_len);
    vec![
        command("INIT", sev_cmd_id_KVM_SEV_INIT, vec![], &[]),
        command("ES_INIT", sev_cmd_id_KVM_SEV_ES_INIT, vec![], &[]),
        command("INIT2", sev_cmd_id_KVM_SEV_INIT2, init2, &[]),
        command("LAUNCH_START", sev_cmd_id_KVM_SEV_LAUNCH_START, start(), &[]),
        command("LAUNCH_UPDATE_DATA", sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_DATA, update, &[]),
        command("LAUNCH_UPDATE_VMSA", sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA, vec![], &[]),
        command("LAUNCH_MEASURE", sev_cmd_id_KVM_SEV_LAUNCH_MEASURE, measure, &["uaddr"]),
        command("LAUNCH_SECRET", sev_cmd_id_KVM_SEV_LAUNCH_SECRET, secret(), &[]),
        command("LAUNCH_FINISH", sev_cmd_id_KVM_SEV_LAUNCH_FINISH, vec![], &[]),
        command("GUEST_STATUS", sev_cmd_id_KVM_SEV_GUEST_STATUS, status, &[]),
        command("DBG_DECRYPT", sev_cmd_id_KVM_SEV_DBG_DECRYPT, debug(), &["dst_uaddr"]),
        command("DBG_ENCRYPT", sev_cmd_id_KVM_SEV_DBG_ENCRYPT, debug(), &[]),
        command("REPORT", sev_cmd_id_KVM_SEV_GET_ATTESTATION_REPORT, report, &["uaddr"]),
        command("SEND_START", sev_cmd_id_KVM_SEV_SEND_START, send, &["session_uaddr"]),
        command(
            "SEND_UPDATE_DATA",
            sev_cmd_id_KVM_SEV_SEND_UPDATE_DATA,
            secret(),
            &["hdr_uaddr", "trans_uaddr"],
        ),
        command("SNP_LAUNCH_START", sev_cmd_id_KVM_SEV_SNP_LAUNCH_START, snp_start, &[]),
        command("SNP_LAUNCH_UPDATE", sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE, snp_update, &[]),
        command("SNP_LAUNCH_FINISH", sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH, snp_finish, &[]),
        command("SNP_REQ_CERTS", KVM_SEV_SNP_ENABLE_REQ_CERTS, vec![], &[]),
        command("SEND_FINISH", sev_cmd_id_KVM_SEV_SEND_FINISH, vec![], &[]),
        command("SEND_CANCEL", sev_cmd_id_KVM_SEV_SEND_CANCEL, vec![], &[]),
        command("RECEIVE_START", sev_cmd_id_KVM_SEV_RECEIVE_START, start(), &[]),
        command("RECEIVE_UPDATE_DATA", sev_cmd_id_KVM_SEV_RECEIVE_UPDATE_DATA, secret(), &[]),
        command("RECEIVE_FINISH", sev_cmd_id_KVM_SEV_RECEIVE_FINISH, vec![], &[]),
    ]
}
