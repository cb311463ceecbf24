//! A store that is full, that may not be written to any more, that is slow, falters and cuts connections: all of it costs
//! freshness, is told, and is over by itself.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::memory_disk::MemoryDisk;
use common::proxy::{Fate, Proxy};
use common::s3::{S3, asked, free_port, make_bucket, ports, with_s3};
use common::watch::{start, until, until_told};
use common::{Ground, contents_of, write};
use plimsoll_vault::VaultConfig;
use plimsoll_vault::manifest::Contents;
use plimsoll_vault::plan::Target;
use plimsoll_vault::position::Tx;
use plimsoll_vault::progress::Silent;
use plimsoll_vault::restore::Restorer;
use plimsoll_vault::status::Mode;
use plimsoll_vault::store::{Store, StoreConfig};
use rusqlite::Connection;

const WITHIN: Duration = Duration::from_mins(1);
const SPOOL: u64 = 1 << 20;

/// Rows that no compression makes small, a transaction each.
fn write_large(app: &Connection, rows: u64) {
    for _ in 0..rows {
        app.execute("INSERT INTO t(body) VALUES (randomblob(20000))", []).unwrap();
    }
}

/// What the store of `config` gives back.
fn restored(ground: &Ground, config: &VaultConfig, target: Target) -> Contents {
    let (store, seal) = (Store::open(&config.store).unwrap(), config.seal().unwrap());
    let into = ground.path(&format!("{target:?}.db"));
    Restorer { store: &store, seal: &seal }.restore(target, &into, &Silent).unwrap().contents
}

/// From before to after: `begin` takes the store away, which is told with `why`; `end` gives it back.
fn costs_freshness_alone(
    ground: &Ground,
    config: &VaultConfig,
    why: &str,
    begin: impl FnOnce(),
    end: impl FnOnce(),
) {
    let app = ground.app();
    write(&app, 0..50);
    let (agent, news) = start(config.clone());
    until(WITHIN, &agent, "verified", |it| it.verified.is_some());
    begin();
    write_large(&app, 120);
    let told = until_told(WITHIN, &news, "vault_store");
    assert!(told.severity == "warning" && told.message.contains(why), "{told:?}");
    let middle = contents_of(&ground.database());
    let copied = until(WITHIN, &agent, "waiting here", |it| it.waiting_bytes > 0 && it.tx >= Some(120));
    app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    write_large(&app, 20);
    end();
    until(WITHIN, &agent, "well again", |it| {
        it.problems.is_empty() && it.waiting_bytes == 0 && it.tx >= Some(140)
    });
    drop(agent);
    assert!(news.try_iter().all(|it| it.kind != "vault_gap"), "something was missed");
    assert_eq!(copied.mode, Mode::Continuous);
    assert_eq!(restored(ground, config, Target::Latest), contents_of(&ground.database()));
    assert_eq!(restored(ground, config, Target::Tx(Tx(120))), middle);
}

#[test]
fn a_store_without_room_costs_freshness_until_there_is_room_again() {
    let ground = Ground::new();
    let Some(disk) = MemoryDisk::mount(&ground.path("store"), "1m") else { return };
    let grow = || disk.remount("size=64m");
    costs_freshness_alone(&ground, &ground.config(), "No space left on device", || {}, grow);
}

#[test]
fn a_disk_without_room_for_a_copy_is_left_alone_and_it_is_told_until_there_is_room() {
    let ground = Ground::new();
    let Some(disk) = MemoryDisk::mount(&ground.path("state"), "8m") else { return };
    let app = ground.app();
    write_large(&app, 500);
    let (agent, _told) = start(ground.config());
    let told = until(WITHIN, &agent, "told", |it| it.problems.iter().any(|it| it.contains("MiB are free")));
    assert_eq!((told.mode, told.snapshots, told.backups), (Mode::Continuous, 1, 0), "{told:?}");
    let copies = std::fs::read_dir(ground.path("state/scratch")).unwrap().count();
    assert_eq!(copies, 0, "something was written after all");
    disk.remount("size=64m");
    until(WITHIN, &agent, "a backup", |it| it.backups == 1 && it.problems.is_empty());
}

