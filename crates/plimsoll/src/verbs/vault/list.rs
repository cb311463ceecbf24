//! `plimsoll vault list`: what can be restored, and what of it was.

use std::io::Write;

use plimsoll_vault::catalogue::{Catalogue, Identity, manifest};
use plimsoll_vault::names::{Millis, SnapshotName};
use plimsoll_vault::plan;
use plimsoll_vault::store::Store;
use serde_json::json;

use super::{VaultError, bytes, choose, print_json, time};
use crate::cli::{Exit, Global, OneVault};
use crate::verbs::table::Table;

pub(super) fn run(args: &OneVault, global: &Global, out: &mut dyn Write) -> Result<Exit, VaultError> {
    let chosen = choose(args.vault.as_deref(), global)?;
    let store = Store::look(&chosen.vault.store)?;
    let identity = Identity::read(&store)?;
    let catalogue = Catalogue::read(&store)?;
    let end = plan::end(&catalogue.snapshots, &catalogue.segments);
    let newest = catalogue.segments.iter().map(|it| it.time).max();
    if args.json {
        let snapshots: Vec<_> = catalogue.snapshots.iter().rev().map(|it| record(&catalogue, it)).collect();
        let value = json!({
            "vault": chosen.vault.name,
            "snapshots": snapshots,
            "transactions_to": end.map(|it| it.1),
            "time_to": newest.map(|it| it.timestamp().to_string()),
            "log_bytes": catalogue.log_bytes,
        });
        print_json(out, &value)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&[
        "SNAPSHOT",
        "TIME (UTC)",
        ">TRANSACTION",
        ">SIZE",
        ">STORED",
        "RESTORED AND COMPARED (UTC)",
    ]);
    for snapshot in catalogue.snapshots.iter().rev() {
        let manifest = identity.as_ref().and_then(|identity| manifest(&store, identity, snapshot).ok());
        let size = manifest.as_ref().map(|it| u64::from(it.pages) * u64::from(it.page_bytes));
        table.row([
            snapshot.short(),
            time(snapshot.time),
            snapshot.tx.to_string(),
            size.map_or_else(|| "unreadable".to_owned(), bytes),
            manifest.map_or_else(|| "-".to_owned(), |it| bytes(it.stored_bytes())),
            outcome(&catalogue, snapshot),
        ]);
    }
    table.print(out)?;
    if let (Some((_, tx)), Some(newest)) = (end, newest) {
        writeln!(out)?;
        writeln!(
            out,
            "transactions to {tx}, of {} UTC, {} of log",
            time(newest),
            bytes(catalogue.log_bytes)
        )?;
    }
    Ok(Exit::Done)
}

fn outcome(catalogue: &Catalogue, snapshot: &SnapshotName) -> String {
    match catalogue.outcome(snapshot) {
        None => "not yet: no backup".to_owned(),
        Some(it) if it.is_good => time(it.time),
        Some(it) => format!("FAILED at {}", time(it.time)),
    }
}

fn record(catalogue: &Catalogue, snapshot: &SnapshotName) -> serde_json::Value {
    let outcome = catalogue.outcome(snapshot);
    let text = |time: Millis| time.timestamp().to_string();
    json!({
        "snapshot": snapshot.short(),
        "hash": snapshot.hash,
        "time": text(snapshot.time),
        "epoch": snapshot.epoch,
        "tx": snapshot.tx,
        "is_backup": catalogue.is_backup(snapshot),
        "verified": outcome.map(|it| text(it.time)),
        "verified_good": outcome.map(|it| it.is_good),
    })
}
