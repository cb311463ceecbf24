//! What is merged and pruned leaves every kept point as it was.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::time::Duration;

use common::{Ground, contents_of, snapshot, write};
use plimsoll_vault::catalogue::Catalogue;
use plimsoll_vault::names::{CHUNKS, Millis};
use plimsoll_vault::plan::Target;
use plimsoll_vault::position::Tx;
use plimsoll_vault::retention::Keep;
use plimsoll_vault::{engine::Engine, merge, prune};

fn later(span: Duration) -> Millis {
    Millis(Millis::now().0 + u64::try_from(span.as_millis()).unwrap())
}

#[test]
fn merging_leaves_each_transaction_to_be_restored_to() {
    let ground = Ground::new();
    let app = ground.app();
    let engine = ground.engine();
    let (mut shipper, _) = engine.attach().unwrap();
    let base = snapshot(&engine, &mut shipper).name.tx.0;
    for row in 0..30 {
        write(&app, row..row + 1);
        shipper.tick(&engine.state).unwrap();
    }
    let count = || Catalogue::read(engine.store()).unwrap().segments.len();
    assert_eq!(count(), 30);
    // They may have been seen in two different minutes.
    let merged = merge::run(&engine, later(Duration::from_mins(1))).unwrap();
    assert!(merged.from >= 29 && merged.into <= 2 && count() <= 3, "{merged:?}");
    merge::run(&engine, later(Duration::from_hours(3))).unwrap();
    for more in [0, 1, 17, 30] {
        let restored = ground.restore(Target::Tx(Tx(base + more)), &format!("{more}.db")).unwrap();
        assert_eq!(restored.contents.rows(), more);
    }
    assert_eq!(
        ground.restore(Target::Latest, "latest.db").unwrap().contents,
        contents_of(&ground.database())
    );
}

#[test]
fn pruning_takes_what_nothing_needs_and_the_rest_restores() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..2000);
    let mut config = ground.config();
    config.keep = Keep { daily: 1, weekly: 0, monthly: 0 };
    config.history = Duration::ZERO;
    let engine = Engine::open(config).unwrap().unwrap();
    let (mut shipper, _) = engine.attach().unwrap();
    for round in 0..4 {
        app.execute("UPDATE t SET body = randomblob(300) WHERE id % 4 = ?1", [round]).unwrap();
        snapshot(&engine, &mut shipper);
    }
    let chunks = || engine.store().list(CHUNKS).unwrap().len();
    let before = chunks();
    let now = later(Duration::from_hours(2));
    let told = prune::run(&engine, now, false).unwrap();
    assert_eq!((told.snapshots.len(), told.kept, chunks()), (3, 1, before));
    let done = prune::run(&engine, now, true).unwrap();
    assert_eq!((done.snapshots.len(), chunks()), (3, before - done.chunks));
    assert!(done.chunks >= 3, "{done:?}");
    write(&app, 2000..2010);
    shipper.tick(&engine.state).unwrap();
    assert_eq!(
        ground.restore(Target::Latest, "latest.db").unwrap().contents,
        contents_of(&ground.database())
    );
    // Nothing more to take.
    let again = prune::run(&engine, now, true).unwrap();
    assert_eq!((again.snapshots.len(), again.chunks), (0, 0));
}

#[test]
fn a_manifest_that_cannot_be_read_ends_pruning_before_anything_is_deleted() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..10);
    let engine = ground.engine();
    let (mut shipper, _) = engine.attach().unwrap();
    let first = snapshot(&engine, &mut shipper).name;
    write(&app, 10..20);
    snapshot(&engine, &mut shipper);
    let path = ground.path("store").join(first.to_string());
    std::fs::write(&path, "rubbish").unwrap();
    let chunks = engine.store().list(CHUNKS).unwrap().len();
    let error = prune::run(&engine, later(Duration::from_hours(2)), true).unwrap_err();
    assert!(error.to_string().contains(&first.to_string()), "{error}");
    assert_eq!(engine.store().list(CHUNKS).unwrap().len(), chunks);
}
