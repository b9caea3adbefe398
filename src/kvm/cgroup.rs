// SPDX-License-Identifier: GPL-2.0
//! Charging the misc cgroup controller for ASIDs.

#![allow(unsafe_code)]

use kernel::prelude::*;

use crate::ffi::bindings;
use crate::hw::kind::Kind;

/// A resource of the misc controller, one unit of which is an ASID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resource {
    /// `sev`: ASIDs of plain SEV guests.
    Sev,
    /// `sev_es`: those of SEV-ES and SEV-SNP guests.
    SevEs,
}

impl From<Kind> for Resource {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Sev => Resource::Sev,
            Kind::SevEs | Kind::Snp => Resource::SevEs,
        }
    }
}

impl Resource {
    fn raw(self) -> bindings::misc_res_type {
        match self {
            Resource::Sev => bindings::misc_res_type_MISC_CG_RES_SEV,
            Resource::SevEs => bindings::misc_res_type_MISC_CG_RES_SEV_ES,
        }
    }

    /// Announces how many units the machine has; 0 takes the resource away.
    pub(crate) fn set_capacity(self, units: u32) {
        // SAFETY: The type is one of the controller's.
        let ret = unsafe { bindings::misc_cg_set_capacity(self.raw(), u64::from(units)) };
        if ret != 0 {
            pr_warn!("SEV: the misc controller refused the capacity {units}: {ret}\n");
        }
    }
}

/// One unit, charged to the cgroup of the task that asked for it.
///
/// # Invariants
///
/// `cg` is referenced, and one unit of `resource` is charged to it.
pub(crate) struct Charge {
    resource: Resource,
    cg: *mut bindings::misc_cg,
}

// SAFETY: Cgroups are reference counted and charged and uncharged from any task.
unsafe impl Send for Charge {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl Sync for Charge {}

impl Charge {
    /// Charges the current task's cgroup. EBUSY: over its limit, or the capacity is exhausted.
    pub(crate) fn current(resource: Resource) -> Result<Self> {
        // SAFETY: The current task has a cgroup; the reference is owned by `cg`.
        let cg = unsafe { bindings::get_current_misc_cg() };
        // SAFETY: `cg` is referenced.
        let ret = unsafe { bindings::misc_cg_try_charge(resource.raw(), cg, 1) };

        if ret != 0 {
            // SAFETY: Drops the reference taken above.
            unsafe { bindings::put_misc_cg(cg) };
            return Err(Error::from_errno(ret));
        }
        // INVARIANT: Charged just above, and the reference moves into the value.
        Ok(Self { resource, cg })
    }

    /// A charge like this one on the current task's cgroup; `None` if this one is on it already.
    /// Errors as [`Charge::current`].
    pub(crate) fn for_current(&self) -> Result<Option<Self>> {
        // SAFETY: The current task has a cgroup; the reference is dropped below.
        let cg = unsafe { bindings::get_current_misc_cg() };
        let same = core::ptr::eq(cg, self.cg);

        // SAFETY: Drops the reference taken above.
        unsafe { bindings::put_misc_cg(cg) };
        if same {
            return Ok(None);
        }
        Self::current(self.resource).map(Some)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the unit was charged and the reference is ours.
        unsafe {
            bindings::misc_cg_uncharge(self.resource.raw(), self.cg, 1);
            bindings::put_misc_cg(self.cg);
        }
    }
}
