//! The thread that takes snapshots, merges, verifies and prunes when it is time, and when somebody asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::catalogue::Catalogue;
use crate::copier::Ask;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::manifest::Contents;
use crate::names::Millis;
use crate::position::{Epoch, Tx};
use crate::progress::{Progress, Silent};
use crate::restore::Restorer;
use crate::shared::Shared;
use crate::sqlite_version::SqliteVersion;
use crate::status::Mode;
use crate::{merge, plan, prune, tripwire, verify};

const LOOK_EVERY: Duration = Duration::from_millis(500);
const MERGE_EVERY: Duration = Duration::from_mins(1);
const PRUNE_EVERY: Duration = Duration::from_hours(1);
/// After a failure it is tried again, and after more in a row later, up to this.
const RETRY: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(30);
const PIN_WITHIN: Duration = Duration::from_mins(1);
/// A store that takes nothing for so long pages.
const STORE_PAGE_AFTER: Duration = Duration::from_mins(5);

/// What somebody asks for, and where the answer goes.
#[derive(Debug)]
pub struct Order {
    pub what: Wanted,
    pub answers: SyncSender<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum Wanted {
    Backup,
    Verify {
        snapshot: Option<String>,
    },
    Prune {
        act: bool,
    },
    /// Something will change: a deploy, or a restore.
    Announce,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Progress { phase: String, is_bytes: bool, done: u64, total: u64 },
    Done(serde_json::Value),
    Failed { message: String, is_refusal: bool },
}

/// Sends progress to whoever asked; what does not fit is left out.
#[derive(Debug)]
struct Telling<'a>(&'a SyncSender<Answer>);

impl Progress for Telling<'_> {
    fn at(&self, phase: crate::progress::Phase, done: u64, total: u64) {
        let phase_name = phase.name().to_owned();
        let _ =
            self.0.try_send(Answer::Progress { phase: phase_name, is_bytes: phase.is_bytes(), done, total });
    }
}

#[derive(Debug)]
pub struct Keeper {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    copier: SyncSender<Ask>,
    due: Due,
    /// When a snapshot was taken because another was spoiled.
    healed: Option<Instant>,
    /// After the next failure of each.
    retries: BTreeMap<&'static str, Duration>,
}

/// When each is due again.
#[derive(Debug)]
struct Due {
    snapshot: Option<Instant>,
    verify: Instant,
    merge: Instant,
    prune: Instant,
}

impl Keeper {
    pub fn new(engine: Arc<Engine>, shared: Arc<Shared>, copier: SyncSender<Ask>) -> Self {
        let now = Instant::now();
        let due = Due { snapshot: None, verify: now, merge: now + MERGE_EVERY, prune: now + MERGE_EVERY };
        Self { engine, shared, copier, due, healed: None, retries: BTreeMap::new() }
    }

