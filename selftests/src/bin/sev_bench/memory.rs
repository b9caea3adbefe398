// SPDX-License-Identifier: GPL-2.0-or-later
//! What a task allocates in the kernel, as the kernel's own events tell (`kmem` in tracefs).

use std::collections::HashMap;

use anyhow::{Context, Result};
use sev_vm::tracefs;

const EVENTS: [&str; 6] =
    ["kmalloc", "kfree", "kmem_cache_alloc", "kmem_cache_free", "mm_page_alloc", "mm_page_free"];
const PAGE: u64 = 4096;

/// Allocations of one operation. The fewer are the lesser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allocations {
    /// How many there were, also those that did not last.
    pub count: u64,
    /// Bytes of those that were not freed again.
    pub kept: u64,
}

/// Counts what the current thread allocates in `action`.
pub fn allocations<T>(action: impl FnOnce() -> Result<T>) -> Result<(T, Allocations)> {
    let events = EVENTS.map(|event| format!("kmem/{event}"));
    let events = events.each_ref().map(String::as_str);
    let (value, trace) = tracefs::record(&events, Some(std::process::id()), action)?;
    Ok((value, count(&trace)?))
}

/// `NAME=VALUE` in a line.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn count(trace: &str) -> Result<Allocations> {
    let mut live = HashMap::new();
    let mut count = 0;
    for line in trace.lines().filter(|line| !line.starts_with('#')) {
        let Some((event, at)) = EVENTS.iter().find_map(|event| {
            let at = line.find(&format!(": {event}: "))?;
            Some((*event, at))
        }) else {
            continue;
        };
        let line = &line[at..];
        let place = field(line, "ptr").or_else(|| field(line, "pfn")).context("no address")?;
        let key = (event.starts_with("mm_"), place.to_owned());
        match event {
            "kmalloc" | "kmem_cache_alloc" => {
                count += 1;
                live.insert(key, field(line, "bytes_alloc").context("no size")?.parse::<u64>()?);
            }
            "mm_page_alloc" => {
                count += 1;
                let order = field(line, "order").context("no order")?.parse::<u32>()?;
                live.insert(key, PAGE << order);
            }
            _ => {
                live.remove(&key);
            }
        }
    }
    Ok(Allocations { count, kept: live.values().sum() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_is_not_kept() -> Result<()> {
        let trace = "# tracer: nop
 b-1 [000] d.... 1.0: kmalloc: call_site=a+0x1/0x2 ptr=00000000aa bytes_req=10 bytes_alloc=16 gfp_flags=GFP_KERNEL node=-1 accounted=false
 b-1 [000] d.... 1.1: mm_page_alloc: page=00000000bb pfn=0x12 order=1 migratetype=0 gfp_flags=GFP_KERNEL
 b-1 [000] d.... 1.2: kmem_cache_alloc: call_site=a+0x1/0x2 name=x ptr=00000000cc bytes_req=8 bytes_alloc=8 gfp_flags=0 node=-1 accounted=true
 b-1 [000] d.... 1.3: kfree: call_site=a+0x1/0x2 ptr=00000000aa
 b-1 [000] d.... 1.4: kfree: call_site=a+0x1/0x2 ptr=00000000dd
";
        assert_eq!(count(trace)?, Allocations { count: 3, kept: 8192 + 8 });
        Ok(())
    }
}
