//! `plimsoll vault status`: how every vault is doing; 1 when one is not well.

use std::io::Write;
use std::time::Duration;

use jiff::Timestamp;
use plimsoll_guard::records::{Status, VaultStatus};
use plimsoll_guard::tell::span_words;
use plimsoll_vault::catalogue::Catalogue;
use plimsoll_vault::names::Millis;
use plimsoll_vault::store::Store;

use super::{Chosen, VaultError, all, bytes, choose, counted, print_json, unknown};
use crate::cli::{Exit, Global, OneVault};
use crate::verbs::reach;
use crate::verbs::status::since;

/// A backup that is older than this many times `every` is too old.
const AGE_MAX: u32 = 2;

pub(super) fn run(args: &OneVault, global: &Global, out: &mut dyn Write) -> Result<Exit, VaultError> {
    let chosen = match &args.vault {
        Some(name) => vec![choose(Some(name), global)?],
        None => all(global)?,
    };
    if chosen.is_empty() {
        return Err(unknown(&chosen, None));
    }
    let running = running(global);
    let statuses: Vec<VaultStatus> =
        chosen.iter().map(|it| status(it, &running)).collect::<Result<_, _>>()?;
    if args.json {
        print_json(out, &statuses)?;
    } else {
        for status in &statuses {
            print(status, out)?;
        }
    }
    let is_well = chosen.iter().zip(&statuses).all(|(chosen, status)| is_well(chosen, status));
    Ok(if is_well { Exit::Done } else { Exit::No })
}

/// What the guard says; nothing where none answers.
fn running(global: &Global) -> Vec<VaultStatus> {
    let client = reach::client(global);
    let status = reach::wait(async { Ok(client.get::<Status>("/api/v1/status").await?) });
    status.map(|it| it.vaults).unwrap_or_default()
}

fn status(chosen: &Chosen, running: &[VaultStatus]) -> Result<VaultStatus, VaultError> {
    if let Some(running) = running.iter().find(|it| it.name == chosen.vault.name) {
        return Ok(running.clone());
    }
    let catalogue = Catalogue::read(&Store::look(&chosen.vault.store)?)?;
    let newest = catalogue.newest_backup();
    Ok(VaultStatus {
        name: chosen.vault.name.clone(),
        database: chosen.vault.database.display().to_string(),
        to: chosen.vault.store.to.clone(),
        mode: "stopped".to_owned(),
        why: Some("no guard runs it".to_owned()),
        tx: catalogue.newest_tx().map(|it| it.0),
        fresh_as_of: catalogue.segments.iter().map(|it| it.time).max().map(Millis::timestamp),
        last_snapshot: catalogue.snapshots.last().map(|it| it.time.timestamp()),
        last_backup: newest.map(|it| it.time.timestamp()),
        verified: newest.as_ref().and_then(|it| catalogue.outcome(it)).map(|it| it.time.timestamp()),
        backups: catalogue.snapshots.iter().filter(|it| catalogue.is_backup(it)).count() as u64,
        snapshots: catalogue.snapshots.len() as u64,
        ..VaultStatus::default()
    })
}

fn is_well(chosen: &Chosen, status: &VaultStatus) -> bool {
    let age_max = chosen.vault.every.saturating_mul(AGE_MAX);
    let age = status.last_backup.map(|it| Timestamp::now().duration_since(it));
    let is_recent = age.is_some_and(|age| Duration::try_from(age).unwrap_or_default() <= age_max);
    status.problems.is_empty() && is_recent && status.mode != "stopped"
}

fn print(status: &VaultStatus, out: &mut dyn Write) -> Result<(), VaultError> {
    writeln!(out, "{}  {}", status.name, summary(status))?;
    writeln!(out, "  database   {}", status.database)?;
    writeln!(out, "  to         {}", status.to)?;
    if let Some(why) = &status.why {
        writeln!(out, "  {:<10} {why}", status.mode)?;
    }
    if let Some(tx) = status.tx {
        let fresh = status.fresh_as_of.map(|it| format!(", all that was committed {} ago", since(it)));
        writeln!(out, "  copied     to transaction {tx}{}", fresh.unwrap_or_default())?;
    }
    let verified = status.verified.map(|it| format!(", restored and compared {} ago", since(it)));
    match status.last_backup {
        Some(backup) => {
            writeln!(out, "  backup     of {} ago{}", since(backup), verified.unwrap_or_default())?;
        }
        None => writeln!(out, "  backup     NONE: no snapshot was restored and compared yet")?,
    }
    let (snapshots, backups) = (counted(status.snapshots, "snapshot"), counted(status.backups, "backup"));
    writeln!(out, "  kept       {snapshots}, {backups}")?;
    if status.log_bytes > 0 || status.held_ms_max > 0 {
        let held = match status.held_ms_max {
            0 => "writers were never held".to_owned(),
            held => {
                format!("writers were held for {} at the longest", span_words(Duration::from_millis(held)))
            }
        };
        writeln!(out, "  log        {} in use; {held}", bytes(status.log_bytes))?;
    }
    if status.waiting_bytes > 0 {
        writeln!(out, "  waiting    {} for the store", bytes(status.waiting_bytes))?;
    }
    if let Some(version) = &status.sqlite_version {
        writeln!(out, "  written by SQLite {version}")?;
    }
    for problem in &status.problems {
        writeln!(out, "  !! {problem}")?;
    }
    Ok(())
}

/// `continuous, backup 3 h old, fresh`
pub(in crate::verbs) fn summary(status: &VaultStatus) -> String {
    let backup = status
        .last_backup
        .map_or_else(|| "NO backup yet".to_owned(), |it| format!("backup {} old", since(it)));
    let fresh = status.fresh_as_of.map_or_else(String::new, |it| format!(", fresh as of {} ago", since(it)));
    format!("{}, {backup}{fresh}", status.mode)
}
