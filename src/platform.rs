// SPDX-License-Identifier: GPL-2.0
//! SEV on this machine: found when the module is loaded, gone when it is unloaded.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::asid::{Asids, FlushWith};
use crate::debug::Debug;
use crate::ffi::bindings as b;
use crate::hw::asid::{Range, Split};
use crate::hw::kind::Kind;
use crate::hw::page::FirmwarePage;
use crate::kvm::cgroup::Resource;
use crate::kvm::global::Global;
use crate::kvm::host::{self, Feature};
use crate::params::{self, Parameter};
use crate::psp::{self, Channel, FwStatus, Init, SnpPlatformStatus};
use crate::rejections::Rejections;
use crate::vm::Registry;

/// What exists while SEV is available: everything that is not part of a VM.
#[pin_data]
pub(crate) struct Platform {
    asids: Arc<Asids>,
    registry: Arc<Registry>,
    rejections: Arc<Rejections>,
    served: Served,
    /// Position of the C-bit in page table entries.
    c_bit: u8,
    #[pin]
    debug: Debug,
}

/// Which kinds of guests can be created.
#[derive(Clone, Copy)]
struct Served {
    /// Also without ASIDs for plain SEV guests.
    sev: bool,
    es: bool,
    snp: Option<Snp>,
    /// `SVM_SEV_FEAT_*` that the save areas of guests may have.
    vmsa_features: u64,
}

/// What SEV-SNP guests can have.
#[derive(Clone, Copy)]
struct Snp {
    /// Bits that their policies may contain.
    policy_bits: u64,
}

impl Served {
    const NOTHING: Self = Self {
        sev: false,
        es: false,
        snp: None,
        vmsa_features: 0,
    };
}

/// What policies of SEV-SNP guests may contain, as far as it is KVM that decides: what needs no help
/// of the hypervisor's, or has it. Migration agents are not served.
const SERVED_POLICY_BITS: u64 = b::KVM_SEV_CONST_SNP_POLICY_BITS;

static PLATFORM: Global<Platform> = Global::new();

/// `None` unless SEV is available.
pub(crate) fn get() -> Option<&'static Platform> {
    PLATFORM.get()
}

impl Platform {
    /// Everybody's ASIDs.
    pub(crate) fn asids(&self) -> &Arc<Asids> {
        &self.asids
    }

    /// Descriptions of all contexts.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The last ioctls that were rejected.
    pub(crate) fn rejections(&self) -> &Rejections {
        &self.rejections
    }

    /// Whether guests of this kind can be created.
    pub(crate) fn serves(&self, kind: Kind) -> bool {
        match kind {
            Kind::Sev => self.served.sev,
            Kind::SevEs => self.served.es,
            Kind::Snp => self.served.snp.is_some(),
        }
    }

    /// `SVM_SEV_FEAT_*` that the save areas of guests may have.
    pub(crate) fn vmsa_features(&self) -> u64 {
        self.served.vmsa_features
    }

    /// Bits that the policies of SEV-SNP guests may contain.
    pub(crate) fn snp_policy_bits(&self) -> u64 {
        self.served.snp.map_or(0, |snp| snp.policy_bits)
    }

    /// Position of the C-bit in page table entries.
    pub(crate) fn c_bit(&self) -> u8 {
        self.c_bit
    }

    fn new(split: Split, flush_with: FlushWith, served: Served) -> Result<Pin<KBox<Self>>> {
        let asids = Asids::new(split, flush_with)?;
        let registry = Registry::new()?;
        let rejections = Rejections::new()?;

        KBox::pin_init(
            try_pin_init!(Self {
                debug <- Debug::new(asids.clone(), registry.clone(), rejections.clone()),
                asids,
                registry,
                rejections,
                served,
                c_bit: host::c_bit(),
            }),
            GFP_KERNEL,
        )
    }
}

