//! Restores while somebody writes, again and again, and every fourth after something bad: each is what the database was
//! after one of its transactions, to the last row. `PLIMSOLL_RESTORES=200` does two hundred.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Ground, SCHEMA, contents_of};
use plimsoll_vault::contents;
use plimsoll_vault::engine::{Engine, pin_log};
use plimsoll_vault::fault::{Fault, arm, disarm, has_failed};
use plimsoll_vault::plan::Target;
use plimsoll_vault::progress::Silent;
use plimsoll_vault::shipper::{Began, Shipper};
use rusqlite::Connection;

const RESTORES: u64 = 40;
const INCIDENT_EVERY: u64 = 4;
const SNAPSHOT_EVERY: u64 = 7;
const STEPS_MAX: u64 = 60;
/// About 300 transactions a second.
const PAUSE: Duration = Duration::from_millis(3);
const WITHIN: Duration = Duration::from_mins(1);

/// What goes wrong between two restores.
#[derive(Clone, Copy, Debug)]
enum Incident {
    /// The vault is killed at a step of its writing, and begins again.
    Killed,
    /// The disk is full for a while, and the vault lives on.
    DiskFull,
    /// A segment is torn: refused by its name, until it is what it was.
    Torn,
    /// The vault is away while the log is begun again and again.
    Gap,
}

const INCIDENTS: [Incident; 4] = [Incident::Killed, Incident::DiskFull, Incident::Torn, Incident::Gap];

/// Transaction `number`: the same rows wherever it is carried out.
fn transaction(number: i64) -> String {
    let (old, gone) = (number * 7919 % (number + 1), number - 40);
    format!(
        "INSERT INTO t(id, body, at) VALUES ({number}, zeroblob(300 + {number} % 700), {number});
         UPDATE t SET body = CAST('changed by {number}' AS BLOB), at = at + 1 WHERE id = {old};
         DELETE FROM t WHERE id = {gone} AND id % 3 = 0;
         UPDATE last SET number = {number};"
    )
}

/// The same transactions once more, to compare with.
struct Reference {
    database: Connection,
    number: i64,
}

impl Reference {
    fn new() -> Self {
        let database = Connection::open_in_memory().unwrap();
        database.execute_batch(SCHEMA).unwrap();
        begin(&database);
        Self { database, number: 0 }
    }

    /// At which transaction the restored one is, if it is what the database was there.
    fn compare(&mut self, restored: &Path) -> Result<i64, String> {
        let number = number(&Connection::open(restored).unwrap());
        if number < self.number {
            return Err(format!("transaction {number} after {}", self.number));
        }
        self.database.execute_batch("BEGIN").unwrap();
        for next in self.number + 1..=number {
            self.database.execute_batch(&transaction(next)).unwrap();
        }
        self.database.execute_batch("COMMIT").unwrap();
        self.number = number;
        let expected = contents::read(&self.database, &mut |_| true).unwrap();
        let differences = contents_of(restored).differences(&expected);
        if differences.is_empty() { Ok(number) } else { Err(differences.join("; ")) }
    }
}

fn begin(app: &Connection) {
    app.execute_batch("CREATE TABLE last(number INTEGER); INSERT INTO last VALUES (0);").unwrap();
}

fn number(app: &Connection) -> i64 {
    app.query_row("SELECT number FROM last", [], |row| row.get(0)).unwrap()
}

/// The vault, as its agent drives it: begun again where something failed.
struct Vault<'a> {
    ground: &'a Ground,
    running: Option<(Engine, Shipper)>,
}

