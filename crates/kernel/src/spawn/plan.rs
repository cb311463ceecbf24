//! The parent's side: everything is made ready before the fork, and the outcome is awaited after it.

use std::ffi::{CString, OsStr};
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
    /// The write end of the pipe for a step that failed.
    pub(super) report: OwnedFd,
    /// The child closes its copy, or the pipe would outlive an error of the parent.
    pub(super) folder: Option<OwnedFd>,
}

/// Step and error number, as the child writes them.
pub(super) const REPORT_BYTES: usize = 5;

/// Starts the command and returns once its program runs. Blocks for as long as the child needs to get there, about a
/// millisecond, and for `command.within` at most. Another thread may reap children meanwhile; one that it reaped before
/// its start time could be read has [`Identity::gone`] for it.
pub fn spawn(command: &Command) -> Result<Child, SpawnError> {
    let failed = |step, errno| SpawnError { step, errno, object: object(command, step) };
    let program = lookup::find(command.program(), &command.env, &command.cwd)
        .map_err(|errno| failed(Step::FindCommand, errno))?;
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
    drop(plan);
    match await_exec(&outcome, command) {
        Ok(()) => Ok(Child { identity }),
        Err((step, errno)) => Err(discard(pid, failed(step, errno))),
    }
}

fn object(command: &Command, step: Step) -> PathBuf {
    if step == Step::ChangeFolder { command.cwd.clone() } else { PathBuf::from(command.program()) }
}

/// Nothing but the end of the pipe: a successful exec has closed it.
fn await_exec(outcome: &OwnedFd, command: &Command) -> Result<(), (Step, Errno)> {
    let deadline = Instant::now() + command.within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
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
            report: above_standard(report)?,
        })
    }
}

/// A copy that is not 0, 1 or 2: those are overwritten in the child, in some order, and may be free in a daemon.
fn above_standard(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    const FIRST: i32 = 3;
    rustix::io::fcntl_dupfd_cloexec(fd, FIRST)
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
