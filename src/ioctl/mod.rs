// SPDX-License-Identifier: GPL-2.0
//! `KVM_MEMORY_ENCRYPT_OP` and the ioctls for memory regions.
//!
//! The order of the checks is ABI: userspace tells old kernels and wrong arguments apart by which
//! error comes first. It is that of upstream KVM; deviations are in Documentation/differences.rst.

mod arg;
mod debug;
mod init;
mod launch;
mod receive;
mod region;
mod report;
mod secret;
mod send;
mod snp;
mod transfer;
mod vmsa;

use kernel::prelude::*;

use self::arg::Request;
pub(crate) use self::region::{register, unregister};
pub(crate) use self::transfer::{copy, take};
use crate::ffi::bindings as b;
use crate::hw::kind::Kind;
use crate::kvm::{Vm, VmLocked};
use crate::platform::Platform;
use crate::vm::{EncContext, Role};

/// What every command works on: the machine, and a VM whose lock is held.
struct Call<'a> {
    platform: &'a Platform,
    vm: &'a VmLocked<'a>,
}

impl Call<'_> {
    /// ENOTTY if the VM is not a SEV VM.
    fn context(&self) -> Result<&EncContext> {
        Ok(self.vm.binding().ok_or(ENOTTY)?.context())
    }
}

type Handler = fn(&Call<'_>, &mut Request) -> Result;

/// The command with this number; `None` if KVM has none.
fn handler(id: u32) -> Option<Handler> {
    Some(match id {
        b::sev_cmd_id_KVM_SEV_INIT => init::init,
        b::sev_cmd_id_KVM_SEV_ES_INIT => init::es_init,
        b::sev_cmd_id_KVM_SEV_INIT2 => init::init2,
        b::sev_cmd_id_KVM_SEV_LAUNCH_START => launch::start,
        b::sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_DATA => launch::update_data,
        b::sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA => vmsa::update,
        b::sev_cmd_id_KVM_SEV_LAUNCH_MEASURE => report::measure,
        b::sev_cmd_id_KVM_SEV_LAUNCH_SECRET => secret::inject,
        b::sev_cmd_id_KVM_SEV_LAUNCH_FINISH => launch::finish,
        b::sev_cmd_id_KVM_SEV_GUEST_STATUS => launch::guest_status,
        b::sev_cmd_id_KVM_SEV_DBG_DECRYPT => debug::decrypt,
        b::sev_cmd_id_KVM_SEV_DBG_ENCRYPT => debug::encrypt,

        b::sev_cmd_id_KVM_SEV_GET_ATTESTATION_REPORT => report::attest,
        b::sev_cmd_id_KVM_SEV_SEND_START => send::start,
        b::sev_cmd_id_KVM_SEV_SEND_UPDATE_DATA => send::update_data,
        b::sev_cmd_id_KVM_SEV_SEND_FINISH => send::finish,
        b::sev_cmd_id_KVM_SEV_SEND_CANCEL => send::cancel,
        b::sev_cmd_id_KVM_SEV_RECEIVE_START => receive::start,
        b::sev_cmd_id_KVM_SEV_RECEIVE_UPDATE_DATA => receive::update_data,
        b::sev_cmd_id_KVM_SEV_RECEIVE_FINISH => receive::finish,

        b::sev_cmd_id_KVM_SEV_SNP_LAUNCH_START => snp::start,
        b::sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE => snp::update,
        b::sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH => snp::finish,
        b::sev_cmd_id_KVM_SEV_SNP_ENABLE_REQ_CERTS => snp::enable_certificates,

        _ => return None,
    })
}

/// Whether a mirror may issue the command, besides the owner.
fn serves_mirrors(id: u32) -> bool {
    [
        b::sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA,
        b::sev_cmd_id_KVM_SEV_GUEST_STATUS,
        b::sev_cmd_id_KVM_SEV_DBG_DECRYPT,
        b::sev_cmd_id_KVM_SEV_DBG_ENCRYPT,
    ]
    .contains(&id)
}

/// Whether the command is one for SEV-SNP guests, which can do nothing else once they are such.
fn serves_snp(id: u32) -> bool {
    id >= b::sev_cmd_id_KVM_SEV_SNP_LAUNCH_START
}

/// `KVM_MEMORY_ENCRYPT_OP` with a `struct kvm_sev_cmd` at `argp`. Takes `kvm->lock`.
///
/// An `argp` of 0 asks whether SEV is available. Errors: EFAULT if `argp` cannot be read or written;
/// EINVAL for an unknown command and for one that a mirror may not issue; EPERM for one that is not for
/// the SEV-SNP VM that it is; else the command's. The firmware's status is written back also when the
/// command failed.
pub(crate) fn memory_encrypt_op(platform: &Platform, vm: &Vm, argp: u64) -> Result {
    if argp == 0 {
        return Ok(());
    }
    let mut request = Request::read(argp)?;
    let locked = vm.lock();
    let call = Call {
        platform,
        vm: &locked,
    };

    if let Some(binding) = locked.binding() {
        if binding.role() == Role::Mirror && !serves_mirrors(request.id()) {
            return Err(EINVAL);
        }
        if binding.context().kind() == Kind::Snp && !serves_snp(request.id()) {
            return Err(EPERM);
        }
    }
    let result = handler(request.id()).ok_or(EINVAL)?(&call, &mut request);
    request.write_back()?;
    result
}
