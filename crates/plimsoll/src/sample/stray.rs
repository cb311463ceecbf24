//! The double fork: a process that leaves its parent, its session and its process group, as daemons do.
//!
//! `fork` itself is unsafe, so the binary runs itself twice: the service starts the *middle*, the middle opens a
//! session, starts the *sleeper*, tells its pid and exits; the sleeper is then nobody's child.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The part a copy of the binary plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Stage {
    Middle,
    Sleeper,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Middle => "middle",
            Self::Sleeper => "sleeper",
        }
    }
}

/// Leaves a process behind that sleeps for `lasts`, in whole seconds; returns its pid.
pub(super) fn leave_behind(lasts: Duration) -> io::Result<u32> {
    let output = copy(Stage::Middle, lasts.as_secs())?.stderr(Stdio::inherit()).output()?;
    let pid = String::from_utf8_lossy(&output.stdout).trim().parse();
    pid.map_err(|_| io::Error::other(format!("the middle process told no pid ({})", output.status)))
}

/// Plays one part of the double fork.
pub(super) fn play(stage: Stage, secs: u64) -> io::Result<()> {
    match stage {
        Stage::Middle => middle(secs),
        Stage::Sleeper => {
            std::thread::sleep(Duration::from_secs(secs));
            Ok(())
        }
    }
}

fn middle(secs: u64) -> io::Result<()> {
    rustix::process::setsid()?;
    // The sleeper keeps the service's stderr open, as careless daemons do: whoever waits for the end of that stream
    // waits for the sleeper. Not stdout, which here is the pipe that carries the pid.
    let stderr = io::stderr().as_fd().try_clone_to_owned()?;
    let sleeper = copy(Stage::Sleeper, secs)?.stdout(stderr).spawn()?;
    writeln!(io::stdout(), "{}", sleeper.id())
}

/// This same program, to play `stage`.
fn copy(stage: Stage, secs: u64) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["sample-service", "--stray", stage.name(), "--stray-secs", &secs.to_string()]);
    command.stdin(Stdio::null());
    Ok(command)
}
