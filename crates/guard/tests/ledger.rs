//! The ledger on a real file system, on good days and on bad ones.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails")]

mod small_disk;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use plimsoll_guard::ledger::{self, FILE_NAME, LedgerError, LedgerHandle, Span};
use plimsoll_guard::records::{CauseRecord, EventRecord, Evidence, IncidentRecord, SampleRow};
use serde_json::{Map, Value};
use small_disk::{DEADLINE, SmallDisk, wait_for};

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).unwrap()
}

fn event(service: &str, second: i64, kind: &str) -> EventRecord {
    let mut detail = Map::new();
    detail.insert("message".to_owned(), Value::from(format!("{kind} happened")));
    EventRecord {
        time: time(second),
        service: service.to_owned(),
        instance: Some(format!("{service}.1")),
        kind: kind.to_owned(),
        layer: None,
        cause: None,
        detail,
    }
}

fn incident(id: u64, service: &str) -> IncidentRecord {
    let cause = CauseRecord {
        time: time(0),
        instance: Some(format!("{service}.1")),
        layer: Some("kill_switch".to_owned()),
        cause: "memory".to_owned(),
        message: "memory stayed over the line".to_owned(),
        detail: Map::new(),
    };
    IncidentRecord {
        id,
        service: service.to_owned(),
        instance: cause.instance.clone(),
        opened: time(0),
        closed: None,
        layer: cause.layer.clone(),
        summary: cause.message.clone(),
        causes: vec![cause],
        action: None,
        dark_ms: None,
        requests: None,
        evidence: None,
    }
}

fn kinds(events: &[EventRecord]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

#[test]
fn what_was_put_on_record_is_there_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let first = LedgerHandle::open(state.path());
    assert!(first.health().ok, "{:?}", first.health());
    assert_eq!((first.next_incident_id(), first.next_instance("reports")), (1, 1));
    first.event(event("reports", 1, "starting"));
    first.event(event("mail", 2, "starting"));
    first.event(event("reports", 3, "ready"));
    first.incident(incident(1, "reports"));
    first.note_instance("reports", 7);
    assert!(first.close(DEADLINE));

    let second = LedgerHandle::open(state.path());
    assert_eq!(kinds(&second.events(None, None, 10)), ["starting", "starting", "ready"]);
    assert_eq!(kinds(&second.events(Some("reports"), None, 10)), ["starting", "ready"]);
    assert_eq!(kinds(&second.events(None, Some(time(2)), 10)), ["starting", "ready"]);
    assert_eq!(kinds(&second.events(None, None, 1)), ["ready"], "the newest when there are too many");
    assert_eq!(second.incidents(Some("mail"), 10), []);
    assert_eq!(second.incidents(None, 10), [incident(1, "reports")]);
    assert_eq!(
        (second.next_incident_id(), second.next_instance("reports"), second.next_instance("mail")),
        (2, 8, 1)
    );
}

#[test]
fn a_question_sees_what_was_put_on_record_just_before() {
    let state = tempfile::tempdir().unwrap();
    let ledger = LedgerHandle::open(state.path());
    for second in 0..200 {
        ledger.event(event("reports", second, "tick"));
        assert_eq!(ledger.events(None, None, 1000).len(), usize::try_from(second).unwrap() + 1);
    }
}

#[test]
fn an_incident_grows_and_late_evidence_stays() {
    let state = tempfile::tempdir().unwrap();
    let ledger = LedgerHandle::open(state.path());
    let opened = incident(3, "reports");
    ledger.incident(opened.clone());
    let evidence = Evidence { took_ms: 12, log_tail: vec!["last words".to_owned()], ..Evidence::default() };
    ledger.incident(IncidentRecord { evidence: Some(evidence.clone()), ..opened.clone() });
    assert!(ledger.flush(DEADLINE));
    let closed = IncidentRecord { closed: Some(time(9)), dark_ms: Some(0), ..opened };
    ledger.incident(closed.clone());
    assert_eq!(ledger.next_incident_id(), 4);
    assert_eq!(ledger.incidents(None, 10), std::slice::from_ref(&closed), "a listing has no evidence");
    let found = ledger.find_incident(3).unwrap();
    assert_eq!(found, IncidentRecord { evidence: Some(evidence), ..closed });
    assert_eq!(ledger.find_incident(4), None);
    assert_eq!(ledger.find_incident(u64::MAX), None);
}

#[test]
fn a_follower_gets_every_event_from_now_on() {
    let state = tempfile::tempdir().unwrap();
    let ledger = LedgerHandle::open(state.path());
    ledger.event(event("reports", 1, "before"));
    let mut live = ledger.subscribe();
    ledger.event(event("reports", 2, "after"));
    assert_eq!(live.try_recv().unwrap().kind, "after");
    assert!(live.try_recv().is_err());
}

