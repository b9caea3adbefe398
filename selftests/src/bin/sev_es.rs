// SPDX-License-Identifier: GPL-2.0-or-later
//! SEV-ES VMs as the VMM sees them: initialisation, encryption of vCPU state, its registers.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use kvm_bindings::*;
use nix::errno::Errno::{EBADF, EINVAL, ENOTTY, ENXIO};
use openssl::sha::sha256;
use sev_vm::cmd::{Answer, status};
use sev_vm::context::{Kind, empty};
use sev_vm::guest;
use sev_vm::host::{EncryptionLeaf, Host, VmType};
use sev_vm::ktap::{self, Test};
use sev_vm::mem::GuestMemory;
use sev_vm::save_area::{self, reset_by_qemu};
use sev_vm::vm::Vm;

/// `SEV_FEATURES` of a VMSA: DebugSwap (APM volume 2, table B-4).
const DEBUG_SWAP: u64 = 1 << 5;

fn main() -> ExitCode {
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("attributes", attributes),
            ("old_init", old_init),
            ("init2", init2),
            ("update_vmsa", update_vmsa),
            ("late_vcpus", late_vcpus),
            ("registers", registers),
            ("measured", measured),
            ("measured_by_others", measured_by_others),
            ("flushed", flushed),
        ],
    )
}

fn small(host: &Host, vm_type: VmType) -> Result<Vm> {
    empty(host, vm_type, GuestMemory::new(guest::MEMORY)?)
}

fn attributes(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    t.check("offered", host.offers(VmType::SevEs));
    // SAFETY: every x86-64 CPU has CPUID.
    let leaf = unsafe { std::arch::x86_64::__cpuid_count(0x8000_001f, 0) };
    let expected = if leaf.eax & (1 << 14) != 0 { DEBUG_SWAP } else { 0 };
    t.value("vmsa_features", host.sev_attr(0)? & DEBUG_SWAP, expected);
    t.value("vmsa_features_all", host.sev_attr(0)?, expected);
    for attr in [3u64, 4, 1 << 32, u64::MAX] {
        let answer = Answer::from_result(host.sev_attr(attr));
        t.case(&format!("attr_{attr:x}"), answer, Answer::refused(ENXIO));
    }
    for attr in 0..4 {
        t.record(&format!("has_{attr}"), Answer::from_result(host.has_device_attr(1, attr)));
    }
    Ok(())
}

/// `KVM_SEV_ES_INIT`: a plain VM becomes a SEV-ES VM.
fn old_init(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let es_init = |vm: &Vm| vm.command(sev_cmd_id_KVM_SEV_ES_INIT, 0);
    let vm = small(&host, VmType::Default)?;
    t.case("plain_vm", es_init(&vm), Answer::OK_KEPT);
    t.case("second", es_init(&vm), Answer::refused(EINVAL));
    t.case("then_init", vm.command(sev_cmd_id_KVM_SEV_INIT, 0), Answer::refused(EINVAL));
    for (name, vm_type) in [("sev", VmType::Sev), ("es", VmType::SevEs)] {
        let vm = small(&host, vm_type)?;
        t.case(&format!("{name}_typed"), es_init(&vm), Answer::refused(EINVAL));
        t.case(&format!("{name}_init2"), vm.init2(&mut Default::default()), Answer::OK_KEPT);
        t.case(&format!("{name}_then"), es_init(&vm), Answer::refused(EINVAL));
    }
    let vm = small(&host, VmType::Default)?;
    let vcpu = vm.fd.create_vcpu(0)?;
    t.case("with_vcpu", es_init(&vm), Answer::refused(EINVAL));
    drop(vcpu);
    let vm = small(&host, VmType::Default)?;
    t.case("sev_first", vm.command(sev_cmd_id_KVM_SEV_INIT, 0), Answer::OK_KEPT);
    t.case("sev_then_es", es_init(&vm), Answer::refused(EINVAL));
    Ok(())
}

