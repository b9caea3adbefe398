// SPDX-License-Identifier: GPL-2.0
//! Launching an SEV-SNP guest: `KVM_SEV_SNP_LAUNCH_START`, `_UPDATE`, `_FINISH`, and
//! `KVM_SEV_SNP_ENABLE_REQ_CERTS`.
//!
//! Locks: `kvm->lock` → `slots_lock` → the lock of the private memory's file → the PSP driver's mutex.

use kernel::prelude::*;

use super::arg::Request;
use super::Call;
use crate::ffi::bindings::{
    self as b,
    kvm_sev_snp_launch_finish,
    kvm_sev_snp_launch_start,
    kvm_sev_snp_launch_update, //
};
use crate::hw::addr::{Pfn, PAGE_SIZE};
use crate::hw::kind::Kind;
use crate::hw::rmp;
use crate::kvm::file::SevDevice;
use crate::kvm::gmem::{Slots, SourcePage};
use crate::kvm::vcpus::AllVcpus;
use crate::kvm::Vm;
use crate::psp::{Blob, Channel, Fate, FwStatus, Identity, LaunchPage, PageType, SnpLaunchFinish};
use crate::rejection::{Because, Outcome, Reason, Rejection};
use crate::vcpu;
use crate::vm::{EncContext, SnpLaunched, State};

/// The firmware's answer to a CPUID page whose values it does not accept, and has corrected.
const CPUID_CORRECTED: FwStatus = FwStatus::new(b::sev_ret_code_SEV_RET_INVALID_PARAM as u32);

/// The context of an SEV-SNP VM; `None` for other VMs.
fn context<'a>(call: &'a Call<'_>) -> Option<&'a EncContext> {
    let context = call.vm.binding()?.context();

    (context.kind() == Kind::Snp).then_some(context)
}

/// Creates the guest in the firmware and binds it to the VM's ASID.
///
/// Errors: ENOTTY unless it is an SEV-SNP VM; EFAULT; EINVAL if it was done before, for flags, and for
/// a policy that is not served; ENOTTY if the firmware does not create a context or `sev_fd` is not
/// /dev/sev; EIO if it refuses otherwise.
pub(super) fn start(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = context(call).ok_or(ENOTTY.because(Reason::NotSnp))?;
    let params: kvm_sev_snp_launch_start = request.data()?;
    let policy = params.policy;

    if context.snp().is_some() {
        return Err(EINVAL.because(Reason::Launched));
    }
    if params.flags != 0 {
        return Err(EINVAL.because(Reason::Flags));
    }
    if policy & !call.platform.snp_policy_bits() != 0
        || policy & b::KVM_SEV_CONST_SNP_POLICY_RSVD_MBO == 0
    {
        return Err(EINVAL.because(Reason::Policy));
    }
    let tsc_khz = if context.params().has_secure_tsc() {
        let tsc_khz = call.vm.default_tsc_khz();
        Some(tsc_khz.ok_or(EINVAL.because(Reason::TscFrequency))?)
    } else {
        None
    };
    let device = SevDevice::from_fd(request.sev_fd()).map_err(|_| ENOTTY.because(Reason::SevFd))?;

    let launched = SnpLaunched::start(
        device,
        context.lease().clone(),
        policy,
        tsc_khz,
        params.gosvw,
        &mut request.status,
    )?;
    context.set_snp(launched)?;
    context.enter(State::Launching);
    Ok(())
}

/// Copies pages from userspace to private memory, one after the other, where the firmware encrypts
/// and measures them. `len` bytes from `uaddr` go to the guest's pages from `gfn_start` on; all three
/// are advanced by what was done, also if that was not everything, which is no error.
///
/// Errors: EINVAL unless it is an SEV-SNP VM whose launch started; EFAULT; EINVAL for an empty or
/// unaligned range, an unknown type, flags, and memory that is not in a slot for private memory; EIO
/// if not even the first page was done: because it is not private, was loaded before, cannot be read
/// or allocated, or because the firmware refuses. If it refuses a CPUID page, the values that it
/// would accept are written back to `uaddr`.
pub(super) fn update(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = context(call).ok_or(EINVAL.because(Reason::NotSnp))?;
    let launched = context.snp().ok_or(EINVAL.because(Reason::NotLaunched))?;
    let mut params: kvm_sev_snp_launch_update = request.data()?;
    let page_type = PageType::from_user(params.type_).ok_or(EINVAL.because(Reason::PageType))?;

    if params.len == 0 {
        return Err(EINVAL.because(Reason::Range));
    }
    if params.len % PAGE_SIZE as u64 != 0 {
        return Err(EINVAL.because(Reason::Unaligned));
    }
    if params.flags != 0 {
        return Err(EINVAL.because(Reason::Flags));
    }
    let source = match page_type {
        PageType::Zero => None,
        // Without an address there would be nothing to copy.
        _ if params.uaddr == 0 => return Err(EINVAL.because(Reason::NoAddress)),
        _ if params.uaddr % PAGE_SIZE as u64 != 0 => return Err(EINVAL.because(Reason::Unaligned)),
        _ => Some(params.uaddr),
    };

    // Keeps memory from becoming shared meanwhile, and slots from coming and going.
    let slots = Slots::lock(call.vm);
    if !slots.has_private(params.gfn_start) {
        return Err(EINVAL.because(Reason::NoPrivateSlot));
    }
    let mut status = FwStatus::success();
    let device = SevDevice::from_fd(request.sev_fd()).map_err(Rejection::from);
    let done = device.and_then(|device| {
        let load = Load {
            vm: call.vm,
            context,
            launched,
            channel: Channel::Device(&device),
            page_type,
        };
        slots.populate(
            params.gfn_start,
            source,
            params.len / PAGE_SIZE as u64,
            page_type == PageType::Cpuid,
            |gfn, pfn, source| load.page(gfn, pfn, source, &mut status),
        )
    });
    let pages = done.map_err(|rejection| {
        request.status = status;
        EIO.because(rejection.reason())
    })?;

    let bytes = pages.wrapping_mul(PAGE_SIZE as u64);
    params.gfn_start = params.gfn_start.wrapping_add(pages);
    params.len = params.len.wrapping_sub(bytes);
    if source.is_some() {
        params.uaddr = params.uaddr.wrapping_add(bytes);
    }
    request.store(&params)?;
    Ok(())
}