#[test]
fn a_flood_of_events_is_either_stored_or_counted() {
    const EVENTS: i64 = 50_000;
    let state = tempfile::tempdir().unwrap();
    let ledger = LedgerHandle::open(state.path());
    for second in 0..EVENTS {
        ledger.event(event("reports", second, "tick"));
    }
    let dropped = ledger.health().dropped;
    assert!(ledger.close(DEADLINE));
    let connection = rusqlite::Connection::open(state.path().join(FILE_NAME)).unwrap();
    let stored: i64 = connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(stored + i64::try_from(dropped).unwrap(), EVENTS);
}

#[test]
fn measurements_are_summed_up_by_the_minute_even_when_a_restart_cuts_it() {
    let state = tempfile::tempdir().unwrap();
    let row = |second: i64, memory_bytes, descriptors| {
        let time = Timestamp::from_second(1_795_000_020 + second).unwrap();
        SampleRow { time, memory_bytes, charged_bytes: memory_bytes, descriptors }
    };
    let first = LedgerHandle::open(state.path());
    first.sample("reports.1", &row(0, 100, Some(10)));
    first.sample("reports.1", &row(1, 300, None));
    assert!(first.close(DEADLINE));
    let second = LedgerHandle::open(state.path());
    second.sample("reports.1", &row(2, 800, Some(20)));
    second.sample("reports.1", &row(60, 50, None));
    second.sample("mail.1", &row(60, 1, None));
    assert!(second.close(DEADLINE));

    let reader = ledger::read_only(&state.path().join(FILE_NAME)).unwrap();
    let minutes = reader.samples("reports.1", Span::Minute, None, 10).unwrap();
    assert_eq!(minutes.len(), 2);
    let memory = minutes[0].memory_bytes;
    assert_eq!((memory.min, memory.avg, memory.max, memory.count), (100, 400, 800, 3));
    let descriptors = minutes[0].descriptors.unwrap();
    assert_eq!((descriptors.min, descriptors.avg, descriptors.max, descriptors.count), (10, 15, 20, 2));
    assert_eq!((minutes[1].memory_bytes.avg, minutes[1].descriptors), (50, None));
    assert_eq!(reader.samples("reports.1", Span::Hour, None, 10).unwrap(), []);
}

#[test]
fn the_file_is_read_without_a_guard_and_beside_one() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join(FILE_NAME);
    assert!(matches!(ledger::read_only(&path), Err(LedgerError::Missing { .. })));
    let ledger = LedgerHandle::open(state.path());
    ledger.incident(incident(1, "reports"));
    assert!(ledger.flush(DEADLINE));
    assert_eq!(ledger::read_only(&path).unwrap().incident(1).unwrap(), Some(incident(1, "reports")));
    assert!(ledger.close(DEADLINE));
    assert_eq!(ledger::read_only(&path).unwrap().incidents(None, 10).unwrap().len(), 1);
    assert_eq!(ledger::read_only(&path).unwrap().events(None, None, 10).unwrap(), []);
}

#[test]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let state = tempfile::tempdir().unwrap();
    let _ledger = LedgerHandle::open(state.path());
    let mode = fs::metadata(state.path().join(FILE_NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

fn aside(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|it| it.to_str().unwrap().contains(".corrupt-")).collect();
    found.sort();
    found
}

#[test]
fn a_broken_ledger_is_set_aside_and_a_new_one_begun() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join(FILE_NAME);
    fs::write(&path, "this is no database ".repeat(500)).unwrap();
    let ledger = LedgerHandle::open(state.path());
    ledger.event(event("reports", 1, "starting"));
    wait_for("a first write into the new one", || ledger.health().ok);
    let events = ledger.events(None, None, 10);
    assert!(kinds(&events).contains(&"ledger_set_aside"), "{events:?}");
    assert!(kinds(&events).contains(&"starting"));
    let broken = aside(state.path());
    assert_eq!(broken.len(), 1);
    assert!(fs::read_to_string(&broken[0]).unwrap().starts_with("this is no database"));
    assert!(ledger.next_instance("reports") > 1_000_000, "a number that was never given before");
    assert!(ledger.close(DEADLINE));
    let reader = ledger::read_only(&path).unwrap();
    assert_eq!(reader.events(None, None, 10).unwrap().len(), 2);
}

#[test]
fn a_ledger_that_breaks_while_it_is_open_is_replaced_with_nothing_in_memory_lost() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join(FILE_NAME);
    let ledger = LedgerHandle::open(state.path());
    ledger.note_instance("reports", 41);
    assert!(ledger.flush(DEADLINE));
    // What a failing disk does: the tables' pages turn to noise under an open ledger.
    rusqlite::Connection::open(&path)
        .and_then(|other| other.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"))
        .unwrap();
    let pages = fs::metadata(&path).unwrap().len() / 4096 - 1;
    let noise = vec![0xa5; usize::try_from(pages * 4096).unwrap()];
    std::os::unix::fs::FileExt::write_all_at(
        &fs::OpenOptions::new().write(true).open(&path).unwrap(),
        &noise,
        4096,
    )
    .unwrap();
    // Enough to need pages that are not in the cache.
    let mut second = 0;
    wait_for("the broken one to be set aside", || {
        second += 1;
        ledger.event(event("reports", second, "tick"));
        ledger.incident(incident(u64::try_from(second).unwrap(), "reports"));
        let _ = ledger.find_incident(1);
        !aside(state.path()).is_empty()
    });
    ledger.event(event("reports", 9999, "last"));
    wait_for("the new one to work", || ledger.health().ok);
    assert!(ledger.flush(DEADLINE));
    assert_eq!(kinds(&ledger.events(None, None, 1)), ["last"]);
    assert!(ledger.next_instance("reports") >= 42);
}

