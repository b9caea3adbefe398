// SPDX-License-Identifier: GPL-2.0-or-later
//! Guest programs and the guest's physical memory map.
//!
//! Every program is position-independent 64-bit code, entered at [`CODE`] with its arguments
//! in RDI, RSI, RDX, RCX (as a C function) and ending in `hlt`. Virtual addresses equal
//! physical ones. Pages are encrypted (C-bit set) save those in [`SHARED`] and [`MMIO`].

use std::ops::Range;
use std::slice;

use crate::mem::{Mapping, PAGE};

/// Bytes of guest memory, mapped from guest physical address 0.
pub const MEMORY: usize = 2 << 20;
/// Page tables: PML4, PDPT, two PDs, one PT.
pub const TABLES: u64 = 0x1000;
/// Entry point of the program.
pub const CODE: u64 = 0x1_0000;
/// Measured bytes: page tables and program.
pub const LAUNCHED: Range<usize> = 0..0x2_0000;
/// Pages without C-bit: host and guest see the same bytes.
pub const SHARED: Range<u64> = 0x2_0000..0x2_8000;
/// Encrypted pages that are not part of the launch.
pub const PRIVATE: u64 = 0x3_0000;
/// Encrypted page for an injected secret.
pub const SECRET: u64 = 0x4_0000;
/// Top of vCPU 0's stack; each further vCPU has its own page above.
pub const STACK: u64 = 0x5_0000;
/// Guest physical addresses without memory behind: accesses exit to userspace.
pub const MMIO: Range<u64> = 0x4000_0000..0x4020_0000;

const PRESENT_WRITABLE: u64 = 3;
const LARGE: u64 = 1 << 7;

/// Writes page tables that map memory and [`MMIO`] one to one, with the C-bit where due.
pub fn write_page_tables(memory: &Mapping, c_mask: u64) {
    let [pml4, pdpt, pd, pd_mmio, pt] = [0, 1, 2, 3, 4].map(|i| TABLES + i * PAGE as u64);
    let entry = |table: u64, index: u64, value: u64| {
        memory.write_u64((table + index * 8) as usize, value | PRESENT_WRITABLE);
    };
    entry(pml4, 0, pdpt | c_mask);
    entry(pdpt, 0, pd | c_mask);
    entry(pdpt, MMIO.start >> 30, pd_mmio | c_mask);
    entry(pd, 0, pt | c_mask);
    entry(pd_mmio, 0, MMIO.start | LARGE);
    for page in (0..MEMORY as u64).step_by(PAGE) {
        let encrypted = if SHARED.contains(&page) { 0 } else { c_mask };
        entry(pt, page / PAGE as u64, page | encrypted);
    }
}

/// A guest program: its machine code.
#[derive(Clone, Copy)]
pub struct Program(&'static [u8]);

impl Program {
    /// The code between two labels.
    ///
    /// # Safety
    ///
    /// `start..end` has to be constant memory.
    pub unsafe fn between(start: *const u8, end: *const u8) -> Self {
        // SAFETY: the caller guarantees it.
        Self(unsafe { slice::from_raw_parts(start, end.offset_from(start) as usize) })
    }

    /// The machine code.
    pub fn code(&self) -> &'static [u8] {
        self.0
    }
}

