// SPDX-License-Identifier: GPL-2.0-or-later
//! GHCB requests with data: ports, string instructions, MMIO, and where their scratch areas are.
//!
//! What the protocol (AMD publication 56421) says is asserted; what it leaves open is
//! recorded, for the comparison of modules.

use std::process::ExitCode;

use anyhow::Result;
use sev_vm::es::{Setup, kept_vm};
use sev_vm::ghcb::{BUFFER, BUFFER_LEN, Field, Ghcb, answer, exit, ioio};
use sev_vm::guest;
use sev_vm::host::Host;
use sev_vm::ktap::{self, Test};
use sev_vm::mem::PAGE;
use sev_vm::step::{GHCB, NO_EXIT, OUTSIDE, OUTSIDE_END, Stepper, done, refused};

const SCRATCH: u64 = GHCB + BUFFER as u64;
const MMIO: u64 = guest::MMIO.start;
const OUT: u64 = ioio::info(0x3f8, 1, 0);
const IN: u64 = ioio::info(0x3f8, 1, ioio::IN);
const OUTS: u64 = ioio::info(0x3f8, 1, ioio::STRING | ioio::REP);
const INS: u64 = OUTS | ioio::IN;

fn main() -> ExitCode {
    let _kept = kept_vm();
    ktap::run(
        env!("CARGO_BIN_NAME"),
        &[
            ("ports", ports),
            ("strings", strings),
            ("mmio", mmio),
            ("scratch_areas", scratch_areas),
            ("large_scratch", large_scratch),
            ("changed_in_exit", changed_in_exit),
        ],
    )
}

fn ports(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Stepper::new(&host, Setup::default())?;
    let value = 0x8877_6655_4433_2211;
    for (size, bytes) in [(1, "11"), (2, "2211"), (4, "11223344")] {
        let bytes = if size == 2 { "1122" } else { bytes };
        let request = |flags| Ghcb::request(exit::IOIO, ioio::info(0x3f8, size, flags), 0);
        let outcome = guest.step(&request(0).with(Field::Rax, value))?;
        done(t, &format!("out.{size}"), &outcome, &format!("out:3f8:{bytes}:{size}x1"));
        let outcome = guest.step(&request(ioio::IN).with(Field::Rax, value))?;
        done(t, &format!("in.{size}"), &outcome, &format!("in:3f8:{size}x1"));
        // The VMM answers a1, a2, ...; operands below 32 bits leave the rest of RAX alone.
        let read = match size {
            1 => value & !0xff | 0xa1,
            2 => value & !0xffff | 0xa2a1,
            _ => 0xa4a3_a2a1,
        };
        t.value(&format!("in.{size}.rax"), outcome.after.get(Field::Rax), read);
    }
    for size in [0, 3, 5, 6, 7] {
        for (name, flags) in [("out", 0), ("in", ioio::IN)] {
            let request = Ghcb::request(exit::IOIO, ioio::info(0x3f8, size, flags), 0);
            t.observe(&format!("{name}.{size}"), guest.step(&request.with(Field::Rax, value))?);
        }
    }
    for (name, info1) in [
        ("port_0", ioio::info(0, 1, 0)),
        ("port_7e", ioio::info(0x7e, 1, 0)),
        ("port_ffff", ioio::info(0xffff, 4, 0)),
        ("port_ffff_in", ioio::info(0xffff, 4, ioio::IN)),
        ("high_bits", OUT | 0xffff_ffff_0000_0000),
        ("high_bits_in", IN | 0xffff_ffff_0000_0000),
        ("reserved_bits", OUT | 0xff82),
        ("address_size", OUT | 0x380),
        ("repeated", OUT | ioio::REP),
        ("repeated_in", IN | ioio::REP),
    ] {
        let request = Ghcb::request(exit::IOIO, info1, 3).with(Field::Rax, value);
        t.observe(name, guest.step(&request)?);
    }
    Ok(())
}

