//! The parent's side: everything is made ready before the fork, and the outcome is awaited after it.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Pid, Rlimit, Signal, Uid, WaitOptions, kill_process, waitpid};

use super::child::{self, Blocked};
use super::{Child, Command, SpawnError, Step, lookup};
use crate::Roots;
use crate::process::Identity;

/// All that the child needs, in the form in which the kernel takes it: after the fork nothing may be allocated.
pub(super) struct Plan {
    pub(super) program: CString,
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    pub(super) cwd: CString,
    pub(super) ids: Option<(Uid, Gid, Vec<Gid>)>,
    pub(super) nofile: Option<Rlimit>,
    pub(super) files: Vec<OwnedFd>,
    pub(super) umask: Option<Mode>,
    pub(super) no_new_privs: bool,
    pub(super) oom_score_adj: Option<String>,
    pub(super) input: OwnedFd,
    pub(super) output: OwnedFd,
    pub(super) errors: OwnedFd,
    /// Not yet under their numbers, and above all of those.
    pub(super) inherit: Vec<OwnedFd>,
    /// Our own pid, where the child is to die with us.
    pub(super) parent: Option<Pid>,
    /// The write end of the pipe for a step that failed.
    pub(super) report: OwnedFd,
    /// The child closes its copy, or the pipe would outlive an error of the parent.
    pub(super) folder: Option<OwnedFd>,
}

/// Step and error number, as the child writes them.
pub(super) const REPORT_BYTES: usize = 5;

/// A child on its way to its program.
#[derive(Debug)]
pub struct Pending {
    identity: Identity,
    pid: Pid,
    outcome: OwnedFd,
    until: Instant,
    program: PathBuf,
    cwd: PathBuf,
}

/// Starts the command and returns once its program runs. Blocks for as long as the child needs to get there, about a
/// millisecond, and for `command.within` at most. Another thread may reap children meanwhile; one that it reaped before
/// its start time could be read has [`Identity::gone`] for it.
pub fn spawn(command: &Command) -> Result<Child, SpawnError> {
    begin(command)?.wait()
}

/// The file of the program, as [`spawn`] would find it.
pub fn find(command: &Command) -> Result<PathBuf, SpawnError> {
    lookup::find(command.named(), &command.env, &command.cwd).map_err(|errno| SpawnError {
        step: Step::FindCommand,
        errno,
        object: PathBuf::from(command.named()),
    })
}

/// Forks, and leaves it to the caller to wait for the program.
pub fn begin(command: &Command) -> Result<Pending, SpawnError> {
    let failed = |step, errno| SpawnError { step, errno, object: PathBuf::from(command.named()) };
    let program = match &command.program {
        Some(program) => program.clone(),
        None => find(command)?,
    };
    let (outcome, report) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(Step::Prepare, errno))?;
    let plan = Plan::new(command, &program, report).map_err(|errno| failed(Step::Prepare, errno))?;
    // A handler of ours that ran in the child would tell our own event loop about the child's signals.
    let blocked = Blocked::all().map_err(|errno| failed(Step::Prepare, errno))?;
    let forked = child::fork(&plan);
    drop(blocked);
    let pid = forked.map_err(|errno| failed(Step::Fork, errno))?;
    // At once, while it is still on its way to the program: the start time stays the same over the exec.
    let number = pid.as_raw_nonzero().get();
    let identity = Identity::of(&Roots::default(), number).unwrap_or(Identity::gone(number));
    Ok(Pending {
        identity,
        pid,
        outcome,
        until: Instant::now() + command.within,
        program: PathBuf::from(command.named()),
        cwd: command.cwd.clone(),
    })
}

/// Becomes another program, with the same pid, children, environment and descriptors; returns only when that failed.
/// The signals that are blocked stay so.
pub fn replace(program: &Path, argv: &[OsString]) -> Errno {
    let env: Vec<_> = std::env::vars_os().collect();
    let strings = || -> Result<(CString, Vec<CString>, Vec<CString>), Errno> {
        let argv = argv.iter().map(|one| c_string(one)).collect::<Result<_, _>>()?;
        let env = env.iter().map(|(key, value)| pair(key, value)).collect::<Result<_, _>>()?;
        Ok((c_string(program.as_os_str())?, argv, env))
    };
    match strings() {
        Ok((program, argv, env)) => child::replace(&program, &argv, &env),
        Err(errno) => errno,
    }
}

impl Pending {
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// Readable once the outcome is known.
    pub const fn outcome_fd(&self) -> &OwnedFd {
        &self.outcome
    }

    /// When it has had its time.
    pub const fn until(&self) -> Instant {
        self.until
    }