/// Every flag, feature and version of `KVM_SEV_INIT2`.
fn init2(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let supported = host.sev_attr(0)?;
    let mut try_with = |case: String, mut argument: kvm_sev_init, good: bool| -> Result<()> {
        let vm = small(&host, VmType::SevEs)?;
        let expected = if good { Answer::OK_KEPT } else { Answer::refused(EINVAL) };
        t.case(&case, vm.init2(&mut argument), expected);
        if !good {
            let answer = vm.init2(&mut Default::default());
            t.case(&format!("{case}_then_good"), answer, Answer::OK_KEPT);
        }
        Ok(())
    };
    let zero = kvm_sev_init::default();
    for bit in 0..32 {
        try_with(format!("flag_{bit}"), kvm_sev_init { flags: 1 << bit, ..zero }, false)?;
    }
    for bit in 0..64 {
        let argument = kvm_sev_init { vmsa_features: 1 << bit, ..zero };
        try_with(format!("feature_{bit}"), argument, supported & (1 << bit) != 0)?;
    }
    let argument = kvm_sev_init { vmsa_features: supported, ..zero };
    try_with("features_supported".into(), argument, true)?;
    let argument = kvm_sev_init { vmsa_features: u64::MAX, ..zero };
    try_with("features_all".into(), argument, false)?;
    // Versions 1 and 2 of the GHCB protocol; 0 leaves it to KVM.
    for ghcb_version in [0, 1, 2, 3, 255, u16::MAX] {
        for vmsa_features in [0, supported] {
            let case = format!("version_{ghcb_version}_{vmsa_features:x}");
            let argument = kvm_sev_init { ghcb_version, vmsa_features, ..zero };
            try_with(case, argument, ghcb_version <= 2)?;
        }
    }
    try_with("padding".into(), kvm_sev_init { pad1: 1, pad2: [1; 8], ..zero }, true)?;
    let vm = small(&host, VmType::SevEs)?;
    let vcpu = vm.fd.create_vcpu(0)?;
    t.case("with_vcpu", vm.init2(&mut kvm_sev_init::default()), Answer::refused(EINVAL));
    drop(vcpu);
    Ok(())
}

/// LAUNCH_UPDATE_VMSA in every state of VM, launch and vCPU.
fn update_vmsa(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, vm) in [
        ("plain", small(&host, VmType::Default)?),
        ("not_initialised", small(&host, VmType::SevEs)?),
        ("sev", Kind::Sev.started(&host, VmType::Sev)?),
    ] {
        t.case(name, vm.launch_update_vmsa(), Answer::refused(ENOTTY));
    }
    let mut vm = Kind::Es.initialised(&host, VmType::SevEs)?;
    t.case("not_started_no_vcpu", vm.launch_update_vmsa(), Answer::OK_KEPT);
    vm.add_vcpu(&host, [0; 4])?;
    t.case("not_started", vm.launch_update_vmsa(), Answer::refused(EBADF));
    let mut start = kvm_sev_launch_start { policy: Kind::Es.policy(), ..Default::default() };
    t.case("start", vm.launch_start(&mut start), Answer::OK);
    let asked = t.psp.counters()?.count("LAUNCH_UPDATE_VMSA");
    vm.add_vcpu(&host, [0; 4])?;
    t.case("two_vcpus", vm.launch_update_vmsa(), Answer::OK);
    let now = t.psp.counters()?.count("LAUNCH_UPDATE_VMSA");
    t.value("one_each", now - asked, 2);
    t.case("twice", vm.launch_update_vmsa(), Answer::refused(EINVAL));
    let again = t.psp.counters()?.count("LAUNCH_UPDATE_VMSA");
    t.value("not_asked", again - now, 0);
    // The argument's address is not looked at.
    let vm = Kind::Es.started(&host, VmType::SevEs)?;
    let answer = vm.command(sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA, sev_vm::bad::KERNEL);
    t.case("no_argument", answer, Answer::OK_KEPT);
    // Debugging of the guest would be part of its state.
    let mut vm = Kind::Es.started(&host, VmType::SevEs)?;
    vm.add_vcpu(&host, [0; 4])?;
    let debug = kvm_guest_debug { control: KVM_GUESTDBG_ENABLE, ..Default::default() };
    vm.vcpus[0].fd().set_guest_debug(&debug)?;
    t.case("debugged", vm.launch_update_vmsa(), Answer::refused(EINVAL));
    vm.vcpus[0].fd().set_guest_debug(&kvm_guest_debug::default())?;
    t.case("not_debugged", vm.launch_update_vmsa(), Answer::OK);
    // A failure on the way leaves the first vCPU encrypted and the second one not.
    let mut vm = Kind::Es.started(&host, VmType::SevEs)?;
    vm.add_vcpu(&host, [0; 4])?;
    vm.add_vcpu(&host, [0; 4])?;
    t.psp.fail("LAUNCH_UPDATE_VMSA", 2, status::HWERROR_PLATFORM)?;
    let failed = Answer::firmware(status::HWERROR_PLATFORM);
    t.case("second_fails", vm.launch_update_vmsa(), failed);
    t.case("first_is_done", vm.launch_update_vmsa(), Answer::refused(EINVAL));
    Ok(())
}

