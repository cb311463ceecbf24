//! The sample service: a small reports API on SQLite with a switch for every way a service goes wrong.
//!
//! It is part of the binary so that `plimsoll demo`, the benches and the tests have something to guard with nothing
//! installed; the binary runs itself as `plimsoll sample-service`. It is an ordinary service: it knows nothing of the
//! guard, reads `PORT`, answers `/health` and finishes its requests on SIGTERM.
//!
//! One thread serves everything, as in the Node services it stands for, so a blocked loop is a hung service.

mod args;
mod faults;
mod inject;
mod pace;
mod query;
mod reports;
mod routes;
mod server;
mod stray;

use std::io::{self, Write as _};
use std::path::PathBuf;

pub use args::SampleArgs;

/// Why the sample service could not start or ended. None of these is worth a retry without a change outside.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error("cannot open the database {}: {source}", path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
    #[error("cannot listen on 127.0.0.1:{port}: {source}")]
    Listen { port: u16, source: io::Error },
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("cannot start the stray process: {0}")]
    Stray(#[source] io::Error),
}

/// Serves until SIGTERM (or plays one part of the double fork, when the service called itself for that).
pub fn run(args: &SampleArgs) -> Result<(), SampleError> {
    if let Some(stage) = args.stray {
        return stray::play(stage, args.stray_secs).map_err(SampleError::Stray);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SampleError::Runtime)?;
    tokio::task::LocalSet::new().block_on(&runtime, server::serve(args))
}

/// One line on stdout. A reader that went away is no reason to stop serving, so a failed write is dropped.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