impl Vault<'_> {
    fn tick(&mut self) -> bool {
        let Some((engine, mut shipper)) = self.opened() else { return false };
        if shipper.tick(&engine.state).is_err() {
            return false;
        }
        self.running = Some((engine, shipper));
        true
    }

    fn opened(&mut self) -> Option<(Engine, Shipper)> {
        if self.running.is_some() {
            return self.running.take();
        }
        let engine = Engine::open(self.ground.config()).ok()??;
        let (mut shipper, began) = engine.attach().ok()?;
        let leads = engine.outbox().snapshots().is_ok_and(|it| !it.is_empty());
        if began == Began::Fresh || !leads {
            take(&engine, &mut shipper)?;
        }
        Some((engine, shipper))
    }

    /// As the keeper does it daily: a restore begins at the last one.
    fn snapshot(&mut self) {
        self.running = self.opened().and_then(|(engine, mut shipper)| {
            take(&engine, &mut shipper)?;
            Some((engine, shipper))
        });
    }

    /// Ticks until all that was committed by now is in the store.
    fn catch_up(&mut self) {
        let until = Instant::now() + WITHIN;
        loop {
            let is_done = self.tick() && self.send();
            if is_done {
                return;
            }
            assert!(Instant::now() < until, "it does not catch up");
        }
    }

    /// What waited in the spool is in the store.
    fn send(&mut self) -> bool {
        let Some((engine, _)) = &self.running else { return false };
        if engine.outbox().waiting().is_empty() {
            return true;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| engine.outbox().carry());
            engine.outbox().drain(WITHIN);
            engine.outbox().end();
        });
        self.running = None;
        false
    }

    fn befall(&mut self, incident: Incident, drawn: u64, app: &Connection) {
        match incident {
            Incident::Killed => {
                arm(Fault::From(drawn % STEPS_MAX));
                while self.tick() && !has_failed() {}
                self.running = None;
                disarm();
            }
            Incident::DiskFull => {
                arm(Fault::From(drawn % STEPS_MAX));
                for _ in 0..5 {
                    self.tick();
                }
                disarm();
            }
            Incident::Torn => {
                // One that the newest snapshot does not have.
                until_written(app);
                self.catch_up();
                let Some((path, name)) = newest_segment(self.ground) else { return };
                let whole = fs::read(&path).unwrap();
                let length = usize::try_from(drawn).unwrap() % whole.len();
                fs::write(&path, &whole[..length]).unwrap();
                let error = self.ground.restore(Target::Latest, "torn.db").unwrap_err();
                assert!(error.is_refusal() && error.to_string().contains(&name), "{error}");
                fs::write(&path, whole).unwrap();
            }
            Incident::Gap => {
                self.running = None;
                for _ in 0..3 {
                    let _ = app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
                    until_written(app);
                }
            }
        }
    }
}

/// Until somebody has written once more.
fn until_written(app: &Connection) {
    let (before, until) = (number(app), Instant::now() + WITHIN);
    while number(app) <= before {
        assert!(Instant::now() < until, "nobody writes");
        std::thread::yield_now();
    }
}

fn take(engine: &Engine, shipper: &mut Shipper) -> Option<()> {
    let pinned = pin_log(engine, shipper).ok()?;
    let taken = engine.snapshot(pinned, &Silent, &false.into()).ok()?;
    if let Some(table) = taken.table {
        shipper.adopt(table);
    }
    shipper.save_table(&engine.state).ok()
}

fn newest_segment(ground: &Ground) -> Option<(PathBuf, String)> {
    let epochs = fs::read_dir(ground.path("store/log")).ok()?.flatten();
    let segments = epochs.flat_map(|epoch| fs::read_dir(epoch.path()).unwrap().flatten());
    let newest = segments.max_by_key(|it| (it.path().parent().map(PathBuf::from), it.file_name()))?;
    let name = newest.file_name().to_str()?.to_owned();
    Some((newest.path(), name))
}

#[test]
fn every_restore_is_what_the_database_was_whatever_happened_before() {
    let count = std::env::var("PLIMSOLL_RESTORES").ok().and_then(|it| it.parse().ok()).unwrap_or(RESTORES);
    let ground = Ground::in_memory();
    let app = ground.app();
    begin(&app);
    let mut reference = Reference::new();
    let is_over = AtomicBool::new(false);
    let mut incidents = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let app = ground.app();
            for number in 1.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                app.execute_batch(&format!("BEGIN IMMEDIATE; {} COMMIT;", transaction(number))).unwrap();
                std::thread::park_timeout(PAUSE);
            }
        });
        let over = Over(&is_over);
        let mut vault = Vault { ground: &ground, running: None };
        vault.catch_up();
        for round in 0..count {
            // Any number that is another each time.
            let drawn = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let at_least = number(&app);
            if round % INCIDENT_EVERY == 0 {
                incidents += 1;
                let incident = INCIDENTS[usize::try_from(round / INCIDENT_EVERY).unwrap() % INCIDENTS.len()];
                vault.befall(incident, drawn, &app);
            }
            if round % SNAPSHOT_EVERY == 0 {
                vault.snapshot();
            }
            vault.catch_up();
            let into = ground.path("restored.db");
            let restored = ground
                .restore(Target::Latest, "restored.db")
                .unwrap_or_else(|error| panic!("{round}: {error}"));
            assert_eq!(restored.contents, contents_of(&into));
            match reference.compare(&into) {
                // No gap: what was committed before the last tick is there.
                Ok(number) => assert!(number >= at_least, "{round}: {number} of {at_least}"),
                Err(why) => panic!("restore {round}: {why}"),
            }
            fs::remove_file(into).unwrap();
        }
        drop(over);
    });
    println!("restores: {count} of {count} intact and equal, {incidents} of them after an incident");
}

/// The writer ends, also where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
