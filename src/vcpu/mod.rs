// SPDX-License-Identifier: GPL-2.0
//! What SEV changes in the life of a vCPU.

mod ap;
mod es;
mod run;
mod setup;
mod vmsa;

pub(crate) use self::ap::{invalidate, reload_vmsa, Ap, ApRequest};
pub(crate) use self::es::{deliver_sipi, transfer, EsVcpu, Hold};
pub(crate) use self::run::{prepare, prepare_switch, resume};
pub(crate) use self::setup::{
    after_set_cpuid,
    create,
    init_vmcb,
    initial_ghcb_msr,
    recalc_msr_intercepts, //
};
pub(crate) use self::vmsa::{encrypt, encrypt_snp, Decrypted};
