//! What can go wrong, whose fault it is, and whether to try again.

use std::io;
use std::path::{Path, PathBuf};

use crate::plan::PlanError;
use crate::segment::SegmentError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: cannot {verb}: {source}")]
    File { path: PathBuf, verb: &'static str, source: io::Error },
    #[error("database {path}: {source}")]
    Database { path: PathBuf, source: rusqlite::Error },
    #[error("database {path}: {why}")]
    Unfit { path: PathBuf, why: String },
    #[error("{folder}: {why}")]
    NoRoom { folder: PathBuf, why: String },
    #[error("store {store}: cannot {verb} {name}: {why}")]
    Store { store: String, verb: &'static str, name: String, why: String, is_missing: bool },
    #[error("store {store}: {why}")]
    Address { store: String, why: String },
    #[error(
        "store {store}: another vault writes to it: {who}; one at a time may. Stop that one, or choose another `to`"
    )]
    Fenced { store: String, who: String },
    #[error("{name} is not what it should be: {why}")]
    Spoiled { name: String, why: String },
    #[error("{name} is encrypted: {why}")]
    Key { name: String, why: String },
    #[error("{name}: {source}")]
    Segment { name: String, source: SegmentError },
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the copy is not the database: {}", .0.join("; "))]
    NotEqual(Vec<String>),
    #[error("{0}")]
    InTheWay(String),
    #[error("{0}")]
    Ended(&'static str),
}

impl Error {
    pub(crate) fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, verb, source }
    }

    pub(crate) fn database(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Database { path: path.clone(), source }
    }

    /// The backup is at fault and not the circumstances: trying again changes nothing.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Spoiled { .. }
            | Self::Segment { .. }
            | Self::Plan(_)
            | Self::NotEqual(_)
            | Self::Key { .. } => true,
            Self::Store { is_missing, .. } => *is_missing,
            Self::File { .. }
            | Self::Database { .. }
            | Self::Unfit { .. }
            | Self::NoRoom { .. }
            | Self::Address { .. }
            | Self::Fenced { .. }
            | Self::InTheWay(_)
            | Self::Ended(_) => false,
        }
    }

    /// It is missing, and not only out of reach.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Store { is_missing: true, .. })
    }
}
