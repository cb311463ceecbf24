//! One suite for every store that can run here: a folder, and a server of the S3 protocol on loopback.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::time::{Duration, Instant};

use common::s3::{S3, asked, make_bucket, ports, with_s3};
use common::{Ground, contents_of, snapshot, write};
use plimsoll_vault::engine::Engine;
use plimsoll_vault::names::Hash;
use plimsoll_vault::outbox::Outbox;
use plimsoll_vault::plan::Target;
use plimsoll_vault::progress::Silent;
use plimsoll_vault::restore::Restorer;
use plimsoll_vault::store::{Store, StoreConfig};

const WITHIN: Duration = Duration::from_mins(1);

fn open(to: &str) -> Store {
    Store::open(&StoreConfig { to: to.to_owned(), bandwidth: None }).unwrap()
}

/// What every store has to do. `to` is empty.
fn conforms(to: &str) {
    let store = open(to);
    assert!(store.list("log").unwrap().is_empty());
    let missing = store.get("log/none").unwrap_err();
    assert!(missing.is_refusal() && missing.to_string().contains("log/none"), "{missing}");
    store.put("log/a/1", vec![1; 10]).unwrap();
    store.put("log/a/2", vec![2; 3 << 20]).unwrap();
    store.put("chunks/1", Vec::new()).unwrap();
    assert_eq!(store.get("log/a/2").unwrap(), vec![2; 3 << 20]);
    // Written again, it is the new one and never a mixture.
    store.put("log/a/1", vec![9; 5]).unwrap();
    assert_eq!(store.get_checked("log/a/1", Hash::of(&[9; 5])).unwrap(), [9; 5]);
    assert!(store.get_checked("log/a/1", Hash::of(&[1; 10])).unwrap_err().to_string().contains("log/a/1"));
    // Made once only.
    assert!(store.put_new("vault.json", b"one".to_vec()).unwrap());
    assert!(!store.put_new("vault.json", b"two".to_vec()).unwrap());
    assert_eq!(store.get("vault.json").unwrap(), b"one");
    let mut listed: Vec<_> = store.list("log").unwrap().into_iter().map(|it| (it.name, it.bytes)).collect();
    listed.sort();
    assert_eq!(listed, [("log/a/1".to_owned(), 5), ("log/a/2".to_owned(), 3 << 20)]);
    assert!(store.list("log").unwrap().iter().all(|it| it.changed.timestamp() > jiff::Timestamp::UNIX_EPOCH));
    let after =
        |name| store.list_after("log", name).unwrap().into_iter().map(|it| it.name).collect::<Vec<_>>();
    assert_eq!(
        (after("log/a/1"), after("log/a/11"), after("log/b")),
        (vec!["log/a/2".to_owned()], vec!["log/a/2".to_owned()], vec![])
    );
    assert_eq!((after("log/a").len(), after("log/a/0").len(), after("log/a/2").len()), (2, 2, 0));
    store.delete("log/a/1").unwrap();
    store.delete("log/a/1").unwrap();
    assert_eq!(store.list("log").unwrap().len(), 1);
    // Another, opened anew, sees the same.
    assert_eq!(open(to).get("vault.json").unwrap(), b"one");
}

/// From a live database to a restored one, through this store.
fn carries_a_database(ground: &Ground, to: &str) {
    let app = ground.app();
    write(&app, 0..200);
    let mut config = ground.config();
    config.store = StoreConfig { to: to.to_owned(), bandwidth: None };
    let engine = Engine::open(config).unwrap().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| engine.outbox().carry());
        let (mut shipper, _) = engine.attach().unwrap();
        snapshot(&engine, &mut shipper);
        for row in 200..220 {
            write(&app, row..row + 1);
            shipper.tick(&engine.state).unwrap();
        }
        assert!(engine.outbox().drain(WITHIN), "{:?}", engine.outbox().backlog());
        engine.outbox().end();
    });
    let seal = engine.common.seal.clone();
    let restored = Restorer { store: engine.store(), seal: &seal }
        .restore(Target::Latest, &ground.path("restored.db"), &Silent)
        .unwrap();
    assert_eq!(restored.contents, contents_of(&ground.database()));
    assert_eq!(restored.contents.rows(), 220);
}

#[test]
fn a_folder_conforms() {
    let ground = Ground::new();
    conforms(&format!("file://{}", ground.path("conformance").display()));
    carries_a_database(&ground, &format!("file://{}", ground.path("database").display()));
}

#[test]
fn a_bucket_conforms() {
    let Some(s3) = S3::start(None) else { return };
    make_bucket(s3.port);
    with_s3("conforms", s3.port, s3.port);
    with_s3("carries", s3.port, s3.port);
}

#[test]
fn a_bucket_that_is_away_costs_freshness_and_nothing_else() {
    let Some(s3) = S3::start(None) else { return };
    let port = s3.end();
    let Some(s3) = S3::start(Some(port)) else { return };
    make_bucket(s3.port);
    let port = s3.end();
    with_s3("away", port, port);
}

/// Runs the other tests' second halves, and by itself sees that there is none to run.
#[test]
fn in_the_environment_of_a_bucket() {
    let ground = Ground::new();
    match asked().as_deref() {
        Some("conforms") => conforms("s3://backups/some/prefix"),
        Some("carries") => carries_a_database(&ground, "s3://backups/app"),
        Some("away") => away(&ground),
        Some(other) => panic!("there is no {other}"),
        None => {}
    }
}

fn away(ground: &Ground) {
    let (port, _) = ports();
    let store = open("s3://backups/away");
    let outbox = Outbox::open(store, ground.path("spool"), 1 << 20).unwrap();
    for index in 0..20_u8 {
        outbox.put(&format!("log/a/{index:02}"), vec![index; 1000]).unwrap();
    }
    let s3 = std::thread::scope(|scope| {
        scope.spawn(|| outbox.carry());
        let began = Instant::now();
        while outbox.backlog().problem.is_none() {
            assert!(began.elapsed() < WITHIN, "it never failed");
            std::thread::yield_now();
        }
        assert_eq!(outbox.backlog().objects, 20);
        let s3 = S3::start(Some(port)).expect("it ran a moment ago");
        make_bucket(port);
        assert!(outbox.drain(WITHIN), "{:?}", outbox.backlog());
        outbox.end();
        s3
    });
    let listed = open("s3://backups/away").list("log").unwrap();
    assert_eq!(listed.len(), 20);
    drop(s3);
}
