// SPDX-License-Identifier: GPL-2.0-or-later
//! What the platform offers.

use anyhow::{Result, anyhow};
use sev_vm::host::{EncryptionLeaf, Host, SEV_IMPL_VERSION, VmType};
use sev_vm::tenant::firmware;

use crate::story::Story;

/// CPU, firmware, KVM.
pub fn look(story: &mut Story) -> Result<Host> {
    story.chapter("The host");
    let host = Host::open()?;
    let leaf = EncryptionLeaf::read();
    let kinds = [(leaf.sev, "SEV"), (leaf.es, "SEV-ES"), (leaf.snp, "SEV-SNP")];
    let kinds: Vec<_> = kinds.iter().filter(|(there, _)| *there).map(|(_, name)| *name).collect();
    story.fact("CPU", format!("{}, C-bit {}", kinds.join(", "), leaf.c_bit));
    let (first, last) = (leaf.min_sev_asid, leaf.max_asid);
    story.fact("ASIDs for SEV guests", format!("{first} to {last} ({})", leaf.sev_asids()));
    let status = firmware()?.platform_status().map_err(|e| anyhow!("PLATFORM_STATUS: {e:?}"))?;
    story.fact(
        "firmware",
        format!("{}, {:?}, {} guests", status.build, status.state, status.guests),
    );
    story.fact("kvm_amd", implementation(&host));
    let types = [
        (VmType::Default, "plain"),
        (VmType::Sev, "SEV"),
        (VmType::SevEs, "SEV-ES"),
        (VmType::Snp, "SEV-SNP"),
    ];
    let types: Vec<_> =
        types.iter().filter(|(t, _)| host.offers(*t)).map(|(_, name)| *name).collect();
    story.fact("VM types served", types.join(", "));
    story.check("KVM serves SEV guests", host.offers(VmType::Sev));
    story.check("firmware has no guest yet", status.guests == 0);
    Ok(host)
}

fn implementation(host: &Host) -> String {
    match host.sev_attr(SEV_IMPL_VERSION) {
        Ok(version) if host.is_ours() => format!("SEV in Rust, interface version {version}"),
        _ => "SEV in C (the kernel's own)".into(),
    }
}
