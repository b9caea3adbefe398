// SPDX-License-Identifier: GPL-2.0-or-later
//! The control protocol: one text request, one text reply.
//!
//! | request | reply |
//! |---|---|
//! | `counters` | JSON object: `commands`, `failures` (`"ACTIVATE/INVALID_ASID"`), `contexts`, `contexts_max`, `asids_bound`, `dirty_asids` |
//! | `reset-counters` | `{"ok":true}` |
//! | `fault cmd=NAME\|any n=K status=NAME\|0xNN` | `{"ok":true}`; the K-th matching command from now fails, once |
//! | `fault cmd=NAME\|any n=K delay=USEC` | `{"ok":true}`; it takes that long |
//! | `clear-faults` | `{"ok":true}` |
//! | `seed HEX` | `{"ok":true}`; random numbers follow from it from now on |
//! | `log-start` | `{"ok":true}`; a new log begins |
//! | `rmp` | JSON object: 4 KiB pages by state (`"GuestValid"`), those of the hypervisor left out |
//! | `certs` | JSON object: certificates of the keys that sign reports at the reported TCB version, PEM: `ark`, `ask`, `asvk`, `vcek`, `vlek` (null unless one is loaded) |
//! | `hashstick PROVIDER` | JSON object: `hashstick`, hexadecimal, with which that provider's VLEK is loaded at the reported TCB version |
//! | `log` | JSON array of `{"cmd":…,"status":…}`, oldest first, at most 65,536 |
//!
//! Anything else is answered `error: …`. NAME is the manual's or Linux's name of a command. The
//! answers to `certs` and `hashstick` are what AMD's key distribution service has for this chip.

use serde::Serialize;

use crate::command;
use crate::config;
use crate::firmware::Firmware;
use crate::monitor::{Effect, Fault};
use crate::snp::census::census;
use crate::snp::certs::{certificates, hashstick};
use crate::status::Status;

const OK: &str = r#"{"ok":true}"#;

fn json(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

fn parse_fault(words: &[&str]) -> Result<Fault, String> {
    let (mut name, mut n, mut effect) = (None, None, None);
    for word in words {
        let bad = || format!("bad item {word}");
        let (key, value) = word.split_once('=').ok_or_else(bad)?;
        match key {
            "cmd" if value == "any" => name = Some(None),
            "cmd" => {
                let known = command::canonical_name(value);
                name = Some(Some(
                    known.ok_or_else(|| format!("unknown command {value}"))?,
                ));
            }
            "n" => n = Some(value.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?),
            "status" if effect.is_none() => {
                let status = Status::parse(value).filter(|status| *status != Status::SUCCESS);
                effect = Some(Effect::Fail(status.ok_or_else(bad)?));
            }
            "delay" if effect.is_none() => {
                effect = Some(Effect::Delay(value.parse().map_err(|_| bad())?));
            }
            _ => return Err(bad()),
        }
    }
    match (name, n, effect) {
        (Some(command), Some(n), Some(effect)) => Ok(Fault { command, n, effect }),
        _ => Err("want fault cmd=NAME|any n=K status=NAME|0xNN or delay=USEC".into()),
    }
}

impl Firmware {
    /// Answers a request of the control protocol.
    pub fn control(&mut self, request: &str) -> String {
        self.try_control(request)
            .unwrap_or_else(|error| format!("error: {error}"))
    }

    fn try_control(&mut self, request: &str) -> Result<String, String> {
        let words: Vec<&str> = request.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["counters"] => {
                return json(&self.monitor.counters(
                    self.contexts(),
                    self.asids.bound(),
                    self.asids.dirty(),
                ));
            }
            ["log"] => {
                let log = self.monitor.log().ok_or("no log: send log-start first")?;
                return json(&log);
            }
            ["rmp"] => return json(&census(self)),
            ["certs"] => return json(&certificates(self)?),
            ["hashstick", provider] => return json(&hashstick(self, provider)?),
            ["reset-counters"] => self.monitor.reset_counters(self.contexts()),
            ["clear-faults"] => self.monitor.clear_faults(),
            ["log-start"] => self.monitor.start_log(),
            ["seed", digits] => self.seed(&config::hex("seed", digits)?),
            ["fault", items @ ..] => {
                if !self.monitor.arm(parse_fault(items)?) {
                    return Err("too many faults armed: send clear-faults".into());
                }
            }
            _ => return Err(format!("unknown request {request:?}")),
        }
        Ok(OK.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_parsed_or_refused() {
        let parse = |text: &str| parse_fault(&text.split(' ').collect::<Vec<_>>());
        assert_eq!(
            parse("cmd=ACTIVATE n=2 status=INVALID_ASID"),
            Ok(Fault {
                command: Some("ACTIVATE"),
                n: 2,
                effect: Effect::Fail(Status::INVALID_ASID)
            })
        );
        assert_eq!(
            parse("cmd=LAUNCH_UPDATE_SECRET n=1 status=0x7f")
                .unwrap()
                .command,
            Some("LAUNCH_SECRET")
        );
        assert_eq!(
            parse("cmd=any n=1 delay=5").unwrap().effect,
            Effect::Delay(5)
        );
        for bad in [
            "cmd=ACTIVATE n=0 delay=1",
            "cmd=NONSENSE n=1 delay=1",
            "cmd=any n=1",
            "cmd=any delay=1",
            "n=1 delay=1",
            "cmd=any n=1 status=NONSENSE",
            "cmd=any n=1 status=SUCCESS",
            "cmd=any n=1 status=0x1 delay=1",
            "cmd=any n=1 delay=-1",
            "cmd",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
