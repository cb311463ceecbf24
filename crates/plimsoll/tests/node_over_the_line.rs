//! The Node example, with the default limits, driven over its line by real HTTP traffic: what the ledger says has to
//! match what was injected, one for one.

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use common::config::example;
use common::guard::{Folder, Guard};
use common::{MIB, http, until};
use plimsoll_guard::records::{Evidence, IncidentRecord};

const RUNS: u64 = 10;
const LINE: u64 = 300 * MIB;
const WALL: u64 = 512 * MIB;

/// The shortest useful configuration: every limit is the default.
fn start() -> Guard {
    let folder = Folder::new();
    example("node-reports", folder.path());
    folder.start("[service.reports]\ncommand = [\"node\", \"server.js\"]\n")
}

/// Clients that read and write reports for as long as it lives, wherever the service is at the moment.
struct Traffic {
    address: Arc<Mutex<SocketAddr>>,
    answered: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    client: Option<JoinHandle<()>>,
}

impl Traffic {
    fn towards(address: SocketAddr) -> Self {
        let address = Arc::new(Mutex::new(address));
        let (answered, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (where_to, count, end) = (Arc::clone(&address), Arc::clone(&answered), Arc::clone(&over));
        let client = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let address = *where_to.lock().expect("nobody panics with it");
                let sent = http::post(address, "/reports", r#"{"title": "t", "body": "b"}"#);
                let read = http::get(address, "/reports?limit=5");
                // Between two instances nobody answers: that is what the front is for.
                let good = [sent, read].into_iter().flatten().filter(|(status, _)| *status < 300).count();
                count.fetch_add(good as u64, Ordering::Relaxed);
                std::thread::park_timeout(std::time::Duration::from_millis(2));
            }
        });
        Self { address, answered, over, client: Some(client) }
    }

    fn follow(&self, address: SocketAddr) {
        *self.address.lock().expect("nobody panics with it") = address;
        let before = self.answered.load(Ordering::Relaxed);
        until("traffic flows", || self.answered.load(Ordering::Relaxed) > before + 10);
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.client.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

/// Drives the one that serves over its line and waits until the next one stands.
fn drive_over(guard: &mut Guard, fault: &str) {
    guard.inject("reports", fault);
    guard.next("incident_opened");
    guard.next("incident_closed");
}

fn assert_is_memory(incident: &IncidentRecord, story: &str) {
    assert_eq!(incident.layer.as_deref(), Some("kill_switch"), "{incident:?}\n{story}");
    assert!(incident.causes.iter().all(|it| it.cause == "memory"), "{incident:?}\n{story}");
    let bytes = incident.causes[0].detail["memory_bytes"].as_u64().expect("a size");
    assert!((LINE..WALL).contains(&bytes), "{bytes}");
}

#[test]
fn ten_leaks_under_traffic_are_ten_incidents_with_their_evidence() {
    let mut guard = start();
    guard.next("ready");
    let traffic = Traffic::towards(guard.address("reports"));
    let mut injected = BTreeMap::new();
    for run in 1..=RUNS {
        traffic.follow(guard.address("reports"));
        let fault = if run % 2 == 0 { "/leak?rate=200MiB" } else { "/leak-buffers?rate=200MiB" };
        injected.insert(run, guard.lead("reports").id);
        drive_over(&mut guard, fault);
    }
    traffic.follow(guard.address("reports"));
    drop(traffic);

    let kept: BTreeMap<u64, String> =
        guard.incidents().into_iter().map(|it| (it.id, it.instance.unwrap_or_default())).collect();
    assert_eq!(kept, injected, "{}", guard.story());
    for id in 1..=RUNS {
        let incident = guard.incident(id);
        assert_is_memory(&incident, &guard.story());
        assert!(incident.closed.is_some() && incident.dark_ms.is_some() && incident.action.is_some());
        assert_nothing_is_lost_silently(&incident.evidence.expect("waited for"));
    }
    let service = guard.service("reports");
    assert_eq!((service.recycles, service.restarts), (RUNS, 0));
}

/// Whatever is not there is listed as missing, with the reason: at 200 MiB/s there are 60 ms for all of it, and on a busy
/// machine that is not enough.
fn assert_nothing_is_lost_silently(evidence: &Evidence) {
    assert!(evidence.samples.len() > 2, "{:?}", evidence.samples);
    assert!(evidence.samples.iter().any(|it| it.memory_bytes > LINE));
    let there = |what: &str, is_there: bool| {
        let listed = evidence.missing.iter().any(|it| it.starts_with(what));
        assert!(is_there != listed, "{what}: {is_there}, missing {:?}", evidence.missing);
    };
    there("smaps_rollup", evidence.smaps_rollup.get("rss_bytes").is_some_and(|it| *it > LINE));
    if std::path::Path::new("/sys/fs/cgroup/memory").exists() {
        there("memory.stat", !evidence.memory_stat.is_empty());
    }
    let table = evidence.descriptors.as_ref();
    there("descriptors", table.is_some_and(|it| it.kinds.iter().any(|row| row.kind == "tcp")));
    there("threads", evidence.threads.iter().any(|it| it.name.contains("node")));
    assert!(!evidence.log_tail.is_empty(), "{:?}, {} ms", evidence.missing, evidence.took_ms);
}

#[test]
fn a_leak_on_the_heap_reaches_the_line_before_v8_aborts() {
    for rate in ["30MiB", "100MiB"] {
        let mut guard = start();
        guard.next("ready");
        drive_over(&mut guard, &format!("/leak?rate={rate}&total=2000MiB"));
        assert_is_memory(&guard.incident(1), &guard.story());
        assert_eq!(guard.service("reports").restarts, 0);
    }
}

#[test]
fn a_leak_off_the_heap_reaches_the_line_before_v8_aborts() {
    let mut guard = start();
    guard.next("ready");
    drive_over(&mut guard, "/leak-buffers?rate=60MiB&total=2000MiB");
    assert_is_memory(&guard.incident(1), &guard.story());
    assert_eq!(guard.service("reports").restarts, 0);
}
