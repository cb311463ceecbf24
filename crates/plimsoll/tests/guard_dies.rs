//! The guard itself ends, in every way it can, and its services do not notice.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use common::config::{sample, worker};
use common::crowd::Crowd;
use common::guard::{Folder, Guard};
use common::{EXE, assert_exit, http, leftovers, stderr, until, until_some};
use plimsoll_guard::records::{EventRecord, InstanceStatus, ServiceStatus, Status};
use rustix::process::Signal;

fn with_front(tables: &str) -> (String, SocketAddr) {
    let port = http::free_port();
    let front = format!("{tables}[front]\nhttp = \"127.0.0.1:{port}\"\n");
    (sample("", &front), SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Kills the guard by this signal and waits for the next one.
fn replace(guard: &mut Guard, signal: Signal) -> EventRecord {
    let before = guard.guard_pid();
    leftovers::kill(before, signal);
    let event = guard.next("guard_restarted");
    assert_ne!(guard.guard_pid(), before);
    event
}

fn message(event: &EventRecord) -> &str {
    event.detail["message"].as_str().unwrap_or_default()
}

/// What must not change by the end of a guard: of each service its intent and counts, of each instance who and where.
fn facts(status: &Status) -> Vec<String> {
    let instance = |it: &InstanceStatus| format!("{} {:?} {:?}", it.id, it.pid, it.address);
    let service = |it: &ServiceStatus| {
        let instances: Vec<String> = it.instances.iter().map(instance).collect();
        format!("{} {} {:?} {} {}", it.name, it.intent, instances, it.recycles, it.restarts)
    };
    status.services.iter().map(service).collect()
}

#[test]
fn a_killed_guard_is_replaced_and_every_instance_keeps_its_pid_its_number_and_its_address() {
    let config = format!("{}\n{}", sample("", ""), worker("stopped", &["sleep", "1000"], ""));
    let mut guard = Folder::new().start(&config);
    guard.next_where("reports is ready", |it| it.kind == "ready" && it.service == "reports");
    guard.ok(&["recycle", "reports"]);
    guard.next_where("the second is ready", |it| it.kind == "ready" && it.service == "reports");
    guard.ok(&["stop", "stopped"]);
    guard.next("stopped");
    until("all is done", || guard.service("reports").instances.len() == 1);
    let (before, init) = (facts(&guard.status()), guard.pid());
    let told = replace(&mut guard, Signal::KILL);
    assert!(message(&told).contains("signal 9 (SIGKILL)"), "{told:?}");
    let after = guard.status();
    assert_eq!(facts(&after), before);
    assert_eq!(after.guard.init_pid.map(|pid| i32::try_from(pid).unwrap()), Some(init));
    let incident =
        until_some("it is an incident", || guard.incidents().into_iter().find(|it| it.service == "guard"));
    assert!(incident.summary.contains("signal 9"), "{incident:?}");
    assert!(incident.closed.is_some_and(|closed| closed > incident.opened), "{incident:?}");
    // It goes on guarding: an end that comes now is seen and answered.
    leftovers::kill(guard.lead("reports").pid.unwrap(), Signal::KILL);
    guard.next_where("reports is back", |it| it.kind == "ready" && it.service == "reports");
    assert_eq!(guard.lead("reports").id, "reports.3");
    guard.ok(&["start", "stopped"]);
    guard.next_where("the other is back", |it| it.kind == "ready" && it.service == "stopped");
}

#[test]
fn an_instance_that_ended_while_no_guard_looked_is_started_again_once() {
    let mut guard = Folder::new().start(&sample("", ""));
    guard.next("ready");
    let (pid, decides) = (guard.lead("reports").pid.unwrap(), guard.guard_pid());
    // Held still first, so that this guard cannot see it.
    leftovers::kill(decides, Signal::STOP);
    leftovers::kill(pid, Signal::KILL);
    until("it is over", || leftovers::is_over(pid));
    leftovers::kill(decides, Signal::KILL);
    guard.next("guard_restarted");
    guard.next("ready");
    let service = guard.service("reports");
    assert_eq!((service.restarts, service.instances[0].id.as_str()), (1, "reports.2"));
    let incident = guard.incident(guard.incidents().iter().find(|it| it.service == "reports").unwrap().id);
    assert_eq!(incident.causes[0].cause, "exit");
}

#[test]
fn requests_wait_while_the_guard_is_replaced_and_none_is_refused() {
    let (config, front) = with_front("");
    let mut guard = Folder::new().start(&config);
    guard.next("ready");
    let pid = guard.lead("reports").pid;
    let crowd = Crowd::start(front, false);
    let deaths = 4;
    for _ in 0..deaths {
        crowd.goes_on(20);
        replace(&mut guard, Signal::KILL);
    }
    crowd.goes_on(20);
    let (clients, failed) = (crowd.clients(), crowd.end());
    // What was in flight at a kill may fail: one request of each client at most.
    assert!(failed.len() <= clients * deaths, "{failed:?}");
    assert!(!failed.iter().any(|it| it.contains("refused")), "{failed:?}");
    assert_eq!(guard.lead("reports").pid, pid);
}

#[test]
fn a_guard_that_stands_still_is_found_and_replaced() {
    let (config, front) = with_front("");
    let mut guard = Folder::new().start(&config);
    guard.next("ready");
    let pid = guard.lead("reports").pid;
    let told = replace(&mut guard, Signal::STOP);
    assert!(message(&told).contains("decided nothing any more"), "{told:?}");
    assert!(matches!(http::get(front, "/health"), Ok((200, _))));
    assert_eq!(guard.lead("reports").pid, pid);
}

#[test]
fn a_binary_that_is_deleted_or_replaced_by_garbage_does_not_matter() {
    let folder = Folder::new();
    let exe = folder.path().join("plimsoll");
    fs::copy(EXE, &exe).unwrap();
    let mut guard = folder.start_by(Command::new(&exe), &sample("", ""));
    guard.next("ready");
    fs::remove_file(&exe).unwrap();
    replace(&mut guard, Signal::KILL);
    fs::write(&exe, "garbage").unwrap();
    replace(&mut guard, Signal::KILL);
    assert_eq!(guard.lead("reports").id, "reports.1");
}

#[test]
fn a_configuration_that_was_broken_meanwhile_does_not_matter() {
    let folder = Folder::new();
    folder.script("service", "#!/bin/sh\nexec sleep 1000\n");
    let mut guard = folder.start(&worker("reports", &["./service"], ""));
    guard.next("ready");
    let pid = guard.lead("reports").pid;
    guard.folder.write("plimsoll.toml", "this is = = no configuration");
    fs::remove_file(guard.folder.path().join("service")).unwrap();
    replace(&mut guard, Signal::KILL);
    assert_eq!(guard.lead("reports").pid, pid);
    assert_exit(&guard.cli(&["reload"]), 2);
}

#[test]
fn a_guard_that_ends_again_and_again_runs_reduced_and_still_guards() {
    let (config, front) = with_front("");
    let mut guard = Folder::new().start(&config);
    guard.next("ready");
    let pid = guard.lead("reports").pid;
    // Each within a second of the last, or the row begins again.
    let reduced = || guard.status().degraded.iter().any(|it| it.contains("reduced"));
    until("the guard is reduced", || {
        leftovers::kill(guard.guard_pid(), Signal::KILL);
        reduced()
    });
    assert!(matches!(http::get(front, "/health"), Ok((200, _))));
    assert_eq!(guard.lead("reports").pid, pid);
    leftovers::kill(pid.unwrap(), Signal::KILL);
    guard.next("ready");
    assert!(matches!(http::get(front, "/health"), Ok((200, _))));
}

#[test]
fn what_is_being_stopped_when_the_guard_ends_is_stopped_by_the_next_one() {
    let script = "trap 'echo term >>asked' TERM\nwhile :; do sleep 0.05; done\n";
    let folder = Folder::new();
    folder.script("stubborn", &format!("#!/bin/sh\n{script}"));
    let recovery = "[service.reports.recovery]\nstop_grace = \"3s\"\n";
    let mut guard = folder.start(&worker("reports", &["./stubborn"], recovery));
    guard.next("ready");
    let pid = guard.lead("reports").pid.unwrap();
    // The verb waits until it is carried out.
    let _asking = guard.cli_on(&["stop", "reports"]);
    until("it was asked to end", || !guard.folder.read("asked").is_empty());
    replace(&mut guard, Signal::KILL);
    guard.next("stopped");
    assert!(!leftovers::is_alive(pid));
    assert_eq!(guard.service("reports").intent, "down");
}

#[test]
fn the_end_is_orderly_although_the_guard_dies_in_the_middle_of_it() {
    let folder = Folder::new();
    folder.script("slow", "#!/bin/sh\ntrap 'sleep 1; exit 0' TERM\nwhile :; do sleep 0.05; done\n");
    let recovery = "[service.reports.recovery]\nstop_grace = \"8s\"\n";
    let mut guard = folder.start(&worker("reports", &["./slow"], recovery));
    guard.next("ready");
    let decides = guard.guard_pid();
    guard.signal(Signal::TERM);
    guard.next("stopping");
    leftovers::kill(decides, Signal::KILL);
    assert!(guard.wait().success(), "{}", guard.story());
}

#[test]
fn an_upgrade_under_load_loses_no_request_and_no_instance() {
    let (config, front) = with_front("");
    let mut guard = Folder::new().start(&config);
    guard.next("ready");
    let (pid, before) = (guard.lead("reports").pid, guard.guard_pid());
    let newer = guard.folder.path().join("newer");
    fs::copy(EXE, &newer).unwrap();
    let crowd = Crowd::start(front, true);
    crowd.goes_on(20);
    let said = guard.ok(&["upgrade", newer.to_str().unwrap()]);
    assert!(said.contains("guards now"), "{said}");
    crowd.goes_on(40);
    assert_eq!(crowd.end(), Vec::<String>::new(), "{}", guard.story());
    assert_ne!(guard.guard_pid(), before);
    assert_eq!(guard.lead("reports").pid, pid);
    let program = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(program(guard.guard_pid()), newer);
    until("init follows, in place", || program(guard.pid()) == newer);
    // And both go on as before.
    replace(&mut guard, Signal::KILL);
    assert_eq!((guard.lead("reports").pid, program(guard.guard_pid())), (pid, newer));
    assert!(matches!(http::get(front, "/health"), Ok((200, _))));
}

#[test]
fn an_upgrade_to_something_that_is_no_guard_changes_nothing() {
    let mut guard = Folder::new().start(&sample("", ""));
    guard.next("ready");
    let before = guard.guard_pid();
    let garbage = guard.folder.script("garbage", "no program");
    for wrong in ["/bin/true", garbage.to_str().unwrap(), "/nonexistent/plimsoll"] {
        let output = guard.cli(&["upgrade", wrong]);
        assert_ne!(output.status.code(), Some(0), "{wrong}: {}", stderr(&output));
    }
    assert_eq!(guard.guard_pid(), before);
    assert_eq!(guard.lead("reports").id, "reports.1");
}
