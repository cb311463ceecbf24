//! `plimsoll reload`: the configuration is read again.

use std::io::Write;

use serde_json::Value;

use super::reach::{self, ReachError};
use crate::cli::{Exit, Global, Reload};

pub fn run(args: &Reload, global: &Global, out: &mut dyn Write) -> Result<Exit, ReachError> {
    let client = reach::client(global);
    let done: Value = reach::wait(async { Ok(client.post("/api/v1/reload").await?) })?;
    if args.json {
        writeln!(out, "{done}")?;
    } else {
        writeln!(out, "reloaded: {}", done["reloaded"].as_str().unwrap_or("done"))?;
    }
    Ok(Exit::Done)
}
