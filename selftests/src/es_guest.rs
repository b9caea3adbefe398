// SPDX-License-Identifier: GPL-2.0-or-later
//! Programs of SEV-ES guests that handle #VC themselves.
//!
//! R13 holds the address of a shared page for results, R15 that of the vCPU's GHCB; every
//! program starts by taking them from its first two arguments. R14 gets the exception that the
//! hypervisor last asked for. Handled are CPUID, RDMSR, WRMSR, WBINVD, VMMCALL, writes of DR7
//! from RAX, IN and OUT with DX, and `mov` between RAX and [RDI] for MMIO.
//!
//! In the results' page, words 0x78 and 0x79 are the handler's: number of NMIs, and the vector of
//! an exception that it does not handle (then the guest halts for good).

use crate::es::Guest;
use crate::guest::Program;
use crate::program;

/// Offset of the number of NMIs in the results' page.
pub const NMIS: usize = 0x3c0;
/// Offset of the vector of a fatal exception in the results' page.
pub const FATAL: usize = 0x3c8;
/// Offset of a word that, if not zero, makes NMI handlers end without NMI complete.
pub const INCOMPLETE: usize = 0x3d0;

/// `program` with the handler of this module.
pub fn with_handler(program: Program) -> Guest {
    Guest { program, handler: Some(handle()) }
}

program! {
    /// The handler.
    handle:
    "cmp byte ptr [rsp], 29"
    "je 2f"
    "cmp byte ptr [rsp], 2"
    "je 2f"
    "pop qword ptr [r13 + 0x3c8]"
    "3: hlt"
    "jmp 3b"
    "2: push rax; push rbx; push rcx; push rdx; push rsi; push rdi; push r8"
    // Now 56: vector, 64: error code, 72: RIP.
    "mov [r15 + 0x1f8], rax"
    "mov [r15 + 0x308], rcx"
    "mov [r15 + 0x310], rdx"
    "mov [r15 + 0x318], rbx"
    "mov qword ptr [r15 + 0xc8], 0"
    "mov qword ptr [r15 + 0x3e8], 7"
    "mov word ptr [r15 + 0xffa], 1"
    "mov dword ptr [r15 + 0xffc], 0"
    "mov rsi, [rsp + 72]"
    "mov rbx, [rsp + 64]"
    // RDI, RDX: parameters; RCX: length of the instruction.
    "xor edi, edi"
    "xor edx, edx"
    "xor ecx, ecx"
    "cmp byte ptr [rsp + 56], 2"
    "je 20f"
    "mov ecx, 2"
    "cmp ebx, 0x72"
    "je 30f"
    "cmp ebx, 0x89"
    "je 30f"
    "cmp ebx, 0x7c"
    "je 21f"
    "cmp ebx, 0x7b"
    "je 22f"
    "cmp ebx, 0x400"
    "je 24f"
    "mov ecx, 3"
    "cmp ebx, 0x37"
    "je 30f"
    "cmp ebx, 0x81"
    "je 30f"
    "mov ebx, 0x8000ffff"
    "mov rdi, [rsp + 64]"
    "jmp 30f"
    // NMI
    "20: inc qword ptr [r13 + 0x3c0]"
    "cmp qword ptr [r13 + 0x3d0], 0"
    "jne 40f"
    "mov ebx, 0x80000003"
    "jmp 30f"
    // RDMSR, WRMSR
    "21: cmp byte ptr [rsi + 1], 0x30"
    "sete dil"
    "jmp 30f"
    // IN, OUT
    "22: call 50f"
    "movzx edi, word ptr [rsp + 24]"
    "shl edi, 16"
    "shl r8d, 4"
    "or edi, r8d"
    "test al, 2"
    "jnz 30f"
    "or edi, 1"
    "jmp 30f"
    // MMIO
    "24: call 50f"
    "inc ecx"
    "mov rdi, [rsp + 8]"
    "mov edx, r8d"
    "mov ebx, 0x80000002"
    "test al, 2"
    "jz 25f"
    "mov ebx, 0x80000001"
    "25: mov rax, [rsp + 48]"
    "mov [r15 + 0x800], rax"
    "30: add [rsp + 72], rcx"
    "mov [r15 + 0x390], rbx"
    "mov [r15 + 0x398], rdi"
    "mov [r15 + 0x3a0], rdx"
    "lea rax, [r15 + 0x800]"
    "mov [r15 + 0x3a8], rax"
    "mov rax, 0x8000000002000000"
    "mov [r15 + 0x3f0], rax"
    "mov rax, 0x203c000e00000000"
    "mov [r15 + 0x3f8], rax"
    "mov ecx, 0xc0010130"
    "mov rax, r15"
    "mov rdx, r15"
    "shr rdx, 32"
    "wrmsr"
    "rep vmmcall"
    "cmp dword ptr [r15 + 0x398], 1"
    "jne 31f"
    "mov r14, [r15 + 0x3a0]"
    "31: cmp ebx, 0x80000001"
    "jb 34f"
    "jne 40f"
    // What was read, with as many bytes as the operand has; 32 bits clear the upper half.
    "mov rax, [rsp + 48]"
    "mov rdx, [r15 + 0x800]"
    "cmp r8d, 1"
    "jne 32f"
    "mov al, dl"
    "32: cmp r8d, 2"
    "jne 33f"
    "mov ax, dx"
    "33: cmp r8d, 4"
    "cmove eax, edx"
    "cmova rax, rdx"
    "mov [rsp + 48], rax"
    "jmp 40f"
    "34: mov rax, [r15 + 0x1f8]"
    "mov [rsp + 48], rax"
    "mov rax, [r15 + 0x318]"
    "mov [rsp + 40], rax"
    "mov rax, [r15 + 0x308]"
    "mov [rsp + 32], rax"
    "mov rax, [r15 + 0x310]"
    "mov [rsp + 24], rax"
    "40: pop r8; pop rdi; pop rsi; pop rdx; pop rcx; pop rbx; pop rax"
    "add rsp, 16"
    "iretq"
    // Prefix and opcode at RSI. AL: opcode, ECX: their length, R8: operand size.
    "50: mov r8d, 4"
    "mov ecx, 1"
    "mov al, [rsi]"
    "cmp al, 0x66"
    "jne 51f"
    "mov r8d, 2"
    "jmp 52f"
    "51: cmp al, 0x48"
    "jne 53f"
    "mov r8d, 8"
    "52: inc ecx"
    "mov al, [rsi + 1]"
    "53: test al, 1"
    "jnz 54f"
    "mov r8d, 1"
    "54: ret"
}

