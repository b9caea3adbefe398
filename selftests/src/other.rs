// SPDX-License-Identifier: GPL-2.0-or-later
//! Other processes: this program once more, in a role, until it is told to end.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::{Child, ChildStdout, Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use nix::libc;

const ROLE: &str = "--role";

/// A running process in a role.
pub struct Other {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Other {
    /// Starts this program in `role`, with more arguments.
    pub fn start(role: &str, arguments: &[String]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([ROLE, role])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Self { child, output })
    }

    /// The next line of its output.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "the other process has ended");
        Ok(line.trim_end().to_owned())
    }

    /// The numbers in the next line of its output.
    pub fn numbers(&mut self) -> Result<Vec<i32>> {
        let line = self.line()?;
        let numbers: Result<_, _> = line.split_whitespace().map(str::parse).collect();
        numbers.with_context(|| format!("the other process says {line:?}"))
    }

    /// Whether it sleeps where only a fatal signal wakes it.
    pub fn waits(&self) -> Result<bool> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        Ok(stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('D')))
    }

    /// A descriptor of our own for what its descriptor `number` stands for.
    pub fn take(&self, number: RawFd) -> Result<OwnedFd> {
        let pid = self.child.id();
        // SAFETY: both calls only make descriptors, which nobody else owns yet.
        unsafe {
            let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            ensure!(process >= 0, "pidfd_open: {}", nix::Error::last());
            let process = OwnedFd::from_raw_fd(process as RawFd);
            let taken = libc::syscall(
                libc::SYS_pidfd_getfd,
                std::os::fd::AsRawFd::as_raw_fd(&process),
                number,
                0,
            );
            ensure!(taken >= 0, "pidfd_getfd: {}", nix::Error::last());
            Ok(OwnedFd::from_raw_fd(taken as RawFd))
        }
    }

    /// Lets it end, and waits for that.
    pub fn end(mut self) -> Result<ExitStatus> {
        drop(self.child.stdin.take());
        Ok(self.child.wait()?)
    }

    /// Kills it, and waits for that.
    pub fn kill(mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }
}

/// The role that this process was started in and its arguments.
pub fn role() -> Option<(String, Vec<String>)> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next()? == ROLE).then(|| Some((arguments.next()?, arguments.collect())))?
}

/// Waits until the process that started this one ends it.
pub fn until_told() -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// What a role's `main()` returns.
pub fn exit_code(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("# other process: {error:#}");
            ExitCode::FAILURE
        }
    }
}
