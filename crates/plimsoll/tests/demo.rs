//! `plimsoll demo` from outside: the whole show, and what it leaves behind.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_plimsoll");

/// The demo, with its temporary folder made in `folder`.
fn demo(folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["demo", "--plain"]).env("TMPDIR", folder).stdin(Stdio::null());
    command
}

/// Nothing is in the folder, and no process names it on its command line.
fn assert_nothing_left(folder: &Path) {
    let left: Vec<_> = fs::read_dir(folder).expect("it is ours").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    let mark = folder.as_os_str().as_encoded_bytes();
    let processes = fs::read_dir("/proc").expect("it is mounted").flatten();
    let commands = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let marked: Vec<String> = commands
        .filter(|command| command.windows(mark.len()).any(|part| part == mark))
        .map(|command| String::from_utf8_lossy(&command).replace('\0', " "))
        .collect();
    assert!(marked.is_empty(), "{marked:?}");
}

#[test]
fn every_layer_does_its_work_and_the_table_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = demo(folder.path()).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    // Where no cgroup may be written, the wall is left to the sampling of the kill-switch.
    let wall = if text.contains("hard_wall     no cgroup") { "kill_switch" } else { "hard_wall" };
    for (fault, layer) in [
        ("heap leak, 30 MiB/s", "kill_switch"),
        ("descriptor leak, 40/s", "descriptors"),
        ("spike, 80 MiB in 0.3 s", "kill_switch"),
        ("spike past the wall", wall),
        ("crash", "recovery"),
        ("hang", "health"),
    ] {
        let row = text.lines().find(|line| line.starts_with(fault) && line.ends_with("  ok"));
        assert!(row.is_some_and(|row| row.contains(layer)), "{fault}: {row:?}\n{text}");
    }
    assert!(text.contains("Every layer did its work"), "{text}");
    assert_nothing_left(folder.path());
}

#[test]
fn a_show_that_is_interrupted_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = demo(folder.path()).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(demo.stdout.take().expect("asked for")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("fault 1 of")), "it begins");
    let pid = i32::try_from(demo.id()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, Signal::INT).expect("it runs");
    let rest: Vec<String> = lines.collect();
    assert_eq!(demo.wait().expect("it ends").code(), Some(1));
    assert!(rest.iter().any(|line| line.contains("interrupted")), "{rest:#?}");
    assert_nothing_left(folder.path());
}

#[test]
fn for_machines_there_is_one_object_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = demo(folder.path());
    // Interrupted before the first fault: what is to be seen is the shape.
    let mut demo = demo.arg("--json").stdout(Stdio::piped()).spawn().expect("it runs");
    while fs::read_dir(folder.path()).expect("it is ours").next().is_none() {
        assert!(demo.try_wait().expect("it is ours").is_none(), "it makes its folder before it ends");
        std::thread::yield_now();
    }
    let pid = i32::try_from(demo.id()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, Signal::TERM).expect("it runs");
    let output = demo.wait_with_output().expect("it ends");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((output.status.code(), report["ok"].as_bool()), (Some(1), Some(false)));
    assert_eq!(report["broken_off"].as_str(), Some("interrupted"), "{report}");
    assert_nothing_left(folder.path());
}
