//! The vault, beside litestream 0.3.13 (from npm), SQLite's own `.backup` in a loop, and nothing: the same writer, the
//! same database, taking turns.
//!
//! The writer is a program of its own with its own SQLite: Debian's Python. What was lost is what its database has and
//! the restored one has not, by the times in its rows.

mod agent;
mod cost;
mod ground;
mod loss;
mod restore;
mod restores;
mod writer;

use crate::bench::Part;

/// A file each; a new one is entered here.
pub(super) const PARTS: &[Part] = &[
    Part { name: "loss", run: loss::run },
    Part { name: "cost", run: cost::run },
    Part { name: "restore", run: restore::run },
    Part { name: "restores", run: restores::run },
];
