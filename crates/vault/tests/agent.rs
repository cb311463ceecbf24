//! A vault at work, as the guard runs it.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use common::watch::{self, start};
use common::{Ground, contents_of, write};
use plimsoll_vault::VaultConfig;
use plimsoll_vault::agent::{Agent, ask};
use plimsoll_vault::keeper::{Answer, Wanted};
use plimsoll_vault::names;
use plimsoll_vault::plan::Target;
use plimsoll_vault::state::State;
use plimsoll_vault::status::{Mode, News, Status};
use plimsoll_vault::store::Store;

const WITHIN: Duration = Duration::from_secs(30);

fn until(agent: &Agent, what: &str, is_so: impl FnMut(&Status) -> bool) -> Status {
    watch::until(WITHIN, agent, what, is_so)
}

fn until_told(news: &Receiver<News>, kind: &str) -> News {
    watch::until_told(WITHIN, news, kind)
}

fn backup(config: &VaultConfig) -> serde_json::Value {
    match ask(&config.state, &Wanted::Backup, |_| {}).unwrap() {
        Some(Answer::Done(value)) => value,
        other => panic!("no backup: {other:?}"),
    }
}

#[test]
fn a_snapshot_is_taken_and_becomes_a_backup_by_being_restored() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..100);
    let (agent, told) = start(ground.config());
    let status = until(&agent, "verified", |it| it.verified.is_some());
    assert_eq!((status.mode, status.backups, status.snapshots), (Mode::Continuous, 1, 1));
    assert!(status.problems.is_empty(), "{:?}", status.problems);
    assert_eq!(until_told(&told, "vault_verified").severity, "info");
    write(&app, 100..200);
    let rows = backup(&ground.config())["rows"].as_u64().unwrap();
    assert_eq!(rows, 200);
    // The transactions since the first lead to the second.
    until(&agent, "both backups", |it| it.backups == 2);
    drop(agent);
    let restored = ground.restore(Target::Latest, "restored.db").unwrap();
    assert_eq!(restored.contents, contents_of(&ground.database()));
}

fn verify(config: &VaultConfig) -> Answer {
    ask(&config.state, &Wanted::Verify { snapshot: None }, |_| {}).unwrap().unwrap()
}

#[test]
fn a_spoiled_snapshot_is_told_and_another_one_takes_its_place() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..2000);
    let (agent, told) = start(ground.config());
    until(&agent, "verified", |it| it.verified.is_some());
    let chunks = Store::open(&ground.store_config()).unwrap().list(names::CHUNKS).unwrap();
    let largest = chunks.iter().max_by_key(|it| it.bytes).unwrap();
    std::fs::write(ground.path("store").join(&largest.name), "rubbish").unwrap();
    match verify(&ground.config()) {
        Answer::Failed { message, .. } => assert!(message.contains(&largest.name), "{message}"),
        Answer::Done(_) | Answer::Progress { .. } => panic!("it was not found"),
    }
    assert_eq!(until_told(&told, "vault_verify").severity, "page");
    assert_eq!(until_told(&told, "vault_snapshot_taken").severity, "info");
    let healed = |it: &Status| it.snapshots == 2 && it.backups >= 1 && it.problems.is_empty();
    let status = until(&agent, "healed", healed);
    assert!(status.last_backup == status.last_snapshot, "{status:?}");
    drop(agent);
    let restored = ground.restore(Target::Latest, "restored.db").unwrap();
    assert_eq!(restored.contents, contents_of(&ground.database()));
}

#[test]
fn where_the_history_is_spoiled_the_snapshot_after_it_is_a_backup_all_the_same_and_it_is_told() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..20);
    let (agent, told) = start(ground.config());
    until(&agent, "verified", |it| it.verified.is_some());
    write(&app, 20..30);
    until(&agent, "copied", |it| it.tx >= Some(10));
    let segments = Store::open(&ground.store_config()).unwrap().list(names::LOG).unwrap();
    std::fs::write(ground.path("store").join(&segments[0].name), "rubbish").unwrap();
    backup(&ground.config());
    let history = until_told(&told, "vault_history");
    assert!(history.severity == "page" && history.message.contains(&segments[0].name), "{history:?}");
    let status = until(&agent, "a backup", |it| it.backups == 2);
    assert_eq!(status.last_backup, status.last_snapshot);
}

