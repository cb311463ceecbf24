//! `plimsoll vault verify`: restore it into a scratch place, compare, and say whether it is a backup.

use std::io::Write;
use std::time::Duration;

use plimsoll_guard::tell::span_words;
use plimsoll_vault::catalogue::Catalogue;
use plimsoll_vault::keeper::Wanted;
use plimsoll_vault::restore::Restorer;
use plimsoll_vault::store::Store;
use plimsoll_vault::verify;

use super::bar::Bar;
use super::{Chosen, VaultError, ask_running, choose, print_json, with_key};
use crate::cli::{Exit, Global, VaultVerify};

pub(super) fn run(args: &VaultVerify, global: &Global, out: &mut dyn Write) -> Result<Exit, VaultError> {
    let chosen = choose(args.vault.as_deref(), global)?;
    let wanted = Wanted::Verify { snapshot: args.snapshot.clone() };
    // A running vault has the keys of its configuration alone.
    let asked = if args.identity.is_some() { None } else { ask_running(&chosen.vault, &wanted)? };
    let done = asked.map_or_else(|| here(&chosen, args), Ok)?;
    if args.json {
        print_json(out, &done)?;
        return Ok(if done["broken"].is_null() { Exit::Done } else { Exit::No });
    }
    let took = span_words(Duration::from_millis(done["took_ms"].as_u64().unwrap_or(0)));
    writeln!(
        out,
        "snapshot {} is a backup: restored in {took}, {} rows equal, integrity and foreign keys checked",
        done["snapshot"].as_str().unwrap_or_default(),
        done["rows"].as_u64().unwrap_or(0)
    )?;
    if done["is_reached"].as_bool() == Some(true) {
        writeln!(out, "the transactions since the snapshot before lead to exactly the same")?;
    }
    if let Some(broken) = done["broken"].as_str() {
        writeln!(
            out,
            "but the transactions that lead to it are spoiled, so that moments before it cannot be restored to, {broken}"
        )?;
        return Ok(Exit::No);
    }
    Ok(Exit::Done)
}

fn here(chosen: &Chosen, args: &VaultVerify) -> Result<serde_json::Value, VaultError> {
    let store = Store::look(&chosen.vault.store)?;
    let seal = with_key(chosen.vault.seal()?, args.identity.as_deref())?;
    let snapshot = Catalogue::read(&store)?.chosen(args.snapshot.as_deref())?;
    let bar = Bar::new();
    let scratch = tempfile::Builder::new().prefix("plimsoll-verify-").tempdir()?;
    let restorer = Restorer { store: &store, seal: &seal };
    let verified = verify::run(&restorer, &snapshot, scratch.path(), &bar)?;
    Ok(verified.json())
}
