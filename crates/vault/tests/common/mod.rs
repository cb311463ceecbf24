//! A database with an application that writes to it, and a vault beside.
#![allow(dead_code, unreachable_pub, reason = "each test file uses what it needs of it")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "these are tests, also outside of #[test]")]
#![allow(missing_debug_implementations, reason = "nobody prints it")]

pub mod memory_disk;
pub mod proxy;
pub mod s3;
pub mod watch;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use plimsoll_vault::config::{
    BEAT_DEFAULT, HISTORY_DEFAULT, PRESSURE_DEFAULT, SPOOL_DEFAULT, TICK_LOCAL, VERIFY_DEFAULT,
};
use plimsoll_vault::engine::{Engine, pin_log};
use plimsoll_vault::plan::Target;
use plimsoll_vault::progress::Silent;
use plimsoll_vault::restore::{Restored, Restorer};
use plimsoll_vault::retention::Keep;
use plimsoll_vault::shipper::Shipper;
use plimsoll_vault::snapshot::Taken;
use plimsoll_vault::store::{Store, StoreConfig};
use plimsoll_vault::{Result, VaultConfig, contents};
use rusqlite::Connection;

pub const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body BLOB, at INTEGER);
    CREATE INDEX IF NOT EXISTS t_at ON t(at);";

pub struct Ground {
    pub folder: tempfile::TempDir,
}

impl Ground {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// In memory, where there is such a place: nothing waits for a disk.
    pub fn in_memory() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self { folder: folder.unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("app.db")
    }

    /// The application's own connection, with one table.
    pub fn app(&self) -> Connection {
        let app = Connection::open(self.database()).unwrap();
        app.execute_batch("PRAGMA journal_mode=wal; PRAGMA synchronous=normal; PRAGMA busy_timeout=30000;")
            .unwrap();
        app.execute_batch(SCHEMA).unwrap();
        app
    }

    pub fn store_config(&self) -> StoreConfig {
        StoreConfig { to: format!("file://{}", self.path("store").display()), bandwidth: None }
    }

    pub fn config(&self) -> VaultConfig {
        VaultConfig {
            name: "app".to_owned(),
            database: self.database(),
            store: self.store_config(),
            state: self.path("state"),
            every: Duration::from_hours(24),
            is_continuous: true,
            keep: Keep { daily: 7, weekly: 4, monthly: 12 },
            history: HISTORY_DEFAULT,
            verify: VERIFY_DEFAULT,
            tick: TICK_LOCAL,
            pressure: PRESSURE_DEFAULT,
            spool: SPOOL_DEFAULT,
            beat: BEAT_DEFAULT,
            recipients: Vec::new(),
            identity: None,
        }
    }

    pub fn engine(&self) -> Engine {
        Engine::open(self.config()).unwrap().expect("nobody else has it")
    }

    pub fn restore(&self, target: Target, name: &str) -> Result<Restored> {
        let store = Store::open(&self.store_config())?;
        let seal = self.config().seal()?;
        Restorer { store: &store, seal: &seal }.restore(target, &self.path(name), &Silent)
    }
}

/// Says what a test lacks; in CI that is a failure.
pub fn not_run(lacks: &str) {
    assert!(std::env::var_os("CI").is_none(), "not run, and CI runs everything: {lacks}");
    println!("not run: {lacks}");
}

/// The most that was ever resident of this process.
pub fn most_resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let most = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).unwrap();
    most.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
}

pub fn write(app: &Connection, rows: std::ops::Range<i64>) {
    for row in rows {
        app.execute("INSERT INTO t(body, at) VALUES (randomblob(300), ?1)", [row]).unwrap();
    }
}

pub fn contents_of(path: &Path) -> plimsoll_vault::manifest::Contents {
    let connection = Connection::open(path).unwrap();
    contents::read(&connection, &mut |_| true).unwrap()
}

pub fn snapshot(engine: &Engine, shipper: &mut Shipper) -> Taken {
    let pinned = pin_log(engine, shipper).unwrap();
    let taken = engine.snapshot(pinned, &Silent, &AtomicBool::new(false)).unwrap();
    if let Some(table) = taken.table.clone() {
        shipper.adopt(table);
    }
    taken
}