/// Defines `pub fn $name() -> Program` from assembly text.
#[macro_export]
macro_rules! program {
    ($(#[$doc:meta])* $name:ident: $($line:literal)*) => {
        $(#[$doc])*
        pub fn $name() -> $crate::guest::Program {
            unsafe extern "C" {
                #[link_name = concat!("guest_", stringify!($name))]
                static START: u8;
                #[link_name = concat!("guest_", stringify!($name), "_end")]
                static END: u8;
            }
            // SAFETY: the labels surround the program in .rodata (below).
            unsafe { $crate::guest::Program::between(&raw const START, &raw const END) }
        }
        std::arch::global_asm!(
            ".pushsection .rodata",
            concat!(".globl guest_", stringify!($name), ", guest_", stringify!($name), "_end"),
            concat!("guest_", stringify!($name), ":"),
            $($line,)*
            concat!("guest_", stringify!($name), "_end:"),
            ".popsection",
        );
    };
}

program! {
    /// Halts, again and again.
    idle:
    "2: hlt"
    "jmp 2b"
}

program! {
    /// Writes a byte to port 0x3f8, then runs for ever.
    spin:
    "mov dx, 0x3f8"
    "out dx, al"
    "2: pause"
    "jmp 2b"
}

program! {
    /// Stores RDX at RDI (a private page) and at RSI (a shared one); halts; then at every run
    /// copies the word at RDI to RSI and halts.
    store_and_watch:
    "mov [rdi], rdx"
    "mov [rsi], rdx"
    "hlt"
    "2: mov rax, [rdi]"
    "mov [rsi], rax"
    "hlt"
    "jmp 2b"
}

program! {
    /// Copies RDX bytes from RSI to RDI and halts.
    copy:
    "mov rcx, rdx"
    "rep movsb"
    "hlt"
}

program! {
    /// Writes RDX words RCX, RCX + 1, ... at RDI and halts.
    fill:
    "2: mov [rdi], rcx"
    "add rdi, 8"
    "inc rcx"
    "dec rdx"
    "jnz 2b"
    "hlt"
}

program! {
    /// What the guest knows of itself, as words at RDI (shared): SEV_STATUS, CR3, CPUID
    /// 0x8000001F EBX:EAX. Then halts.
    identify:
    "mov r8, rdi"
    "mov ecx, 0xc0010131"
    "rdmsr"
    "shl rdx, 32"
    "or rax, rdx"
    "mov [r8], rax"
    "mov rax, cr3"
    "mov [r8 + 8], rax"
    "mov eax, 0x8000001f"
    "xor ecx, ecx"
    "cpuid"
    "mov [r8 + 16], eax"
    "mov [r8 + 20], ebx"
    "hlt"
}

program! {
    /// Reads a byte, a word and a long from port 0x80 and writes each, plus one, to port 0x3f8.
    ports:
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
    "hlt"
}

program! {
    /// MMIO at RDI with operands of 8, 4, 2 and 1 bytes: reads, then writes what it read plus
    /// one. The instructions are emulated by KVM from the bytes that the CPU saved.
    mmio:
    "mov rax, [rdi]"
    "inc rax"
    "mov [rdi + 8], rax"
    "mov eax, [rdi + 16]"
    "inc eax"
    "mov [rdi + 24], eax"
    "mov ax, [rdi + 32]"
    "inc ax"
    "mov [rdi + 40], ax"
    "mov al, [rdi + 48]"
    "inc al"
    "mov [rdi + 56], al"
    "hlt"
}

program! {
    /// One of two vCPUs. RDI: word in memory common to both, RSI: this vCPU's own result word,
    /// RDX: rounds, RCX: 0 or 1. The two take turns: vCPU n waits until the word's lowest bit is
    /// n and increments the word. At the end the word is 2 * rounds; the result is the number
    /// of own turns.
    turns:
    "xor r8, r8"
    "2: mov rax, [rdi]"
    "mov r9, rax"
    "and r9, 1"
    "cmp r9, rcx"
    "je 3f"
    "pause"
    "jmp 2b"
    "3: inc rax"
    "mov [rdi], rax"
    "inc r8"
    "mov [rsi], r8"
    "cmp r8, rdx"
    "jb 2b"
    "hlt"
}

program! {
    /// Writes RDX values at RDI, reading each back after a short pause; counts wrong reads in
    /// the word at RSI, then stores 0x600d in the next word and halts.
    write_and_check:
    "xor r8, r8"
    "2: mov [rdi], rdx"
    "mov ecx, 100"
    "3: dec ecx"
    "jnz 3b"
    "cmp [rdi], rdx"
    "je 4f"
    "inc r8"
    "4: dec rdx"
    "jnz 2b"
    "mov [rsi], r8"
    "mov eax, 0x600d"
    "mov [rsi + 8], rax"
    "hlt"
}

program! {
    /// Increments the word at RDI with a locked instruction RDX times, then halts.
    count_locked:
    "2: lock inc qword ptr [rdi]"
    "dec rdx"
    "jnz 2b"
    "hlt"
}
