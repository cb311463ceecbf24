//! A backup that is not what it was is refused, by the name of what is wrong with it.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use common::{Ground, contents_of, snapshot, write};
use plimsoll_vault::Error;
use plimsoll_vault::names::SnapshotName;
use plimsoll_vault::plan::Target;
use plimsoll_vault::progress::Silent;
use plimsoll_vault::restore::Restorer;
use plimsoll_vault::seal::{Effort, Seal};
use plimsoll_vault::store::Store;

/// A snapshot, and ten segments after it.
fn filled() -> Ground {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..300);
    let engine = ground.engine();
    let (mut shipper, _) = engine.attach().unwrap();
    snapshot(&engine, &mut shipper);
    for row in 300..310 {
        write(&app, row..row + 1);
        shipper.tick(&engine.state).unwrap();
    }
    ground
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found.sort();
    found
}

/// Objects that a restore needs, by their names in the store.
fn needed(ground: &Ground) -> Vec<(PathBuf, String)> {
    let store = ground.path("store");
    let named = files(&store).into_iter().map(|path| {
        let name = path.strip_prefix(&store).unwrap().to_str().unwrap().to_owned();
        (path, name)
    });
    named.filter(|(_, name)| name.contains('/')).collect()
}

#[track_caller]
fn refused(ground: &Ground, what: &str) -> String {
    let into = ground.path("restored.db");
    let error = ground.restore(Target::Latest, "restored.db").expect_err(what);
    assert!(error.is_refusal(), "{what}: {error}");
    assert!(!into.exists(), "{what}: it was named all the same");
    let left = fs::read_dir(ground.folder.path()).unwrap().flatten();
    assert!(left.into_iter().all(|it| !it.file_name().to_string_lossy().contains("restoring")), "{what}");
    error.to_string()
}

#[test]
fn a_flipped_bit_in_any_object_is_refused_by_its_name() {
    let ground = filled();
    let objects = needed(&ground);
    assert!(objects.len() > 12, "{objects:?}");
    for (index, (path, name)) in objects.iter().enumerate() {
        let bytes = fs::read(path).unwrap();
        let mut spoiled = bytes.clone();
        let at = (index * 7919) % (bytes.len() * 8);
        spoiled[at / 8] ^= 1 << (at % 8);
        fs::write(path, &spoiled).unwrap();
        let told = refused(&ground, name);
        assert!(told.contains(name.as_str()) && told.contains("the hash is another"), "{name}: {told}");
        // Torn: half of it is there.
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(refused(&ground, name).contains(name.as_str()));
        fs::write(path, bytes).unwrap();
    }
    ground.restore(Target::Latest, "restored.db").unwrap();
}

#[test]
fn a_missing_object_is_refused_by_name_or_by_what_it_would_have_led_to() {
    let ground = filled();
    let objects = needed(&ground);
    let last = objects.iter().filter(|it| it.1.starts_with("log/")).map(|it| it.1.clone()).max().unwrap();
    for (path, name) in &objects {
        let aside = ground.path("aside");
        fs::rename(path, &aside).unwrap();
        if *name == last {
            // The end of the log is whatever is there: nothing says that more had been.
            let restored = ground.restore(Target::Latest, "shorter.db").unwrap();
            assert_eq!(restored.contents.rows(), 309);
        } else {
            let told = refused(&ground, name);
            let is_named = told.contains(name.as_str())
                || told.starts_with("segments are missing after transaction")
                || told.starts_with("there is no snapshot");
            assert!(is_named, "{name}: {told}");
        }
        fs::rename(&aside, path).unwrap();
    }
}

