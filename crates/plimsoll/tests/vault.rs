//! The vault as a user meets it: under the guard, by its commands, and through kills.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::config::sample;
use common::guard::{Folder, Guard};
use common::{assert_exit, http, leftovers, plimsoll, stderr, stdout, until, until_some};
use plimsoll_guard::records::VaultStatus;
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;

/// Bodies of all reports, in order.
fn bodies(path: &Path) -> Vec<String> {
    let db = Connection::open(path).unwrap();
    let mut statement = db.prepare("SELECT title || body FROM reports ORDER BY id").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

fn config(folder: &Folder, more: &str) -> String {
    let store = folder.path().join("store");
    sample("", &format!("[[vault]]\ndatabase = \"reports.db\"\nto = \"file://{}\"\n{more}", store.display()))
}

fn start(more: &str) -> Guard {
    let folder = Folder::new();
    let config = config(&folder, more);
    let mut guard = folder.start(&config);
    guard.next("ready");
    guard
}

fn post(guard: &Guard, count: usize) {
    for index in 0..count {
        let body = format!("{{\"title\":\"report {index}\",\"body\":\"some text\"}}");
        let answer = http::post(guard.address("reports"), "/reports", &body).unwrap();
        assert_eq!(answer.0, 201, "{answer:?}");
    }
}

fn vault(guard: &Guard) -> VaultStatus {
    guard.status().vaults.into_iter().next().unwrap()
}

fn cli(guard: &Guard, args: &[&str]) -> std::process::Output {
    let file = guard.folder.file();
    plimsoll(&guard.folder.state(), &[&["--config", file.to_str().unwrap(), "vault"], args].concat())
}

fn json(guard: &Guard, args: &[&str]) -> Value {
    let output = cli(guard, &[args, &["--json"]].concat());
    assert_exit(&output, 0);
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// Everything that was committed by now is copied; up to which transaction.
fn copied(guard: &Guard) -> u64 {
    let now = jiff::Timestamp::now();
    until_some("all is copied", || {
        let vault = vault(guard);
        vault.tx.filter(|_| vault.fresh_as_of.is_some_and(|it| it > now))
    })
}

#[test]
fn a_snapshot_is_a_backup_once_it_was_restored_and_every_command_says_so() {
    let guard = start("");
    post(&guard, 5);
    until("the first is verified", || vault(&guard).verified.is_some());
    let taken = json(&guard, &["backup"]);
    assert!(taken["rows"].as_u64().unwrap() >= 5, "{taken}");
    let verified = json(&guard, &["verify"]);
    assert_eq!(verified["snapshot"], taken["snapshot"]);
    post(&guard, 3);
    copied(&guard);
    let listed = json(&guard, &["list"]);
    assert_eq!(listed["snapshots"][0]["is_backup"], true, "{listed}");
    let into = guard.folder.path().join("restored.db");
    let restored = json(&guard, &["restore", "--into", into.to_str().unwrap()]);
    assert_eq!(bodies(&into), bodies(&guard.folder.path().join("reports.db")));
    assert_eq!(restored["rows"].as_u64().unwrap(), taken["rows"].as_u64().unwrap() + 3);
    // Not twice to the same place.
    let again = cli(&guard, &["restore", "--into", into.to_str().unwrap()]);
    assert_exit(&again, 2);
    assert!(stderr(&again).contains("is in the way"), "{}", stderr(&again));
    let drilled = json(&guard, &["drill"]);
    assert_eq!(drilled["service"], "reports");
    assert_eq!(json(&guard, &["prune"])["snapshots"].as_array().unwrap().len(), 0);
    let status = cli(&guard, &["status"]);
    assert_exit(&status, 0);
    assert!(stdout(&status).starts_with("reports  continuous, backup "), "{}", stdout(&status));
    assert!(guard.ok(&["status"]).contains("vault reports: continuous, backup "));
}

/// A segment of the log in the store.
fn a_segment(guard: &Guard) -> PathBuf {
    let epochs = std::fs::read_dir(guard.folder.path().join("store/log")).unwrap();
    let mut segments = epochs.flat_map(|it| std::fs::read_dir(it.unwrap().path()).unwrap());
    segments.next().unwrap().unwrap().path()
}

#[test]
fn a_backup_whose_history_is_spoiled_is_one_and_not_all_is_well() {
    let guard = start("");
    until("the first is verified", || vault(&guard).verified.is_some());
    post(&guard, 3);
    copied(&guard);
    std::fs::write(a_segment(&guard), "rubbish").unwrap();
    json(&guard, &["backup"]);
    let verified = cli(&guard, &["verify"]);
    assert_exit(&verified, 1);
    let said = stdout(&verified);
    assert!(
        said.contains("is a backup") && said.contains("are spoiled") && said.contains(" on: log/"),
        "{said}"
    );
    assert_exit(&cli(&guard, &["verify", "--json"]), 1);
    until("it is on record", || guard.ok(&["events"]).contains("are spoiled"));
    assert_eq!(json(&guard, &["list"])["snapshots"][0]["is_backup"], true);
}

#[test]
fn a_live_database_goes_back_to_a_transaction_and_its_service_with_it() {
    let guard = start("");
    post(&guard, 5);
    until("the first is verified", || vault(&guard).verified.is_some());
    let tx = copied(&guard);
    post(&guard, 4);
    copied(&guard);
    let live = guard.folder.path().join("reports.db");
    let before = bodies(&live);
    let refused = cli(&guard, &["restore", "--to-tx", &tx.to_string(), "--replace"]);
    assert_exit(&refused, 2);
    assert_eq!(bodies(&live), before);
    let output = cli(&guard, &["restore", "--to-tx", &tx.to_string(), "--replace", "--yes"]);
    assert_exit(&output, 0);
    assert_eq!(bodies(&live), before[..5]);
    assert_eq!(guard.lead("reports").state, "ready");
    let names = std::fs::read_dir(guard.folder.path()).unwrap().flatten().map(|it| it.file_name());
    let kept: Vec<_> = names
        .filter(|it| it.to_string_lossy().contains(".before-restore-") && it.to_string_lossy().ends_with('Z'))
        .collect();
    assert!(kept.iter().any(|it| bodies(&guard.folder.path().join(it)).len() == before.len()), "{kept:?}");
    // It was announced, so nobody is paged, and what is written from now on is copied.
    until("it is copied again", || vault(&guard).mode == "continuous" && vault(&guard).tx > Some(tx + 4));
    assert!(guard.told().iter().all(|it| it.detail["severity"] != "page"), "{}", guard.story());
    post(&guard, 1);
    copied(&guard);
    let into = guard.folder.path().join("after.db");
    json(&guard, &["restore", "--into", into.to_str().unwrap()]);
    assert_eq!(bodies(&into).len(), 6);
}

#[test]
fn kills_of_guard_and_service_together_leave_a_prefix_of_what_was_committed() {
    let mut guard = start("");
    until("the first is verified", || vault(&guard).verified.is_some());
    for round in 0..8 {
        let address = guard.address("reports");
        let (done, count) = (AtomicBool::new(false), 20 + round * 17);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let body = "{\"title\":\"t\",\"body\":\"some text\"}";
                let mut posted = 0;
                while http::post(address, "/reports", body).is_ok() {
                    posted += 1;
                    done.store(posted >= count, Ordering::Relaxed);
                }
                done.store(true, Ordering::Relaxed);
            });
            until("some were posted", || done.load(Ordering::Relaxed));
            let service = guard.lead("reports").pid.unwrap();
            leftovers::kill(guard.pid(), Signal::KILL);
            leftovers::kill(service, Signal::KILL);
        });
        let into = guard.folder.path().join(format!("restored-{round}.db"));
        json(&guard, &["restore", "--into", into.to_str().unwrap()]);
        let (restored, live) = (bodies(&into), bodies(&guard.folder.path().join("reports.db")));
        assert!(restored.len() <= live.len(), "{} restored of {}", restored.len(), live.len());
        assert_eq!(restored, live[..restored.len()]);
        guard = guard.again();
        guard.next("ready");
        until("it copies again", || vault(&guard).mode == "continuous");
    }
    copied(&guard);
    let into = guard.folder.path().join("last.db");
    json(&guard, &["restore", "--into", into.to_str().unwrap()]);
    assert_eq!(bodies(&into), bodies(&guard.folder.path().join("reports.db")));
    assert!(guard.told_of("vault_fault").is_empty());
}

