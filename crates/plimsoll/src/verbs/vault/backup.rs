//! `plimsoll vault backup`: a snapshot now, such as before a deploy.

use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use plimsoll_vault::engine::{Engine, Pinned, pin_log};
use plimsoll_vault::fence::Fence;
use plimsoll_vault::keeper::Wanted;
use plimsoll_vault::names::Millis;

use super::bar::Bar;
use super::{VaultError, ask_running, bytes, choose, counted, open_here, print_json};
use crate::cli::{Exit, Global, OneVault};

/// What is to go to a bucket is waited for so long; the rest goes there with the next run.
const SEND_WITHIN: Duration = Duration::from_mins(30);

pub(super) fn run(args: &OneVault, global: &Global, out: &mut dyn Write) -> Result<Exit, VaultError> {
    let chosen = choose(args.vault.as_deref(), global)?;
    let done = match ask_running(&chosen.vault, &Wanted::Backup)? {
        Some(done) => done,
        None => here(&open_here(chosen.vault.clone())?)?,
    };
    if args.json {
        print_json(out, &done)?;
        return Ok(Exit::Done);
    }
    let text = |key: &str| done[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| done[key].as_u64().unwrap_or(0);
    writeln!(
        out,
        "snapshot {} of {}, at transaction {}: {}, {}, {} stored",
        text("snapshot"),
        chosen.vault.name,
        number("tx"),
        counted(number("tables"), "table"),
        counted(number("rows"), "row"),
        bytes(number("stored_bytes"))
    )?;
    writeln!(out, "it counts as a backup once it was restored: plimsoll vault verify {}", chosen.vault.name)?;
    Ok(Exit::Done)
}

/// Without a running vault: what was committed since it ran is copied first, or bridged.
fn here(engine: &Engine) -> Result<serde_json::Value, VaultError> {
    let fence = Fence::new(&engine.state, engine.config.beat)?;
    fence.claim(engine.store(), Millis::now())?;
    let bar = Bar::new();
    let (done, over) = sync_channel::<()>(0);
    let taken = std::thread::scope(|scope| {
        scope.spawn(|| engine.outbox().carry());
        let sleep = move |time| !matches!(over.recv_timeout(time), Err(RecvTimeoutError::Timeout));
        scope.spawn(|| fence.keep(engine.store(), sleep));
        let taken = take(engine, &bar);
        if taken.is_ok() && !engine.outbox().drain(SEND_WITHIN) {
            engine.outbox().end();
            return Err(VaultError::No(
                "the store did not take all of it in time; the rest waits for the next run".to_owned(),
            ));
        }
        engine.outbox().end();
        drop(done);
        taken
    });
    fence.release(engine.store());
    taken
}

fn take(engine: &Engine, bar: &Bar) -> Result<serde_json::Value, VaultError> {
    let (pinned, mut shipper): (Pinned, _) = if engine.has_log()? {
        let (mut shipper, _) = engine.attach()?;
        (pin_log(engine, &mut shipper)?, Some(shipper))
    } else {
        (engine.pin_whole()?, None)
    };
    let taken = engine.snapshot(pinned, bar, &AtomicBool::new(false))?;
    if let Some(shipper) = &mut shipper {
        if let Some(table) = taken.table.clone() {
            shipper.adopt(table);
        }
        shipper.save_table(&engine.state)?;
    }
    Ok(taken.json())
}
