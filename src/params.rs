// SPDX-License-Identifier: GPL-2.0
//! Module parameters, and the one variable of sev.c that svm.c reads.
//!
//! The parameters appear in /sys/module/kvm_amd/parameters, where management software looks for what
//! the host offers. `module!` is not used, as svm.c owns the module's initialisation, and so the
//! entries in the parameter section are written out here.
//!
//! All of it is written by the module loader and while the module is initialised, by one task, and
//! read-only afterwards.

#![allow(unsafe_code)]

use core::cell::UnsafeCell;

use kernel::module_param::KernelParam;

use crate::ffi::bindings;

/// A variable of the C world.
#[repr(transparent)]
pub(crate) struct Variable<T>(UnsafeCell<T>);

// SAFETY: See the head of this file: there is never a write that is concurrent with anything.
unsafe impl<T: Sync> Sync for Variable<T> {}

impl<T: Copy> Variable<T> {
    const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    fn get(&self) -> T {
        // SAFETY: Not concurrent with writes; see the head of this file.
        unsafe { *self.0.get() }
    }

    fn set(&self, value: T) {
        // SAFETY: Only reached while the module is initialised; see the head of this file.
        unsafe { *self.0.get() = value }
    }
}

macro_rules! parameters {
    ($($name:ident: $type:tt, $static:ident: $rust:ty = $default:expr, $ops:ident;)*) => {$(
        #[link_section = ".data..ro_after_init"]
        static $static: Variable<$rust> = Variable::new($default);

        const _: () = {
            #[link_section = "__param"]
            #[used(compiler)]
            static PARAM: KernelParam = KernelParam::new(bindings::kernel_param {
                name: concat!(stringify!($name), "\0").as_ptr().cast(),
                mod_: (&raw const bindings::__this_module).cast_mut(),
                ops: &raw const bindings::$ops,
                perm: 0o444,
                level: -1,
                flags: 0,
                __bindgen_anon_1: bindings::kernel_param__bindgen_ty_1 {
                    arg: (&raw const $static).cast_mut().cast(),
                },
            });

            const INFO: &[u8] =
                concat!("parmtype=", stringify!($name), ":", stringify!($type), "\0").as_bytes();
            #[link_section = ".modinfo"]
            #[used(compiler)]
            static TYPE: [u8; INFO.len()] = *INFO.first_chunk().unwrap();
        };
    )*};
}

parameters! {
    sev: bool, SEV: bool = true, param_ops_bool;
    sev_es: bool, SEV_ES: bool = true, param_ops_bool;
    sev_snp: bool, SEV_SNP: bool = true, param_ops_bool;
    ciphertext_hiding_asids: uint, CIPHERTEXT_HIDING_ASIDS: u32 = 0, param_ops_uint;
}

/// A parameter that turns a kind of guest on or off.
#[derive(Clone, Copy)]
pub(crate) enum Parameter {
    Sev,
    SevEs,
    SevSnp,
}

impl Parameter {
    fn variable(self) -> &'static Variable<bool> {
        match self {
            Parameter::Sev => &SEV,
            Parameter::SevEs => &SEV_ES,
            Parameter::SevSnp => &SEV_SNP,
        }
    }
}

/// What was asked for when the module was loaded.
pub(crate) fn get(parameter: Parameter) -> bool {
    parameter.variable().get()
}

/// Shows what became of it. Only while the module is initialised.
pub(crate) fn set(parameter: Parameter, value: bool) {
    parameter.variable().set(value);
}

/// How many ASIDs are to be for SEV-SNP guests alone, whose ciphertext the firmware then hides.
pub(crate) fn ciphertext_hiding_asids() -> u32 {
    CIPHERTEXT_HIDING_ASIDS.get()
}

/// Shows what became of it. Only while the module is initialised.
pub(crate) fn set_ciphertext_hiding_asids(count: u32) {
    CIPHERTEXT_HIDING_ASIDS.set(count);
}

/// Highest ASID of an encrypted guest; svm.c gives ordinary guests those above.
#[no_mangle]
#[allow(non_upper_case_globals)]
static max_sev_asid: Variable<u32> = Variable::new(0);

/// Only while the module is initialised.
pub(crate) fn set_max_sev_asid(asid: u32) {
    max_sev_asid.set(asid);
}
