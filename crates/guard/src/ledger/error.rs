//! What can be wrong with the ledger's file.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{verb} ledger {}: {source}", path.display())]
    Io { verb: &'static str, path: PathBuf, source: std::io::Error },

    #[error("{verb} ledger {}: {source}", path.display())]
    Sqlite { verb: &'static str, path: PathBuf, source: rusqlite::Error },

    /// The content is damaged, or it is no database at all.
    #[error("ledger {} is corrupt: {source}", path.display())]
    Corrupt { path: PathBuf, source: rusqlite::Error },

    #[error("ledger {} has schema version {found} and this plimsoll knows up to {known}: use the newer plimsoll, or move the file away", path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },

    #[error("{} is a database but not a ledger: move it away or use another --state", path.display())]
    Foreign { path: PathBuf },

    #[error("ledger {} may only be read", path.display())]
    ReadOnly { path: PathBuf },

    #[error("there is no ledger {}: no guard has run with this state folder", path.display())]
    Missing { path: PathBuf },
}

impl LedgerError {
    pub(super) fn sqlite(verb: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt { path, source },
            Some(ErrorCode::ReadOnly) => Self::ReadOnly { path },
            _ => Self::Sqlite { verb, path, source },
        }
    }

    pub(super) const fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// The disk is full: the connection is sound and what is on the disk can still be read.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => source.sqlite_error_code() == Some(ErrorCode::DiskFull),
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Self::Corrupt { .. }
            | Self::Newer { .. }
            | Self::Foreign { .. }
            | Self::ReadOnly { .. }
            | Self::Missing { .. } => false,
        }
    }
}