/// vCPUs can be made after others were encrypted, but not encrypted after LAUNCH_FINISH.
fn late_vcpus(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut vm = Kind::Es.launched(&host, VmType::SevEs, guest::idle(), &[[0; 4]])?;
    t.case("create", Answer::from_result(vm.fd.create_vcpu(1)), Answer::OK_KEPT);
    t.case("encrypt", vm.launch_update_vmsa(), Answer::refused(EINVAL));
    vm.vcpus[0].run_to_halt()?;
    let mut vm = Kind::Es.launched(&host, VmType::SevEs, guest::idle(), &[])?;
    vm.add_vcpu(&host, [0; 4])?;
    let wrong = Answer::firmware(status::INVALID_GUEST_STATE);
    t.case("only_late", vm.launch_update_vmsa(), wrong);
    Ok(())
}

/// Registers are the VMM's until LAUNCH_UPDATE_VMSA. Afterwards calls are refused, save on VMs
/// of the old interface, which see what KVM has.
fn registers(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for (name, vm_type) in [("typed", VmType::SevEs), ("old", VmType::Default)] {
        let mut vm = Kind::Es.started(&host, vm_type)?;
        vm.add_vcpu(&host, [1, 2, 3, 4])?;
        for encrypted in [false, true] {
            let when = if encrypted { "after" } else { "before" };
            if encrypted {
                t.case(&format!("{name}_encrypt"), vm.launch_update_vmsa(), Answer::OK);
            }
            let refused = encrypted && vm_type == VmType::SevEs;
            let expected = if refused { Answer::refused(EINVAL) } else { Answer::OK_KEPT };
            let vcpu = vm.vcpus[0].fd();
            let mut answers = vec![
                ("get_regs", Answer::from_result(vcpu.get_regs())),
                ("set_regs", Answer::from_result(vcpu.set_regs(&Default::default()))),
                ("get_sregs", Answer::from_result(vcpu.get_sregs())),
                ("get_debug_regs", Answer::from_result(vcpu.get_debug_regs())),
                ("set_debug_regs", Answer::from_result(vcpu.set_debug_regs(&Default::default()))),
                ("get_fpu", Answer::from_result(vcpu.get_fpu())),
                ("get_xsave", Answer::from_result(vcpu.get_xsave())),
                ("get_xcrs", Answer::from_result(vcpu.get_xcrs())),
            ];
            if let Ok(sregs) = vcpu.get_sregs() {
                answers.push(("set_sregs", Answer::from_result(vcpu.set_sregs(&sregs))));
            }
            for (call, answer) in answers {
                t.case(&format!("{name}_{when}_{call}"), answer, expected);
            }
            let debug = kvm_guest_debug { control: KVM_GUESTDBG_ENABLE, ..Default::default() };
            let answer = Answer::from_result(vcpu.set_guest_debug(&debug));
            let expected = if encrypted { Answer::refused(EINVAL) } else { Answer::OK_KEPT };
            t.case(&format!("{name}_{when}_debug"), answer, expected);
            if !encrypted {
                vcpu.set_guest_debug(&kvm_guest_debug::default())?;
            }
        }
    }
    Ok(())
}

