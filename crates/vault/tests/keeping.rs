//! What is merged and pruned leaves every kept point as it was.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::time::Duration;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use common::{Ground, contents_of, snapshot, write};
use plimsoll_vault::catalogue::Catalogue;
use plimsoll_vault::names::{CHUNKS, Millis, SegmentName};
use plimsoll_vault::plan::Target;
use plimsoll_vault::position::Tx;
use plimsoll_vault::progress::{Phase, Progress, Silent};
use plimsoll_vault::restore::Restorer;
use plimsoll_vault::retention::Keep;
use plimsoll_vault::shipper::Shipper;
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
    ship(&app, &engine, &mut shipper, 30);
    let count = || segments(&engine).len();
    assert_eq!(count(), 30);
    // They may have been seen in two different minutes.
    let merged = merge::run(&engine, later(Duration::from_mins(2))).unwrap();
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

/// All of it is over and settled.
const LATER: Duration = Duration::from_hours(3);

fn segments(engine: &Engine) -> Vec<SegmentName> {
    let mut segments = Catalogue::read(engine.store()).unwrap().segments;
    segments.sort_by_key(|it| (it.epoch, it.first));
    segments
}

/// So many segments of a few rows each.
fn ship(app: &rusqlite::Connection, engine: &Engine, shipper: &mut Shipper, count: i64) {
    for row in 0..count {
        write(app, row..row + 1);
        shipper.tick(&engine.state).unwrap();
    }
}

fn spoil(ground: &Ground, segment: &SegmentName) {
    std::fs::write(ground.path("store").join(segment.to_string()), "rubbish").unwrap();
}

#[test]
fn what_was_merged_is_not_read_again_though_it_could_not_all_become_one() {
    let ground = Ground::new();
    let app = ground.app();
    let engine = ground.engine();
    let (mut shipper, _) = engine.attach().unwrap();
    snapshot(&engine, &mut shipper);
    // Of what is packed to almost nothing, it is known only by opening it that two are too large to be one.
    for _ in 0..12 {
        app.execute("INSERT INTO t(body) VALUES (zeroblob(1500000))", []).unwrap();
        shipper.tick(&engine.state).unwrap();
    }
    let merged = merge::run(&engine, later(LATER)).unwrap();
    let left = segments(&engine);
    assert!(merged.from >= 10 && (6..12).contains(&left.len()), "{merged:?} {}", left.len());
    for segment in &left {
        spoil(&ground, segment);
    }
    for hours in 3..6 {
        let again = merge::run(&engine, later(Duration::from_hours(hours))).unwrap();
        assert_eq!(again, merge::Merged::default());
    }
    // What is new is merged as ever.
    ship(&app, &engine, &mut shipper, 5);
    let merged = merge::run(&engine, later(Duration::from_hours(9))).unwrap();
    assert!(merged.from >= 4 && segments(&engine).len() <= left.len() + 2, "{merged:?}");
}

/// Merges everything once the first transactions are applied.
struct Merging<'a>(&'a Engine);

impl Progress for Merging<'_> {
    fn at(&self, phase: Phase, done: u64, _: u64) {
        if (phase, done) == (Phase::Apply, 1) {
            merge::run(self.0, later(LATER)).unwrap();
        }
    }
}

/// Loses the last one then.
struct Losing<'a>(&'a Engine);

impl Progress for Losing<'_> {
    fn at(&self, phase: Phase, done: u64, _: u64) {
        if (phase, done) == (Phase::Apply, 1) {
            let last = segments(self.0).pop().unwrap();
            self.0.store().delete(&last.to_string()).unwrap();
        }
    }
}

#[test]
fn a_restore_finds_its_way_through_what_is_merged_meanwhile_and_not_around_what_is_gone() {
    let ground = Ground::new();
    let app = ground.app();
    let engine = ground.engine();
    let (mut shipper, _) = engine.attach().unwrap();
    let base = snapshot(&engine, &mut shipper).name.tx.0;
    ship(&app, &engine, &mut shipper, 30);
    let seal = ground.config().seal().unwrap();
    let restorer = Restorer { store: engine.store(), seal: &seal };
    let one = restorer.restore(Target::Tx(Tx(base + 29)), &ground.path("one.db"), &Merging(&engine)).unwrap();
    assert_eq!((one.position.tx.0, one.contents.rows()), (base + 29, 29));
    assert!(segments(&engine).len() <= 2);
    // What is in no other is missed by its name.
    ship(&app, &engine, &mut shipper, 30);
    let last = segments(&engine).pop().unwrap().to_string();
    let error = restorer.restore(Target::Latest, &ground.path("two.db"), &Losing(&engine)).unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains(&last), "{error}");
    assert!(!ground.path("two.db").exists());
}

