//! A vault whose store is a bucket, as a user meets it: a server of the S3 protocol on loopback.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;
#[path = "../../vault/tests/common/s3.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "the vault's own tests use more of it"
)]
mod s3;

use std::process::Command;

use common::config::worker;
use common::guard::Folder;
use common::{EXE, assert_exit, not_run, stdout, until};
use rusqlite::Connection;
use s3::in_its_environment;
use serde_json::Value;

fn rows(path: &std::path::Path) -> Vec<String> {
    let db = Connection::open(path).unwrap();
    let mut statement = db.prepare("SELECT body FROM t ORDER BY id").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_bucket_is_backed_up_to_listed_and_restored_from() {
    let Some(s3) = s3::S3::start(None) else { return };
    s3::make_bucket(s3.port);
    let folder = Folder::new();
    let live = folder.path().join("app.db");
    let app = Connection::open(&live).unwrap();
    app.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t(id INTEGER PRIMARY KEY, body TEXT);").unwrap();
    let write = |body: &str| assert_eq!(app.execute("INSERT INTO t(body) VALUES (?1)", [body]).unwrap(), 1);
    write("before the guard");
    let vault = "[[vault]]\ndatabase = \"app.db\"\nto = \"s3://backups/some/prefix\"\n";
    let text = worker("idle", &["sleep", "1000000"], "") + vault;
    let file = folder.write("plimsoll.toml", &text);
    let (state, into) = (folder.state(), folder.path().join("restored.db"));
    let json = |args: &[&str]| -> Value {
        let mut command = in_its_environment(common::plimsoll_command(), s3.port);
        command.arg("--state").arg(&state).arg("--config").arg(&file).arg("vault").args(args).arg("--json");
        let output = command.output().unwrap();
        assert_exit(&output, 0);
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    // Without a guard, and under one.
    let first = json(&["backup"]);
    assert_eq!(first["rows"], 1, "{first}");
    let mut guard = folder.start_by(in_its_environment(Command::new(EXE), s3.port), &text);
    guard.next("ready");
    until("verified", || guard.status().vaults[0].verified.is_some());
    write("under the guard");
    let second = json(&["backup"]);
    assert_eq!(second["rows"], 2, "{second}");
    write("after the last snapshot");
    until("all of it is in the bucket", || {
        guard.status().vaults[0].tx >= second["tx"].as_u64().map(|it| it + 1)
    });
    guard.end();
    let listed = json(&["list"]);
    let snapshots = listed["snapshots"].as_array().unwrap();
    assert_eq!(snapshots.len(), 2, "{listed}");
    assert!(snapshots.iter().any(|it| it["is_backup"] == true), "{listed}");
    let restored = json(&["restore", "--into", into.to_str().unwrap()]);
    assert_eq!(restored["rows"], 3, "{restored}");
    assert_eq!(rows(&into), rows(&live));
}