/// String instructions: the data is in the scratch area, the count in the second parameter.
fn strings(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for version in [1, 2] {
        let mut guest = Stepper::new(&host, Setup::version(version))?;
        let bytes: Vec<u8> = (0..BUFFER_LEN).map(|i| i as u8).collect();
        let request = |size, flags, count| {
            let info1 = ioio::info(0x3f8, size, ioio::STRING | ioio::REP | flags);
            Ghcb::request(exit::IOIO, info1, count).with(Field::Scratch, SCRATCH).buffer(&bytes)
        };
        for (size, count, out) in [
            (1, 3, "out:3f8:000102:1x3"),
            (2, 3, "out:3f8:000102030405:2x3"),
            (4, 3, "out:3f8:000102030405060708090a0b:4x3"),
        ] {
            let outcome = guest.step(&request(size, 0, count))?;
            done(t, &format!("v{version}.out.{size}"), &outcome, out);
            let outcome = guest.step(&request(size, ioio::IN, count))?;
            let seen = format!("in:3f8:{size}x{count}");
            done(t, &format!("v{version}.in.{size}"), &outcome, &seen);
            let read: Vec<u8> = (0..size * count).map(|i| 0xa1 + i as u8).collect();
            let len = read.len();
            let buffer = &outcome.after.0[BUFFER..];
            t.check(&format!("v{version}.in.{size}.data"), buffer[..len] == read);
            t.check(
                &format!("v{version}.in.{size}.rest"),
                buffer[len..len + 64] == bytes[len..len + 64],
            );
        }
        for (name, flags) in [("out", 0), ("in", ioio::IN)] {
            for size in 0..8 {
                // The buffer holds 2032 bytes; then come limits of 32-bit arithmetic.
                let fit = 2032u64.checked_div(size).unwrap_or(5);
                let largest = 0x7fff_ffffu64.checked_div(size).unwrap_or(0x7fff_ffff);
                for count in [0, 5, fit, fit + 1, 0x1_0000, largest, largest + 1, 1 << 31, 1 << 63]
                {
                    let outcome = guest.step(&request(size, flags, count))?;
                    t.observe(&format!("v{version}.{name}.{size}x{count:x}"), outcome);
                }
            }
        }
    }
    Ok(())
}

/// MMIO of every small length and of lengths that no instruction has.
fn mmio(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    for version in [1, 2] {
        let mut guest = Stepper::new(&host, Setup::version(version))?;
        let request = |code, gpa, len| {
            Ghcb::request(code, gpa, len).with(Field::Scratch, SCRATCH).buffer(&[0x5a; 64])
        };
        for len in 1..=8usize {
            let outcome = guest.step(&request(exit::MMIO_READ, MMIO + 8, len as u64))?;
            done(
                t,
                &format!("v{version}.read.{len}"),
                &outcome,
                &format!("read:{:x}:{len}", MMIO + 8),
            );
            let mut read: Vec<u8> = (0..len).map(|i| 0xa1 + i as u8).collect();
            read.resize(64, 0x5a);
            t.check(
                &format!("v{version}.read.{len}.data"),
                outcome.after.0[BUFFER..][..64] == read,
            );
            let outcome = guest.step(&request(exit::MMIO_WRITE, MMIO + 8, len as u64))?;
            let written = format!("write:{:x}:{}", MMIO + 8, "5a".repeat(len));
            done(t, &format!("v{version}.write.{len}"), &outcome, &written);
        }
        for (name, code) in [("read", exit::MMIO_READ), ("write", exit::MMIO_WRITE)] {
            let outcome = guest.step(&request(code, MMIO, 0))?;
            t.observe(&format!("v{version}.{name}.0"), &outcome);
            t.value(&format!("v{version}.{name}.0.exits"), outcome.exits.as_str(), NO_EXIT);
            for len in [9, 16, 0x7f0, 0x7f1, 0x1000, 0x1_0001, 1 << 32, 1 << 63, u64::MAX] {
                let outcome = guest.step(&request(code, MMIO, len))?;
                t.observe(&format!("v{version}.{name}.{len:x}"), &outcome);
                if version == 2 {
                    refused(
                        t,
                        &format!("v2.{name}.{len:x}.answer"),
                        &outcome,
                        answer::INVALID_INPUT,
                    );
                }
            }
            for (place, gpa) in [
                ("zero", 0),
                ("memory", guest::SHARED.start + 0x7f00),
                ("apic", 0xfee0_0030),
                ("io_apic", 0xfec0_0000),
                ("page_end", MMIO + 0xffc),
                ("non_canonical", 1 << 63),
                ("highest", u64::MAX - 7),
                ("wrapping", u64::MAX - 3),
            ] {
                let outcome = guest.step(&request(code, gpa, 8))?;
                t.observe(&format!("v{version}.{name}.at_{place}"), outcome);
            }
        }
    }
    Ok(())
}

