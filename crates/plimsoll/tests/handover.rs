//! One instance gives way to the next, in each of the three ways.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use common::config::sample;
use common::guard::{Folder, Guard};
use common::{EXE, http, leftovers, until};
use plimsoll_guard::records::EventRecord;
use rustix::process::Signal;

fn recovery(handover: &str) -> String {
    format!("[service.reports.recovery]\nhandover = \"{handover}\"\ndrain = \"1s\"\nstop_grace = \"2s\"\n")
}

/// Where this was told of this instance.
#[track_caller]
fn place(told: &[EventRecord], kind: &str, instance: &str) -> usize {
    let wanted = |event: &EventRecord| event.kind == kind && event.instance.as_deref() == Some(instance);
    told.iter().position(wanted).unwrap_or_else(|| panic!("no {kind} of {instance}"))
}

fn relief(guard: &Guard) -> Option<String> {
    let instances = guard.service("reports").instances;
    instances.into_iter().find(|it| it.role == "relief" && it.state == "ready").map(|it| it.id)
}

#[test]
fn with_hold_the_old_one_is_gone_before_the_new_one_starts() {
    let mut guard = Folder::new().start(&sample("", &recovery("hold")));
    guard.next("ready");
    let said = guard.ok(&["recycle", "reports"]);
    assert!(said.contains("reports.2"), "{said}");
    let told = guard.told();
    assert!(place(&told, "exited", "reports.1") < place(&told, "starting", "reports.2"), "{}", guard.story());
    assert!(guard.incidents().is_empty(), "asked for is no incident");
}

#[test]
fn with_overlap_the_new_one_is_ready_at_its_own_port_before_the_old_one_stops() {
    let mut guard = Folder::new().start(&sample("", &recovery("overlap")));
    guard.next("ready");
    let before = guard.address("reports");
    guard.ok(&["recycle", "reports"]);
    assert_ne!(guard.address("reports"), before);
    let told = guard.told();
    assert!(place(&told, "ready", "reports.2") < place(&told, "stopping", "reports.1"), "{}", guard.story());
    assert!(matches!(http::get(guard.address("reports"), "/health"), Ok((200, _))));
    assert_eq!(guard.service("reports").recycles, 1);
}

#[test]
fn with_overlap_a_leak_is_handed_over_without_a_dark_moment() {
    let limits = "[service.reports.memory]\nhard = \"512MiB\"\nrecycle = \"60MiB\"\nfor = \"300ms\"\nruntime = \"none\"\n";
    let mut guard = Folder::new().start(&sample("", &(recovery("overlap") + limits)));
    guard.next("ready");
    guard.inject("reports", "/fault/leak-heap?rate=200MiB&total=80MiB");
    assert_eq!(guard.next("incident_closed").detail["dark_ms"], 0);
}

#[test]
fn with_overlap_the_old_one_stays_while_its_successor_does_not_get_ready() {
    let folder = Folder::new();
    let script =
        format!("#!/bin/sh\nif [ -e broken ]; then exec sleep 1000; fi\nexec {EXE} sample-service\n");
    folder.script("service", &script);
    let tables = "[service.reports.memory]\nhard = \"512MiB\"\nrecycle = \"60MiB\"\nfor = \"300ms\"\nruntime = \"none\"\n\
                  [service.reports.health]\nhttp = \"/health\"\ninterval = \"500ms\"\ntimeout = \"500ms\"\nstart_period = \"1s\"\n";
    let config = sample("", &(recovery("overlap") + tables))
        .replace(&format!("[\"{EXE}\", \"sample-service\"]"), "[\"./service\"]");
    let mut guard = folder.start(&config);
    guard.next("ready");
    guard.folder.write("broken", "");
    guard.inject("reports", "/fault/leak-heap?rate=200MiB&total=80MiB");
    assert_eq!(guard.next("handover_failed").cause.as_deref(), Some("start_timeout"));
    assert_eq!(guard.lead("reports").id, "reports.1");
    assert!(matches!(http::get(guard.address("reports"), "/health"), Ok((200, _))));
    std::fs::remove_file(guard.folder.path().join("broken")).unwrap();
    guard.next_where("the old one's end", |it| {
        it.kind == "exited" && it.instance.as_deref() == Some("reports.1")
    });
    guard.next("incident_closed");
    assert_eq!(guard.incidents().len(), 1, "{}", guard.story());
}

#[test]
fn with_standby_the_spare_takes_over_from_a_dead_one_at_once() {
    let mut guard = Folder::new().start(&sample("", &recovery("standby")));
    guard.next("ready");
    until("a spare stands by", || relief(&guard).as_deref() == Some("reports.2"));
    leftovers::kill(guard.lead("reports").pid.unwrap(), Signal::KILL);
    let closed = guard.next("incident_closed");
    let dark = closed.detail["dark_ms"].as_u64().unwrap();
    assert!(dark <= 50, "{dark} ms");
    assert_eq!(guard.lead("reports").id, "reports.2");
    until("a new spare stands by", || relief(&guard).as_deref() == Some("reports.3"));
}

#[test]
fn with_standby_a_recycle_hands_over_to_the_spare_first() {
    let mut guard = Folder::new().start(&sample("", &recovery("standby")));
    guard.next("ready");
    until("a spare stands by", || relief(&guard).is_some());
    guard.ok(&["recycle", "reports"]);
    assert_eq!(guard.lead("reports").id, "reports.2");
    guard.next_where("the old one's end", |it| {
        it.kind == "recycled" && it.instance.as_deref() == Some("reports.1")
    });
    assert!(guard.told_of("killing").is_empty(), "{}", guard.story());
}

#[test]
fn replicas_are_recycled_one_at_a_time() {
    for handover in ["hold", "overlap"] {
        let mut guard = Folder::new().start(&sample("replicas = 2\n", &recovery(handover)));
        guard.next("ready");
        guard.next("ready");
        guard.ok(&["recycle", "reports"]);
        until("all is printed", || guard.told_of("ready").len() > 3);
        let told = guard.told();
        let ready: Vec<usize> = (0..told.len()).filter(|index| told[*index].kind == "ready").collect();
        let stopping: Vec<usize> = (0..told.len()).filter(|index| told[*index].kind == "stopping").collect();
        assert_eq!((ready.len(), stopping.len()), (4, 2), "{}", guard.story());
        assert!(
            ready[2] < stopping[1],
            "{handover}: the second goes once the first is replaced\n{}",
            guard.story()
        );
    }
}
