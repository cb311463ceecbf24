//! `plimsoll events`: what happened, newest last; from the guard, or from the ledger when no guard runs.

use std::io::Write;

use jiff::Timestamp;
use plimsoll_guard::control::client::ClientError;
use plimsoll_guard::records::EventRecord;
use plimsoll_guard::tell;

use super::reach::{self, ReachError};
use crate::cli::{Events, Exit, Global, Since};

pub fn run(args: &Events, global: &Global, out: &mut dyn Write) -> Result<Exit, ReachError> {
    let past = past(args, global)?;
    if past.is_empty() {
        reach::check_name(global, args.service.as_deref())?;
    }
    for event in past {
        print(args.json, &event, out)?;
    }
    if args.follow {
        out.flush()?;
        follow(args, global, out)?;
    }
    Ok(Exit::Done)
}

fn past(args: &Events, global: &Global) -> Result<Vec<EventRecord>, ReachError> {
    let since = args.since.map(moment);
    let query = [
        ("service", args.service.clone()),
        ("since", since.map(|time| time.to_string())),
        ("limit", Some(args.lines.to_string())),
    ];
    let client = reach::client(global);
    let asked = reach::wait(async { Ok(client.get(&reach::target("/api/v1/events", &query)).await?) });
    match asked {
        Err(ReachError::Client(ClientError::Unreachable { .. })) if !args.follow => {
            Ok(reach::ledger(global)?.events(args.service.as_deref(), since, args.lines)?)
        }
        asked => asked,
    }
}

fn follow(args: &Events, global: &Global, out: &mut dyn Write) -> Result<(), ReachError> {
    let client = reach::client(global);
    let query = [("follow", Some("1".to_owned())), ("service", args.service.clone())];
    let target = reach::target("/api/v1/events", &query);
    let mut printed = Ok(());
    reach::wait(async {
        let each = |event: EventRecord| {
            printed = print(args.json, &event, out).and_then(|()| out.flush());
            printed.is_ok()
        };
        Ok(client.follow(&target, each).await?)
    })?;
    Ok(printed?)
}

fn print(json: bool, event: &EventRecord, out: &mut dyn Write) -> std::io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, event)?;
        return writeln!(out);
    }
    writeln!(out, "{} {}", event.time.strftime("%Y-%m-%d"), tell::line(event))
}

/// When a listing begins.
pub(super) fn moment(since: Since) -> Timestamp {
    match since {
        Since::At(time) => time,
        Since::Ago(span) => Timestamp::now().checked_sub(span).unwrap_or(Timestamp::MIN),
    }
}