/// Loading pages of one type.
struct Load<'a> {
    vm: &'a Vm,
    context: &'a EncContext,
    launched: &'a SnpLaunched,
    channel: Channel<'a>,
    page_type: PageType,
}

impl Load<'_> {
    /// Gives the guest one page of 4 KiB, with the contents of `source`. It is as before if this
    /// fails, or leaked, and the VM is stopped.
    ///
    /// Errors: EEXIST if the page is a guest's already; EINVAL if there is no entry for it; those of
    /// [`LaunchPage`].
    fn page(
        &self,
        gfn: u64,
        pfn: Pfn,
        source: Option<&SourcePage>,
        status: &mut FwStatus,
    ) -> Outcome {
        let entry = rmp::lookup(pfn).map_err(|_| EINVAL.because(Reason::Rmp))?;
        if entry.assigned {
            return Err(EEXIST.because(Reason::Assigned));
        }
        if let Some(source) = source {
            source.copy_to(pfn);
        }

        let gpa = gfn.wrapping_mul(PAGE_SIZE as u64);
        let page = LaunchPage::assign(pfn, gpa, self.context.asid())
            .map_err(|error| error.because(Reason::Rmp))?;
        let result = page.update(self.launched.gctx(), self.page_type, self.channel, status);
        let Err((error, fate)) = result else {
            return Ok(());
        };
        match (fate, self.page_type, *status, source) {
            // KVM would clear the page, which is not the host's, for whoever asks for it next.
            (Fate::Leaked, ..) => self.vm.stop(),
            (Fate::Shared, PageType::Cpuid, CPUID_CORRECTED, Some(source)) => {
                source.copy_from(pfn);
            }
            (Fate::Shared, ..) => (),
        }
        Err(error.into())
    }
}

/// Encrypts the registers of all vCPUs and ends the launch: the guest may run. What a call did that
/// failed need not be done again: it can be repeated, with other arguments, too.
///
/// Errors: ENOTTY unless it is an SEV-SNP VM; EINVAL before the launch started; EFAULT; EINVAL for
/// flags; EBUSY if a vCPU is being created; EINTR if the task is being killed; EINVAL if the guest is
/// being debugged; EBADF if there are vCPUs and `sev_fd` is no file; ENOMEM; EIO if the firmware
/// refuses.
pub(super) fn finish(call: &Call<'_>, request: &mut Request) -> Outcome {
    let context = context(call).ok_or(ENOTTY.because(Reason::NotSnp))?;
    let launched = context.snp().ok_or(EINVAL.because(Reason::NotLaunched))?;
    let params: kvm_sev_snp_launch_finish = request.data()?;

    if params.flags != 0 {
        return Err(EINVAL.because(Reason::Flags));
    }
    encrypt_registers(call, request, context, launched)?;

    let identity = if params.id_block_en != 0 {
        Some((
            Blob::from_user(params.id_block_uaddr, b::KVM_SEV_SNP_ID_BLOCK_SIZE)?,
            Blob::from_user(params.id_auth_uaddr, b::KVM_SEV_SNP_ID_AUTH_SIZE)?,
        ))
    } else {
        None
    };
    let mut command = SnpLaunchFinish::new(
        launched.gctx(),
        identity.as_ref().map(|(block, auth)| Identity {
            block: block.address(),
            auth: auth.address(),
            author_key: params.auth_key_en != 0,
        }),
        // The other bits are ignored, as upstream.
        params.vcek_disabled & 1 != 0,
        params.host_data,
    );
    launched
        .channel()
        .issue(&mut command, &mut request.status)?;

    // From now on, private memory that is not measured can be given to the guest.
    call.vm.allow_pre_fault();
    context.enter(State::Running);
    Ok(())
}

/// Encrypts the registers of the vCPUs whose registers are not encrypted yet.
fn encrypt_registers(
    call: &Call<'_>,
    request: &mut Request,
    context: &EncContext,
    launched: &SnpLaunched,
) -> Outcome {
    let vcpus = AllVcpus::lock(call.vm)?;

    for vcpu in vcpus.iter().filter(|vcpu| !vcpu.is_protected()) {
        let sev_fd = request.sev_fd();
        vcpu::encrypt_snp(vcpu, context, launched.gctx(), sev_fd, &mut request.status)?;
    }
    Ok(())
}

/// When a guest wants its report with certificates, userspace will be asked for these.
///
/// Errors: EINVAL unless it is an SEV-SNP VM without vCPUs.
pub(super) fn enable_certificates(call: &Call<'_>, _request: &mut Request) -> Outcome {
    let context = context(call).ok_or(EINVAL.because(Reason::NotSnp))?;
    if call.vm.has_vcpus() {
        return Err(EINVAL.because(Reason::HasVcpus));
    }
    context.provide_certificates();
    Ok(())
}
