// SPDX-License-Identifier: GPL-2.0-or-later
//! Save areas as somebody else computes them: the sev crate, for vCPUs that QEMU has reset.

use anyhow::{Result, ensure};
use kvm_bindings::*;
use kvm_ioctls::VcpuFd;
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType, VMSA};
use sev::parser::Decoder;

use crate::cmd::Answer;
use crate::vm::{Vm, addr_of};

/// Where the first vCPU starts.
const BSP: u64 = 0xffff_fff0;
/// Where the second one starts, as a firmware image would say.
const AP: u64 = 0x80_b004;
const MODEL: CpuType = CpuType::EpycMilan;

/// vCPU `index` with the registers that QEMU gives it at reset.
pub fn reset_by_qemu(vm: &Vm, index: u64) -> Result<VcpuFd> {
    let vcpu = vm.fd.create_vcpu(index)?;
    let eip = if index == 0 { BSP } else { AP };
    let mut sregs = vcpu.get_sregs()?;
    (sregs.cs.selector, sregs.cs.base) = (0xf000, eip & 0xffff_0000);
    // Code and data, all accessed, and a busy 32-bit TSS.
    (sregs.cs.type_, sregs.tr.type_) = (11, 11);
    let data = [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss];
    data.into_iter().for_each(|segment| segment.type_ = 3);
    vcpu.set_sregs(&sregs)?;
    let rdx = MODEL.sig() as u64;
    vcpu.set_regs(&kvm_regs { rip: eip & 0xffff, rdx, ..vcpu.get_regs()? })?;
    Ok(vcpu)
}

/// The save areas of one or two such vCPUs, one after the other.
pub fn pages(vcpus: usize, features: u64) -> Result<Vec<u8>> {
    let features = GuestFeatures::decode(&mut &features.to_le_bytes()[..], ())?;
    let area = VMSA::new(AP, MODEL, VMMType::QEMU, None, features);
    Ok(area.pages(vcpus)?.concat())
}

impl Vm {
    /// The digest of what was launched: GET_ATTESTATION_REPORT's.
    pub fn launch_digest(&self) -> Result<Vec<u8>> {
        let mut report = [0u8; 208];
        let uaddr = addr_of(&mut report);
        let mut argument = kvm_sev_attestation_report { uaddr, len: 208, ..Default::default() };
        let answer = self.attestation_report(&mut argument);
        ensure!(answer.is_ok(), "GET_ATTESTATION_REPORT: {answer}");
        Ok(report[16..48].to_vec())
    }

    fn attestation_report(&self, argument: &mut kvm_sev_attestation_report) -> Answer {
        self.command(sev_cmd_id_KVM_SEV_GET_ATTESTATION_REPORT, addr_of(argument))
    }
}