/// Lines of the `sh` blocks in the runbook.
fn runbook() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/disaster-recovery.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```sh\n").skip(1);
    blocks.flat_map(|it| it.split("```").next().unwrap().lines().map(str::to_owned)).collect()
}

#[test]
fn every_command_of_the_runbook_does_what_it_says() {
    let guard = start("");
    post(&guard, 5);
    until("the first is verified", || vault(&guard).verified.is_some());
    post(&guard, 2);
    copied(&guard);
    let now = jiff::Timestamp::now().to_string();
    let folder = guard.folder.path();
    let store = format!("file://{}", folder.join("store").display());
    let elsewhere = tempfile::tempdir().unwrap();
    let lines = runbook();
    assert!(lines.len() >= 10, "{lines:#?}");
    for line in lines {
        // What differs from one machine to another. Buckets and keys are tried in tests of their own.
        let (command, _) = line.split_once("  #").unwrap_or((&line, ""));
        let command = command
            .replace("2026-11-23T20:00:00Z", &now)
            .replace("file:///mnt/backups/reports", &store)
            .replace("s3://backups/reports --identity backup.key", &store)
            .replace("s3://backups/reports", &store)
            .replace("/tmp/then.db", elsewhere.path().join("then.db").to_str().unwrap())
            .replace("--replace", "--replace --yes")
            .replace("plimsoll ", "\"$PLIMSOLL\" --state \"$STATE\" ");
        let is_away = command.contains("--from");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-ec", &command]).current_dir(if is_away { elsewhere.path() } else { folder });
        common::forget_developer(&mut shell);
        shell.env("PLIMSOLL", common::EXE).env("STATE", guard.folder.state());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{command}: {}{}", stdout(&output), stderr(&output));
        if is_away {
            let restored = elsewhere.path().join("reports.db");
            assert_eq!(bodies(&restored), bodies(&folder.join("reports.db")), "{command}");
            std::fs::remove_file(restored).unwrap();
        }
    }
    until("it serves again", || guard.service("reports").state == "ready");
}

