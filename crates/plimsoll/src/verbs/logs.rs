//! `plimsoll logs`: what a service printed, straight from its files; no guard is needed for it.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use plimsoll_guard::logs::{self, LogLine, for_terminal};
use serde_json::json;

use super::events::moment;
use super::reach::{self, ReachError};
use crate::cli::{Exit, Global, Logs};

/// Lines shown when nothing else is said.
const LINES_DEFAULT: usize = 200;
/// How long a follower waits before it looks whether its reader is still there.
const WAIT: Duration = Duration::from_millis(500);

pub fn run(args: &Logs, global: &Global, out: &mut dyn Write) -> Result<Exit, ReachError> {
    let folder = reach::places(global).0.join("logs");
    let since = args.since.map(moment);
    let last = args.lines.or(since.is_none().then_some(LINES_DEFAULT));
    if args.follow {
        if let Err(error) = logs::read(&folder, &args.service, None, Some(0))
            && error.kind() == io::ErrorKind::NotFound
        {
            reach::check_name(global, Some(&args.service))?;
        }
        let mut lines = logs::follow(&folder, &args.service, since, last)?;
        loop {
            if let Some(line) = lines.next_within(WAIT)? {
                print(args.json, &line, out)?;
            }
            out.flush()?;
        }
    }
    let lines = match logs::read(&folder, &args.service, since, last) {
        Ok(lines) => lines,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(nothing(&args.service, &folder)),
        Err(error) => return Err(error.into()),
    };
    for line in lines {
        print(args.json, &line, out)?;
    }
    Ok(Exit::Done)
}

fn nothing(service: &str, folder: &Path) -> ReachError {
    let known: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let known = if known.is_empty() { "no service has any there".to_owned() } else { known.join(", ") };
    ReachError::No(format!("no output of {service:?} is kept in {}: {known}", folder.display()))
}

fn print(json: bool, line: &LogLine, out: &mut dyn Write) -> io::Result<()> {
    if json {
        return writeln!(
            out,
            "{}",
            json!({ "time": line.time.to_string(), "instance": line.instance, "text": line.text })
        );
    }
    writeln!(
        out,
        "{}",
        for_terminal(&format!(
            "{} {} | {}",
            line.time.strftime("%Y-%m-%d %H:%M:%S%.3f"),
            line.instance,
            line.text
        ))
    )
}
