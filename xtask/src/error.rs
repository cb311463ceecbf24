//! What can go wrong here, each with its object and its verb.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::tally::Tally;

pub(crate) type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot {verb} {path}: {source}", path = path.display())]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot start `{command}`: {source}")]
    Start { command: String, source: io::Error },
    #[error("`{command}` ended with {status}{said}")]
    Failed { command: String, status: ExitStatus, said: String },
    #[error("`{command}` did not end within {limit:?} and was killed")]
    Overdue { command: String, limit: Duration },
    #[error("cannot read the output of `{command}`: {what}")]
    Output { command: String, what: String },
    /// The machine lacks something that the task cannot go on without.
    #[error("this machine lacks {0}")]
    Lacks(String),
    /// The suites in the VM did not all pass; how many did is still worth counting.
    #[error("{what}")]
    Vm { what: String, tally: Tally },
    /// The summary on stdout has said it all, and its last line stays the last.
    #[error("not everything passed")]
    Summed,
    /// The answer of a check is no.
    #[error("{0}")]
    Check(String),
}

impl Error {
    /// For `map_err` after a file operation: `.map_err(Error::file("read", path))`.
    pub(crate) fn file(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { verb, path, source }
    }
}
