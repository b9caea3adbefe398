// SPDX-License-Identifier: GPL-2.0
//! The functions that C calls, with the prototypes of svm.h: raw pointers become types, results
//! become error numbers, and nothing else happens here.
//!
//! Each is compared with its prototype when it is compiled, so that a kernel with another interface
//! fails to build. Who calls what in which context is written at each function; unless said
//! otherwise, the caller may sleep and holds no locks.

#![allow(unsafe_code)]
// The contract of every function is its caller's in svm.c and x86.c, as written at the function.
#![allow(clippy::missing_safety_doc)]

use core::ffi::{c_int, c_uint, c_void};

use kernel::prelude::*;

use crate::ffi::bindings::{self, gfp_t, gpa_t, kvm_pfn_t};
use crate::hw::addr::Pfn;
use crate::hw::page::{self, SaveArea};
use crate::kvm::exit::Next;
use crate::kvm::host_state::HostSaveArea;
use crate::kvm::vcpu::{Vcpu, VmrunCtx};
use crate::kvm::{Vm, VmType};
use crate::vcpu::Decrypted;
use crate::{gmem, ioctl, platform, vcpu, vmgexit};

/// Declares functions for C, and has the compiler compare them with the prototypes in the bindings.
macro_rules! entries {
    ($($(#[$attr:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        const _: () = {
            // Both branches of an `if` have one type: a different signature does not compile.
            let _ = if true { bindings::$name } else { $name };
        };

        $(#[$attr])*
        #[no_mangle]
        unsafe extern "C" fn $name($($arg: $type),*) $(-> $ret)? $body
    )*};
}

fn errno(result: Result) -> c_int {
    match result {
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}

// The module and its CPUs.
entries! {
    /// From module initialisation, once.
    #[link_section = ".init.text"]
    fn sev_hardware_setup() {
        platform::hardware_setup();
    }

    /// From module initialisation, once, after the above.
    #[link_section = ".init.text"]
    fn sev_set_cpu_caps() {
        platform::set_cpu_caps();
    }

    /// From module exit, or from a failed initialisation, when there are no VMs.
    fn sev_hardware_unsetup() {
        // SAFETY: There are no VMs, and /dev/kvm is gone.
        unsafe { platform::hardware_unsetup() }
    }

    /// For each possible CPU, once, after hardware set-up. `sev_vmcbs`, which svm.c frees, is not
    /// used.
    fn sev_cpu_init(_sd: *mut bindings::svm_cpu_data) -> c_int {
        0
    }

    /// For pages of svm.c: VMCBs, save areas, AVIC backing pages.
    fn snp_safe_alloc_page_node(node: c_int, gfp: gfp_t) -> *mut bindings::page {
        page::alloc_save_area(node, gfp)
    }
}

// VMs.
entries! {
    /// From the creation of the VM, before anybody else sees it.
    fn sev_vm_init(kvm: *mut bindings::kvm) {
        // SAFETY: The VM is alive.
        let vm = unsafe { Vm::from_raw(kvm) };

        if let VmType::Encrypted(kind) = vm.vm_type() {
            vm.expect_init2(kind);
        }
    }

    /// From the destruction of the VM, when its vCPUs are gone and nobody else can use it.
    fn sev_vm_destroy(kvm: *mut bindings::kvm) {
        // SAFETY: The VM is alive, and nobody else uses it.
        drop(unsafe { Vm::from_raw(kvm).detach() });
    }

    /// `KVM_MEMORY_ENCRYPT_OP`.
    fn sev_mem_enc_ioctl(kvm: *mut bindings::kvm, argp: *mut c_void) -> c_int {
        // SAFETY: The VM's file is open.
        let vm = unsafe { Vm::from_raw(kvm) };

        errno(match platform::get() {
            Some(platform) => ioctl::memory_encrypt_op(platform, vm, argp as u64),
            None => Err(ENOTTY),
        })
    }

    /// `KVM_MEMORY_ENCRYPT_REG_REGION`. `range` is KVM's copy.
    fn sev_mem_enc_register_region(
        kvm: *mut bindings::kvm,
        range: *mut bindings::kvm_enc_region,
    ) -> c_int {
        // SAFETY: The VM's file is open, and `range` points to a structure of the caller's.
        let (vm, range) = unsafe { (Vm::from_raw(kvm), &*range) };

        errno(ioctl::register(vm, range.addr, range.size))
    }

    /// `KVM_MEMORY_ENCRYPT_UNREG_REGION`. `range` is KVM's copy.
    fn sev_mem_enc_unregister_region(
        kvm: *mut bindings::kvm,
        range: *mut bindings::kvm_enc_region,
    ) -> c_int {
        // SAFETY: The VM's file is open, and `range` points to a structure of the caller's.
        let (vm, range) = unsafe { (Vm::from_raw(kvm), &*range) };

        errno(ioctl::unregister(vm, range.addr, range.size))
    }

    /// `KVM_CAP_VM_COPY_ENC_CONTEXT_FROM`.
    fn sev_vm_copy_enc_context_from(kvm: *mut bindings::kvm, source_fd: c_uint) -> c_int {
        // SAFETY: The VM's file is open.
        errno(ioctl::copy(unsafe { Vm::from_raw(kvm) }, source_fd))
    }

    /// `KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM`.
    fn sev_vm_move_enc_context_from(kvm: *mut bindings::kvm, source_fd: c_uint) -> c_int {
        // SAFETY: The VM's file is open.
        errno(ioctl::take(unsafe { Vm::from_raw(kvm) }, source_fd))
    }

    /// From MMU notifiers: pages of the guest go back to the system. May sleep.
    fn sev_guest_memory_reclaimed(kvm: *mut bindings::kvm) {
        // SAFETY: The VM's notifier is registered, so the VM is alive.
        let vm = unsafe { Vm::from_raw(kvm) };

        // Private memory is not mapped into userspace: what is reclaimed is not encrypted then.
        if let Some(sev) = vm.sev().filter(|sev| !sev.is_snp()) {
            sev.run_cpus().write_back_caches();
        }
    }

    /// `KVM_GET_DEVICE_ATTR` and `KVM_HAS_DEVICE_ATTR` of /dev/kvm.
    fn sev_dev_get_attr(group: u32, attr: u64, val: *mut u64) -> c_int {
        errno(platform::device_attribute(group, attr).map(|value| {
            // SAFETY: `val` points to a variable of the caller's.
            unsafe { *val = value }
        }))
    }
}

// vCPUs.
entries! {
    /// From the creation of a vCPU.
    fn sev_vcpu_create(vcpu: *mut bindings::kvm_vcpu) -> c_int {
        // SAFETY: Nobody else sees the vCPU yet.
        errno(vcpu::create(unsafe { Vcpu::from_kvm(vcpu) }))
    }

    /// From the destruction of a vCPU, or its failed creation.
    fn sev_free_vcpu(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: The vCPU is alive, and nobody else uses it.
        drop(unsafe { Vcpu::from_kvm(vcpu).detach_es() });
    }

    /// From creation and INIT of a SEV guest's vCPU, with the vCPU's mutex held.
    fn sev_init_vmcb(svm: *mut bindings::vcpu_svm, init_event: bool) {
        // SAFETY: As written above.
        vcpu::init_vmcb(unsafe { Vcpu::from_raw(svm) }, init_event);
    }

    /// When userspace set the CPUID of a SEV guest's vCPU, with the vCPU's mutex held.
    fn sev_vcpu_after_set_cpuid(svm: *mut bindings::vcpu_svm) {
        // SAFETY: As written above.
        vcpu::after_set_cpuid(unsafe { Vcpu::from_raw(svm) });
    }

    /// Before VMRUN of a SEV guest, on `cpu`, with interrupts off.
    fn pre_sev_run(svm: *mut bindings::vcpu_svm, cpu: c_int) -> c_int {
        // SAFETY: As written above.
        errno(vcpu::prepare(&unsafe { VmrunCtx::new(svm, cpu) }))
    }
}

// vCPUs of SEV-ES guests. Each is called with the vCPU's mutex held.
entries! {
    /// When it may have changed which MSRs the guest may access.
    fn sev_es_recalc_msr_intercepts(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: As written above.
        vcpu::recalc_msr_intercepts(unsafe { Vcpu::from_kvm(vcpu) });
    }

    /// Before the guest runs, with preemption disabled. `hostsa` is that of the current CPU.
    fn sev_es_prepare_switch_to_guest(
        svm: *mut bindings::vcpu_svm,
        hostsa: *mut bindings::sev_es_save_area,
    ) {
        // SAFETY: As written above.
        let (vcpu, host) = unsafe { (Vcpu::from_raw(svm), HostSaveArea::new(hostsa)) };
        vcpu::prepare_switch(vcpu, &host);
    }

    /// Before the guest runs, with preemption disabled.
    fn sev_es_unmap_ghcb(svm: *mut bindings::vcpu_svm) {
        // SAFETY: As written above.
        vcpu::resume(unsafe { Vcpu::from_raw(svm) });
    }

    /// From the handler of IOIO exits. `size` and `port` are not negative.
    fn sev_es_string_io(
        svm: *mut bindings::vcpu_svm,
        size: c_int,
        port: c_uint,
        in_: c_int,
    ) -> c_int {
        // SAFETY: As written above.
        let vcpu = unsafe { Vcpu::from_raw(svm) };
        Next::to_kvm(vmgexit::string_io(vcpu, size as u32, port, in_ != 0))
    }

    /// From the handler of VMGEXIT.
    fn sev_handle_vmgexit(vcpu: *mut bindings::kvm_vcpu) -> c_int {
        // SAFETY: As written above.
        Next::to_kvm(vmgexit::handle(unsafe { Vcpu::from_kvm(vcpu) }))
    }

    /// When another vCPU starts this one. The guest itself knows where, not by `_vector`.
    fn sev_vcpu_deliver_sipi_vector(vcpu: *mut bindings::kvm_vcpu, _vector: u8) {
        // SAFETY: As written above.
        vcpu::deliver_sipi(unsafe { Vcpu::from_kvm(vcpu) });
    }

    /// When KVM writes the vCPU's state into the log. The caller only reads what it gets.
    fn sev_decrypt_vmsa(vcpu: *mut bindings::kvm_vcpu) -> *mut bindings::vmcb_save_area {
        // SAFETY: As written above.
        Decrypted::into_raw(Decrypted::of(unsafe { Vcpu::from_kvm(vcpu) }))
    }

    /// `vmsa` is what the function above returned.
    fn sev_free_decrypted_vmsa(
        vcpu: *mut bindings::kvm_vcpu,
        vmsa: *mut bindings::vmcb_save_area,
    ) {
        // SAFETY: As written above.
        if unsafe { Vcpu::from_kvm(vcpu) }.is_protected() {
            // SAFETY: It is a copy then, as nothing became protected meanwhile.
            drop(unsafe { SaveArea::from_raw(vmsa.cast()) });
        }
    }
}

// For SEV-SNP guests only: their private memory, and the registers that are in it.
entries! {
    /// Before the vCPU runs on, with its mutex held, when it was told to look for its registers.
    fn sev_snp_reload_vmsa(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: As written above.
        vcpu::reload_vmsa(unsafe { Vcpu::from_kvm(vcpu) });
    }

    /// From the handler of nested page faults, with the vCPU's mutex and KVM's SRCU lock held. Also for
    /// ordinary guests on a host with an RMP; they have no private memory to repair.
    fn sev_handle_rmp_fault(vcpu: *mut bindings::kvm_vcpu, gpa: gpa_t, error_code: u64) {
        // SAFETY: As written above.
        gmem::handle_fault(unsafe { Vcpu::from_kvm(vcpu) }, gpa, error_code);
    }

    /// From faults, with the lock of the MMU held or about to be taken. 0 is "no limit".
    fn sev_gmem_max_mapping_level(
        kvm: *mut bindings::kvm,
        pfn: kvm_pfn_t,
        _is_private: bool,
    ) -> c_int {
        // SAFETY: The VM is alive.
        match unsafe { Vm::from_raw(kvm) }.snp_context() {
            Some(_) => gmem::max_mapping(Pfn::new(pfn)).level() as c_int,
            None => 0,
        }
    }

    /// When guest pages are about to be converted or freed, with the lock of the MMU held exclusively.
    fn sev_gmem_invalidate_range(
        kvm: *mut bindings::kvm,
        range: *mut bindings::kvm_gfn_range,
    ) {
        // SAFETY: The VM is alive; `range` points to a structure of the caller's.
        let (vm, range) = unsafe { (Vm::from_raw(kvm), (*range).start..(*range).end) };

        if vm.snp_context().is_some() {
            vcpu::invalidate(vm, range);
        }
    }
}

#[cfg(not(sev_gmem_make_private))]
entries! {
    /// When a page of private memory is about to be mapped.
    fn sev_gmem_prepare(
        kvm: *mut bindings::kvm,
        pfn: kvm_pfn_t,
        gfn: bindings::gfn_t,
        max_order: c_int,
    ) -> c_int {
        const LARGE: c_int = Pfn::PER_LARGE.ilog2() as c_int;

        // SAFETY: The VM is alive.
        errno(match unsafe { Vm::from_raw(kvm) }.snp_context() {
            Some(context) => gmem::make_private(context, gfn, Pfn::new(pfn), max_order >= LARGE),
            None => Ok(()),
        })
    }
}

#[cfg(sev_gmem_make_private)]
entries! {
    /// When a page of private memory is about to be mapped.
    fn sev_gmem_make_private(
        kvm: *mut bindings::kvm,
        gfn: bindings::gfn_t,
        pfn: kvm_pfn_t,
        nr_pages: kvm_pfn_t,
    ) -> c_int {
        let large = nr_pages >= Pfn::PER_LARGE;

        // SAFETY: The VM is alive.
        errno(match unsafe { Vm::from_raw(kvm) }.snp_context() {
            Some(context) => gmem::make_private(context, gfn, Pfn::new(pfn), large),
            None => Ok(()),
        })
    }
}

#[cfg(not(sev_gmem_make_shared))]
entries! {
    /// When pages of private memory are about to be freed, of whichever VM.
    fn sev_gmem_invalidate(start: kvm_pfn_t, end: kvm_pfn_t) {
        gmem::make_shared(Pfn::new(start), end.saturating_sub(start));
    }
}

#[cfg(sev_gmem_make_shared)]
entries! {
    /// When pages of private memory are about to be freed, of whichever VM.
    fn sev_gmem_make_shared(pfn: kvm_pfn_t, nr_pages: kvm_pfn_t) {
        gmem::make_shared(Pfn::new(pfn), nr_pages);
    }
}

#[cfg(sev_vcpu_needs_initialization)]
entries! {
    fn sev_vcpu_needs_initialization(vcpu: *mut bindings::kvm_vcpu) -> bool {
        // SAFETY: A vCPU does not outlive its VM.
        unsafe { Vm::from_raw((*vcpu).kvm) }.needs_init2()
    }
}