/// Finds out what the machine can do, starts the firmware and tells KVM.
///
/// Called once, while the module is initialised, when there are no VMs. Failure is no error: KVM
/// then works without SEV. The parameters show the outcome.
pub(crate) fn hardware_setup() {
    let wanted = params::get(Parameter::Sev);
    let split = if wanted { detect() } else { None };

    if let Some(split) = split {
        // Also without SEV, its ASIDs are not for ordinary guests.
        params::set_max_sev_asid(split.max.get());
    }

    let (split, served) = match split.ok_or(ENODEV).and_then(start) {
        Ok((split, served)) => (Some(split), served),
        Err(error) => {
            if wanted && Feature::Sev.is_present() {
                pr_info!("SEV unusable: {error:?}\n");
            }
            (split, Served::NOTHING)
        }
    };
    offer(split, served);

    params::set(Parameter::Sev, served.sev);
    params::set(Parameter::SevEs, served.es);
    params::set(Parameter::SevSnp, served.snp.is_some());
    params::set_ciphertext_hiding_asids(split.map_or(0, Split::hidden));
}

/// Tells userspace which VMs it can create, and the log why not.
fn offer(split: Option<Split>, served: Served) {
    let mut vm_types: u32 = 0;

    for (name, feature, kind, is_served, vm_type) in [
        (
            "SEV",
            Feature::Sev,
            Kind::Sev,
            served.sev,
            b::KVM_X86_SEV_VM,
        ),
        (
            "SEV-ES",
            Feature::SevEs,
            Kind::SevEs,
            served.es,
            b::KVM_X86_SEV_ES_VM,
        ),
        (
            "SEV-SNP",
            Feature::SevSnp,
            Kind::Snp,
            served.snp.is_some(),
            b::KVM_X86_SNP_VM,
        ),
    ] {
        if !feature.is_present() {
            continue;
        }
        match split.and_then(|split| split.range(kind)) {
            Some(range) if is_served => {
                let (first, last) = (range.first(), range.last());
                pr_info!("{name} enabled (ASIDs {first} - {last})\n");
                vm_types |= 1u32.wrapping_shl(vm_type);
            }
            Some(_) => pr_info!("{name} disabled\n"),
            None => pr_info!("{name} disabled (no ASIDs)\n"),
        }
    }
    if let Some(split) = split {
        if served.sev {
            Resource::Sev.set_capacity(split.sev.map_or(0, Range::count));
        }
        if served.es || served.snp.is_some() {
            Resource::SevEs.set_capacity(split.protected());
        }
        if split.hidden() != 0 {
            pr_info!("SEV-SNP ciphertext hiding enabled\n");
        }
    }
    host::support_vm_types(vm_types & psp::supported_vm_types());
}

/// What CPUID says; `None` if there can be no encrypted guests.
fn detect() -> Option<Split> {
    if !host::has_npt_and_nrips() || !Feature::Sev.is_present() {
        return None;
    }
    // KVM could neither emulate instructions of a guest whose memory it cannot read, nor flush the
    // TLB of a guest that cannot change its ASID.
    if !Feature::DecodeAssists.is_present() || !Feature::FlushByAsid.is_present() {
        pr_err!("SEV needs decode assists and flushing by ASID, which this processor lacks\n");
        return None;
    }
    let (_, ecx, edx) = host::cpuid_sev();
    Split::from_cpuid(ecx, edx)
}

/// Starts the firmware and sets [`PLATFORM`]. Returns how the ASIDs are divided then.
fn start(split: Split) -> Result<(Split, Served)> {
    let mut status = FwStatus::success();
    // SEV-ES and SEV-SNP guests need the same of the machine.
    let protected = can_protect_registers(split);
    let wants_snp = protected && params::get(Parameter::SevSnp) && host::has_rmp();
    let hidden = if wants_snp && psp::can_hide_ciphertext() {
        params::ciphertext_hiding_asids().min(split.protected())
    } else {
        0
    };

    psp::platform_init(Init::Probe { hidden }, &mut status).inspect_err(|error| {
        pr_err!("SEV: the firmware does not start: {error:?}, {status}\n");
    })?;
    let with_snp = host::has_rmp() && snp_is_initialised();
    let flush_with = if with_snp {
        FlushWith::SnpDfFlush
    } else {
        FlushWith::DfFlush
    };
    let snp = (wants_snp && with_snp).then(|| Snp {
        policy_bits: psp::snp_policy_bits() & SERVED_POLICY_BITS,
    });
    let split = if snp.is_some() {
        split.hide_ciphertext(hidden)
    } else {
        split
    };
    let served = Served {
        sev: true,
        // Also if ciphertext hiding leaves it no ASIDs: SEV-SNP is built upon it.
        es: protected,
        snp,
        vmsa_features: supported_vmsa_features(protected, snp.is_some()),
    };
    PLATFORM.set(Platform::new(split, flush_with, served)?);
    Ok((split, served))
}

