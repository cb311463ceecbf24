//! `plimsoll incidents`: what went wrong; one of them reads like a short post-mortem.

use std::io::Write;
use std::time::Duration;

use plimsoll_guard::control::client::ClientError;
use plimsoll_guard::records::IncidentRecord;
use plimsoll_guard::tell::span_words;

use super::post_mortem;
use super::reach::{self, ReachError};
use super::table::Table;
use crate::cli::{Exit, Global, Incidents, IncidentsList, IncidentsShow, IncidentsVerb};

pub fn run(args: &Incidents, global: &Global, out: &mut dyn Write) -> Result<Exit, ReachError> {
    match &args.verb {
        Some(IncidentsVerb::Show(args)) => show(args, global, out),
        Some(IncidentsVerb::List(args)) => list(args, global, out),
        None => list(&args.list, global, out),
    }
}

fn list(args: &IncidentsList, global: &Global, out: &mut dyn Write) -> Result<Exit, ReachError> {
    let mut incidents = incidents(args, global)?;
    if incidents.is_empty() {
        reach::check_name(global, args.service.as_deref())?;
    }
    incidents.reverse();
    if args.json {
        serde_json::to_writer(&mut *out, &incidents).map_err(std::io::Error::from)?;
        writeln!(out)?;
        return Ok(Exit::Done);
    }
    if incidents.is_empty() {
        writeln!(out, "no incidents")?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&[">NO", "OPENED (UTC)", "SERVICE", "LAYER", ">DARK", "WHAT", "DONE"]);
    for incident in &incidents {
        table.row([
            incident.id.to_string(),
            incident.opened.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            incident.service.clone(),
            incident.layer.clone().unwrap_or_else(|| "-".to_owned()),
            dark(incident),
            incident.summary.clone(),
            incident.action.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table.print(out)?;
    writeln!(out, "\nplimsoll incidents show NO tells one of them")?;
    Ok(Exit::Done)
}

/// How long it was dark, or that it goes on.
pub(super) fn dark(incident: &IncidentRecord) -> String {
    match incident.dark_ms {
        None => "open".to_owned(),
        Some(0) => "never".to_owned(),
        Some(millis) => span_words(Duration::from_millis(millis)),
    }
}

fn incidents(args: &IncidentsList, global: &Global) -> Result<Vec<IncidentRecord>, ReachError> {
    let query = [("service", args.service.clone()), ("limit", Some(args.lines.to_string()))];
    let client = reach::client(global);
    let asked = reach::wait(async { Ok(client.get(&reach::target("/api/v1/incidents", &query)).await?) });
    match asked {
        Err(ReachError::Client(ClientError::Unreachable { .. })) => {
            Ok(reach::ledger(global)?.incidents(args.service.as_deref(), args.lines)?)
        }
        asked => asked,
    }
}

fn show(args: &IncidentsShow, global: &Global, out: &mut dyn Write) -> Result<Exit, ReachError> {
    let client = reach::client(global);
    let target = format!("/api/v1/incidents/{}", args.id);
    let asked = reach::wait(async { Ok(client.get(&target).await?) });
    let incident: IncidentRecord = match asked {
        Err(ReachError::Client(ClientError::Unreachable { .. })) => {
            let found = reach::ledger(global)?.incident(args.id)?;
            found.ok_or_else(|| ReachError::No(format!("no incident {}", args.id)))?
        }
        // As when it is looked for in the ledger: the question was fine, and the answer is no.
        Err(ReachError::Client(ClientError::NotFound { message })) => return Err(ReachError::No(message)),
        asked => asked?,
    };
    if args.json {
        serde_json::to_writer(&mut *out, &incident).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        post_mortem::print(&incident, out)?;
    }
    Ok(Exit::Done)
}