/// The launch digest covers the registers of every vCPU.
fn measured(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let digest = |vcpus: &[[u64; 4]]| -> Result<(Vec<u8>, Vec<u8>)> {
        let mut vm = Kind::Es.started(&host, VmType::SevEs)?;
        vm.load(guest::idle());
        let pages = vm.memory.read(guest::LAUNCHED.start, guest::LAUNCHED.len());
        vm.encrypt(guest::LAUNCHED)?;
        Kind::Es.add_vcpus(&mut vm, &host, vcpus)?;
        vm.measurement()?;
        Ok((vm.launch_digest()?, sha256(&pages).to_vec()))
    };
    let (none, pages) = digest(&[])?;
    t.check("no_vcpu", none == pages);
    let (one, _) = digest(&[[1, 2, 3, 4]])?;
    t.check("one_vcpu_counts", one != none);
    t.check("same_registers", digest(&[[1, 2, 3, 4]])?.0 == one);
    t.check("other_registers", digest(&[[1, 2, 3, 5]])?.0 != one);
    let two = digest(&[[1, 2, 3, 4], [5, 6, 7, 8]])?.0;
    t.check("second_vcpu_counts", two != one);
    t.check("order_counts", digest(&[[5, 6, 7, 8], [1, 2, 3, 4]])?.0 != two);
    Ok(())
}

/// The sev crate knows the save areas of vCPUs that QEMU has reset: the digest is that of memory
/// and of its save areas, byte by byte, whatever features they have.
fn measured_by_others(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let supported = host.sev_attr(0)?;
    for (name, vmsa_features) in [("none", 0), ("all", supported)] {
        for vcpus in [1, 2] {
            let vm = small(&host, VmType::SevEs)?;
            let mut init = kvm_sev_init { vmsa_features, ..Default::default() };
            ensure!(vm.init2(&mut init).is_ok(), "KVM_SEV_INIT2");
            let policy = Kind::Es.policy();
            let mut start = kvm_sev_launch_start { policy, ..Default::default() };
            ensure!(vm.launch_start(&mut start).is_ok(), "LAUNCH_START");
            vm.load(guest::idle());
            let mut expected = vm.memory.read(guest::LAUNCHED.start, guest::LAUNCHED.len());
            vm.encrypt(guest::LAUNCHED)?;
            let _vcpus: Vec<_> =
                (0..vcpus).map(|i| reset_by_qemu(&vm, i)).collect::<Result<_>>()?;
            let case = format!("{name}_{vcpus}");
            t.case(&format!("{case}_encrypt"), vm.launch_update_vmsa(), Answer::OK);
            vm.measurement()?;
            expected.extend(save_area::pages(vcpus as usize, vmsa_features)?);
            t.check(&case, vm.launch_digest()? == sha256(&expected));
        }
    }
    Ok(())
}

/// What caches hold of a save area is flushed before the page is used for something else. The
/// page of a vCPU whose registers were never encrypted is an ordinary one.
fn flushed(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let per_vcpu = u64::from(!EncryptionLeaf::read().coherent);
    for vcpus in [1u64, 2, 3] {
        let arguments = vec![[0; 4]; vcpus as usize];
        let mut vm = Kind::Es.launched(&host, VmType::SevEs, guest::idle(), &arguments)?;
        vm.vcpus[0].run_to_halt()?;
        let before = t.psp.machine()?.page_flushes;
        drop(vm);
        let flushes = t.psp.machine()?.page_flushes - before;
        t.value(&format!("encrypted_{vcpus}"), flushes, vcpus * per_vcpu);
    }
    let mut vm = Kind::Es.started(&host, VmType::SevEs)?;
    vm.add_vcpu(&host, [0; 4])?;
    let before = t.psp.machine()?.page_flushes;
    drop(vm);
    let flushes = t.psp.machine()?.page_flushes - before;
    t.value("plain", flushes, 0);
    Ok(())
}
