//! `plimsoll vault restore`: a database of any moment that is kept, proved before it gets its name.

use std::io::Write;
use std::path::Path;

use plimsoll_guard::tell::span_words;
use plimsoll_vault::catalogue::Catalogue;
use plimsoll_vault::names::Millis;
use plimsoll_vault::plan::Target;
use plimsoll_vault::position::Tx;
use plimsoll_vault::restore::{Restored, Restorer};
use plimsoll_vault::seal::Seal;
use plimsoll_vault::store::{Store, StoreConfig};
use serde_json::json;

use super::bar::Bar;
use super::{VaultError, bytes, choose, counted, print_json, replace, time, with_key};
use crate::cli::{Exit, Global, VaultRestore};

pub(super) fn run(args: &VaultRestore, global: &Global, out: &mut dyn Write) -> Result<Exit, VaultError> {
    let (store, seal, chosen) = if let Some(from) = &args.from {
        (Store::look(&StoreConfig { to: from.clone(), bandwidth: None })?, Seal::default(), None)
    } else {
        let chosen = choose(args.vault.as_deref(), global)?;
        (Store::look(&chosen.vault.store)?, chosen.vault.seal()?, Some(chosen))
    };
    let seal = with_key(seal, args.identity.as_deref())?;
    let target = target(args, &store)?;
    let restorer = Restorer { store: &store, seal: &seal };
    if args.replace {
        let Some(chosen) = chosen else {
            return Err(VaultError::Usage("--replace needs the configuration, not --from".to_owned()));
        };
        return replace::run(args, &chosen, &restorer, target, global, out);
    }
    let Some(into) = &args.into else {
        return Err(VaultError::Usage("say where to: --into PATH, or --replace for the live one".to_owned()));
    };
    let bar = Bar::new();
    let done = restorer.restore(target, into, &bar);
    bar.clear();
    tell(&done?, into, args.json, out)?;
    Ok(Exit::Done)
}

fn target(args: &VaultRestore, store: &Store) -> Result<Target, VaultError> {
    if let Some(short) = &args.snapshot {
        return Ok(Target::Snapshot(Catalogue::read(store)?.chosen(Some(short))?));
    }
    Ok(match (args.to, args.to_tx) {
        (Some(to), _) => Target::Time(Millis::from_timestamp(to.timestamp())),
        (None, Some(tx)) => Target::Tx(Tx(tx)),
        (None, None) => Target::Latest,
    })
}

pub(super) fn tell(
    restored: &Restored,
    into: &Path,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), VaultError> {
    if as_json {
        let value = json!({
            "path": into,
            "snapshot": restored.snapshot.short(),
            "tx": restored.position.tx,
            "time": restored.time.timestamp().to_string(),
            "is_compared": restored.is_compared,
            "content_hash": restored.contents.hash(),
            "tables": restored.contents.tables.len(),
            "rows": restored.contents.rows(),
            "bytes": restored.bytes,
            "segments": restored.segments,
            "took_ms": u64::try_from(restored.took.as_millis()).unwrap_or(u64::MAX),
        });
        return print_json(out, &value);
    }
    writeln!(
        out,
        "{}: as of {} UTC, transaction {}",
        into.display(),
        time(restored.time),
        restored.position.tx
    )?;
    let how = if restored.is_compared {
        "equal to what the live database said at this position".to_owned()
    } else {
        let (snapshot, count) = (restored.snapshot.short(), counted(restored.segments as u64, "segment"));
        format!("equal to the live database at snapshot {snapshot}, and {count} since then by their hashes")
    };
    let rows = counted(restored.contents.rows(), "row");
    let tables = counted(restored.contents.tables.len() as u64, "table");
    writeln!(out, "{rows} in {tables}, {how}")?;
    let took = span_words(restored.took);
    writeln!(out, "integrity and foreign keys checked; {} in {took}", bytes(restored.bytes))?;
    Ok(())
}