#[test]
fn what_was_committed_while_no_vault_ran_is_bridged_and_nothing_before_is_lost() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..50);
    let (agent, _told) = start(ground.config());
    until(&agent, "verified", |it| it.verified.is_some());
    write(&app, 50..60);
    let before = until(&agent, "copied", |it| it.tx >= Some(10)).tx.unwrap();
    drop(agent);
    // The log is begun again, behind its back.
    for round in 0..5 {
        write(&app, 60 + round * 10..70 + round * 10);
        app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }
    let (agent, told) = start(ground.config());
    let gap = until_told(&told, "vault_gap");
    assert_eq!(gap.severity, "warning");
    write(&app, 110..120);
    until(&agent, "copied", |it| it.tx >= Some(before + 11));
    drop(agent);
    let restored = ground.restore(Target::Latest, "latest.db").unwrap();
    assert_eq!((restored.contents.rows(), &restored.contents), (120, &contents_of(&ground.database())));
    let earlier = ground.restore(Target::Tx(plimsoll_vault::position::Tx(before)), "earlier.db").unwrap();
    assert_eq!(earlier.contents.rows(), 60);
}

#[test]
fn a_vault_that_ends_and_begins_again_at_once_misses_nothing() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..50);
    let (agent, _told) = start(ground.config());
    until(&agent, "verified", |it| it.verified.is_some());
    drop(agent);
    write(&app, 50..60);
    let (agent, told) = start(ground.config());
    until(&agent, "copied", |it| it.tx >= Some(10));
    drop(agent);
    assert!(told.iter().all(|it| it.kind != "vault_gap" && it.kind != "vault_began"));
    assert_eq!(ground.restore(Target::Latest, "latest.db").unwrap().contents.rows(), 60);
}

#[test]
fn a_database_without_a_log_gets_snapshots_and_says_so() {
    let ground = Ground::new();
    let app = ground.app();
    app.execute_batch("PRAGMA journal_mode=delete").unwrap();
    write(&app, 0..20);
    let (agent, _told) = start(ground.config());
    let status = until(&agent, "verified", |it| it.verified.is_some());
    assert_eq!(status.mode, Mode::Snapshots);
    assert!(status.why.unwrap().contains("no write-ahead log"));
    write(&app, 20..30);
    backup(&ground.config());
    until(&agent, "both backups", |it| it.backups == 2);
    drop(agent);
    assert_eq!(ground.restore(Target::Latest, "latest.db").unwrap().contents.rows(), 30);
}

#[test]
fn a_deploy_that_puts_an_old_copy_in_place_is_told_at_once_with_the_last_good_point() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..50);
    app.execute("VACUUM INTO ?1", [ground.path("old.db").to_str().unwrap()]).unwrap();
    write(&app, 50..100);
    let (agent, told) = start(ground.config());
    until(&agent, "verified", |it| it.verified.is_some());
    let good = until(&agent, "known", |it| it.tx.is_some()).tx.unwrap();
    std::fs::rename(ground.path("old.db"), ground.database()).unwrap();
    let alarm = until_told(&told, "vault_replaced");
    assert_eq!(alarm.severity, "page");
    assert!(alarm.message.contains(&format!("transaction {good}, at 20")), "{}", alarm.message);
    drop(agent);
    let restored = ground.restore(Target::Tx(plimsoll_vault::position::Tx(good)), "good.db").unwrap();
    assert_eq!(restored.contents.rows(), 100);
}

#[test]
fn a_file_that_is_overwritten_in_place_is_told() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..50);
    app.execute("VACUUM INTO ?1", [ground.path("old.db").to_str().unwrap()]).unwrap();
    write(&app, 50..400);
    let (agent, told) = start(ground.config());
    until(&agent, "verified", |it| it.verified.is_some());
    // As `cp` does it: another process, so that no lock of ours is dropped.
    let copied = std::process::Command::new("cp").arg(ground.path("old.db")).arg(ground.database()).status();
    assert!(copied.unwrap().success());
    assert_eq!(until_told(&told, "vault_overwritten").severity, "page");
    drop(agent);
}

#[test]
fn tables_that_vanish_and_rows_that_fall_are_told_unless_announced() {
    let ground = Ground::new();
    let app = ground.app();
    app.execute_batch("CREATE TABLE gone(a); INSERT INTO gone VALUES (1);").unwrap();
    write(&app, 0..5000);
    let (agent, told) = start(ground.config());
    until(&agent, "verified", |it| it.verified.is_some());
    app.execute_batch("DELETE FROM t; DROP TABLE gone; PRAGMA user_version = 3;").unwrap();
    assert_eq!(until_told(&told, "vault_emptied").severity, "page");
    backup(&ground.config());
    assert!(until_told(&told, "vault_table_vanished").message.contains("gone"));
    // That backup announced what comes next.
    app.execute_batch("CREATE TABLE fresh(a)").unwrap();
    assert_eq!(until_told(&told, "vault_schema").severity, "info");
    drop(agent);
}

