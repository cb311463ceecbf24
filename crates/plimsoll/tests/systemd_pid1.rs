//! Under a real systemd: in the VM, where it is PID 1. The unit is the one that `export` writes.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{EXE, http, leftovers, not_run, stderr, stdout};
use plimsoll_guard::records::Status;
use rustix::process::Signal;

/// Where services may write: `/etc` is sealed by the unit.
const FOLDER: &str = "/var/lib/plimsoll-test";
const UNITS: &str = "/run/systemd/system";
const FRONT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// Emulation is slow.
const PATIENCE: Duration = Duration::from_mins(1);

fn under_systemd() -> bool {
    let here = std::env::var_os("PLIMSOLL_VM").is_some() && Path::new("/run/systemd/system").exists();
    if !here {
        not_run("it needs the VM with systemd as PID 1: cargo xtask vm");
    }
    here
}

#[track_caller]
fn until<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}\n{}", log());
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn systemctl(words: &[&str]) -> Output {
    Command::new("systemctl").args(words).output().unwrap()
}

#[track_caller]
fn systemctl_ok(words: &[&str]) -> String {
    let output = systemctl(words);
    assert!(output.status.success(), "{words:?}: {}{}\n{}", stdout(&output), stderr(&output), log());
    stdout(&output).trim().to_owned()
}

/// What systemd knows of the unit.
fn property(name: &str) -> String {
    systemctl_ok(&["show", "plimsoll.service", "--value", "--property", name])
}

fn log() -> String {
    let shown = systemctl(&["status", "plimsoll.service", "plimsoll.socket", "--no-pager", "--full"]);
    let events = Command::new(EXE).arg("events").output().unwrap();
    format!("{}{}{}{}", stdout(&shown), stderr(&shown), stdout(&events), stderr(&events))
}

fn status() -> Option<Status> {
    let output = Command::new(EXE).args(["status", "--json"]).output().unwrap();
    serde_json::from_str(&stdout(&output)).ok()
}

fn ready() -> Status {
    until("the service is ready", || status().filter(|it| it.services[0].state == "ready"))
}

fn pid(of: u32) -> i32 {
    i32::try_from(of).unwrap()
}

#[test]
fn the_exported_unit_guards_survives_and_stops_under_systemd() {
    if !under_systemd() {
        return;
    }
    fs::create_dir_all(FOLDER).unwrap();
    let config = format!("{FOLDER}/plimsoll.toml");
    let text = format!(
        "[service.reports]\ncommand = [\"{EXE}\", \"sample-service\"]\nenv = {{ DATABASE = \"{FOLDER}/reports.db\" }}\n\
         [service.reports.recovery]\ndrain = \"1s\"\nstop_grace = \"2s\"\n\
         [service.reports.health]\nhttp = \"/health\"\n[front]\nhttp = \"{FRONT}\"\n"
    );
    fs::write(&config, text).unwrap();
    let export = ["export", "systemd", &config, "--socket-unit", "--output", UNITS];
    let exported = Command::new(EXE).args(export).output().unwrap();
    assert!(exported.status.success(), "{}", stderr(&exported));
    systemctl_ok(&["daemon-reload"]);
    systemctl_ok(&["start", "plimsoll.socket"]);
    // Type=notify: this returns when the guard guards.
    systemctl_ok(&["start", "plimsoll.service"]);
    assert_eq!(property("StatusText").split(';').next(), Some("guarding"));
    let before = ready();
    let wall = before.services[0].layers.iter().find(|it| it.layer == "hard_wall").unwrap();
    assert_eq!(wall.enforced_by, "cgroup-v2", "{:?}\n{}", wall.notes, log());
    assert_eq!(before.degraded, Vec::<String>::new());
    // What guards is not to be reclaimed from.
    let leaf = format!("/sys/fs/cgroup{}/guard", property("ControlGroup"));
    assert_ne!(fs::read_to_string(format!("{leaf}/memory.min")).unwrap().trim(), "0");
    let members = fs::read_to_string(format!("{leaf}/cgroup.procs")).unwrap();
    assert_eq!(members.lines().count(), 2, "init and guard: {members}");
    assert!(matches!(http::get(FRONT, "/health"), Ok((200, _))), "{}", log());

    // The guard ends: nobody but init takes notice.
    let (main, instance) = (property("MainPID"), before.services[0].instances[0].pid);
    leftovers::kill(pid(before.guard.pid), Signal::KILL);
    let after = until("another guard", || status().filter(|it| it.guard.pid != before.guard.pid));
    assert_eq!(after.services[0].instances[0].pid, instance);
    assert_eq!((property("MainPID"), property("NRestarts")), (main, "0".to_owned()));

    systemctl_ok(&["reload", "plimsoll.service"]);
    assert_eq!(property("ActiveState"), "active");

    // init ends: systemd holds the socket, ends what is left, and starts everything again.
    kill_init(&after, "1");
    let again = ready();
    assert_ne!(again.services[0].instances[0].pid, instance);
    stop(&again);
    systemctl_ok(&["stop", "plimsoll.socket"]);

    // The same without a socket unit: then it holds what we have given into its store.
    systemctl_ok(&["start", "plimsoll.service"]);
    let before = ready();
    until("systemd holds the listener", || (property("NFileDescriptorStore") == "1").then_some(()));
    kill_init(&before, "1");
    let again = ready();
    assert_eq!(property("NFileDescriptorStore"), "1");
    stop(&again);
}

/// Whoever asks meanwhile waits, until there is another one.
#[track_caller]
fn kill_init(before: &Status, restarts: &str) {
    leftovers::kill(property("MainPID").parse().unwrap(), Signal::KILL);
    // Until it is gone, the guard may still accept what it will not answer.
    until("the guard is gone with it", || leftovers::is_over(pid(before.guard.pid)).then_some(()));
    assert!(matches!(http::get(FRONT, "/health"), Ok((200, _))), "{}", log());
    until("systemd has restarted it", || (property("NRestarts") == restarts).then_some(()));
}

#[track_caller]
fn stop(before: &Status) {
    systemctl_ok(&["stop", "plimsoll.service"]);
    assert_eq!((property("ActiveState"), property("Result")), ("inactive".to_owned(), "success".to_owned()));
    assert!(!leftovers::is_alive(before.services[0].instances[0].pid.unwrap()));
}
