//! What happens to a database, to a clock, to a store: told by name, and nothing wrong is ever kept.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use common::watch::{self, start};
use common::{Ground, contents_of, snapshot, write};
use plimsoll_vault::agent::Agent;
use plimsoll_vault::engine::Engine;
use plimsoll_vault::error::Error;
use plimsoll_vault::fence::Fence;
use plimsoll_vault::names::{Millis, SnapshotName};
use plimsoll_vault::plan::Target;
use plimsoll_vault::position::Tx;
use plimsoll_vault::prune;
use plimsoll_vault::state::State;
use plimsoll_vault::status::{Mode, News, Status};
use plimsoll_vault::store::Store;

const WITHIN: Duration = Duration::from_mins(1);
/// However large a transaction is; application, vault and test in one process.
const RESIDENT_MIB_MAX: u64 = 256;

/// What the environment makes larger for a longer run.
fn scaled(name: &str, ordinary: u64) -> u64 {
    std::env::var(name).map_or(ordinary, |text| text.parse().expect("a number"))
}

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

/// `PLIMSOLL_TRANSACTION_MIB=2200` makes it one of two gigabytes.
#[test]
fn a_transaction_that_is_larger_than_the_spool_and_a_long_reader_are_copied() {
    const MIB: u64 = 60;
    let mib = scaled("PLIMSOLL_TRANSACTION_MIB", MIB);
    let within = WITHIN + Duration::from_millis(100 * mib);
    let until = |agent: &Agent, what: &str, tx| watch::until(within, agent, what, |it| it.tx >= Some(tx));
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..5);
    let mut config = ground.config();
    config.spool = 1 << 20;
    let (agent, _news) = start(config);
    watch::until(within, &agent, "verified", |it| it.verified.is_some());
    let reader = ground.app();
    reader.execute_batch("BEGIN; SELECT count(*) FROM t;").unwrap();
    app.execute_batch(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
             INSERT INTO t(body, at) SELECT randomblob(3000), i FROM n",
        mib * 333
    ))
    .unwrap();
    until(&agent, "copied", 1);
    write(&app, 90_000..90_010);
    until(&agent, "copied after it", 11);
    reader.execute_batch("COMMIT").unwrap();
    app.execute_batch("VACUUM").unwrap();
    until(&agent, "the vacuum is copied", 12);
    drop(agent);
    let resident = common::most_resident_mib();
    println!("a transaction of {mib} MiB: {resident} MiB resident at the most");
    assert!(resident < RESIDENT_MIB_MAX, "{resident} MiB");
    assert_eq!(
        ground.restore(Target::Latest, "latest.db").unwrap().contents,
        contents_of(&ground.database())
    );
}

/// Opens a read transaction in a process of its own, and holds it.
fn reader_of(ground: &Ground) -> Child {
    const READ: &str = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('BEGIN')
print(db.execute('SELECT count(*) FROM t').fetchone()[0], flush=True)
sys.stdin.read()";
    let mut command = Command::new("python3");
    command.args(["-c", READ]).arg(ground.database()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut reader = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(reader.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "20\n");
    reader
}

/// `PLIMSOLL_READER_SECONDS=3600` holds it for an hour.
#[test]
fn a_reader_that_stays_holds_the_log_and_is_told_by_name_and_holds_up_no_copy() {
    const PRESSURE: u64 = 128 << 10;
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..20);
    let mut config = ground.config();
    config.pressure = PRESSURE;
    let (agent, news) = start(config);
    until(&agent, "verified", |it| it.verified.is_some());
    let mut reader = reader_of(&ground);
    let stays = Duration::from_secs(scaled("PLIMSOLL_READER_SECONDS", 1));
    let (began, mut rows) = (Instant::now(), 20);
    let mut told = None;
    while told.is_none() || began.elapsed() < stays {
        assert!(told.is_some() || began.elapsed() < WITHIN, "never told");
        write(&app, rows..rows + 20);
        rows += 20;
        let committed = u64::try_from(rows - 20).unwrap();
        until(&agent, "copied", |it| it.tx >= Some(committed));
        told = told.or_else(|| news.try_iter().find(|it| it.kind == "vault_reader"));
    }
    let told = told.unwrap();
    let name = format!("pid {} (python3", reader.id());
    assert!(told.severity == "warning" && told.message.contains(&name), "{told:?}");
    let held = until(&agent, "said in the status", |it| {
        it.problems.iter().any(|it| it.contains("cannot begin again"))
    });
    assert!(held.log_bytes > 2 * PRESSURE, "{held:#?}");
    drop(reader.stdin.take());
    reader.wait().unwrap();
    write(&app, rows..rows + 20);
    write(&app, rows + 20..rows + 40);
    let over = |it: &Status| it.problems.is_empty() && it.log_bytes <= 2 * PRESSURE;
    let began = Instant::now();
    // One who writes more between two tries than the pressure allows has a log of that size, reader or not.
    while !over(&agent.status()) {
        assert!(began.elapsed() < WITHIN, "{:#?}", agent.status());
        write(&app, rows + 40..rows + 41);
        rows += 1;
        std::thread::park_timeout(Duration::from_millis(20));
    }
    drop(agent);
    assert_eq!(
        ground.restore(Target::Latest, "latest.db").unwrap().contents,
        contents_of(&ground.database())
    );
}

/// A bandwidth makes both take several times as long as a writer without a sign of life is believed in.
#[test]
fn a_snapshot_and_a_verification_that_take_long_keep_others_out() {
    // A busy disk takes a second to write one down.
    const BEAT: Duration = Duration::from_secs(1);
    let ground = Ground::new();
    let app = ground.app();
    for _ in 0..100 {
        app.execute("INSERT INTO t(body) VALUES (randomblob(20000))", []).unwrap();
    }
    let mut config = ground.config();
    config.beat = BEAT;
    config.store.bandwidth = Some(300 << 10);
    let (agent, news) = start(config);
    let store = Store::open(&ground.store_config()).unwrap();
    let state = State::take(&ground.path("other-state")).unwrap().unwrap();
    let other = Fence::new(&state, BEAT).unwrap();
    until(&agent, "at work", |_| ground.path("store/writer.json").exists());
    let (began, mut phases) = (Instant::now(), Vec::new());
    while phases.len() < 2 {
        let refused = other.claim(&store, Millis::now());
        assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?} after {phases:?}");
        match news.recv_timeout(BEAT / 8) {
            Ok(it) if matches!(it.kind, "vault_snapshot_taken" | "vault_verified") => {
                phases.push((it.kind, began.elapsed()));
            }
            Ok(_) | Err(_) => assert!(began.elapsed() < WITHIN, "{phases:?}"),
        }
    }
    // Longer than a silent writer would have been believed in, each of them.
    assert!(phases[0].1 > BEAT * 5 && phases[1].1 > phases[0].1 + BEAT * 5, "{phases:?}");
    drop(agent);
    other.claim(&store, Millis::now()).unwrap();
}