program! {
    /// SEV_STATUS and the GHCB MSR as it is at first, to words 0 and 1; halts.
    es_identify:
    "mov r13, rdi"
    "mov ecx, 0xc0010131"
    "rdmsr"
    "mov [r13], eax"
    "mov [r13 + 4], edx"
    "mov ecx, 0xc0010130"
    "rdmsr"
    "mov [r13 + 8], eax"
    "mov [r13 + 12], edx"
    "hlt"
}

program! {
    /// CPUID leaf RDX, to words 0 to 3; TSC_ADJUST after setting it to RDX, to word 4; the
    /// exception that accesses of an unknown MSR cause, to words 5 and 6; WBINVD; hypercall RDX,
    /// to word 7; halts.
    es_instructions:
    "mov r13, rdi"
    "mov r15, rsi"
    "mov r12, rdx"
    "xor r14, r14"
    "mov eax, r12d"
    "xor ecx, ecx"
    "cpuid"
    "mov [r13], rax"
    "mov [r13 + 8], rbx"
    "mov [r13 + 16], rcx"
    "mov [r13 + 24], rdx"
    "mov ecx, 0x3b"
    "mov eax, r12d"
    "xor edx, edx"
    "wrmsr"
    "xor eax, eax"
    "rdmsr"
    "mov [r13 + 32], eax"
    "mov [r13 + 36], edx"
    "mov ecx, 0x12345678"
    "rdmsr"
    "mov [r13 + 40], r14"
    "xor r14, r14"
    "wrmsr"
    "mov [r13 + 48], r14"
    "wbinvd"
    "mov rax, r12"
    "vmmcall"
    "mov [r13 + 56], rax"
    "hlt"
}

