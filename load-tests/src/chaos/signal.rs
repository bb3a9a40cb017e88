//! Signals to processes that this program started.

use std::process::Child;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// Freezes it: sockets stay open, nothing answers.
pub(super) fn freeze(child: &Child) -> anyhow::Result<()> {
    send(child, Signal::STOP)
}

/// Lets a frozen one go on.
pub(super) fn thaw(child: &Child) -> anyhow::Result<()> {
    send(child, Signal::CONT)
}

/// Ends it as a crash would.
pub(super) fn kill(child: &mut Child) -> anyhow::Result<()> {
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn send(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process without a number")?;
    Ok(kill_process(pid, signal)?)
}
