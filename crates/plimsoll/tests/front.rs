//! Requests through the front while instances come and go: real services, real connections.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::net::SocketAddr;

use common::config::sample;
use common::crowd::Crowd;
use common::guard::{Folder, Guard};
use common::{assert_exit, http, stderr, until, until_some};
use rustix::process::{Pid, Signal, kill_process};

fn with_front(handover: &str) -> (String, SocketAddr) {
    let port = http::free_port();
    let tables = format!(
        "[service.reports.recovery]\nhandover = \"{handover}\"\ndrain = \"5s\"\nstop_grace = \"2s\"\n\
         [front]\nhttp = \"127.0.0.1:{port}\"\n"
    );
    (sample("", &tables), SocketAddr::from(([127, 0, 0, 1], port)))
}

fn nobody_notices_a_recycle(handover: &str) {
    let (config, front) = with_front(handover);
    let mut guard = Folder::new().start(&config);
    guard.next("ready");
    let crowd = Crowd::start(front, true);
    for _ in 0..3 {
        crowd.goes_on(20);
        guard.ok(&["recycle", "reports"]);
    }
    crowd.goes_on(20);
    assert_eq!(crowd.end(), Vec::<String>::new(), "{}", guard.story());
    assert_eq!(guard.service("reports").recycles, 3);
}

#[test]
fn with_hold_nobody_notices_a_recycle() {
    nobody_notices_a_recycle("hold");
}

#[test]
fn with_overlap_nobody_notices_a_recycle() {
    nobody_notices_a_recycle("overlap");
}

#[test]
fn with_standby_nobody_notices_a_recycle() {
    nobody_notices_a_recycle("standby");
}

fn kill(guard: &Guard) {
    let pid = guard.lead("reports").pid.unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn no_safe_request_is_lost_when_the_service_is_killed() {
    let (config, front) = with_front("hold");
    let mut guard = Folder::new().start(&config);
    guard.next("ready");
    let crowd = Crowd::start(front, false);
    for _ in 0..2 {
        crowd.goes_on(20);
        kill(&guard);
        guard.next("ready");
    }
    crowd.goes_on(20);
    assert_eq!(crowd.end(), Vec::<String>::new(), "{}", guard.story());
}

#[test]
fn what_may_have_run_is_said_so_and_stands_in_the_incident() {
    let (config, front) = with_front("hold");
    let mut guard = Folder::new().start(&config);
    guard.next("ready");
    guard.inject("reports", "/fault/slow?delay=30s&for=60s");
    let report = r#"{"title":"a","body":"b"}"#;
    let client = std::thread::spawn(move || http::post(front, "/reports", report).unwrap());
    until("the request is in flight", || {
        guard.service("reports").traffic.is_some_and(|it| it.in_flight == 1)
    });
    kill(&guard);
    let (status, body) = client.join().unwrap();
    assert_eq!(status, 502, "{body}");
    assert!(body.contains("may-have-run"), "{body}");
    guard.next("incident_closed");
    let requests = until_some("the incident knows", || guard.incident(1).requests);
    assert_eq!(requests.unknown_count, 1);
    assert_eq!(
        (requests.unknown[0].method.as_str(), requests.unknown[0].path.as_str()),
        ("POST", "/reports")
    );
    let text = guard.ok(&["incidents", "show", "1"]);
    assert!(text.contains("POST /reports"), "{text}");
}

#[test]
fn requests_wait_for_the_first_instance() {
    let (config, front) = with_front("hold");
    let _guard = Folder::new().start(&config);
    // The front listens before its service runs.
    let (status, body) = until_some("the front listens", || http::get(front, "/health").ok());
    assert_eq!(status, 200, "{body}");
}

#[test]
fn who_asks_for_a_stopped_service_is_told_at_once() {
    let (config, front) = with_front("hold");
    let mut guard = Folder::new().start(&config);
    guard.next("ready");
    guard.ok(&["stop", "reports"]);
    let (status, body) = http::get(front, "/health").unwrap();
    assert_eq!(status, 503);
    assert!(body.contains("service-stopped"), "{body}");
    guard.ok(&["start", "reports"]);
    assert!(matches!(http::get(front, "/health"), Ok((200, _))));
}

#[test]
fn a_reload_reaches_the_front_while_connections_stay() {
    let (config, front) = with_front("hold");
    let mut guard = Folder::new().start(&config);
    guard.next("ready");
    let mut kept = http::Kept::open(front);
    assert_eq!(kept.get("/health").0, 200);
    let second = http::free_port();
    let log = "[front.access_log]\nfile = \"access.log\"\n";
    let route = "[[front.route]]\npath = \"/health\"\n";
    guard.folder.write("plimsoll.toml", &format!("{config}{log}{route}"));
    assert_eq!(guard.ok(&["reload"]), "reloaded: front changed\n");
    // The same connection, by the new routes.
    assert_eq!(kept.get("/health").0, 200);
    assert_eq!(kept.get("/reports").0, 404);
    assert_eq!(guard.ok(&["reload"]), "reloaded: nothing changed\n");
    until("the log has both", || {
        guard.folder.read("access.log").lines().filter(|it| it.contains("\"status\":")).count() == 2
    });
    // Another port: the new one is listened on, and the old connection ends with its next request at the latest.
    let moved = config.replace(&front.port().to_string(), &second.to_string());
    guard.folder.write("plimsoll.toml", &moved);
    assert_eq!(guard.ok(&["reload"]), "reloaded: front changed\n");
    let moved = SocketAddr::from(([127, 0, 0, 1], second));
    assert!(matches!(http::get(moved, "/reports"), Ok((200, _))));
    assert_eq!(kept.get("/reports").0, 200);
    until("nobody listens where it was", || http::get(front, "/health").is_err());
    // A port that somebody else has changes nothing, and says so.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    guard.folder.write("plimsoll.toml", &config.replace(&front.port().to_string(), &port.to_string()));
    let output = guard.cli(&["reload"]);
    assert_exit(&output, 2);
    assert!(stderr(&output).contains(&format!("cannot listen on 127.0.0.1:{port}")), "{}", stderr(&output));
    assert!(matches!(http::get(moved, "/health"), Ok((200, _))));
}

#[test]
fn a_service_that_is_added_gets_its_requests_at_once() {
    let (config, front) = with_front("hold");
    let mut guard = Folder::new().start(&config);
    guard.next("ready");
    let other = sample("", "").replace("service.reports", "service.other");
    let route =
        "[[front.route]]\npath = \"/health\"\nservice = \"other\"\n[[front.route]]\nservice = \"reports\"\n";
    guard.folder.write("plimsoll.toml", &format!("{config}{route}{other}"));
    let said = guard.ok(&["reload"]);
    assert!(said.contains("other added") && said.contains("front changed"), "{said}");
    assert!(matches!(http::get(front, "/health"), Ok((200, _))));
    guard.ok(&["stop", "reports"]);
    assert!(matches!(http::get(front, "/health"), Ok((200, _))));
    assert!(matches!(http::get(front, "/reports"), Ok((503, _))));
}
