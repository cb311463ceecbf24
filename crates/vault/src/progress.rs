//! How far long work has come, for whoever shows it.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Pages are copied into the store, in bytes.
    Copy,
    /// Rows are read and hashed.
    Contents,
    /// Chunks are fetched and written, in bytes.
    Fetch,
    /// Transactions are applied, in segments.
    Apply,
    /// SQLite checks every page and index.
    Integrity,
    /// What waits is sent to the store, in bytes.
    Send,
}

impl Phase {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Contents => "contents",
            Self::Fetch => "fetch",
            Self::Apply => "apply",
            Self::Integrity => "integrity",
            Self::Send => "send",
        }
    }

    /// Done and total are bytes.
    pub const fn is_bytes(self) -> bool {
        matches!(self, Self::Copy | Self::Fetch | Self::Send)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Called often; returns at once. `total` is 0 where nobody knows.
pub trait Progress: Sync {
    fn at(&self, phase: Phase, done: u64, total: u64);
}

/// Nobody looks.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn at(&self, _: Phase, _: u64, _: u64) {}
}
