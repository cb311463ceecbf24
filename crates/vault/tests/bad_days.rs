//! What happens to a database, to a clock, to a store: told by name, and nothing wrong is ever kept.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use common::watch::{self, start};
use common::{Ground, contents_of, snapshot, write};
use plimsoll_vault::agent::Agent;
use plimsoll_vault::engine::Engine;
use plimsoll_vault::names::{Millis, SnapshotName};
use plimsoll_vault::plan::Target;
use plimsoll_vault::position::Tx;
use plimsoll_vault::prune;
use plimsoll_vault::status::{Mode, News, Status};

const WITHIN: Duration = Duration::from_mins(1);

fn until(agent: &Agent, what: &str, is_so: impl FnMut(&Status) -> bool) -> Status {
    watch::until(WITHIN, agent, what, is_so)
}

fn told(news: &Receiver<News>, kind: &str) -> News {
    watch::until_told(WITHIN, news, kind)
}

#[test]
fn a_database_that_is_deleted_is_told_and_one_that_comes_back_is_copied_again() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..20);
    let (agent, news) = start(ground.config());
    until(&agent, "verified", |it| it.verified.is_some());
    let before = contents_of(&ground.database());
    drop(app);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(ground.path(&format!("app.db{suffix}")));
    }
    assert_eq!(told(&news, "vault_gone").severity, "page");
    let status = until(&agent, "stopped", |it| it.mode == Mode::Stopped);
    assert!(status.problems.iter().any(|it| it.contains("app.db")), "{status:#?}");
    assert_eq!(ground.restore(Target::Latest, "was.db").unwrap().contents, before);
    // A new one of the same name, as an application makes it that finds none.
    let app = ground.app();
    write(&app, 0..3);
    let tx = status.tx.unwrap();
    until(&agent, "copied again", |it| it.mode == Mode::Continuous && it.tx > Some(tx));
    write(&app, 3..5);
    let rows = || ground.restore(Target::Latest, "now.db").map(|it| it.contents.rows());
    let began = Instant::now();
    loop {
        let found = rows();
        let _ = std::fs::remove_file(ground.path("now.db"));
        if found.as_ref().is_ok_and(|it| *it == 5) {
            break;
        }
        assert!(began.elapsed() < WITHIN, "{found:?}");
    }
    drop(agent);
    // And the last point before is there still.
    assert_eq!(ground.restore(Target::Tx(Tx(tx)), "before.db").unwrap().contents, before);
}

#[test]
fn one_that_is_locked_exclusively_is_said_to_be() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..5);
    drop(app);
    let app = rusqlite::Connection::open(ground.database()).unwrap();
    app.execute_batch("PRAGMA locking_mode=exclusive; BEGIN IMMEDIATE; DELETE FROM t WHERE id = 1; COMMIT;")
        .unwrap();
    let (agent, _news) = start(ground.config());
    let status = until(&agent, "told", |it| !it.problems.is_empty());
    assert!(status.problems.iter().any(|it| it.contains("locked")), "{:?}", status.problems);
    drop(app);
    until(&agent, "copied once it is let go", |it| it.mode == Mode::Continuous && it.problems.is_empty());
}

/// The snapshot as one that was taken when the clock said something else.
fn dated(ground: &Ground, name: &SnapshotName, time: Millis) {
    let store = ground.path("store");
    let as_it_would_be = plimsoll_vault::seal::Seal::default();
    let bytes = as_it_would_be.open(&std::fs::read(store.join(name.to_string())).unwrap(), "x").unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    manifest["time"] = time.0.into();
    let stored = as_it_would_be
        .pack(&serde_json::to_vec(&manifest).unwrap(), plimsoll_vault::seal::Effort::Quick)
        .unwrap();
    let hash = plimsoll_vault::names::Hash::of(&stored);
    std::fs::remove_file(store.join(name.to_string())).unwrap();
    std::fs::write(store.join(SnapshotName { time, hash, ..*name }.to_string()), stored).unwrap();
}

#[test]
fn a_clock_that_stood_wrong_costs_no_transaction() {
    const YEAR_MS: u64 = 365 * 86_400_000;
    let ground = Ground::new();
    let app = ground.app();
    let mut config = ground.config();
    config.history = Duration::from_hours(1);
    let engine = Engine::open(config).unwrap().unwrap();
    let (mut shipper, _) = engine.attach().unwrap();
    let mut names = Vec::new();
    for round in 0..4 {
        write(&app, round * 5..round * 5 + 5);
        shipper.tick(&engine.state).unwrap();
        names.push(snapshot(&engine, &mut shipper).name);
    }
    write(&app, 20..25);
    shipper.tick(&engine.state).unwrap();
    let now = Millis::now();
    // One of a year ago, one of a year from now.
    dated(&ground, &names[1], Millis(now.0 - YEAR_MS));
    dated(&ground, &names[2], Millis(now.0 + YEAR_MS));
    prune::run(&engine, now, true).unwrap();
    let latest = ground.restore(Target::Latest, "latest.db").unwrap();
    assert_eq!(latest.contents, contents_of(&ground.database()));
    let (first, last) = (names[0].tx.0, latest.position.tx.0);
    for tx in first..=last {
        let into = format!("{tx}.db");
        let restored =
            ground.restore(Target::Tx(Tx(tx)), &into).unwrap_or_else(|error| panic!("{tx}: {error}"));
        assert_eq!(restored.position.tx, Tx(tx));
    }
}

#[test]
fn a_transaction_that_is_larger_than_the_spool_and_a_long_reader_are_copied() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..5);
    let mut config = ground.config();
    config.spool = 1 << 20;
    let (agent, _news) = start(config);
    until(&agent, "verified", |it| it.verified.is_some());
    let reader = ground.app();
    reader.execute_batch("BEGIN; SELECT count(*) FROM t;").unwrap();
    app.execute_batch(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO t(body, at) SELECT randomblob(3000), i FROM n",
    )
    .unwrap();
    until(&agent, "copied", |it| it.tx >= Some(1));
    write(&app, 90_000..90_010);
    until(&agent, "copied after it", |it| it.tx >= Some(11));
    reader.execute_batch("COMMIT").unwrap();
    app.execute_batch("VACUUM").unwrap();
    until(&agent, "the vacuum is copied", |it| it.tx >= Some(12));
    drop(agent);
    assert_eq!(
        ground.restore(Target::Latest, "latest.db").unwrap().contents,
        contents_of(&ground.database())
    );
}
