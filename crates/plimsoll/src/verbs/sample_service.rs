//! `plimsoll sample-service`: the demo's service, in the binary so that the demo needs nothing installed.

use std::io::{self, Write};

use crate::cli::Exit;
use crate::sample::{self, SampleArgs};

pub fn run(args: &SampleArgs) -> Exit {
    match sample::run(args) {
        Ok(()) => Exit::Done,
        Err(error) => {
            let _ = writeln!(io::stderr(), "sample service: {error}");
            Exit::No
        }
    }
}
