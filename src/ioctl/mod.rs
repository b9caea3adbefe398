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
use crate::ffi::bindings as b;
use crate::hw::kind::Kind;
use crate::kvm::{Vm, VmLocked};
use crate::platform::{self, Platform};
use crate::rejection::{Because, Outcome, Reason, Rejection};
use crate::rejections::report;
use crate::vm::{EncContext, Role};

/// What every command works on: the machine, and a VM whose lock is held.
struct Call<'a> {
    platform: &'a Platform,
    vm: &'a VmLocked<'a>,
}

impl Call<'_> {
    /// ENOTTY if the VM is not a SEV VM.
    fn context(&self) -> Outcome<&EncContext> {
        let binding = self.vm.binding();
        Ok(binding.ok_or(ENOTTY.because(Reason::NotSev))?.context())
    }
}

type Handler = fn(&Call<'_>, &mut Request) -> Outcome;

/// The command with this number, and its name; `None` if KVM has none.
fn command(id: u32) -> Option<(&'static str, Handler)> {
    Some(match id {
        b::sev_cmd_id_KVM_SEV_INIT => ("INIT", init::init),
        b::sev_cmd_id_KVM_SEV_ES_INIT => ("ES_INIT", init::es_init),
        b::sev_cmd_id_KVM_SEV_INIT2 => ("INIT2", init::init2),
        b::sev_cmd_id_KVM_SEV_LAUNCH_START => ("LAUNCH_START", launch::start),
        b::sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_DATA => ("LAUNCH_UPDATE_DATA", launch::update_data),
        b::sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA => ("LAUNCH_UPDATE_VMSA", vmsa::update),
        b::sev_cmd_id_KVM_SEV_LAUNCH_MEASURE => ("LAUNCH_MEASURE", report::measure),
        b::sev_cmd_id_KVM_SEV_LAUNCH_SECRET => ("LAUNCH_SECRET", secret::inject),
        b::sev_cmd_id_KVM_SEV_LAUNCH_FINISH => ("LAUNCH_FINISH", launch::finish),
        b::sev_cmd_id_KVM_SEV_GUEST_STATUS => ("GUEST_STATUS", launch::guest_status),
        b::sev_cmd_id_KVM_SEV_DBG_DECRYPT => ("DBG_DECRYPT", debug::decrypt),
        b::sev_cmd_id_KVM_SEV_DBG_ENCRYPT => ("DBG_ENCRYPT", debug::encrypt),

        b::sev_cmd_id_KVM_SEV_GET_ATTESTATION_REPORT => ("GET_ATTESTATION_REPORT", report::attest),
        b::sev_cmd_id_KVM_SEV_SEND_START => ("SEND_START", send::start),
        b::sev_cmd_id_KVM_SEV_SEND_UPDATE_DATA => ("SEND_UPDATE_DATA", send::update_data),
        b::sev_cmd_id_KVM_SEV_SEND_FINISH => ("SEND_FINISH", send::finish),
        b::sev_cmd_id_KVM_SEV_SEND_CANCEL => ("SEND_CANCEL", send::cancel),
        b::sev_cmd_id_KVM_SEV_RECEIVE_START => ("RECEIVE_START", receive::start),
        b::sev_cmd_id_KVM_SEV_RECEIVE_UPDATE_DATA => ("RECEIVE_UPDATE_DATA", receive::update_data),
        b::sev_cmd_id_KVM_SEV_RECEIVE_FINISH => ("RECEIVE_FINISH", receive::finish),

        b::sev_cmd_id_KVM_SEV_SNP_LAUNCH_START => ("SNP_LAUNCH_START", snp::start),
        b::sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE => ("SNP_LAUNCH_UPDATE", snp::update),
        b::sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH => ("SNP_LAUNCH_FINISH", snp::finish),
        b::sev_cmd_id_KVM_SEV_SNP_ENABLE_REQ_CERTS => {
            ("SNP_ENABLE_REQ_CERTS", snp::enable_certificates)
        }

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
    let mut name = "MEMORY_ENCRYPT_OP";
    let outcome = Request::read(argp)
        .map_err(Rejection::from)
        .and_then(|request| {
            let command = command(request.id());
            if let Some((known, _)) = command {
                name = known;
            }
            issue(platform, vm, request, command.map(|(_, handler)| handler))
        });

    report(Some(platform.rejections()), name, outcome)
}

fn issue(platform: &Platform, vm: &Vm, mut request: Request, handler: Option<Handler>) -> Outcome {
    let locked = vm.lock();
    let call = Call {
        platform,
        vm: &locked,
    };

    if let Some(binding) = locked.binding() {
        if binding.role() == Role::Mirror && !serves_mirrors(request.id()) {
            return Err(EINVAL.because(Reason::Mirror));
        }
        if binding.context().kind() == Kind::Snp && !serves_snp(request.id()) {
            return Err(EPERM.because(Reason::Snp));
        }
    }
    let handler = handler.ok_or(EINVAL.because(Reason::UnknownCommand))?;
    let result = handler(&call, &mut request);
    request.write_back()?;
    result
}

/// Has what the others do reported, too.
fn reported(ioctl: &'static str, outcome: Outcome) -> Result {
    report(platform::get().map(Platform::rejections), ioctl, outcome)
}

/// `KVM_MEMORY_ENCRYPT_REG_REGION`; see [`region::register`].
pub(crate) fn register(vm: &Vm, address: u64, size: u64) -> Result {
    reported("REG_REGION", region::register(vm, address, size))
}

/// `KVM_MEMORY_ENCRYPT_UNREG_REGION`; see [`region::unregister`].
pub(crate) fn unregister(vm: &Vm, address: u64, size: u64) -> Result {
    reported("UNREG_REGION", region::unregister(vm, address, size))
}

/// `KVM_CAP_VM_COPY_ENC_CONTEXT_FROM`; see [`transfer::copy`].
pub(crate) fn copy(destination: &Vm, source_fd: u32) -> Result {
    reported(
        "COPY_ENC_CONTEXT_FROM",
        transfer::copy(destination, source_fd),
    )
}

/// `KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM`; see [`transfer::take`].
pub(crate) fn take(destination: &Vm, source_fd: u32) -> Result {
    reported(
        "MOVE_ENC_CONTEXT_FROM",
        transfer::take(destination, source_fd),
    )
}