#[test]
fn a_ledger_of_the_future_is_not_touched_and_memory_serves() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join(FILE_NAME);
    let today = LedgerHandle::open(state.path());
    today.note_instance("reports", 7);
    assert!(today.close(DEADLINE));
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(&path).unwrap();

    let ledger = LedgerHandle::open(state.path());
    ledger.event(event("reports", 1, "starting"));
    ledger.incident(incident(5, "reports"));
    let health = ledger.health();
    assert!(!health.ok && health.message.contains("schema version 99"), "{health:?}");
    assert_eq!(kinds(&ledger.events(Some("reports"), None, 10)), ["starting"]);
    assert_eq!(ledger.find_incident(5), Some(incident(5, "reports")));
    assert_eq!(ledger.next_instance("reports"), 8, "its numbers can still be read");
    assert!(!ledger.close(DEADLINE), "what is in memory is lost, and that is said");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_database_of_somebody_else_is_not_touched() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join(FILE_NAME);
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let before = fs::read(&path).unwrap();
    let ledger = LedgerHandle::open(state.path());
    assert!(ledger.health().message.contains("is a database but not a ledger"), "{:?}", ledger.health());
    drop(ledger);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn with_no_folder_to_be_had_memory_serves_within_its_bounds() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("file"), "").unwrap();
    let ledger = LedgerHandle::open(&place.path().join("file/state"));
    assert!(!ledger.health().ok);
    for second in 0..6000 {
        ledger.event(event("reports", second, "tick"));
    }
    for id in 1..=120 {
        ledger.incident(incident(id, "reports"));
    }
    assert!(ledger.events(None, None, 10_000).len() >= 1000);
    assert_eq!(ledger.events(None, None, 1)[0].time, time(5999));
    assert_eq!(ledger.incidents(None, 1000).len(), 100);
    assert!(ledger.health().dropped >= 6000 - 4096 + 20);
    assert!(ledger.next_incident_id() > 1_000_000, "a number that was never given before");
    assert!(!ledger.flush(Duration::from_millis(10)));
}

#[test]
fn a_full_disk_stops_nothing_and_what_happened_meanwhile_is_written_once_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let ledger = LedgerHandle::open(disk.path());
    ledger.event(event("reports", 1, "before"));
    assert!(ledger.flush(DEADLINE));
    disk.fill();
    let mut second = 1;
    wait_for("the disk to refuse", || {
        second += 1;
        ledger.event(event("reports", second, "meanwhile"));
        !ledger.health().ok
    });
    let health = ledger.health();
    assert!(health.message.contains("full"), "{health:?}");
    ledger.incident(incident(1, "reports"));
    let events = ledger.events(Some("reports"), None, 10_000);
    assert_eq!((events[0].kind.as_str(), events.len()), ("before", usize::try_from(second).unwrap()));
    assert_eq!(ledger.find_incident(1), Some(incident(1, "reports")));

    disk.free();
    wait_for("the disk to take it", || ledger.health().ok);
    assert!(ledger.flush(DEADLINE));
    let told = ledger.events(Some("guard"), None, 10);
    assert_eq!(kinds(&told), ["ledger_failed", "ledger_recovered"]);
    assert!(ledger.close(DEADLINE));
    let reader = ledger::read_only(&disk.path().join(FILE_NAME)).unwrap();
    assert_eq!(reader.events(Some("reports"), None, 10_000).unwrap().len(), usize::try_from(second).unwrap());
    assert_eq!(reader.incidents(None, 10).unwrap().len(), 1);
    assert_eq!(ledger.health().dropped, 0);
}

#[test]
fn a_read_only_folder_is_said_and_its_ledger_goes_on_once_it_can_be_written() {
    let Some(disk) = SmallDisk::mount() else { return };
    let before = LedgerHandle::open(disk.path());
    before.note_instance("reports", 7);
    assert!(before.close(DEADLINE));
    disk.remount("ro");
    let ledger = LedgerHandle::open(disk.path());
    assert!(!ledger.health().ok, "{:?}", ledger.health());
    assert_eq!(ledger.next_instance("reports"), 8, "its numbers can still be read");
    ledger.event(event("reports", 1, "meanwhile"));
    assert_eq!(kinds(&ledger.events(Some("reports"), None, 10)), ["meanwhile"]);
    disk.remount("rw");
    wait_for("the folder to take it", || ledger.health().ok);
    assert!(ledger.close(DEADLINE));
    let reader = ledger::read_only(&disk.path().join(FILE_NAME)).unwrap();
    assert_eq!(kinds(&reader.events(Some("reports"), None, 10).unwrap()), ["meanwhile"]);
}
