// SPDX-License-Identifier: GPL-2.0-or-later
//! The names of the firmware's status codes, compared with the kernel's header.
//!
//! `SEV_HEADER` names include/uapi/linux/psp-sev.h of a kernel; without it there is nothing to
//! compare with, and the test fails.

use std::collections::BTreeMap;

use crate::psp::status::FwStatus;

/// `enum sev_ret_code`, without the prefix; the header has one spelling mistake and its correction.
fn from_header(header: &str) -> BTreeMap<u32, Vec<String>> {
    let mut names = BTreeMap::<u32, Vec<String>>::new();

    for line in header.lines() {
        let Some((name, value)) = line.trim().split_once('=') else {
            continue;
        };
        let Some(name) = name.trim().strip_prefix("SEV_RET_") else {
            continue;
        };
        let value = value.trim().trim_end_matches(',');
        let value = match value.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => value.parse::<i64>().ok().map(|n| n as u32),
        };
        if let Some(value) = value {
            names.entry(value).or_default().push(name.to_owned());
        }
    }
    names
}

#[test]
fn names_are_those_of_the_kernel() {
    let path = std::env::var("SEV_HEADER").expect("SEV_HEADER: path of psp-sev.h");
    let header = from_header(&std::fs::read_to_string(path).unwrap());
    let simple = |name: &str| {
        name.replace("HWSEV_RET_", "HWERROR_")
            .replace("INAVLID", "INVALID")
    };

    assert!(header.len() > 40, "the header was not understood");
    for (code, names) in &header {
        if let Some(ours) = FwStatus::new(*code).name() {
            assert!(
                names.iter().any(|name| simple(name) == ours),
                "{code:#x}: {ours}, {names:?}"
            );
        }
    }
    // All codes of SEV and SNP; those from 0x32 on are of a device-assignment protocol.
    for code in (0..=0x28).filter(|code| header.contains_key(code)) {
        assert!(
            FwStatus::new(code).name().is_some(),
            "{code:#x} has no name"
        );
    }
}

#[test]
fn unknown_codes_show_their_number() {
    assert_eq!(FwStatus::new(0x4).to_string(), "INVALID_LEN (0x4)");
    assert_eq!(FwStatus::new(0xabc).to_string(), "unknown status 0xabc");
}
