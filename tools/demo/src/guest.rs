// SPDX-License-Identifier: GPL-2.0-or-later
//! The guest of the story.

use sev_vm::program;

/// Where the guest puts what the host may see: the shared page's offsets.
pub mod shared {
    /// Set by vCPU 0 when the word for taking turns is ready.
    pub const READY: usize = 0;
    /// Copy of the secret.
    pub const SECRET: usize = 0x100;
    /// Turns of each vCPU.
    pub const TURNS: usize = 0x200;
    /// Final value of the private word.
    pub const WORD: usize = 0x300;
}

/// What vCPU 0 writes to the serial port.
pub const GREETING: &str = "hello from encrypted memory";

program! {
    /// RDI: shared page, RSI: secret (32 bytes), RDX: rounds, RCX: number of the vCPU,
    /// at 0x30000: private page, at 0x40000000: a device.
    ///
    /// vCPU 0 greets through the serial port, copies the secret to the shared page, reads a
    /// device register and writes it back plus one, and clears a word in the private page.
    /// Then both vCPUs take turns in incrementing that word.
    story:
    "test rcx, rcx"
    "jnz 3f"
    // Greeting.
    "lea rbx, [rip + 9f]"
    "mov r10, rdx"
    "mov dx, 0x3f8"
    "2: mov al, [rbx]"
    "test al, al"
    "jz 4f"
    "out dx, al"
    "inc rbx"
    "jmp 2b"
    "4: mov rdx, r10"
    // Secret.
    "mov rax, [rsi]"
    "mov [rdi + 0x100], rax"
    "mov rax, [rsi + 8]"
    "mov [rdi + 0x108], rax"
    "mov rax, [rsi + 16]"
    "mov [rdi + 0x110], rax"
    "mov rax, [rsi + 24]"
    "mov [rdi + 0x118], rax"
    // Device.
    "mov ebx, 0x40000000"
    "mov eax, [rbx + 4]"
    "inc eax"
    "mov [rbx + 8], eax"
    // The word.
    "xor eax, eax"
    "mov ebx, 0x30000"
    "mov [rbx], rax"
    "mov byte ptr [rdi], 1"
    "3: cmp byte ptr [rdi], 1"
    "pause"
    "jne 3b"
    // Turns.
    "mov ebx, 0x30000"
    "xor r8, r8"
    "5: mov rax, [rbx]"
    "mov r9, rax"
    "and r9, 1"
    "cmp r9, rcx"
    "je 6f"
    "pause"
    "jmp 5b"
    "6: inc rax"
    "mov [rbx], rax"
    "mov [rdi + 0x300], rax"
    "inc r8"
    "mov [rdi + rcx * 8 + 0x200], r8"
    "cmp r8, rdx"
    "jb 5b"
    "7: hlt"
    "jmp 7b"
    "9: .asciz \"hello from encrypted memory\""
}