program! {
    /// Reads port 0x80 and writes what it read plus one to port 0x3f8, with operands of 1, 2 and
    /// 4 bytes; then the same with MMIO at RDX and RDX + 8, also of 8 bytes; halts.
    es_devices:
    "mov r13, rdi"
    "mov r15, rsi"
    "mov r12, rdx"
    "mov rax, 0x5555555555555555"
    "mov dx, 0x80"
    "in al, dx"
    "inc al"
    "mov dx, 0x3f8"
    "out dx, al"
    "mov dx, 0x80"
    "in ax, dx"
    "inc ax"
    "mov dx, 0x3f8"
    "out dx, ax"
    "mov dx, 0x80"
    "in eax, dx"
    "inc eax"
    "mov dx, 0x3f8"
    "out dx, eax"
    "mov rdi, r12"
    "mov al, [rdi]"
    "inc al"
    "add rdi, 8"
    "mov [rdi], al"
    "sub rdi, 8"
    "mov ax, [rdi]"
    "inc ax"
    "add rdi, 8"
    "mov [rdi], ax"
    "sub rdi, 8"
    "mov eax, [rdi]"
    "inc eax"
    "add rdi, 8"
    "mov [rdi], eax"
    "sub rdi, 8"
    "mov rax, [rdi]"
    "inc rax"
    "add rdi, 8"
    "mov [rdi], rax"
    "hlt"
}

program! {
    /// Halts, and stores RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to R12 and R14 at words 0 to
    /// 13 each time; RAX is the number of rounds, the others are multiples of RDX.
    es_registers:
    "mov r13, rdi"
    "xor eax, eax"
    "mov rbx, rdx"
    "lea rcx, [rbx + rdx]"
    "lea rsi, [rcx + rbx]"
    "lea rdi, [rsi + rbx]"
    "lea rbp, [rdi + rbx]"
    "lea r8, [rbp + rbx]"
    "lea r9, [r8 + rbx]"
    "lea r10, [r9 + rbx]"
    "lea r11, [r10 + rbx]"
    "lea r12, [r11 + rbx]"
    "lea r14, [r12 + rbx]"
    "2: hlt"
    "inc rax"
    "mov [r13], rax"
    "mov [r13 + 8], rbx"
    "mov [r13 + 16], rcx"
    "mov [r13 + 24], rdx"
    "mov [r13 + 32], rsi"
    "mov [r13 + 40], rdi"
    "mov [r13 + 48], rbp"
    "mov [r13 + 56], rsp"
    "mov [r13 + 64], r8"
    "mov [r13 + 72], r9"
    "mov [r13 + 80], r10"
    "mov [r13 + 88], r11"
    "mov [r13 + 96], r12"
    "mov [r13 + 104], r14"
    "jmp 2b"
}

program! {
    /// Loads x87, SSE and MXCSR from the FXSAVE area at RDI, then halts and stores them at RSI,
    /// again and again.
    es_fpu:
    "fxrstor [rdi]"
    "2: hlt"
    "fxsave [rsi]"
    "jmp 2b"
}

program! {
    /// Halts; counts rounds in word 0.
    es_rounds:
    "mov r13, rdi"
    "mov r15, rsi"
    "2: hlt"
    "inc qword ptr [r13]"
    "jmp 2b"
}

program! {
    /// Boot processor: by x2APIC sends INIT and SIPI to vCPU 1 whenever word 0 is less than
    /// RDX, pausing in between; counts them in word 4; then writes to port 0x3f8.
    es_starter:
    "mov r13, rdi"
    "mov r15, rsi"
    "mov r12, rdx"
    "mov ecx, 0x1b"
    "mov eax, 0xfee00d00"
    "xor edx, edx"
    "wrmsr"
    "2: cmp [r13], r12"
    "jae 4f"
    "mov ecx, 0x830"
    "mov edx, 1"
    "mov eax, 0x4500"
    "wrmsr"
    "mov eax, 0x4612"
    "wrmsr"
    "inc qword ptr [r13 + 32]"
    "mov ecx, 2000"
    "3: pause"
    "cmp [r13], r12"
    "jae 4f"
    "dec ecx"
    "jnz 3b"
    "jmp 2b"
    "4: mov dx, 0x3f8"
    "out dx, al"
}

