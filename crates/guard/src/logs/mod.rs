//! Service output: read from the instances' pipes, kept in rotated files, read back.
//!
//! Two threads do it for all instances. The pump reads: always, so that no service ever blocks on its output; what is
//! over a service's rate is counted and dropped. The shelf writes: only it waits for the disk, and what comes faster
//! than the disk takes it is dropped and counted too. Every gap is told in the log itself.
//!
//! One series of files per service holds the lines of all its instances, so that a recycle reads in one piece:
//! `logs/reports/current.log`, then `current.1.log` and so on into the past. Each line has its time and its instance:
//! `2026-11-23T20:00:00.123Z reports.7 | listening`. This part does not know what a service or a recycle is.

mod backward;
mod bucket;
mod follow;
mod line;
mod outbox;
mod pipes;
mod pump;
mod read;
mod series;
mod shelf;
mod splitter;

pub use follow::{Follow, follow};
pub use line::{LogLine, for_terminal};
pub use pump::{PumpConfig, PumpHandle, PumpHealth};
pub use read::{Lines, read, tail_lines};
pub use splitter::LINE_BYTES_MAX;

/// Output kept per service: so many files of this size at most, and never more on the disk than their product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// At least 64 KiB, whatever it says.
    pub file_bytes: u64,
    /// At least one, whatever it says.
    pub files: u32,
}

impl Default for LogBounds {
    fn default() -> Self {
        Self { file_bytes: 10_000_000, files: 3 }
    }
}
