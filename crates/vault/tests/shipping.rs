//! Transactions are copied as they happen, whatever the application does to its log, and restored to each of them.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Ground, contents_of, snapshot, write};
use plimsoll_vault::engine::Engine;
use plimsoll_vault::plan::Target;
use plimsoll_vault::position::Tx;
use plimsoll_vault::shipper::Began;

#[test]
fn each_transaction_can_be_restored_to() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..10);
    let engine = ground.engine();
    let (mut shipper, began) = engine.attach().unwrap();
    assert_eq!(began, Began::Fresh);
    let base = snapshot(&engine, &mut shipper);
    for row in 10..20 {
        write(&app, row..row + 1);
        shipper.tick(&engine.state).unwrap();
    }
    for more in 0..=10 {
        let tx = Tx(base.name.tx.0 + more);
        let restored = ground.restore(Target::Tx(tx), &format!("to-{more}.db")).unwrap();
        assert_eq!(restored.position.tx, tx);
        assert_eq!(restored.contents.rows(), 10 + more);
    }
    let latest = ground.restore(Target::Latest, "latest.db").unwrap();
    assert_eq!(latest.contents, contents_of(&ground.database()));
    assert_eq!(contents_of(&ground.path("latest.db")), latest.contents);
}

#[test]
fn the_application_begins_its_log_again_and_again_under_load_and_nothing_is_missed() {
    let ground = Ground::new();
    let app = ground.app();
    let engine = ground.engine();
    let (mut shipper, _) = engine.attach().unwrap();
    snapshot(&engine, &mut shipper);
    let (done, mut held) = (AtomicBool::new(false), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let app = ground.app();
            let until = Instant::now() + Duration::from_secs(4);
            let mut row = 0;
            while Instant::now() < until {
                app.execute_batch(
                    "BEGIN; INSERT INTO t(body, at) VALUES (randomblob(3000), 1); DELETE FROM t WHERE id % 97 = 3; COMMIT;",
                )
                .unwrap();
                row += 1;
                if row % 500 == 0 {
                    app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut count = 0;
        while !done.load(Ordering::Relaxed) {
            held.extend(shipper.tick(&engine.state).unwrap().pressed);
            count += 1;
            if count % 20 == 0 {
                snapshot(&engine, &mut shipper);
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    });
    shipper.tick(&engine.state).unwrap();
    let last = snapshot(&engine, &mut shipper);
    assert_eq!(last.foreign_pages, 0);
    let restored = ground.restore(Target::Latest, "latest.db").unwrap();
    assert!(restored.is_compared);
    assert_eq!(restored.contents, contents_of(&ground.database()));
    drop(app);
}

#[test]
fn a_log_that_was_begun_again_is_copied_once_though_a_checkpoint_of_the_application_is_in_the_way() {
    static GATE: Barrier = Barrier::new(2);
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..10);
    let mut config = ground.config();
    config.pressure = 64 * 1024;
    let engine = Engine::open(config).unwrap().expect("nobody else has it");
    let (mut shipper, _) = engine.attach().unwrap();
    let base = snapshot(&engine, &mut shipper);
    // All of it is in the file, and the mark says so: the next transaction begins the log again.
    app.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    for _ in 0..2 {
        shipper.tick(&engine.state).unwrap();
        std::thread::park_timeout(Duration::from_millis(260));
    }
    // More than is copied without the lock, and less than is one large transaction.
    write(&app, 0..40);
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut theirs = ground.app();
            // Called once it has the lock for checkpoints, and waits for the one for writing.
            theirs
                .busy_handler(Some(|_| {
                    GATE.wait();
                    GATE.wait();
                    false
                }))
                .unwrap();
            theirs.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(())).unwrap();
        });
        GATE.wait();
        app.execute_batch("ROLLBACK").unwrap();
        let ticked = shipper.tick(&engine.state);
        GATE.wait();
        assert_eq!(ticked.unwrap().pressed, None, "it was in the way");
    });
    assert_eq!(shipper.position().tx.0, base.name.tx.0 + 40);
    let restored = ground.restore(Target::Latest, "latest.db").unwrap();
    assert_eq!(restored.contents, contents_of(&ground.database()));
}

#[test]
fn large_transactions_vacuum_long_readers_and_all_sizes_of_pages_are_copied() {
    for page_bytes in [512, 4096, 65_536] {
        let ground = Ground::new();
        let first = rusqlite::Connection::open(ground.database()).unwrap();
        first.pragma_update(None, "page_size", page_bytes).unwrap();
        drop(first);
        let app = ground.app();
        write(&app, 0..50);
        let engine = ground.engine();
        let (mut shipper, _) = engine.attach().unwrap();
        snapshot(&engine, &mut shipper);
        let reader = ground.app();
        reader.execute_batch("BEGIN; SELECT count(*) FROM t;").unwrap();
        // Larger than a segment: it is copied in parts.
        app.execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO t(body, at) SELECT randomblob(3000), i FROM n",
        )
        .unwrap();
        shipper.tick(&engine.state).unwrap();
        app.execute_batch("DELETE FROM t WHERE id % 3 > 0; VACUUM;").unwrap();
        shipper.tick(&engine.state).unwrap();
        reader.execute_batch("COMMIT").unwrap();
        write(&app, 0..10);
        shipper.tick(&engine.state).unwrap();
        let last = snapshot(&engine, &mut shipper);
        assert_eq!(last.foreign_pages, 0, "{page_bytes}");
        let restored = ground.restore(Target::Tx(last.name.tx), "restored.db").unwrap();
        assert_eq!(restored.contents, contents_of(&ground.database()), "{page_bytes}");
        // From the first snapshot, through all of it.
        let catalogue = plimsoll_vault::catalogue::Catalogue::read(engine.store()).unwrap();
        for newer in &catalogue.snapshots[1..] {
            std::fs::remove_file(ground.path("store").join(newer.to_string())).unwrap();
        }
        let through = ground.restore(Target::Latest, "through.db").unwrap();
        assert_eq!(
            (through.position.tx, through.contents),
            (last.name.tx, restored.contents),
            "{page_bytes}"
        );
    }
}