#[test]
fn a_database_that_its_service_does_not_start_with_is_taken_out_again() {
    let folder = Folder::new();
    let config = config(&folder, "");
    // From some time on it wants at least six reports.
    let count = "python3 -c \"import sqlite3; print(sqlite3.connect('reports.db').execute('SELECT count(*) FROM reports').fetchone()[0])\"";
    let script = format!(
        "#!/bin/sh\nif test -e wants && test $({count}) -lt 6; then echo too few; exit 1; fi\nexec {} sample-service\n",
        common::EXE
    );
    let start = folder.script("start.sh", &script);
    let plain = format!("[\"{}\", \"sample-service\"]", common::EXE);
    let mut guard = folder.start(&config.replace(&plain, &format!("[\"{}\"]", start.display())));
    guard.next("ready");
    post(&guard, 3);
    until("the first is verified", || vault(&guard).verified.is_some());
    let tx = copied(&guard);
    post(&guard, 4);
    let live = guard.folder.path().join("reports.db");
    let before = bodies(&live);
    guard.folder.write("wants", "");
    let output = cli(&guard, &["restore", "--to-tx", &tx.to_string(), "--replace", "--yes"]);
    assert_exit(&output, 1);
    assert!(stderr(&output).contains("the old database was put back"), "{}", stderr(&output));
    assert_eq!(bodies(&live), before);
    assert_eq!(guard.service("reports").state, "ready");
}