program! {
    /// Application processor: counts in word 0 that it runs; waits until word 4 is at least RCX;
    /// makes exit RDX (AP reset hold) by a GHCB, whose second answer goes to word 1; counts; AP
    /// reset hold by the MSR, whose answer goes to word 2; counts; writes to port 0x3f8.
    es_started:
    "mov r13, rdi"
    "mov r15, rsi"
    "inc qword ptr [r13]"
    "2: pause"
    "cmp [r13 + 32], rcx"
    "jb 2b"
    "mov qword ptr [r15 + 0x390], rdx"
    "mov qword ptr [r15 + 0x398], 0"
    "mov qword ptr [r15 + 0x3a0], 0"
    "mov word ptr [r15 + 0xffa], 1"
    "mov rax, 0x1c000000000000"
    "mov [r15 + 0x3f8], rax"
    "mov ecx, 0xc0010130"
    "mov rax, r15"
    "xor edx, edx"
    "wrmsr"
    "rep vmmcall"
    "mov rax, [r15 + 0x3a0]"
    "mov [r13 + 8], rax"
    "inc qword ptr [r13]"
    "mov eax, 6"
    "xor edx, edx"
    "wrmsr"
    "rep vmmcall"
    "rdmsr"
    "mov [r13 + 16], eax"
    "mov [r13 + 20], edx"
    "inc qword ptr [r13]"
    "mov dx, 0x3f8"
    "out dx, al"
}

program! {
    /// ECX of CPUID leaf 1 with CR4.OSXSAVE set, then clear, to words 0 and 1; CR8 after setting
    /// it to 5, to word 2; EFER after setting NXE, to word 3; halts.
    es_control:
    "mov r13, rdi"
    "mov r15, rsi"
    "mov r12, cr4"
    "bts r12, 18"
    "mov cr4, r12"
    "mov eax, 1"
    "cpuid"
    "mov [r13], rcx"
    "btr r12, 18"
    "mov cr4, r12"
    "mov eax, 1"
    "cpuid"
    "mov [r13 + 8], rcx"
    "mov eax, 5"
    "mov cr8, rax"
    "mov rax, cr8"
    "mov [r13 + 16], rax"
    "mov ecx, 0xc0000080"
    "rdmsr"
    "bts eax, 11"
    "wrmsr"
    "xor eax, eax"
    "rdmsr"
    "mov [r13 + 24], eax"
    "mov [r13 + 28], edx"
    "hlt"
}

program! {
    /// Sets DR0 to DR3 to RDX, RDX + 8, ... and enables local breakpoints there; halts; stores DR0
    /// to DR3 and DR7 to words 0 to 4; halts, again and again.
    es_debug:
    "mov r13, rdi"
    "mov r15, rsi"
    "mov dr0, rdx"
    "add rdx, 8"
    "mov dr1, rdx"
    "add rdx, 8"
    "mov dr2, rdx"
    "add rdx, 8"
    "mov dr3, rdx"
    "mov eax, 0x455"
    "mov dr7, rax"
    "2: hlt"
    "mov rax, dr0"
    "mov [r13], rax"
    "mov rax, dr1"
    "mov [r13 + 8], rax"
    "mov rax, dr2"
    "mov [r13 + 16], rax"
    "mov rax, dr3"
    "mov [r13 + 24], rax"
    "mov rax, dr7"
    "mov [r13 + 32], rax"
    "jmp 2b"
}

program! {
    /// Says that its IDT is at RDX, then causes an exception; halts.
    es_idt_elsewhere:
    "push rdx"
    "sub rsp, 2"
    "mov word ptr [rsp], 0x1ff"
    "lidt [rsp]"
    "cpuid"
    "2: hlt"
    "jmp 2b"
}
