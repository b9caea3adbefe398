// SPDX-License-Identifier: GPL-2.0-or-later
//! The demonstration: an encrypted VM from its owner's session to its end, told with figures.
//!
//! Runs in the emulated host, on our module or the stock one. Every `[ok]` is a check that can
//! fail; the last line counts them.

mod guest;
mod launch;
mod platform;
mod recycle;
mod story;

use std::process::ExitCode;

use anyhow::Result;
use sev_vm::psp::Psp;
use story::Story;

fn main() -> ExitCode {
    let mut story = Story::default();
    if let Err(error) = tell(&mut story) {
        story.failed(format!("the story ends here: {error:#}"));
    }
    story.end()
}

fn tell(story: &mut Story) -> Result<()> {
    let mut psp = Psp::open()?;
    psp.request("reset-counters")?;
    let host = platform::look(story)?;
    let (vm, session) = launch::measure(story, &host)?;
    let vm = launch::run(story, &host, &mut psp, vm, &session)?;
    launch::look_inside(story, &vm)?;
    launch::close(story, &mut psp, vm)?;
    launch::tamper(story, &host)?;
    recycle::many(story, &host, &mut psp)?;
    recycle::commands(story, &mut psp)
}
