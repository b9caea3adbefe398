// SPDX-License-Identifier: GPL-2.0-or-later
//! What the module shows: parameters, device attributes, debugfs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::KVM_X86_GRP_SEV;
use nix::errno::Errno::ENXIO;
use sev_vm::cmd::Answer;
use sev_vm::host::{
    EncryptionLeaf, Host, SEV_IMPL, SEV_IMPL_FEATURES, SEV_IMPL_VERSION, VmType, parameter,
};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::PAGE;
use sev_vm::vm::Vm;

/// Attributes of `KVM_X86_GRP_SEV` (kernel: asm/kvm.h).
const VMSA_FEATURES: u64 = 0;
const SNP_POLICY_BITS: u64 = 1;
const SNP_REQ_CERTS: u64 = 2;

const DEBUGFS: &str = "/sys/kernel/debug/kvm_amd_sev";

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("parameters", parameters),
            ("attributes", attributes),
            ("extensions", extensions),
            ("implementation", implementation),
            ("debugfs", debugfs),
        ],
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

/// How userspace recognises this implementation: attributes that others do not have.
fn implementation(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, attr) in [
        ("implementation", SEV_IMPL),
        ("version", SEV_IMPL_VERSION),
        ("features", SEV_IMPL_FEATURES),
        ("next", SEV_IMPL_FEATURES + 1),
    ] {
        t.record(name, Answer::from_result(host.sev_attr(attr)));
    }
    if host.is_ours() {
        ensure!(host.sev_attr(SEV_IMPL_VERSION)? >= 1, "version 0");
        ensure!(host.sev_attr(SEV_IMPL_FEATURES)? & 1 == 1, "the device file is not kept");
    }
    Ok(())
}

/// One line of the table `pool`: free, leased, dirty, leaked.
fn sev_pool() -> Result<[u32; 4]> {
    let table = fs::read_to_string(format!("{DEBUGFS}/pool"))?;
    let row = table.lines().find_map(|line| line.strip_prefix("sev ")).context("no row sev")?;
    let row: Vec<u32> = row.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [_first, _last, states @ ..] = &row[..] else { bail!("a short row: {row:?}") };
    Ok(states.try_into()?)
}

/// The module's own tables follow what VMs do. The stock module has none.
fn debugfs(_: &mut Test) -> Result<()> {
    let host = Host::open()?;
    if !host.is_ours() {
        ensure!(!Path::new(DEBUGFS).exists(), "{DEBUGFS} without our module");
        return Ok(());
    }
    let asids = EncryptionLeaf::read().sev_asids();
    let contexts = || fs::read_to_string(format!("{DEBUGFS}/contexts"));
    let [free, leased, dirty, leaked] = sev_pool()?;
    ensure!(leased == 0 && leaked == 0, "leased {leased}, leaked {leaked} at rest");
    ensure!(free + dirty == asids, "{free} free and {dirty} dirty of {asids}");
    ensure!(contexts()?.lines().count() == 1, "contexts at rest: {}", contexts()?);
    let vm = Vm::started(&host, 0)?;
    vm.register_memory()?;
    let [free, leased, dirty, _] = sev_pool()?;
    ensure!(leased == 1 && free + dirty == asids - 1, "{leased} leased for one VM");
    let table = contexts()?;
    let row: Vec<_> = table.lines().nth(1).context("no row")?.split_whitespace().collect();
    let pages = (vm.memory.len() / PAGE).to_string();
    let pid = std::process::id().to_string();
    let expected = ["launching", &pages, "owner", &pid, "sev_params"];
    ensure!(row[1] == "sev" && row[3..] == expected, "a row of another VM: {row:?}");
    drop(vm);
    let [_, leased, after, _] = sev_pool()?;
    ensure!(leased == 0 && after == dirty + 1, "{leased} leased, {after} dirty at the end");
    ensure!(contexts()?.lines().count() == 1, "contexts at the end: {}", contexts()?);
    Ok(())
}