#[test]
fn a_log_that_lost_what_was_copied_from_it_is_bridged() {
    // As after a loss of power, with an application that does not sync each commit.
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..10);
    let engine = ground.engine();
    let (mut shipper, _) = engine.attach().unwrap();
    snapshot(&engine, &mut shipper);
    shipper.save_table(&engine.state).unwrap();
    let log = ground.path("app.db-wal");
    let kept = std::fs::metadata(&log).unwrap().len();
    write(&app, 10..15);
    shipper.tick(&engine.state).unwrap();
    let whole = std::fs::metadata(&log).unwrap().len();
    drop((app, shipper));
    // The last connection to close would write the log into the file: it has not, as the vault's own keeps it from that.
    assert_eq!(std::fs::metadata(&log).unwrap().len(), whole);
    let bytes = std::fs::read(&log).unwrap();
    let mut lost = bytes.clone();
    lost[usize::try_from(kept).unwrap()..].fill(0);
    std::fs::write(&log, lost).unwrap();
    let _ = std::fs::remove_file(ground.path("app.db-shm"));
    let app = ground.app();
    assert_eq!(app.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 10);
    write(&app, 20..22);
    let (mut shipper, began) = engine.attach().unwrap();
    assert!(matches!(began, Began::Bridged { .. }), "{began:?}");
    write(&app, 22..24);
    shipper.tick(&engine.state).unwrap();
    let restored = ground.restore(Target::Latest, "latest.db").unwrap();
    assert_eq!(restored.contents, contents_of(&ground.database()));
}

#[test]
fn a_head_that_is_behind_the_store_takes_nothing_back() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..10);
    let engine = ground.engine();
    let (mut shipper, _) = engine.attach().unwrap();
    let base = snapshot(&engine, &mut shipper).name.tx.0;
    shipper.save_table(&engine.state).unwrap();
    let behind = std::fs::read(ground.path("state/head")).unwrap();
    for row in 10..15 {
        write(&app, row..row + 1);
        shipper.tick(&engine.state).unwrap();
    }
    snapshot(&engine, &mut shipper);
    drop((shipper, engine));
    // What was remembered last did not get to the disk, and the log is begun again meanwhile.
    std::fs::write(ground.path("state/head"), behind).unwrap();
    for row in 15..20 {
        write(&app, row..row + 1);
        app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }
    let engine = ground.engine();
    let (mut shipper, began) = engine.attach().unwrap();
    assert!(matches!(began, Began::Bridged { .. }), "{began:?}");
    write(&app, 20..21);
    shipper.tick(&engine.state).unwrap();
    let latest = ground.restore(Target::Latest, "latest.db").unwrap();
    assert_eq!(latest.contents, contents_of(&ground.database()));
    for more in 0..=5 {
        let restored = ground.restore(Target::Tx(Tx(base + more)), &format!("to-{more}.db")).unwrap();
        assert_eq!(restored.contents.rows(), 10 + more);
    }
}

#[test]
fn nothing_of_the_application_is_touched() {
    let (with, without) = (Ground::new(), Ground::new());
    let files = |ground: &Ground| {
        let entries = std::fs::read_dir(ground.folder.path()).unwrap().flatten();
        let mut names: Vec<_> =
            entries.map(|it| it.file_name()).filter(|it| it != "state" && it != "store").collect();
        names.sort();
        names
    };
    let settings = |app: &rusqlite::Connection| {
        let names = [
            "journal_mode",
            "wal_autocheckpoint",
            "synchronous",
            "user_version",
            "schema_version",
            "page_count",
        ];
        names.map(|name| {
            app.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, rusqlite::types::Value>(0))
                .unwrap()
        })
    };
    let fill = |app: &rusqlite::Connection, rows: std::ops::Range<i64>| {
        for row in rows {
            app.execute("INSERT INTO t(body, at) VALUES (zeroblob(300), ?1)", [row]).unwrap();
        }
    };
    let apps = [with.app(), without.app()];
    let engine = with.engine();
    let (mut shipper, _) = engine.attach().unwrap();
    snapshot(&engine, &mut shipper);
    for round in 0..10 {
        for app in &apps {
            fill(app, round * 200..round * 200 + 200);
        }
        shipper.tick(&engine.state).unwrap();
    }
    assert_eq!(settings(&apps[0]), settings(&apps[1]));
    assert_eq!(files(&with), files(&without));
    drop((shipper, engine));
    for app in apps {
        app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }
    // Byte for byte, but for the counter of changes and who wrote last.
    let bytes = |ground: &Ground| std::fs::read(ground.database()).unwrap();
    assert_eq!(bytes(&with)[100..], bytes(&without)[100..]);
}