/// Where scratch areas may be, for events with small and with large ones.
fn scratch_areas(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let end = SCRATCH + BUFFER_LEN as u64;
    let inside = [("start", SCRATCH), ("misaligned", SCRATCH + 3), ("last_8", end - 8)];
    let outside = [
        ("zero", 0),
        ("ghcb_start", GHCB),
        ("before_buffer", SCRATCH - 8),
        ("across_start", SCRATCH - 4),
        ("across_end", end - 4),
        ("after_buffer", end),
        ("ghcb_end", GHCB + PAGE as u64 - 4),
    ];
    let elsewhere = [
        ("shared_page", OUTSIDE),
        ("shared_misaligned", OUTSIDE + 0x123),
        ("across_pages", OUTSIDE + PAGE as u64 - 4),
        ("last_shared", OUTSIDE_END - 8),
        ("before_ghcb", GHCB - 8),
        ("low_offset", 0x20),
        ("memory_end", guest::MEMORY as u64 - 8),
        ("across_memory_end", guest::MEMORY as u64 - 4),
        ("unmapped", guest::MEMORY as u64),
        ("mmio", MMIO),
        ("non_canonical", 0x8000_0000_0000),
        ("with_c_bit", (1 << 51) | SCRATCH),
        ("wrapping", u64::MAX - 3),
        ("highest", u64::MAX - 7),
    ];
    let byte = |code| Ghcb::request(code, MMIO, 8).buffer(&[0x77; 16]);
    let requests = [
        ("mmio_read", byte(exit::MMIO_READ)),
        ("mmio_write", byte(exit::MMIO_WRITE)),
        ("outs", Ghcb::request(exit::IOIO, OUTS, 8)),
        ("ins", Ghcb::request(exit::IOIO, INS, 8)),
        ("outs_0", Ghcb::request(exit::IOIO, OUTS, 0)),
    ];
    for version in [1, 2] {
        let mut guest = Stepper::new(&host, Setup::version(version))?;
        for (event, request) in &requests {
            for (place, gpa) in inside.iter().chain(&outside).chain(&elsewhere) {
                let private = *place == "low_offset";
                if private && version == 1 {
                    // Ciphertext, which is another one in every run.
                    continue;
                }
                let case = format!("v{version}.{event}.{place}");
                let outcome = guest.step(&request.clone().with(Field::Scratch, *gpa))?;
                t.observe(&case, &outcome);
                let good = inside.iter().any(|(name, _)| name == place);
                let bad = outside.iter().any(|(name, _)| name == place) || version == 2;
                if *event == "outs_0" {
                    continue;
                } else if good {
                    t.value(&format!("{case}.answer"), outcome.answer().0, answer::DONE);
                } else if bad {
                    refused(t, &format!("{case}.answer"), &outcome, answer::INVALID_SCRATCH);
                }
            }
        }
    }
    Ok(())
}

/// Version 1 of the protocol allows scratch areas anywhere; KVM limits them to 64 KiB.
fn large_scratch(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let mut guest = Stepper::new(&host, Setup::version(1))?;
    for len in [1, 8, 9, 0x1000, 0x1001, 0x6000, 0x1_0001, 1 << 31, 1 << 32, u64::MAX] {
        for (name, code) in [("read", exit::MMIO_READ), ("write", exit::MMIO_WRITE)] {
            let ghcb = Ghcb::request(code, MMIO, len).with(Field::Scratch, OUTSIDE);
            t.observe(&format!("mmio_{name}.{len:x}"), guest.step(&ghcb)?);
        }
        for (name, info1) in [("ins", INS), ("outs", OUTS)] {
            let ghcb = Ghcb::request(exit::IOIO, info1, len).with(Field::Scratch, OUTSIDE);
            t.observe(&format!("{name}.{len:x}"), guest.step(&ghcb)?);
        }
    }
    Ok(())
}

/// While userspace answers, the guest (another vCPU, or DMA) rewrites the whole GHCB: what
/// was asked before counts, so that the data goes where it was to go and nowhere else.
fn changed_in_exit(t: &mut Test) -> Result<()> {
    let host = Host::open()?;
    let answer = [0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8];
    for version in [1, 2] {
        let mut guest = Stepper::new(&host, Setup::version(version))?;
        for (name, ghcb) in [
            ("mmio_read", Ghcb::request(exit::MMIO_READ, MMIO, 8)),
            ("ins", Ghcb::request(exit::IOIO, INS, 8)),
            ("in", Ghcb::request(exit::IOIO, IN, 0).with(Field::Rax, 0)),
        ] {
            for (place, scratch) in [("inside", SCRATCH + 16), ("outside", OUTSIDE + 0x100)] {
                if place == "outside" && version == 2 {
                    continue;
                }
                let case = format!("v{version}.{name}.{place}");
                let ghcb = ghcb.clone().with(Field::Scratch, scratch);
                t.observe(&case, guest.begin(&ghcb)?);
                let other = Ghcb::request(exit::MMIO_WRITE, u64::MAX, 0x7f0)
                    .with(Field::Scratch, OUTSIDE + 0x800)
                    .with(Field::Rax, u64::MAX)
                    .usage(7);
                guest.vm.memory.write(GHCB as usize, &other.0);
                let outcome = guest.complete(&other)?;
                t.value(&format!("{case}.then"), outcome.exits.as_str(), NO_EXIT);
                if name == "in" {
                    t.value(&format!("{case}.rax"), outcome.after.get(Field::Rax), 0xa1);
                } else {
                    let read = guest.vm.memory.read(scratch as usize, 8);
                    t.check(&format!("{case}.data"), read == answer);
                }
                let elsewhere = guest.vm.memory.read(OUTSIDE as usize + 0x800, 8);
                t.check(&format!("{case}.nowhere_else"), elsewhere != answer);
            }
        }
    }
    Ok(())
}