#[test]
fn a_wrong_key_is_refused_and_the_right_one_is_not() {
    let ground = Ground::new();
    let app = ground.app();
    write(&app, 0..50);
    let (right, wrong) = (Identity::generate(), Identity::generate());
    let mut config = ground.config();
    config.recipients = vec![right.to_public().to_string()];
    let engine = plimsoll_vault::engine::Engine::open(config).unwrap().unwrap();
    let (mut shipper, _) = engine.attach().unwrap();
    snapshot(&engine, &mut shipper);
    write(&app, 50..60);
    shipper.tick(&engine.state).unwrap();
    let store = Store::open(&ground.store_config()).unwrap();
    let restore = |seal: Seal, name: &str| {
        Restorer { store: &store, seal: &seal }.restore(Target::Latest, &ground.path(name), &Silent)
    };
    let key = |it: &Identity| {
        Seal::default().with_identity(it.to_string().expose_secret(), Path::new("key")).unwrap()
    };
    for seal in [Seal::default(), key(&wrong)] {
        let error = restore(seal, "a.db").unwrap_err();
        assert!(matches!(error, Error::Key { .. }), "{error}");
    }
    assert_eq!(restore(key(&right), "b.db").unwrap().contents, contents_of(&ground.database()));
    // Not a word of it can be read in the store.
    for path in files(&ground.path("store")) {
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(12).any(|it| it == b"CREATE TABLE"), "{}", path.display());
    }
}

#[test]
fn a_stale_log_beside_the_target_is_refused() {
    let ground = filled();
    for suffix in ["-wal", "-shm", "-journal"] {
        let stale = ground.path(&format!("restored.db{suffix}"));
        fs::write(&stale, "left over").unwrap();
        let error = ground.restore(Target::Latest, "restored.db").unwrap_err().to_string();
        assert!(error.contains(&format!("restored.db{suffix} is in the way")), "{error}");
        fs::remove_file(stale).unwrap();
    }
}

#[test]
fn a_manifest_or_a_segment_of_another_database_is_refused() {
    let (ground, other) = (filled(), filled());
    let ours = needed(&ground);
    let copy = |name: &str| {
        let to = ground.path("store").join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(other.path("store").join(name), to).unwrap();
    };
    // All of the other's objects, and its manifest as the newest.
    for (_, name) in needed(&other) {
        copy(&name);
    }
    for (path, name) in &ours {
        if name.starts_with("snapshots/") {
            fs::remove_file(path).unwrap();
        }
    }
    let told = refused(&ground, "another's manifest");
    assert!(told.contains("it belongs to another database"), "{told}");
}

#[test]
fn contents_that_are_not_those_of_the_live_database_are_refused() {
    let ground = filled();
    let store = ground.path("store");
    // A manifest whose facts say one row more, with every hash right: as a copy that went wrong would be.
    let path = files(&store.join("snapshots")).pop().unwrap();
    let name: SnapshotName =
        format!("snapshots/{}", path.file_name().unwrap().to_str().unwrap()).parse().unwrap();
    let open = |bytes: Vec<u8>| Seal::default().open(&bytes, "x").unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&open(fs::read(&path).unwrap())).unwrap();
    let facts = manifest["facts"]["hash"].as_str().unwrap().to_owned();
    let facts_path = store.join(format!("chunks/{}/{facts}", &facts[..2]));
    let mut facts: serde_json::Value = serde_json::from_slice(&open(fs::read(facts_path).unwrap())).unwrap();
    facts["contents"]["tables"][0]["rows"] = 301.into();
    let put = |value: &serde_json::Value, at: &dyn Fn(plimsoll_vault::names::Hash) -> String| {
        let stored = Seal::default().pack(&serde_json::to_vec(value).unwrap(), Effort::Quick).unwrap();
        let hash = plimsoll_vault::names::Hash::of(&stored);
        let path = store.join(at(hash));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, stored).unwrap();
        hash
    };
    let hash = put(&facts, &|hash| hash.chunk());
    manifest["facts"]["hash"] = hash.to_string().into();
    fs::remove_file(&path).unwrap();
    put(&manifest, &|hash| SnapshotName { hash, ..name }.to_string());
    let told = refused(&ground, "other contents");
    assert!(told.contains("table t has 300 rows instead of 301"), "{told}");
}
