// SPDX-License-Identifier: GPL-2.0-or-later
//! What the module shows: parameters, device attributes, debugfs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use kvm_bindings::KVM_X86_GRP_SEV;
use nix::errno::Errno::ENXIO;
use sev_vm::cmd::Answer;
use sev_vm::host::{Host, VmType, parameter};
use sev_vm::ktap::{self, Test};

/// Attributes of `KVM_X86_GRP_SEV` (kernel: asm/kvm.h).
const VMSA_FEATURES: u64 = 0;
const SNP_POLICY_BITS: u64 = 1;
const SNP_REQ_CERTS: u64 = 2;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[("parameters", parameters), ("attributes", attributes), ("extensions", extensions)],
    )
}

/// The parameters tell what is served, not what was asked for.
fn parameters(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, kind) in [("sev", VmType::Sev), ("sev_es", VmType::SevEs), ("sev_snp", VmType::Snp)]
    {
        let served = if host.offers(kind) { "Y" } else { "N" };
        t.value(name, parameter(name)?, served.into());
    }
    t.value("ciphertext_hiding_asids", parameter("ciphertext_hiding_asids")?, "0".into());
    for name in ["sev", "sev_es", "sev_snp", "ciphertext_hiding_asids"] {
        let path = Path::new("/sys/module/kvm_amd/parameters").join(name);
        let mode = fs::metadata(&path).with_context(|| path.display().to_string())?;
        t.value(
            &format!("{name}_mode"),
            format!("{:o}", mode.permissions().mode() & 0o777),
            "444".into(),
        );
    }
    Ok(())
}

fn attributes(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, attr) in [
        ("vmsa_features", VMSA_FEATURES),
        ("snp_policy_bits", SNP_POLICY_BITS),
        ("snp_req_certs", SNP_REQ_CERTS),
    ] {
        let has = Answer::from_result(host.has_device_attr(KVM_X86_GRP_SEV, attr));
        t.case(&format!("has_{name}"), has, Answer::OK_KEPT);
        let value = host.sev_attr(attr)?;
        // Features of encrypted state, policies of SNP: nothing where these are not served.
        let needed = if attr == VMSA_FEATURES { VmType::SevEs } else { VmType::Snp };
        if !host.offers(needed) {
            t.value(name, value, 0);
        }
    }
    for attr in [3, 4, 1 << 31, u64::MAX] {
        let has = Answer::from_result(host.has_device_attr(KVM_X86_GRP_SEV, attr));
        t.case(&format!("has_{attr:x}"), has, Answer::refused(ENXIO));
        let value = Answer::from_result(host.sev_attr(attr));
        t.case(&format!("get_{attr:x}"), value, Answer::refused(ENXIO));
    }
    for group in [2, u32::MAX] {
        let has = Answer::from_result(host.has_device_attr(group, 0));
        t.case(&format!("group_{group:x}"), has, Answer::refused(ENXIO));
    }
    Ok(())
}

/// Capabilities that svm.c declares whatever sev.c serves.
fn extensions(t: &mut Test) -> Result<()> {
    const VM_COPY_ENC_CONTEXT_FROM: u64 = 197;
    const VM_MOVE_ENC_CONTEXT_FROM: u64 = 206;
    let host = Host::open()?;
    t.value("copy", host.kvm.check_extension_raw(VM_COPY_ENC_CONTEXT_FROM), 1);
    t.value("move", host.kvm.check_extension_raw(VM_MOVE_ENC_CONTEXT_FROM), 1);
    Ok(())
}