    /// The outcome, where it is known or the time is over; does not block, except for the end of a child that failed.
    pub fn outcome(self, now: Instant) -> Result<Result<Child, SpawnError>, Self> {
        let mut wanted = [PollFd::new(&self.outcome, PollFlags::IN)];
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut wanted, Some(&zero)) {
            Ok(0) | Err(Errno::INTR) if now < self.until => Err(self),
            Ok(0) | Err(Errno::INTR) => Ok(self.end(Err((Step::Wait, Errno::TIMEDOUT)))),
            Ok(_) => {
                let read = read_report(&self.outcome);
                Ok(self.end(read))
            }
            Err(errno) => Ok(self.end(Err((Step::Wait, errno)))),
        }
    }

    fn wait(self) -> Result<Child, SpawnError> {
        let outcome = await_exec(&self.outcome, self.until);
        self.end(outcome)
    }

    fn end(self, outcome: Result<(), (Step, Errno)>) -> Result<Child, SpawnError> {
        let identity = self.identity;
        outcome.map(|()| Child { identity }).map_err(|(step, errno)| {
            let object = if step == Step::ChangeFolder { self.cwd } else { self.program };
            discard(self.pid, SpawnError { step, errno, object })
        })
    }
}

/// Nothing but the end of the pipe: a successful exec has closed it.
fn await_exec(outcome: &OwnedFd, until: Instant) -> Result<(), (Step, Errno)> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| (Step::Prepare, Errno::INVAL))?;
        let mut wanted = [PollFd::new(outcome, PollFlags::IN)];
        match poll(&mut wanted, Some(&timeout)) {
            Ok(0) => return Err((Step::Wait, Errno::TIMEDOUT)),
            Ok(_) => return read_report(outcome),
            Err(Errno::INTR) => {}
            Err(errno) => return Err((Step::Wait, errno)),
        }
    }
}

fn read_report(outcome: &OwnedFd) -> Result<(), (Step, Errno)> {
    // One byte more than a report, to notice anything that is none.
    let mut report = [0; REPORT_BYTES + 1];
    match rustix::io::retry_on_intr(|| rustix::io::read(outcome, &mut report)) {
        Ok(0) => Ok(()),
        Ok(REPORT_BYTES) => {
            let [code, errno @ .., _] = report;
            let step = Step::from_code(code).unwrap_or(Step::Wait);
            Err((step, Errno::from_raw_os_error(i32::from_ne_bytes(errno))))
        }
        Ok(_) => Err((Step::Wait, Errno::PROTO)),
        Err(errno) => Err((Step::Wait, errno)),
    }
}

/// Reaps what did not become a program. It may be gone already, reaped by whoever waits for any child.
fn discard(pid: Pid, error: SpawnError) -> SpawnError {
    // After its report it ends by itself, and by now its pid may be another's; only one that never reported is killed.
    // An uninterruptible wait on a dead filesystem is left to the caller's reaping.
    let options = if error.step == Step::Wait {
        let _ = kill_process(pid, Signal::KILL);
        WaitOptions::NOHANG
    } else {
        WaitOptions::empty()
    };
    let _ = rustix::io::retry_on_intr(|| waitpid(Some(pid), options));
    error
}

impl Plan {
    fn new(command: &Command, program: &Path, report: OwnedFd) -> Result<Self, Errno> {
        let inherited = i32::try_from(command.inherit.len()).map_err(|_| Errno::INVAL)?;
        Ok(Self {
            program: c_string(program.as_os_str())?,
            argv: command.argv.iter().map(|one| c_string(one)).collect::<Result<_, _>>()?,
            env: command.env.iter().map(|(key, value)| pair(key, value)).collect::<Result<_, _>>()?,
            cwd: c_string(command.cwd.as_os_str())?,
            ids: command.ids.as_ref().map(|ids| {
                let groups = ids.groups.iter().copied().map(Gid::from_raw).collect();
                (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid), groups)
            }),
            nofile: command.nofile.map(|limit| Rlimit { current: Some(limit), maximum: Some(limit) }),
            files: command.join.files.iter().map(above_standard).collect::<Result<_, _>>()?,
            folder: command.join.folder.as_ref().map(above_standard).transpose()?,
            umask: command.umask.map(Mode::from_raw_mode),
            no_new_privs: command.no_new_privs,
            oom_score_adj: command.oom_score_adj.map(|score| score.to_string()),
            input: above_standard(rustix::fs::open(
                "/dev/null",
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )?)?,
            output: above_standard(&command.output)?,
            errors: above_standard(command.errors.as_ref().unwrap_or(&command.output))?,
            inherit: command.inherit.iter().map(|fd| above(fd, inherited)).collect::<Result<_, _>>()?,
            parent: command.dies_with_us.then(rustix::process::getpid),
            report: above(report, inherited)?,
        })
    }
}

/// A copy that is not 0, 1 or 2: those are overwritten in the child, in some order, and may be free in a daemon.
fn above_standard(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    above(fd, 0)
}

/// A copy above the standard ones and so many more.
fn above(fd: impl AsFd, more: i32) -> Result<OwnedFd, Errno> {
    const FIRST: i32 = 3;
    rustix::io::fcntl_dupfd_cloexec(fd, FIRST + more)
}

fn c_string(text: &OsStr) -> Result<CString, Errno> {
    CString::new(text.as_bytes()).map_err(|_| Errno::INVAL)
}

fn pair(key: &OsStr, value: &OsStr) -> Result<CString, Errno> {
    if key.is_empty() || key.as_bytes().contains(&b'=') {
        return Err(Errno::INVAL);
    }
    CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()).map_err(|_| Errno::INVAL)
}
