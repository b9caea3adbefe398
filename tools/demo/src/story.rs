// SPDX-License-Identifier: GPL-2.0-or-later
//! Output: chapters, facts, checks.

use std::fmt::Display;
use std::process::ExitCode;

/// Counts the checks as it prints them.
#[derive(Default)]
pub struct Story {
    chapters: u32,
    passed: u32,
    failed: u32,
}

impl Story {
    /// Begins a chapter.
    pub fn chapter(&mut self, title: &str) {
        self.chapters += 1;
        println!("\n{}. {title}", self.chapters);
    }

    /// Prints a fact.
    pub fn fact(&self, label: &str, value: impl Display) {
        println!("   {label:<22} {value}");
    }

    /// Prints a check and counts it.
    pub fn check(&mut self, statement: &str, holds: bool) {
        if holds {
            self.passed += 1;
            println!("   [ok] {statement}");
        } else {
            self.failed(statement);
        }
    }

    /// Prints and counts a failure.
    pub fn failed(&mut self, statement: impl Display) {
        self.failed += 1;
        println!("   [FAILED] {statement}");
    }

    /// The last line, and the program's status.
    pub fn end(&self) -> ExitCode {
        println!("\n{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 && self.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Bytes as hexadecimal digits, in groups of four bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.chunks(4).map(hex::encode).collect::<Vec<_>>().join(" ")
}
