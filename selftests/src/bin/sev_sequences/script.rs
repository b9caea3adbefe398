// SPDX-License-Identifier: GPL-2.0-or-later
//! The script: `sequence NAME` and under it an operation a line, `WORD... KEY=VALUE...`.

use anyhow::{Context, Result, bail};

use crate::places::number;

/// One operation.
#[derive(Clone, Copy)]
pub struct Op<'a> {
    line: &'a str,
}

impl<'a> Op<'a> {
    /// The n-th word that is no KEY=VALUE.
    pub fn word(&self, n: usize) -> Result<&'a str> {
        let mut words = self.line.split_ascii_whitespace().filter(|word| !word.contains('='));
        words.nth(n).with_context(|| format!("{:?}: word {n} is missing", self.line))
    }

    /// All KEY=VALUE pairs.
    pub fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.line.split_ascii_whitespace().filter_map(|word| word.split_once('='))
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&'a str> {
        self.pairs().find_map(|(k, value)| (k == key).then_some(value))
    }

    /// The number of a key that has to be there.
    pub fn number(&self, key: &str) -> Result<u64> {
        let value = self.value(key).with_context(|| format!("{:?}: no {key}=", self.line))?;
        number(value).with_context(|| format!("{:?}: {key} is no number", self.line))
    }

    /// The whole line.
    pub fn line(&self) -> &'a str {
        self.line
    }
}

/// Operations that belong together.
pub struct Sequence<'a> {
    /// Given by whoever wrote the script.
    pub name: &'a str,
    /// In order.
    pub ops: Vec<Op<'a>>,
}

/// Empty lines and lines with # in front are ignored.
pub fn parse(text: &str) -> Result<Vec<Sequence<'_>>> {
    let mut sequences: Vec<Sequence> = Vec::new();
    let lines = text.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("sequence ") {
            sequences.push(Sequence { name, ops: Vec::new() });
        } else if let Some(last) = sequences.last_mut() {
            last.ops.push(Op { line });
        } else {
            bail!("{line:?} is before the first sequence");
        }
    }
    Ok(sequences)
}