    /// Until the vault ends.
    pub fn run(mut self, orders: &Receiver<Order>) {
        while !self.shared.is_ended() {
            match orders.recv_timeout(LOOK_EVERY) {
                Ok(order) => self.carry_out(&order),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }

    fn look(&mut self) {
        self.look_at_store();
        let now = Instant::now();
        if self.is_snapshot_due() {
            let taken = self.snapshot(&Silent).map(drop);
            let every = self.engine.config.every;
            self.due.snapshot = Some(now + self.settled("vault_snapshot", taken, every));
            self.due.verify = now;
        }
        // One that is on its way to the store is verified once it is there.
        if now >= self.due.verify && !self.engine.outbox().is_snapshot_waiting() {
            let verified = self.verify_due();
            let is_bad = verified.as_ref().is_err_and(Error::is_refusal);
            let every = self.engine.config.verify;
            let wait = self.settled("vault_verify", verified, every);
            // What is spoiled stays so.
            self.due.verify = now + if is_bad { every } else { wait };
        }
        if now >= self.due.merge {
            let merged = merge::run(&self.engine, Millis::now()).map(drop);
            self.due.merge = now + self.settled("vault_merge", merged, MERGE_EVERY);
        }
        if now >= self.due.prune {
            let pruned = prune::run(&self.engine, Millis::now(), true).map(drop);
            // Somebody who has the key may have verified meanwhile.
            if let Ok(catalogue) = Catalogue::read(self.engine.store()) {
                self.count(&catalogue);
            }
            self.due.prune = now + self.settled("vault_prune", pruned, PRUNE_EVERY);
        }
    }

    /// What is in the store is spoiled: another snapshot is taken at once, of which all is stored anew. Where that one is
    /// spoiled too, the next waits for its time.
    fn heal(&mut self) {
        let now = Instant::now();
        let is_new = self.healed.is_none_or(|it| now.duration_since(it) >= self.engine.config.verify);
        if is_new && self.engine.forget_last().is_ok() {
            self.healed = Some(now);
            self.due.snapshot = Some(now);
        }
    }

    /// How long until the next time.
    fn settled(&mut self, about: &'static str, outcome: Result<()>, every: Duration) -> Duration {
        match outcome {
            Ok(()) => {
                self.shared.solved(about);
                self.retries.remove(about);
                every
            }
            Err(Error::Ended(_)) => RETRY.min(every),
            Err(error) => {
                // The second: there is no vault in the store any more.
                let is_lost = error.is_refusal() || matches!(error, Error::Address { .. });
                let severity = if is_lost { "page" } else { "warning" };
                self.shared.problem(about, severity, error.to_string());
                let next = self.retries.entry(about).or_insert(RETRY);
                let wait = *next;
                *next = (wait * 2).min(RETRY_MAX);
                wait.min(every)
            }
        }
    }

    fn look_at_store(&self) {
        let Some((why, since)) = self.engine.outbox().backlog().problem else {
            self.shared.solved("vault_store");
            self.shared.solved("vault_store_down");
            return;
        };
        let is_long = Millis::now().since(since) > STORE_PAGE_AFTER;
        let (about, severity) =
            if is_long { ("vault_store_down", "page") } else { ("vault_store", "warning") };
        self.shared.problem(about, severity, format!("{why}; what was copied waits on this disk"));
    }

    /// It is time, or nothing in the store leads to where we are.
    fn is_snapshot_due(&mut self) -> bool {
        if !self.engine.config.database.exists() {
            return false;
        }
        if self.shared.take_want() {
            return true;
        }
        if let Some(due) = self.due.snapshot {
            return Instant::now() >= due;
        }
        // Whether anything leads there is known once it is known where we are.
        let status = self.shared.status();
        if status.mode == Mode::Stopped {
            return false;
        }
        let Ok(snapshots) = self.engine.outbox().snapshots() else { return false };
        let Some(newest) = snapshots.iter().max() else { return true };
        let segments = self.engine.outbox().segments().unwrap_or_default();
        let end = plan::end(&snapshots, &segments);
        let leads_to = |(epoch, tx): (Epoch, Tx)| {
            Some(epoch.to_string()) == status.epoch && status.tx.is_some_and(|it| tx.0 >= it)
        };
        let leads = status.epoch.is_none() || end.is_some_and(leads_to);
        if leads {
            let age = Millis::now().since(newest.time);
            self.due.snapshot = Some(Instant::now() + self.engine.config.every.saturating_sub(age));
            self.shared.update(|status| status.last_snapshot = Some(newest.time));
        }
        !leads
    }

    fn snapshot(&self, progress: &dyn Progress) -> Result<serde_json::Value> {
        let (reply, pinned) = sync_channel(1);
        let ended = || Error::Ended("the vault ended");
        self.copier.send(Ask::Pin(reply)).map_err(|_| ended())?;
        let pinned = pinned.recv_timeout(PIN_WITHIN).map_err(|_| ended())??;
        let before = self.engine.last();
        let taken = self.engine.snapshot(pinned, progress, self.shared.ended())?;
        let foreign_pages = taken.foreign_pages;
        let taken_json = taken.json();
        let _ = self.copier.send(Ask::Scanned { table: taken.table, foreign_pages });
        self.shared.update(|status| status.last_snapshot = Some(taken.name.time));
        let contents = &taken.remembered.facts.contents;
        if let Some(before) = before {
            self.compare(&before.facts.contents, contents);
        }
        let message = format!("snapshot {} taken at transaction {}", taken.name.short(), taken.name.tx);
        self.shared.say("vault_snapshot_taken", "info", message);
        Ok(taken_json)
    }

    fn compare(&self, before: &Contents, now: &Contents) {
        let counted: Vec<(String, u64)> = now.tables.iter().map(|it| (it.name.clone(), it.rows)).collect();
        for alarm in tripwire::lost(before, &counted) {
            let message = format!("{}, since the snapshot before", alarm.in_words());
            self.shared.say(alarm.kind(), "page", message);
        }
        self.warn_of_version();
    }

    fn warn_of_version(&self) {
        let status = self.shared.status();
        let number = status.sqlite_version.as_deref().and_then(SqliteVersion::parse);
        if let Some(version) = number.filter(|it| it.has_reset_bug()) {
            let message = format!(
                "SQLite {version} wrote the database; before 3.51.3 a checkpoint at the wrong moment can corrupt it (sqlite.org/wal.html#walresetbug)"
            );
            self.shared.problem("vault_sqlite", "warning", message);
        } else {
            self.shared.solved("vault_sqlite");
        }
    }

    fn verify_due(&mut self) -> Result<()> {
        let catalogue = Catalogue::read(self.engine.store())?;
        self.count(&catalogue);
        self.warn_of_version();
        if !self.engine.common.seal.can_open() {
            let message = "snapshots cannot be verified here, since no identity is configured: none counts as a backup until somebody who has the key runs `plimsoll vault verify --identity FILE`";
            self.shared.problem("vault_no_identity", "warning", message.to_owned());
            return Ok(());
        }
        let turn = Millis::now().0 / 86_400_000;
        let drawn = u64::from(crate::shipper::next_epoch(None).nonce);
        let Some(snapshot) = verify::due(&catalogue, turn, drawn) else { return Ok(()) };
        self.verify(&snapshot, &Silent).map(drop)
    }

    fn verify(
        &mut self,
        snapshot: &crate::names::SnapshotName,
        progress: &dyn Progress,
    ) -> Result<serde_json::Value> {
        let engine = Arc::clone(&self.engine);
        let restorer = Restorer { store: engine.store(), seal: &engine.common.seal };
        let verified = verify::run(&restorer, snapshot, &engine.state.scratch(), progress);
        if let Err(error) = &verified
            && error.is_refusal()
            && !matches!(error, Error::Key { .. })
        {
            // Also where somebody asked, and reads it anyhow.
            self.shared.problem("vault_verify", "page", error.to_string());
            self.heal();
        }
        if let Ok(catalogue) = Catalogue::read(self.engine.store()) {
            self.count(&catalogue);
        }
        let verified = verified?;
        let took = verified.restored.took.as_secs_f64();
        let message = format!("snapshot {} was restored and compared in {took:.1} s", snapshot.short());
        self.shared.say("vault_verified", "info", message);
        if let Some(broken) = &verified.broken {
            let message = format!(
                "the transactions that lead to snapshot {} are spoiled, so that moments before it cannot be restored to, {broken}",
                snapshot.short()
            );
            self.shared.say("vault_history", "page", message);
        }
        Ok(verified.json())
    }

    fn count(&self, catalogue: &Catalogue) {
        let backups = catalogue.snapshots.iter().filter(|it| catalogue.is_backup(it)).count() as u64;
        let newest = catalogue.newest_backup();
        self.shared.update(|status| {
            status.snapshots = catalogue.snapshots.len() as u64;
            status.backups = backups;
            status.last_backup = newest.map(|it| it.time);
            status.verified = newest.and_then(|it| catalogue.outcome(&it)).map(|it| it.time);
        });
    }

    fn carry_out(&mut self, order: &Order) {
        let done = match &order.what {
            Wanted::Backup => {
                let _ = self.copier.send(Ask::Announce);
                self.snapshot(&Telling(&order.answers))
            }
            Wanted::Verify { snapshot } => self.verify_named(snapshot.as_deref(), &Telling(&order.answers)),
            Wanted::Prune { act } => prune::run(&self.engine, Millis::now(), *act).map(|it| pruned_json(&it)),
            Wanted::Announce => {
                let _ = self.copier.send(Ask::Announce);
                Ok(serde_json::Value::Null)
            }
        };
        if matches!(order.what, Wanted::Backup) && done.is_ok() {
            self.due.snapshot = Some(Instant::now() + self.engine.config.every);
            self.due.verify = Instant::now();
        }
        let answer = done.map_or_else(
            |error| Answer::Failed { message: error.to_string(), is_refusal: error.is_refusal() },
            Answer::Done,
        );
        // Whoever asked may be gone.
        let _ = order.answers.send(answer);
    }

    fn verify_named(&mut self, short: Option<&str>, progress: &dyn Progress) -> Result<serde_json::Value> {
        let catalogue = Catalogue::read(self.engine.store())?;
        self.verify(&catalogue.chosen(short)?, progress)
    }
}

pub fn pruned_json(pruned: &prune::Pruned) -> serde_json::Value {
    serde_json::json!({
        "snapshots": pruned.snapshots.iter().map(crate::names::SnapshotName::short).collect::<Vec<_>>(),
        "segments": pruned.segments,
        "chunks": pruned.chunks,
        "chunk_bytes": pruned.bytes,
        "kept": pruned.kept,
    })
}
