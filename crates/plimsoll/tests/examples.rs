//! Every example folder as a user would run it: ready, leak, crash, hang, stop.

mod common;

use std::process::Command;

use common::config::example;
use common::guard::{Folder, Guard};
use common::{EXE, http};

/// How an example's faults are called.
struct Faults {
    leak: &'static str,
    crash: &'static str,
    hang: &'static str,
}

const COMMON: Faults = Faults { leak: "/leak-buffers?rate=150MiB", crash: "/crash?code=3", hang: "/hang" };

/// The example's own configuration, asked more often so that a hang is noticed within seconds.
fn start(name: &str) -> Guard {
    let folder = Folder::new();
    let config = example(name, folder.path());
    let quick = config
        .replace("interval = \"2s\"", "interval = \"400ms\"")
        .replace("timeout = \"1s\"", "timeout = \"400ms\"");
    assert_ne!(config, quick, "the checks' pace is where it is looked for");
    let mut command = Command::new(EXE);
    // The sample's configuration names `plimsoll` and nothing more.
    let own = std::path::Path::new(EXE).parent().expect("a binary is in a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(own).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders).expect("no colon in the target folder"));
    folder.start_by(command, &quick)
}

fn survives_its_faults(name: &str, faults: &Faults) {
    let mut guard = start(name);
    guard.next("ready");
    answers(&guard);
    let rounds = [
        (faults.leak, "kill_switch", "memory"),
        (faults.crash, "recovery", "exit"),
        (faults.hang, "health", "unhealthy"),
    ];
    for (round, (fault, layer, cause)) in (1..).zip(rounds) {
        guard.inject("reports", fault);
        let opened = guard.next("incident_opened");
        let told = (opened.layer.as_deref(), opened.cause.as_deref());
        assert_eq!(told, (Some(layer), Some(cause)), "{fault}\n{}", guard.story());
        guard.next("incident_closed");
        assert_eq!(guard.lead("reports").id, format!("reports.{}", round + 1), "{}", guard.story());
        assert_eq!(guard.incidents().len(), round, "one incident for one fault\n{}", guard.story());
        answers(&guard);
    }
    guard.ok(&["stop", "reports"]);
    guard.end();
}

/// It does its work: a report goes in and comes out.
fn answers(guard: &Guard) {
    let address = guard.address("reports");
    let sent = http::post(address, "/reports", r#"{"title": "a", "body": "b"}"#);
    assert!(matches!(sent, Ok((201, _))), "{sent:?}\n{}", guard.story());
    let listed = http::get(address, "/reports?limit=1");
    assert!(matches!(&listed, Ok((200, body)) if body.contains("\"a\"")), "{listed:?}");
    assert!(matches!(http::get(address, "/health"), Ok((200, _))));
}

#[test]
fn the_node_example_survives_its_faults() {
    survives_its_faults("node-reports", &COMMON);
}

#[test]
fn the_python_example_survives_its_faults() {
    survives_its_faults("python-reports", &COMMON);
}

#[test]
fn the_jvm_example_survives_its_faults() {
    survives_its_faults("jvm-reports", &COMMON);
}

#[test]
fn the_sample_service_survives_its_faults() {
    let faults =
        Faults { leak: "/fault/leak-heap?rate=150MiB", crash: "/fault/crash?code=3", hang: "/fault/hang" };
    survives_its_faults("sample", &faults);
}
