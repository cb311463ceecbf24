//! `plimsoll vault prune`: what no kept point needs goes. Reports only, unless `--act`.

use std::io::Write;

use plimsoll_vault::fence::Fence;
use plimsoll_vault::keeper::{Wanted, pruned_json};
use plimsoll_vault::names::Millis;
use plimsoll_vault::prune;

use super::{VaultError, ask_running, bytes, choose, counted, open_here, print_json};
use crate::cli::{Exit, Global, VaultPrune};

pub(super) fn run(args: &VaultPrune, global: &Global, out: &mut dyn Write) -> Result<Exit, VaultError> {
    let chosen = choose(args.vault.as_deref(), global)?;
    let done = if let Some(done) = ask_running(&chosen.vault, &Wanted::Prune { act: args.act })? {
        done
    } else {
        let engine = open_here(chosen.vault.clone())?;
        let fence = Fence::new(&engine.state, engine.config.beat)?;
        fence.claim(engine.store(), Millis::now())?;
        let pruned = prune::run(&engine, Millis::now(), args.act);
        fence.release(engine.store());
        pruned_json(&pruned?)
    };
    if args.json {
        print_json(out, &done)?;
        return Ok(Exit::Done);
    }
    let gone = done["snapshots"].as_array().map_or(0, |it| it.len() as u64);
    let number = |key: &str| done[key].as_u64().unwrap_or(0);
    writeln!(
        out,
        "{} {}, {} and {} ({}); kept: {}",
        if args.act { "deleted" } else { "would delete" },
        counted(gone, "snapshot"),
        counted(number("segments"), "segment"),
        counted(number("chunks"), "chunk"),
        bytes(number("chunk_bytes")),
        counted(number("kept"), "snapshot")
    )?;
    if !args.act {
        writeln!(out, "nothing was deleted: add --act")?;
    }
    Ok(Exit::Done)
}
