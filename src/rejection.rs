// SPDX-License-Identifier: GPL-2.0
//! Why an ioctl is rejected. An error number means many things; a [`Reason`] says which. Only people
//! see it, in debugfs and as an event (Documentation/tracing.rst): the number is what it always was.

use kernel::prelude::*;

/// Names are an interface: there can be more of them, not others.
macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $name:literal,)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Reason {
            $($(#[$doc])* $reason,)*
        }

        impl Reason {
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Reason::$reason => $name,)*
                }
            }
        }
    };
}

reasons! {
    /// The firmware refused, and its status says why.
    Firmware = "firmware",
    /// What no other one says: of the PSP driver, or of KVM.
    Other = "other",

    /// User memory cannot be read or written.
    UserMemory = "user_memory",
    NoMemory = "no_memory",
    /// The task is being killed.
    Killed = "killed",
    /// `sev_fd` is not /dev/sev.
    SevFd = "sev_fd",

    /// No such command.
    UnknownCommand = "unknown_command",
    /// Flags that do not exist.
    Flags = "flags",
    /// Not a VM with an encryption context.
    NotSev = "not_sev",
    NotSevEs = "not_sev_es",
    NotSnp = "not_snp",
    /// Not for SEV-SNP VMs.
    Snp = "snp",
    /// Not for mirrors.
    Mirror = "mirror",
    /// Not for VMs of this type.
    VmType = "vm_type",
    /// The machine, or the module as it was loaded, has no such guests.
    NotAvailable = "not_available",

    /// The VM has a context already, or had one.
    Initialised = "initialised",
    /// Not for VMs that have vCPUs.
    HasVcpus = "has_vcpus",
    /// Features that save areas cannot have here.
    VmsaFeatures = "vmsa_features",
    /// A version of the GHCB protocol that guests of this kind cannot have.
    GhcbVersion = "ghcb_version",
    /// All ASIDs for guests of this kind are in use.
    NoAsid = "no_asid",
    /// Over the limit of the misc cgroup.
    CgroupLimit = "cgroup_limit",

    /// The launch did not start yet.
    NotLaunched = "not_launched",
    /// The launch started before.
    Launched = "launched",
    /// Bits that policies cannot have here, or must have.
    Policy = "policy",
    /// No frequency of the TSC was set that the guest could be told.
    TscFrequency = "tsc_frequency",

    /// A range is empty, or wraps.
    Range = "range",
    /// An address of 0.
    NoAddress = "no_address",
    /// An address or a length that is not one of pages.
    Unaligned = "unaligned",
    /// A range that crosses a page.
    CrossesPage = "crosses_page",
    /// Memory that is not physically contiguous.
    NotContiguous = "not_contiguous",
    /// What the firmware is to be given has no address or no length, or is longer than 16 KiB.
    Blob = "blob",
    /// More memory than the machine has.
    TooMuch = "too_much",
    /// Over RLIMIT_MEMLOCK.
    LockLimit = "lock_limit",
    /// Memory that cannot be pinned.
    NotPinned = "not_pinned",
    /// No such region was registered.
    NoRegion = "no_region",

    /// No such type of pages.
    PageType = "page_type",
    /// Guest pages without private memory behind them.
    NoPrivateSlot = "no_private_slot",
    /// Guest pages that are not private, or cannot be allocated or read.
    NotPrivate = "not_private",
    /// A page that is a guest's already.
    Assigned = "assigned",
    /// A page without an entry in the RMP, or whose entry the processor does not change.
    Rmp = "rmp",

    /// The registers are encrypted already.
    Encrypted = "encrypted",
    /// The guest is being debugged.
    Debugged = "debugged",
    /// A vCPU is being created.
    CreatingVcpu = "creating_vcpu",

    /// The descriptor is not one of a VM.
    SourceFd = "source_fd",
    /// The VM itself.
    SameVm = "same_vm",
    /// One of the VMs takes part in another transfer.
    InTransfer = "in_transfer",
    /// The vCPUs of both VMs cannot be matched.
    Vcpus = "vcpus",
}

/// An error number, and what it stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rejection {
    error: Error,
    reason: Reason,
}

/// The result of an ioctl, or of a part of it.
pub(crate) type Outcome<T = ()> = core::result::Result<T, Rejection>;

impl Rejection {
    /// A negative error number.
    pub(crate) fn errno(self) -> i32 {
        self.error.to_errno()
    }

    pub(crate) fn reason(self) -> Reason {
        self.reason
    }
}

/// `EINVAL.because(Reason::Flags)`
pub(crate) trait Because {
    fn because(self, reason: Reason) -> Rejection;
}

impl Because for Error {
    fn because(self, reason: Reason) -> Rejection {
        Rejection {
            error: self,
            reason,
        }
    }
}

/// What an error number stands for unless somebody says otherwise.
impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        error.because(match error {
            EIO => Reason::Firmware,
            EFAULT => Reason::UserMemory,
            ENOMEM => Reason::NoMemory,
            EINTR => Reason::Killed,
            EBADF => Reason::SevFd,
            _ => Reason::Other,
        })
    }
}

impl From<kernel::alloc::AllocError> for Rejection {
    fn from(error: kernel::alloc::AllocError) -> Self {
        Error::from(error).into()
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        rejection.error
    }
}
