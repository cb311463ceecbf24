//! How long a command that does nothing takes, and how large the binary is: the floor under every other figure.

use std::fs;
use std::process::Command;
use std::time::Instant;

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::error::{Error, Result};
use crate::shell;

/// A command must feel instant; scripts call `status` in loops.
const START_SECONDS_MAX: f64 = 0.05;

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    let mut times = Vec::new();
    for _ in 0..setting.runs {
        let begun = Instant::now();
        shell::output(Command::new(&setting.plimsoll).arg("--version"))?;
        times.push(begun.elapsed());
    }
    let size = fs::metadata(&setting.plimsoll).map_err(Error::file("look at", &setting.plimsoll))?.len();
    Ok(vec![
        Figure::times("`plimsoll --version`, from spawn to exit", &times).promised(START_SECONDS_MAX),
        Figure::bytes("the release binary, not static", &[size]),
    ])
}