#[test]
fn a_folder_whose_disk_is_not_mounted_is_neither_filled_nor_begun_anew() {
    let ground = Ground::new();
    let (store, aside) = (ground.path("store"), ground.path("aside"));
    let unmount = || {
        std::fs::rename(&store, &aside).unwrap();
        std::fs::create_dir(&store).unwrap();
    };
    let mount = || {
        assert_eq!(
            std::fs::read_dir(&store).unwrap().count(),
            0,
            "something was stored where the disk is not"
        );
        std::fs::remove_dir(&store).unwrap();
        std::fs::rename(&aside, &store).unwrap();
    };
    costs_freshness_alone(&ground, &ground.config(), "is its disk mounted?", unmount, mount);
    // Nor by a vault that starts meanwhile.
    unmount();
    let (agent, told) = start(ground.config());
    let opening = until_told(WITHIN, &told, "vault_opening");
    assert!(opening.severity == "page" && opening.message.contains("To begin anew, remove"), "{opening:?}");
    mount();
    until(WITHIN, &agent, "well again", |it| it.problems.is_empty() && it.mode == Mode::Continuous);
}

#[test]
fn a_folder_that_may_not_be_written_to_costs_freshness_until_it_may() {
    let ground = Ground::new();
    let Some(disk) = MemoryDisk::mount(&ground.path("store"), "64m") else { return };
    let (take, give) = (|| disk.remount("ro"), || disk.remount("rw"));
    costs_freshness_alone(&ground, &ground.config(), "Read-only file system", take, give);
}

#[test]
fn a_bucket_that_refuses_slows_and_cuts_is_filled_all_the_same() {
    let Some(s3) = S3::start(None) else { return };
    make_bucket(s3.port);
    with_s3("refuses", free_port(), s3.port);
    with_s3("falters", free_port(), s3.port);
}

/// Runs the other test's second halves, and by itself sees that there is none to run.
#[test]
fn in_the_environment_of_a_bucket() {
    match asked().as_deref() {
        Some("refuses") => refuses(),
        Some("falters") => falters(),
        Some(other) => panic!("there is no {other}"),
        None => {}
    }
}

fn bucket(ground: &Ground, to: &str) -> VaultConfig {
    VaultConfig { store: StoreConfig { to: to.to_owned(), bandwidth: None }, ..ground.config() }
}

/// Its permission is taken away, and given back.
fn refuses() {
    let ground = Ground::new();
    let (port, moto) = ports();
    let proxy = Proxy::start(port, moto);
    let take = || proxy.now(|_| Fate::Refused(403));
    let give = || proxy.now(|_| Fate::Passes);
    costs_freshness_alone(&ground, &bucket(&ground, "s3://backups/refuses"), "403", take, give);
}

/// Of ten requests four come to nothing, and one takes its time. The snapshot is several times as large as the spool.
fn falters() {
    let ground = Ground::new();
    let (port, moto) = ports();
    let proxy = Proxy::start(port, moto);
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let its = Arc::clone(&seen);
    proxy.now(move |count| {
        let fate = match count % 10 {
            1 => Fate::Refused(503),
            3 => Fate::CutBefore,
            4 => Fate::Refused(500),
            6 => Fate::CutAfter,
            8 => Fate::Waits(Duration::from_millis(100)),
            _ => Fate::Passes,
        };
        *its.lock().unwrap().entry(fate).or_insert(0_u32) += 1;
        fate
    });
    let app = ground.app();
    write_large(&app, 150);
    let mut config = bucket(&ground, "s3://backups/falters");
    config.spool = SPOOL;
    let (agent, news) = start(config.clone());
    let bounded = |it: &plimsoll_vault::status::Status| assert!(it.waiting_bytes <= SPOOL, "{it:#?}");
    until(WITHIN, &agent, "has a snapshot", |it| {
        bounded(it);
        it.last_snapshot.is_some()
    });
    for row in 0..40 {
        write(&app, row..row + 1);
        until(WITHIN, &agent, "copied", |it| {
            bounded(it);
            it.tx > Some(u64::try_from(row).unwrap())
        });
    }
    until(WITHIN, &agent, "carried", |it| it.waiting_bytes == 0);
    let seen = seen.lock().unwrap().clone();
    assert!(seen.len() == 6 && seen.values().all(|count| *count > 3), "{seen:?}");
    proxy.now(|_| Fate::Passes);
    // A request that was cut off in the middle may have been waited for, a minute, before.
    until(WITHIN + Duration::from_secs(20), &agent, "verified", |it| it.verified.is_some());
    drop(agent);
    assert!(news.try_iter().all(|it| it.kind != "vault_gap"), "something was missed");
    assert_eq!(restored(&ground, &config, Target::Latest), contents_of(&ground.database()));
}
