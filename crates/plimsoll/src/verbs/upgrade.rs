//! `plimsoll upgrade`: another version of the guard, while everything runs on.

use std::fmt::Write as _;
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plimsoll_guard::control::client::{Client, ClientError};
use plimsoll_guard::records::{EventRecord, Status};
use serde_json::{Value, json};

use super::reach::{self, ReachError};
use crate::cli::{Exit, Global, Upgrade};

/// Each step of an upgrade has half a minute; there are three.
const WITHIN: Duration = Duration::from_secs(100);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub fn run(args: &Upgrade, global: &Global, out: &mut dyn Write) -> Result<Exit, ReachError> {
    let binary = binary(args.binary.as_deref())?;
    let client = reach::client(global);
    let now = reach::wait(replaced(&client, &binary))?;
    if args.json {
        writeln!(out, "{}", json!({ "version": now.version, "pid": now.guard.pid }))?;
    } else {
        writeln!(out, "plimsoll {} guards now (process {})", now.version, now.guard.pid)?;
    }
    Ok(Exit::Done)
}

/// Its whole path: the guard may be in another folder.
fn binary(named: Option<&Path>) -> Result<PathBuf, ReachError> {
    let found = named.map_or_else(std::env::current_exe, std::fs::canonicalize);
    found.map_err(|error| {
        let path = named.unwrap_or(Path::new("this program")).display();
        ReachError::No(format!("{path} cannot be found: {error}"))
    })
}

/// The guard after the upgrade, once it is there.
async fn replaced(client: &Client, binary: &Path) -> Result<Status, ReachError> {
    let before: Status = client.get("/api/v1/status").await?;
    let asked = client.post::<Value>(&format!("/api/v1/upgrade?binary={}", escaped(binary))).await;
    if let Err(ClientError::Refused { message }) = asked {
        let message = format!("not upgraded, and nothing has changed: {message}");
        return Err(ClientError::Refused { message }.into());
    }
    asked?;
    let until = Instant::now() + WITHIN;
    while Instant::now() < until {
        // In between nobody answers for a moment.
        if let Ok(now) = client.get::<Status>("/api/v1/status").await
            && now.guard.pid != before.guard.pid
        {
            return how_it_went(client).await.map(|()| now);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Err(ReachError::No("no new version guards yet; `plimsoll events` tells what happened".to_owned()))
}

/// The new guard's own account: it took over as planned, or it is the old version again.
async fn how_it_went(client: &Client) -> Result<(), ReachError> {
    let events: Vec<EventRecord> = client.get("/api/v1/events?service=guard&limit=20").await?;
    let last =
        events.iter().rev().find(|it| ["guard_replaced", "guard_restarted"].contains(&it.kind.as_str()));
    match last {
        Some(event) if event.kind == "guard_restarted" => {
            let said = event.detail.get("message").and_then(Value::as_str).unwrap_or_default();
            Err(ReachError::No(format!("the old version carries on: {said}")))
        }
        Some(_) | None => Ok(()),
    }
}

/// For a query: everything that is not plain is written as `%2F`.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            text.push(char::from(*byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_escaped_where_it_has_to_be() {
        assert_eq!(escaped(Path::new("/opt/my new/p&q")), "/opt/my%20new/p%26q");
    }
}
