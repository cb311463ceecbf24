//! `plimsoll vault drill`: restore, compare, and boot the service's own command on the copy at a scratch port.

use std::io::Write;
use std::time::Instant;

use plimsoll_guard::tell::span_words;
use plimsoll_vault::plan::Target;
use plimsoll_vault::restore::Restorer;
use plimsoll_vault::store::Store;
use serde_json::json;

use super::bar::Bar;
use super::{VaultError, boot, choose, counted, print_json, time};
use crate::cli::{Exit, Global, OneVault};

pub(super) fn run(args: &OneVault, global: &Global, out: &mut dyn Write) -> Result<Exit, VaultError> {
    let chosen = choose(args.vault.as_deref(), global)?;
    let services = &chosen.config.services;
    let service = chosen.table.service.as_ref().and_then(|name| services.iter().find(|it| it.name == *name));
    let Some(service) = service else {
        let hint = "say whose database it is: service = \"…\" in [[vault]]";
        return Err(VaultError::Usage(format!("nobody knows what to boot on the copy; {hint}")));
    };
    let began = Instant::now();
    let store = Store::look(&chosen.vault.store)?;
    let seal = chosen.vault.seal()?;
    let scratch = tempfile::Builder::new().prefix("plimsoll-drill-").tempdir()?;
    let copy = scratch.path().join(chosen.vault.database.file_name().unwrap_or("copy.db".as_ref()));
    let bar = Bar::new();
    let restored = Restorer { store: &store, seal: &seal }.restore(Target::Latest, &copy, &bar);
    bar.clear();
    let restored = restored?;
    let restored_in = began.elapsed();
    let at = boot::Scene {
        folder: &chosen.config.folder,
        database: &chosen.vault.database,
        copy: &copy,
        scratch: scratch.path(),
    };
    let booted = boot::boot(service, &at)?;
    if args.json {
        let value = json!({
            "vault": chosen.vault.name,
            "service": service.name,
            "tx": restored.position.tx,
            "time": restored.time.timestamp().to_string(),
            "rows": restored.contents.rows(),
            "restored_ms": u64::try_from(restored_in.as_millis()).unwrap_or(u64::MAX),
            "booted_ms": u64::try_from(booted.as_millis()).unwrap_or(u64::MAX),
            "took_ms": u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        print_json(out, &value)?;
        return Ok(Exit::Done);
    }
    writeln!(
        out,
        "restored {} as of {} UTC, transaction {}, in {}",
        counted(restored.contents.rows(), "row"),
        time(restored.time),
        restored.position.tx,
        span_words(restored_in)
    )?;
    writeln!(out, "{} was ready on the copy after {}", service.name, span_words(booted))?;
    writeln!(out, "from nothing to a service that answers: {}", span_words(began.elapsed()))?;
    Ok(Exit::Done)
}