#[test]
fn without_the_key_segments_become_one_unopened_and_are_restored_with_it() {
    let ground = Ground::new();
    let app = ground.app();
    let identity = Identity::generate();
    let mut config = ground.config();
    config.recipients = vec![identity.to_public().to_string()];
    let engine = Engine::open(config.clone()).unwrap().unwrap();
    let (mut shipper, _) = engine.attach().unwrap();
    let base = snapshot(&engine, &mut shipper).name.tx.0;
    ship(&app, &engine, &mut shipper, 30);
    merge::run(&engine, later(LATER)).unwrap();
    assert!(segments(&engine).len() <= 2, "{:?}", segments(&engine));
    ship(&app, &engine, &mut shipper, 3);
    config.identity = Some(("key".into(), identity.to_string().expose_secret().to_owned()));
    let seal = config.seal().unwrap();
    let restorer = Restorer { store: engine.store(), seal: &seal };
    for more in [7, 30, 33] {
        let into = ground.path(&format!("{more}.db"));
        let one = restorer.restore(Target::Tx(Tx(base + more)), &into, &Silent).unwrap();
        assert_eq!((one.position.tx.0, one.contents.rows()), (base + more, more));
    }
    // Whoever has the key from here on opens them, and packs them anew.
    drop(shipper);
    drop(engine);
    std::fs::remove_file(config.state.join("merged.json")).unwrap();
    let engine = Engine::open(config).unwrap().unwrap();
    merge::run(&engine, later(LATER)).unwrap();
    assert!(segments(&engine).len() <= 2);
    let restorer = Restorer { store: engine.store(), seal: &seal };
    let latest = restorer.restore(Target::Latest, &ground.path("latest.db"), &Silent).unwrap();
    assert_eq!(latest.contents, contents_of(&ground.database()));
}

#[test]
fn segments_of_another_key_are_left_alone_and_a_spoiled_one_is_told_and_passed_over() {
    let ground = Ground::new();
    let app = ground.app();
    let open = |identity: &Identity| {
        let mut config = ground.config();
        config.recipients = vec![identity.to_public().to_string()];
        config.identity = Some(("key".into(), identity.to_string().expose_secret().to_owned()));
        Engine::open(config).unwrap().unwrap()
    };
    let (one, two) = (open(&Identity::generate()), Identity::generate());
    let (mut shipper, _) = one.attach().unwrap();
    snapshot(&one, &mut shipper);
    ship(&app, &one, &mut shipper, 4);
    drop((shipper, one));
    let engine = open(&two);
    let (mut shipper, _) = engine.attach().unwrap();
    ship(&app, &engine, &mut shipper, 10);
    merge::run(&engine, later(LATER)).unwrap();
    let left = segments(&engine);
    assert!((5..8).contains(&left.len()) && left[..4].iter().all(|it| it.first == it.last), "{left:?}");
    // A gap, and an epoch after it.
    ship(&app, &engine, &mut shipper, 10);
    drop(shipper);
    for _ in 0..2 {
        write(&app, 0..1);
        app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }
    let before = segments(&engine);
    spoil(&ground, &before[before.len() - 3]);
    std::fs::remove_file(ground.path("state/pages")).ok();
    let (mut shipper, _) = engine.attach().unwrap();
    ship(&app, &engine, &mut shipper, 10);
    for hours in 6..8 {
        let error = merge::run(&engine, later(Duration::from_hours(hours))).unwrap_err().to_string();
        assert!(error.contains(&before[before.len() - 3].to_string()), "{error}");
        let after = segments(&engine).into_iter().filter(|it| it.epoch > before[0].epoch).count();
        assert!(after <= 3, "{after}");
    }
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
