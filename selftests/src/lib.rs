// SPDX-License-Identifier: GPL-2.0-or-later
//! A small VMM for SEV guests, shared by the selftests and the demonstration.
//!
//! | module | what it holds |
//! |---|---|
//! | [`host`] | `/dev/kvm` and `/dev/sev`, capabilities, device attributes |
//! | [`mem`] | mappings and guest memory with a second view of it |
//! | [`cmd`] | `KVM_MEMORY_ENCRYPT_OP` commands and their answers |
//! | [`vm`] | one VM: memory slot, commands, the launch sequence |
//! | [`vcpu`] | a vCPU in 64-bit mode, run until it halts |
//! | [`cpu`] | where a thread runs, CPUs that come and go |
//! | [`guest`] | guest programs and the guest's physical memory map |
//! | [`es`] | SEV-ES VMs |
//! | [`es_guest`] | programs of ES guests with a #VC handler |
//! | [`save_area`] | save areas by the sev crate |
//! | [`ghcb`] | layout, requests and answers of the GHCB |
//! | [`hostile`] | hostile VMGEXITs from a seed |
//! | [`step`] | an ES guest that makes one VMGEXIT at a time |
//! | [`snp`] | SEV-SNP VMs |
//! | [`snp_image`] | a firmware image for them, and its digest by others |
//! | [`snp_identity`] | ID blocks |
//! | [`snp_guest`] | SNP VMs whose vCPUs are puppets |
//! | [`snp_guest_actor`] | their vCPUs, and the VMM that answers them |
//! | [`snp_guest_fuzz`] | hostile requests of SNP guests from a seed |
//! | [`snp_guest_message`] | messages between guest and firmware |
//! | [`snp_guest_program`] | programs of SNP guests: what the test tells them to do |
//! | [`snp_guest_psc`] | page state change requests |
//! | [`snp_guest_request`] | requests to the firmware through KVM, and attestation reports |
//! | [`snp_guest_rmp`] | the reverse map table, counted |
//! | [`snp_guest_vmsa`] | save areas, and AP creation requests |
//! | [`large_gmem`] | large pages in a guest_memfd |
//! | [`cgroup`] | groups of the misc controller |
//! | [`context`] | both kinds of VM, mirrors and moves |
//! | [`tracefs`] | recording events of the kernel |
//! | [`transfer`] | SEND and RECEIVE: from one platform to another |
//! | [`other`] | other processes that hold VMs |
//! | [`far`] | a VM that another process has launched |
//! | [`bad`] | arguments that commands have to refuse |
//! | [`tenant`] | the guest owner: session, measurement, secret (crate `sev`) |
//! | [`psp`] | the emulated PSP's control port: counters and faults |
//! | [`state`] | what must be back at its baseline after every test |
//! | [`kds`] | a stand-in for the key distribution service |
//! | [`ktap`] | test registration, case lines, KTAP output |

pub mod bad;
pub mod cgroup;
pub mod cmd;
pub mod context;
pub mod cpu;
pub mod es;
pub mod es_guest;
pub mod far;
pub mod ghcb;
pub mod guest;
pub mod host;
pub mod hostile;
pub mod kds;
pub mod ktap;
pub mod large_gmem;
pub mod mem;
pub mod other;
pub mod psp;
pub mod save_area;
pub mod snp;
pub mod snp_guest;
pub mod snp_guest_actor;
pub mod snp_guest_fuzz;
pub mod snp_guest_message;
pub mod snp_guest_program;
pub mod snp_guest_psc;
pub mod snp_guest_request;
pub mod snp_guest_rmp;
pub mod snp_guest_vmsa;
pub mod snp_identity;
pub mod snp_image;
pub mod state;
pub mod step;
pub mod tenant;
pub mod tracefs;
pub mod transfer;
pub mod vcpu;
pub mod vm;
