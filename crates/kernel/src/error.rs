//! The one error type of the crate. Each error has its object (a path, a pid, a name) and its verb.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{verb} {}: {source}", path.display())]
    File { verb: &'static str, path: PathBuf, source: io::Error },

    #[error("{verb} process {pid}: {source}")]
    Process { verb: &'static str, pid: i32, source: io::Error },

    /// A call on the guard's own process or on a descriptor that has no better name.
    #[error("{verb}: {source}")]
    Call { verb: &'static str, source: io::Error },

    /// The process has ended, or its pid belongs to another process by now.
    #[error("process {pid} is gone")]
    Gone { pid: i32 },

    /// The write succeeded and the file says something else: the limit is not in force.
    #[error("set {} to {wanted}: the kernel kept {found}", path.display())]
    NotTaken { path: PathBuf, wanted: u64, found: String },

    #[error("{what} is not possible with {on}")]
    Unsupported { what: &'static str, on: &'static str },

    #[error("read {}: not understood: {found:?}", path.display())]
    Malformed { path: PathBuf, found: String },

    #[error("{name:?} cannot name a cgroup: use letters, digits, '.', '_' and '-'")]
    GroupName { name: String },

    /// Processes were still alive in the group when the time was over, for example in an uninterruptible wait.
    #[error("empty {}: {left} processes are still alive", path.display())]
    StillAlive { path: PathBuf, left: usize },

    /// A group that has to be ours alone is not.
    #[error("have {} to ourselves: {others} other processes are in it", path.display())]
    Shared { path: PathBuf, others: usize },

    #[error("find {what} {name:?} in {}: there is none", file.display())]
    NoSuchUser { what: &'static str, name: String, file: PathBuf },

    #[error("lock {}: held by {}", path.display(), holder.map_or("another process".to_owned(), |pid| format!("process {pid}")))]
    Held { path: PathBuf, holder: Option<i32> },
}

impl Error {
    pub(crate) fn file(verb: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::File { verb, path: path.as_ref().to_owned(), source: source.into() }
    }

    pub(crate) fn call(verb: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Call { verb, source: source.into() }
    }

    /// `ESRCH` and, for files below `/proc/PID`, `ENOENT` mean that the process has ended.
    pub(crate) fn process(verb: &'static str, pid: i32, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match Errno::from_io_error(&source) {
            Some(Errno::SRCH | Errno::NOENT) => Self::Gone { pid },
            _ => Self::Process { verb, pid, source },
        }
    }

    fn source_io(&self) -> Option<&io::Error> {
        match self {
            Self::File { source, .. } | Self::Process { source, .. } | Self::Call { source, .. } => {
                Some(source)
            }
            Self::Gone { .. }
            | Self::NotTaken { .. }
            | Self::Unsupported { .. }
            | Self::Malformed { .. }
            | Self::GroupName { .. }
            | Self::StillAlive { .. }
            | Self::Shared { .. }
            | Self::NoSuchUser { .. }
            | Self::Held { .. } => None,
        }
    }

    /// The kernel's error number, where there is one.
    pub fn errno(&self) -> Option<i32> {
        self.source_io().and_then(io::Error::raw_os_error)
    }

    pub(crate) fn is(&self, errno: Errno) -> bool {
        self.errno() == Some(errno.raw_os_error())
    }

    /// The object does not exist any more: nothing to do, and nothing wrong with us.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
            || self.is(Errno::NOENT)
            || self.is(Errno::SRCH)
            || self.is(Errno::NODEV)
    }

    /// The host does not allow it: trying again will not help, the operator has to change something.
    pub fn is_denied(&self) -> bool {
        self.is(Errno::PERM) || self.is(Errno::ACCESS) || self.is(Errno::ROFS)
    }

    /// The host is short of something now: the same call may work later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::StillAlive { .. })
            || [
                Errno::AGAIN,
                Errno::NOMEM,
                Errno::BUSY,
                Errno::INTR,
                Errno::MFILE,
                Errno::NFILE,
                Errno::NOSPC,
            ]
            .into_iter()
            .any(|errno| self.is(errno))
    }
}
