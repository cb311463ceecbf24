//! Adopting and reaping: every process below us ends here, also those that daemonized.

use std::fmt;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, set_child_subreaper, wait, waitpid};

use crate::{Error, Result, process};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal { number: i32, core_dumped: bool },
}

impl fmt::Display for Exit {
    /// `exit code 1`, `signal 9 (SIGKILL)`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(out, "exit code {code}"),
            Self::Signal { number, .. } => match signal_name(*number) {
                Some(name) => write!(out, "signal {number} ({name})"),
                None => write!(out, "signal {number}"),
            },
        }
    }
}

/// Of those that end processes, with their numbers on the architectures that we build for.
const fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// From now on, orphans below us become our children instead of PID 1's.
pub fn become_subreaper() -> Result<()> {
    let ours = Some(rustix::process::getpid());
    set_child_subreaper(ours).map_err(|error| Error::call("become the reaper of our descendants", error))
}

/// One child that has ended, if any; to be called until `None` after each SIGCHLD, since signals merge.
pub fn reap_next() -> Option<(i32, Exit)> {
    reaped(|| wait(WaitOptions::NOHANG))
}

/// The same for one child, for callers that share the process with others who wait for theirs.
pub fn reap_one(pid: i32) -> Option<Exit> {
    let pid = process::existing(pid).ok()?;
    reaped(|| waitpid(Some(pid), WaitOptions::NOHANG)).map(|(_, exit)| exit)
}

fn reaped(mut wait: impl FnMut() -> rustix::io::Result<Option<(Pid, WaitStatus)>>) -> Option<(i32, Exit)> {
    loop {
        match wait() {
            Ok(Some((pid, status))) => {
                if let Some(exit) = exit_of(status) {
                    return Some((pid.as_raw_nonzero().get(), exit));
                }
            }
            Err(Errno::INTR) => {}
            // ECHILD is the only other error of a wait without bad arguments: there is nobody to wait for.
            Ok(None) | Err(_) => return None,
        }
    }
}

fn exit_of(status: WaitStatus) -> Option<Exit> {
    const CORE_DUMPED: i32 = 0x80;
    if let Some(code) = status.exit_status() {
        return Some(Exit::Code(code));
    }
    let number = status.terminating_signal()?;
    Some(Exit::Signal { number, core_dumped: status.as_raw() & CORE_DUMPED != 0 })
}