#[test]
fn what_is_asked_for_wrongly_is_told_with_what_would_be_right() {
    let guard = start("");
    until("the first is verified", || vault(&guard).verified.is_some());
    let nowhere = guard.folder.path().join("nowhere");
    let from = format!("file://{}", nowhere.display());
    let wrong: [(&[&str], i32, &str); 8] = [
        (&["status", "other"], 2, "no vault is named other; there is reports"),
        (&["list", "other"], 2, "there is reports"),
        (&["verify", "--snapshot", "zz"], 1, "no snapshot, or more than one, begins with zz"),
        (
            &["restore", "--to-tx", "99999", "--into", "n.db"],
            1,
            "is not in the store: it ends at transaction",
        ),
        (&["restore", "--to", "9d", "--into", "n.db"], 1, "the oldest snapshot is of"),
        (&["restore", "--into", "/no/such/n.db"], 1, "/no/such: there is no such folder to restore into"),
        (&["restore", "--from", &from, "--into", "n.db"], 2, "there is no such folder"),
        (&["restore", "--replace"], 2, "add --yes"),
    ];
    for (args, code, told) in wrong {
        let output = cli(&guard, args);
        assert_exit(&output, code);
        assert!(stderr(&output).contains(told), "{args:?}: {}", stderr(&output));
    }
    assert!(!nowhere.exists(), "it was made by looking for it");
    let left = std::fs::read_dir(guard.folder.path()).unwrap().flatten();
    assert!(left.into_iter().all(|it| !it.file_name().to_string_lossy().contains("restored")));
}

#[test]
fn an_encrypted_vault_is_opened_by_its_key_alone() {
    use age::secrecy::ExposeSecret as _;
    let (right, wrong) = (age::x25519::Identity::generate(), age::x25519::Identity::generate());
    let guard = start(&format!("recipients = [\"{}\"]\n", right.to_public()));
    let key = |name: &str, key: &age::x25519::Identity| {
        guard.folder.write(name, &format!("# a key\n{}\n", key.to_string().expose_secret()))
    };
    let (right, wrong) = (key("right.key", &right), key("wrong.key", &wrong));
    post(&guard, 3);
    copied(&guard);
    until("the first is taken", || vault(&guard).snapshots == 1 || vault(&guard).last_snapshot.is_some());
    let from = format!("file://{}", guard.folder.path().join("store").display());
    let into = guard.folder.path().join("restored.db");
    let restore = |identity: Option<&Path>| {
        let into = into.to_str().unwrap();
        let mut args = vec!["restore", "--from", &from, "--into", into];
        args.extend(identity.iter().flat_map(|it| ["--identity", it.to_str().unwrap()]));
        cli(&guard, &args)
    };
    for (identity, code, told) in [
        (None, 1, "is encrypted: no identity is given"),
        (Some(wrong.as_path()), 1, "the identity is not one of its recipients"),
        (Some(Path::new("/no/such.key")), 2, "/no/such.key: cannot read"),
    ] {
        let refused = restore(identity);
        assert_exit(&refused, code);
        assert!(stderr(&refused).contains(told), "{}", stderr(&refused));
    }
    assert_exit(&restore(Some(&right)), 0);
    assert_eq!(bodies(&into), bodies(&guard.folder.path().join("reports.db")));
    // Nothing is a backup there until somebody who has the key has restored it.
    assert_exit(&cli(&guard, &["verify"]), 1);
    assert_eq!(json(&guard, &["list"])["snapshots"][0]["is_backup"], false);
    assert_exit(&cli(&guard, &["verify", "--identity", right.to_str().unwrap()]), 0);
    assert_eq!(json(&guard, &["list"])["snapshots"][0]["is_backup"], true);
}