/// Whether there can be guests with protected registers.
fn can_protect_registers(split: Split) -> bool {
    params::get(Parameter::SevEs)
        && Feature::SevEs.is_present()
        && host::can_protect_registers()
        && split.es.is_some()
}

/// `SVM_SEV_FEAT_*` that work on this machine.
fn supported_vmsa_features(es: bool, snp: bool) -> u64 {
    let mut features = 0;

    if (es || snp)
        && Feature::DebugSwap.is_present()
        && Feature::NoNestedDataBreakpoints.is_present()
    {
        features |= b::KVM_SEV_CONST_SVM_SEV_FEAT_DEBUG_SWAP;
    }
    if snp && host::knows_tsc_frequency() && Feature::SecureTsc.is_present() {
        features |= b::KVM_SEV_CONST_SVM_SEV_FEAT_SECURE_TSC;
    }
    features
}

/// Whether the SNP firmware is initialised, which changes the rules for the other commands.
fn snp_is_initialised() -> bool {
    /// `state` in the answer to SNP_PLATFORM_STATUS; 0 is "uninitialised".
    const STATE: usize = core::mem::offset_of!(b::sev_user_data_snp_status, state);

    FirmwarePage::new().is_ok_and(|page| {
        let mut command = SnpPlatformStatus::new(page.address());

        Channel::Kernel
            .issue(&mut command, &mut FwStatus::success())
            .is_ok()
            && page.byte(STATE) != 0
    })
}

/// Offers to guests what the host serves. Called once, after [`hardware_setup`].
pub(crate) fn set_cpu_caps() {
    let Some(platform) = get() else { return };

    Feature::Sev.offer_to_guests();
    if platform.served.es {
        Feature::SevEs.offer_to_guests();
    }
    if platform.served.snp.is_some() {
        Feature::SevSnp.offer_to_guests();
    }
}

/// Undoes [`hardware_setup`].
///
/// # Safety
///
/// All VMs must be gone, and nobody may use the module any more.
#[allow(unsafe_code)]
pub(crate) unsafe fn hardware_unsetup() {
    // SAFETY: By the contract of this function.
    let Some(platform) = (unsafe { PLATFORM.take() }) else {
        return;
    };
    // What is not flushed now would be refused to whoever uses SEV next. A failure is logged.
    let _ = platform.asids.recycle();
    Resource::Sev.set_capacity(0);
    Resource::SevEs.set_capacity(0);
    psp::platform_shutdown();
    // With what it held of ASIDs that the firmware gave up only now.
    drop(platform);
}

/// A device attribute of the group `KVM_X86_GRP_SEV`. ENXIO for others.
pub(crate) fn device_attribute(group: u32, attribute: u64) -> Result<u64> {
    if group != b::KVM_X86_GRP_SEV {
        return Err(ENXIO);
    }
    match u32::try_from(attribute).map_err(|_| ENXIO)? {
        b::KVM_X86_SEV_VMSA_FEATURES => Ok(get().map_or(0, Platform::vmsa_features)),
        b::KVM_X86_SNP_POLICY_BITS => Ok(get().map_or(0, Platform::snp_policy_bits)),
        b::KVM_X86_SEV_SNP_REQ_CERTS => Ok(get()
            .is_some_and(|platform| platform.serves(Kind::Snp))
            .into()),
        b::KVM_X86_SEV_IMPL => Ok(b::KVM_SEV_IMPL_ID),
        b::KVM_X86_SEV_IMPL_VERSION => Ok(u64::from(b::KVM_SEV_IMPL_VERSION)),
        b::KVM_X86_SEV_IMPL_FEATURES => Ok(u64::from(
            b::KVM_SEV_IMPL_F_DEVICE_FILE | b::KVM_SEV_IMPL_F_EVENTS,
        )),
        _ => Err(ENXIO),
    }
}
