// SPDX-License-Identifier: GPL-2.0-or-later
//! Programs of SNP guests.
//!
//! [`puppet`] does one command after the other, as its mailbox in shared memory says, so that
//! what a guest does is written in the test. A mailbox is a page with these words:
//!
//! | word | |
//! |---|---|
//! | 0 | command: a [`Command`] |
//! | 1 to 3 | its arguments |
//! | 4, 5 | its results |
//! | 6 | number of commands done |
//! | 7 to 9 | vector, error code and CR2 of the exception that ended the command |

use crate::program;

/// What [`puppet`] can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Command {
    /// Writes word 1 to the GHCB MSR and executes VMGEXIT; result: the MSR's value afterwards.
    VmgExit = 0,
    /// PVALIDATE of the page at word 1 of size word 2; word 3: validate or rescind. Results: EAX
    /// and CF.
    Pvalidate = 1,
    /// RMPADJUST of the page at word 1 of size word 2 with attributes word 3. Result: EAX.
    RmpAdjust = 2,
    /// Reads the word at word 1.
    Load = 3,
    /// Writes word 2 to the word at word 1.
    Store = 4,
    /// Copies word 3 bytes from word 1 to word 2.
    Copy = 5,
    /// CPUID leaf word 1: becomes #VC.
    Cpuid = 6,
    /// RDMSR of word 1.
    ReadMsr = 7,
}

/// Offset of a word in the mailbox.
pub mod mailbox {
    /// The command.
    pub const COMMAND: usize = 0;
    /// The first argument.
    pub const ARGUMENTS: usize = 8;
    /// The first result.
    pub const RESULTS: usize = 32;
    /// Number of commands done.
    pub const DONE: usize = 48;
    /// Vector of an exception; 0 for none (nobody divides).
    pub const VECTOR: usize = 56;
    /// Its error code.
    pub const ERROR_CODE: usize = 64;
    /// CR2 at that time.
    pub const CR2: usize = 72;
}

program! {
    /// Serves the mailbox at RDI, and halts after every command.
    puppet:
    "mov r15, rdi"
    "lea r14, [rip + 9f]"
    "2: mov eax, [r15]"
    "mov rsi, [r15 + 8]"
    "mov rdi, [r15 + 16]"
    "mov rdx, [r15 + 24]"
    "cmp eax, 1"
    "je 3f"
    "cmp eax, 2"
    "je 4f"
    "cmp eax, 3"
    "je 5f"
    "cmp eax, 4"
    "je 6f"
    "cmp eax, 5"
    "je 7f"
    "cmp eax, 6"
    "je 20f"
    "cmp eax, 7"
    "je 21f"
    "mov ecx, 0xc0010130"
    "mov eax, esi"
    "mov rdx, rsi"
    "shr rdx, 32"
    "wrmsr"
    "rep vmmcall"
    "rdmsr"
    "22: shl rdx, 32"
    "or rax, rdx"
    "8: mov [r15 + 32], rax"
    "9: inc qword ptr [r15 + 48]"
    "hlt"
    "jmp 2b"
    "3: mov rax, rsi"
    "mov rcx, rdi"
    ".byte 0xf2, 0x0f, 0x01, 0xff" // pvalidate
    "setc cl"
    "movzx ecx, cl"
    "mov [r15 + 40], rcx"
    "mov eax, eax"
    "jmp 8b"
    "4: mov rax, rsi"
    "mov rcx, rdi"
    ".byte 0xf3, 0x0f, 0x01, 0xfe" // rmpadjust
    "mov eax, eax"
    "jmp 8b"
    "5: mov rax, [rsi]"
    "jmp 8b"
    "6: mov [rsi], rdi"
    "jmp 9b"
    "7: mov rcx, rdx"
    "rep movsb"
    "jmp 9b"
    "20: mov eax, esi"
    "xor ecx, ecx"
    "cpuid"
    "jmp 8b"
    "21: mov ecx, esi"
    "rdmsr"
    "jmp 22b"
}

program! {
    /// Notes an exception of [`puppet`] in the mailbox at R15 and ends its command.
    note_snp_exception:
    "push rax"
    "mov rax, [rsp + 8]"
    "mov [r15 + 56], rax"
    "mov rax, [rsp + 16]"
    "mov [r15 + 64], rax"
    "mov rax, cr2"
    "mov [r15 + 72], rax"
    "mov [rsp + 24], r14"
    "pop rax"
    "add rsp, 16"
    "iretq"
}

program! {
    /// Counts in the word at RDI for ever.
    snp_counter:
    "2: inc qword ptr [rdi]"
    "pause"
    "jmp 2b"
}