#[test]
fn a_store_that_takes_nothing_for_longer_than_the_spool_lasts_is_told_and_bridged_over() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..50);
    let mut config = ground.config();
    config.spool = 64 * 1024;
    let (agent, told) = start(config);
    until(&agent, "verified", |it| it.verified.is_some());
    write(&app, 50..51);
    until(&agent, "copied", |it| it.tx >= Some(1));
    // A file in the way of the folder: nothing can be stored there.
    let store = ground.path("store");
    std::fs::rename(&store, ground.path("aside")).unwrap();
    std::fs::write(&store, "").unwrap();
    write(&app, 51..60);
    until(&agent, "told of the store", |it| it.problems.iter().any(|it| it.contains("waits on this disk")));
    for row in (60..3000).step_by(20) {
        write(&app, row..row + 20);
    }
    until(&agent, "stopped", |it| it.mode == Mode::Stopped);
    app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    write(&app, 3000..3010);
    std::fs::remove_file(&store).unwrap();
    std::fs::rename(ground.path("aside"), &store).unwrap();
    until_told(&told, "vault_gap");
    until(&agent, "well", |it| {
        it.problems.is_empty() && it.mode == Mode::Continuous && it.waiting_bytes == 0
    });
    drop(agent);
    let restored = ground.restore(Target::Latest, "latest.db").unwrap();
    assert_eq!(restored.contents, contents_of(&ground.database()));
}

#[test]
fn two_vaults_on_one_target_are_one_and_a_refusal() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..50);
    let (agent, _told) = start(ground.config());
    until(&agent, "verified", |it| it.verified.is_some());
    let mut other = ground.config();
    other.state = ground.path("other-state");
    let (second, told) = start(other);
    let refused = until_told(&told, "vault_fenced");
    assert!(
        refused.severity == "page" && refused.message.contains("another vault writes to it"),
        "{refused:?}"
    );
    drop(second);
    write(&app, 50..60);
    until(&agent, "still copying", |it| it.problems.is_empty() && it.tx >= Some(10));
    drop(agent);
    assert_eq!(ground.restore(Target::Latest, "latest.db").unwrap().contents.rows(), 60);
}

#[test]
fn a_vault_that_another_process_still_has_begins_when_that_one_has_ended() {
    let ground = Ground::new();
    write(&ground.app(), 0..50);
    let held = State::take(&ground.path("state")).unwrap().unwrap();
    let (agent, told) = start(ground.config());
    let waits = until_told(&told, "vault_opening");
    assert!(waits.message.contains("another process has this vault"), "{waits:?}");
    drop(held);
    until(&agent, "verified", |it| it.problems.is_empty() && it.verified.is_some());
}

#[test]
fn a_writer_without_a_pause_is_copied_and_snapshotted_and_its_log_begins_again() {
    const PRESSURE: u64 = 128 << 10;
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..20);
    let mut config = ground.config();
    config.pressure = PRESSURE;
    let (agent, _told) = start(config.clone());
    until(&agent, "verified", |it| it.verified.is_some());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let (is_over, began) = (&is_over, Instant::now());
        let writes = threads.spawn(move || {
            app.busy_timeout(WITHIN).unwrap();
            let mut row = 20;
            while !is_over.load(Ordering::Relaxed) && began.elapsed() < WITHIN {
                write(&app, row..row + 1);
                row += 1;
            }
            row
        });
        let grown = until(&agent, "grown", |it| it.log_bytes > PRESSURE * 4);
        until(&agent, "begun again", |it| it.log_bytes < grown.log_bytes && it.tx > grown.tx);
        let rows = backup(&config)["rows"].as_u64().unwrap();
        is_over.store(true, Ordering::Relaxed);
        let row = writes.join().unwrap();
        assert!(rows > 20 && rows <= u64::try_from(row).unwrap(), "{rows} of {row}");
    });
    drop(agent);
    let restored = ground.restore(Target::Latest, "latest.db").unwrap();
    assert_eq!(restored.contents, contents_of(&ground.database()));
}
