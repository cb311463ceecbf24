//! Starting a process: in its group, as its user, with its limits, and with nothing of ours but its output.
//!
//! All that can fail by looking is done before the fork; what is left is done by the child, which reports the
//! step that failed through a pipe that a successful `exec` closes. So [`spawn`] returns once the new program runs, or
//! with the step that kept it from running.

mod child;
mod lookup;
mod plan;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use crate::cgroup::Membership;
use crate::process::Identity;
use crate::users::Ids;

pub use plan::{Pending, begin, find, replace, spawn};

/// What to start, in full: nothing is inherited that is not named here.
#[derive(Debug)]
pub struct Command {
    /// The program and its arguments. A program without a slash is looked for in the `PATH` of `env`.
    pub argv: Vec<OsString>,
    /// The program's file, where [`find`] has found it already.
    pub program: Option<PathBuf>,
    /// The complete environment.
    pub env: Vec<(OsString, OsString)>,
    pub cwd: PathBuf,
    /// Stay who we are when `None`.
    pub ids: Option<Ids>,
    /// `RLIMIT_NOFILE`, soft and hard.
    pub nofile: Option<u64>,
    /// The group to be in before the program runs.
    pub join: Membership,
    /// Standard output, and standard error where `errors` is `None`.
    pub output: OwnedFd,
    pub errors: Option<OwnedFd>,
    /// Descriptors 3 and up of the program, in this order.
    pub inherit: Vec<OwnedFd>,
    /// The kernel kills it when the thread that started it ends. Not inherited by its children.
    pub dies_with_us: bool,
    pub umask: Option<u32>,
    /// The process and its children can never gain privileges by executing a file.
    pub no_new_privs: bool,
    /// The value for `/proc/self/oom_score_adj`: a guard may have protected itself, and its services must not inherit it.
    pub oom_score_adj: Option<i16>,
    /// How long the child may take to get to `exec`; it is killed after that. A file on a dead network filesystem is
    /// a way to take for ever.
    pub within: Duration,
}

impl Command {
    /// Ten times what a busy host with v1 groups was seen to need.
    const WITHIN: Duration = Duration::from_secs(5);

    /// With the usual of a service: our ids, no descriptor limit of its own, no group, no new privileges.
    pub fn new(argv: Vec<OsString>, env: Vec<(OsString, OsString)>, cwd: PathBuf, output: OwnedFd) -> Self {
        Self {
            argv,
            program: None,
            env,
            cwd,
            ids: None,
            nofile: None,
            join: Membership::default(),
            output,
            errors: None,
            inherit: Vec::new(),
            dies_with_us: false,
            umask: None,
            no_new_privs: true,
            oom_score_adj: None,
            within: Self::WITHIN,
        }
    }

    fn named(&self) -> &OsStr {
        self.argv.first().map_or(OsStr::new(""), OsString::as_os_str)
    }
}

/// What had to be done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Descriptors, or a string with a NUL in it.
    Prepare,
    /// No file of that name in `PATH` (`ENOENT`), or none that may be executed (`EACCES`).
    FindCommand,
    /// `EAGAIN`: no more tasks allowed; `ENOMEM`.
    Fork,
    JoinGroup,
    SetOomScore,
    NewSession,
    /// `EPERM`: more than our own hard limit.
    SetLimit,
    Redirect,
    SwitchUser,
    ChangeFolder,
    NoNewPrivs,
    CloseDescriptors,
    ResetSignals,
    /// `ENOENT` when the file itself or the interpreter that its first line names is missing, `ENOEXEC` when it is no
    /// program for this machine, `EACCES` when it may not be executed.
    Exec,
    /// Nothing was heard of the child within the time.
    Wait,
    /// Whoever started it is gone already.
    Bind,
}

impl Step {
    const ALL: [Self; 16] = [
        Self::Prepare,
        Self::FindCommand,
        Self::Fork,
        Self::JoinGroup,
        Self::SetOomScore,
        Self::NewSession,
        Self::SetLimit,
        Self::Redirect,
        Self::SwitchUser,
        Self::ChangeFolder,
        Self::NoNewPrivs,
        Self::CloseDescriptors,
        Self::ResetSignals,
        Self::Exec,
        Self::Wait,
        Self::Bind,
    ];

    /// The same in every version, for whoever is told over a pipe or a socket.
    pub const fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.code() == code)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::FindCommand => "find",
            Self::Fork => "fork for",
            Self::JoinGroup => "join the cgroup of",
            Self::SetOomScore => "set the OOM score of",
            Self::NewSession => "make a session for",
            Self::SetLimit => "set the descriptor limit of",
            Self::Redirect => "connect the output of",
            Self::SwitchUser => "switch to the user of",
            Self::ChangeFolder => "change to the folder of",
            Self::NoNewPrivs => "set no_new_privs for",
            Self::CloseDescriptors => "close the descriptors of",
            Self::ResetSignals => "reset the signals of",
            Self::Exec => "execute",
            Self::Wait => "wait for",
            Self::Bind => "bind to its parent",
        }
    }
}

/// A process that runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    pub identity: Identity,
}

/// Why there is no process. What was forked has been reaped.
#[derive(Debug)]
pub struct SpawnError {
    pub step: Step,
    pub errno: Errno,
    /// The program, or the folder for [`Step::ChangeFolder`].
    pub object: PathBuf,
}

impl SpawnError {
    /// The host is short of something now; as opposed to what only a change of config or files can mend.
    pub fn is_retryable(&self) -> bool {
        let short =
            [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::TXTBSY, Errno::INTR, Errno::BUSY];
        self.step == Step::Wait || short.contains(&self.errno)
    }

    /// What the number means at this step, where its own words mislead.
    fn hint(&self) -> Option<&'static str> {
        match (self.step, self.errno) {
            (Step::FindCommand, Errno::NOENT) => Some("command not found"),
            (Step::FindCommand | Step::Exec, Errno::ACCESS) => Some("not executable"),
            (Step::Exec, Errno::NOENT) if self.object.exists() => {
                Some("the interpreter that it names is missing")
            }
            (Step::Exec, Errno::NOEXEC) => Some("neither a program for this machine nor a script with #!"),
            (Step::ChangeFolder, Errno::NOENT) => Some("no such folder"),
            (Step::SetLimit, Errno::PERM) => {
                Some("more than our own hard limit, and only root may raise that")
            }
            (Step::SwitchUser, Errno::PERM) => Some("only root may"),
            (Step::Fork, Errno::AGAIN) => Some("no more processes allowed"),
            (Step::Wait, _) => Some("it took too long to start and was killed"),
            _ => None,
        }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}: ", self.step.name(), self.object.display())?;
        match self.hint() {
            Some(hint) => out.write_str(hint),
            None => write!(out, "{}", io::Error::from(self.errno)),
        }
    }
}

impl std::error::Error for SpawnError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_survives_the_way_through_the_pipe() {
        for step in Step::ALL {
            assert_eq!(Step::from_code(step.code()), Some(step));
        }
        assert_eq!(Step::from_code(200), None);
    }

    #[test]
    fn errors_say_what_and_why() {
        let error = SpawnError { step: Step::FindCommand, errno: Errno::NOENT, object: "nodee".into() };
        assert_eq!(error.to_string(), "find nodee: command not found");
        let error = SpawnError { step: Step::Fork, errno: Errno::NOMEM, object: "node".into() };
        assert!(error.is_retryable());
        assert!(error.to_string().starts_with("fork for node: "));
    }
}
