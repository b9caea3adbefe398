// SPDX-License-Identifier: GPL-2.0-or-later
//! The configuration string: `key=value,...`.

use std::path::PathBuf;

/// How the machine is built and how the firmware behaves on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `state=FILE`: where INIT keeps the persistent state; without it, in memory.
    pub state: Option<PathBuf>,
    /// `seed=HEX`: all random numbers follow from it; without it they come from the machine.
    pub seed: Option<Vec<u8>>,
    /// `chip=TEXT`: the identity fused into the chip; two machines differ in it.
    pub chip: String,
    /// `slots=N`: number of guest contexts.
    pub slots: usize,
    /// `asids=N`: highest ASID (CPUID 8000_001F ECX).
    pub asids: u32,
    /// `min-asid=N`: lowest ASID of an SEV guest without ES (CPUID 8000_001F EDX).
    pub min_asid: u32,
    /// `c-bit=N`: position of the C-bit (CPUID 8000_001F EBX).
    pub c_bit: u32,
    /// `snp=0|1`: whether the firmware knows the SNP commands.
    pub snp: bool,
    /// `x86-shutdown=0|1`: whether SNP_SHUTDOWN_EX can disable SNP on the cores.
    pub x86_shutdown: bool,
    /// `fms=HEX`: family, model and stepping (CPUID 1 EAX).
    pub fms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: None,
            seed: None,
            chip: "0".into(),
            slots: 512,
            asids: 509,
            min_asid: 100,
            c_bit: 51,
            snp: true,
            x86_shutdown: false,
            fms: 0x00a0_0f11,
        }
    }
}

fn number(key: &str, value: &str, range: core::ops::RangeInclusive<u32>) -> Result<u32, String> {
    value
        .parse()
        .ok()
        .filter(|n| range.contains(n))
        .ok_or_else(|| {
            format!(
                "config: {key}={value}: want a number from {} to {}",
                range.start(),
                range.end()
            )
        })
}

pub(crate) fn hex(key: &str, value: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("config: {key}={value}: want an even number of hexadecimal digits");
    if value.is_empty() || value.len() % 2 != 0 || !value.is_ascii() {
        return Err(bad());
    }
    value
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let text = core::str::from_utf8(pair).map_err(|_| bad())?;
            u8::from_str_radix(text, 16).map_err(|_| bad())
        })
        .collect()
}

fn fms(value: &str) -> Result<u32, String> {
    u32::from_str_radix(value, 16)
        .map_err(|_| format!("config: fms={value}: want CPUID 1 EAX in hexadecimal"))
}

impl Config {
    /// Parses the string; the error says which item and what is wanted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let Some((key, value)) = item.split_once('=') else {
                return Err(format!("config: {item}: want key=value"));
            };
            match key {
                "state" if !value.is_empty() => config.state = Some(value.into()),
                "seed" => config.seed = Some(hex(key, value)?),
                "chip" => config.chip = value.into(),
                "slots" => config.slots = number(key, value, 1..=65536)? as usize,
                "asids" => config.asids = number(key, value, 1..=65535)?,
                "min-asid" => config.min_asid = number(key, value, 1..=65536)?,
                "c-bit" => config.c_bit = number(key, value, 32..=63)?,
                "fms" => config.fms = fms(value)?,
                "snp" => config.snp = number(key, value, 0..=1)? == 1,
                "x86-shutdown" => config.x86_shutdown = number(key, value, 0..=1)? == 1,
                _ => return Err(format!("config: {item}: unknown or empty item")),
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_parsed_and_the_rest_keeps_its_default() {
        let config =
            Config::parse("state=/a/b,seed=00fF,slots=3,min-asid=5,asids=7,snp=0").unwrap();
        assert_eq!(config.state, Some("/a/b".into()));
        assert_eq!(config.seed, Some(vec![0, 255]));
        assert_eq!((config.slots, config.min_asid, config.asids), (3, 5, 7));
        assert!(!config.snp);
        assert_eq!(config.c_bit, 51);
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn bad_items_are_refused_by_name() {
        for (text, part) in [
            ("slots=0", "slots=0"),
            ("slots=x", "slots=x"),
            ("seed=0", "seed=0"),
            ("seed=zz", "seed=zz"),
            ("seed=é0", "seed="),
            ("colour=red", "colour"),
            ("slots", "key=value"),
            ("state=", "state="),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
