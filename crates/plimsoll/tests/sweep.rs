//! The hunt for strays: it finds what it is told to, and nothing else.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::config::worker;
use common::guard::Folder;
use common::{EXE, assert_exit, leftovers, plimsoll_command, stderr, stdout, until};
use plimsoll_core::units::Bytes;
use plimsoll_guard::sweep::{self, Finding, Outcome, SweepRule};
use plimsoll_kernel::Roots;

/// A copy of a program, so that nothing else on this machine is the same executable.
fn copy(folder: &Folder, program: &str, name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap();
    let found = path.split(':').map(|it| Path::new(it).join(program)).find(|it| it.is_file()).unwrap();
    let copy = folder.path().join(name);
    fs::copy(fs::canonicalize(found).unwrap(), &copy).unwrap();
    copy
}

/// A process of the test's own; ended with it.
struct Stray(Child);

impl Stray {
    fn start(exe: &Path, args: &[&str]) -> Self {
        let child = Command::new(exe).args(args).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stray = Self(child);
        // Until it has become the other program it is still us.
        until("the stray runs", || runs(stray.pid(), exe));
        stray
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn is_alive(&self) -> bool {
        leftovers::is_alive(self.pid())
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn runs(pid: i32, exe: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|it| it == exe)
}

fn sweep(args: &[&str]) -> Output {
    plimsoll_command().arg("sweep").args(args).output().unwrap()
}

fn findings(output: &Output) -> Vec<Finding> {
    serde_json::from_str(&stdout(output)).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_stray_over_its_size_is_reported_and_left_alone() {
    let folder = Folder::new();
    let exe = copy(&folder, "sleep", "stray");
    let stray = Stray::start(&exe, &["1000"]);
    let output = sweep(&["--exe", exe.to_str().unwrap(), "--over", "100KiB", "--json"]);
    assert_exit(&output, 1);
    let found = findings(&output);
    assert_eq!(found.iter().map(|it| it.pid).collect::<Vec<_>>(), [stray.pid()]);
    assert_eq!(found[0].outcome, Outcome::Reported);
    assert!(stray.is_alive());
    let text = stdout(&sweep(&["--exe", exe.to_str().unwrap(), "--over", "100KiB"]));
    assert!(text.contains("nothing was touched"), "{text}");
}

#[test]
fn executable_and_arguments_have_to_match_exactly() {
    let folder = Folder::new();
    let exe = copy(&folder, "sleep", "stray");
    let other = copy(&folder, "sleep", "stray2");
    let wanted = Stray::start(&exe, &["1000", "7"]);
    let _longer = Stray::start(&exe, &["10007"]);
    let _other = Stray::start(&other, &["1000", "7"]);
    let found = |args: &str| {
        let output = sweep(&["--exe", exe.to_str().unwrap(), "--args", args, "--over", "100KiB", "--json"]);
        findings(&output).iter().map(|it| it.pid).collect::<Vec<_>>()
    };
    assert_eq!(found("1000 7"), [wanted.pid()]);
    assert_eq!(found("7"), [wanted.pid()]);
    assert!(found("100").is_empty(), "a part of an argument is no match");
}

#[test]
fn a_small_one_is_no_stray_and_the_answer_is_yes() {
    let folder = Folder::new();
    let exe = copy(&folder, "sleep", "stray");
    let _stray = Stray::start(&exe, &["1000"]);
    let output = sweep(&["--exe", exe.to_str().unwrap(), "--over", "1GiB"]);
    assert_exit(&output, 0);
    assert_eq!(stdout(&output), "no strays\n");
}

#[test]
fn told_to_act_it_ends_a_stray_by_its_stop_signal() {
    let folder = Folder::new();
    let exe = copy(&folder, "sleep", "stray");
    let mut stray = Stray::start(&exe, &["1000"]);
    // Reaped like any other child, or it would stay on as an entry.
    let reaper = std::thread::spawn(move || stray.0.wait().unwrap());
    let output = sweep(&["--exe", exe.to_str().unwrap(), "--over", "100KiB", "--json", "--act"]);
    assert_exit(&output, 0);
    assert_eq!(findings(&output)[0].outcome, Outcome::Terminated);
    assert!(!reaper.join().unwrap().success());
}

#[test]
fn one_that_ignores_the_stop_signal_is_killed_after_the_grace() {
    let folder = Folder::new();
    let exe = copy(&folder, "sh", "stray-sh");
    let mut stray = Stray::start(&exe, &["-c", "trap '' TERM; read line"]);
    let trapped = || ignores_term(stray.pid());
    until("it ignores TERM", trapped);
    let ended = stray.0.stdin.take();
    let reaper = std::thread::spawn(move || stray.0.wait().unwrap());
    let output = sweep(&["--exe", exe.to_str().unwrap(), "--over", "100KiB", "--json", "--act"]);
    assert_exit(&output, 0);
    assert_eq!(findings(&output)[0].outcome, Outcome::Killed);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&reaper.join().unwrap()), Some(9));
    drop(ended);
}

fn ignores_term(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap_or("0");
    u64::from_str_radix(mask.trim(), 16).unwrap_or(0) & (1 << 14) != 0
}

#[test]
fn an_orphan_is_a_stray_and_a_child_with_a_parent_is_none() {
    let folder = Folder::new();
    let exe = copy(&folder, "sleep", "stray");
    let child = Stray::start(&exe, &["1000"]);
    let line = format!("{} 2000 >/dev/null 2>&1 & echo $!", exe.display());
    let said = Command::new("sh").args(["-c", &line]).output().unwrap();
    let orphan: i32 = stdout(&said).trim().parse().unwrap();
    // The shell was waited for, so its child has been handed on.
    let alone = leftovers::parent(orphan).unwrap();
    // The shell names its child before that has become the other program.
    until("the orphan runs", || runs(orphan, &exe));
    let output = sweep(&["--exe", exe.to_str().unwrap(), "--orphan-after", "0s", "--json"]);
    let found: Vec<i32> = findings(&output).iter().map(|it| it.pid).collect();
    leftovers::kill(orphan, rustix::process::Signal::KILL);
    assert!(!found.contains(&child.pid()));
    if alone == 1 {
        assert_eq!(found, [orphan]);
    } else {
        common::not_run(&format!("orphans go to pid {alone} here and not to PID 1"));
    }
}

#[test]
fn a_guarded_instance_and_plimsoll_itself_are_never_strays() {
    let folder = Folder::new();
    let exe = copy(&folder, "sleep", "stray");
    let mut guard = folder.start(&worker("reports", &[exe.to_str().unwrap(), "1000"], ""));
    guard.next("ready");
    for program in [exe.to_str().unwrap(), EXE] {
        let output = sweep(&["--exe", program, "--over", "1KiB", "--json"]);
        let ours = findings(&output).into_iter().map(|it| it.pid).filter(|pid| {
            [guard.pid(), guard.guard_pid()].contains(pid) || Some(*pid) == guard.lead("reports").pid
        });
        assert_eq!(ours.collect::<Vec<_>>(), Vec::<i32>::new(), "{program}");
    }
}

#[test]
fn somebody_else_who_has_the_pid_by_now_is_not_signalled() {
    let folder = Folder::new();
    let exe = copy(&folder, "sleep", "stray");
    let stray = Stray::start(&exe, &["1000"]);
    let roots = Roots::default();
    let rule = SweepRule {
        exe,
        args: None,
        over: Some(Bytes(1024)),
        orphan_after: None,
        every: std::time::Duration::from_secs(1),
        act: true,
    };
    let mut found = sweep::hunt(&roots, &rule, None).unwrap();
    assert_eq!(found.len(), 1);
    // As if the process that was found had ended and its number had been given out again.
    found[0].start_time -= 1;
    sweep::end(&roots, &mut found, sweep::GRACE);
    assert_eq!(found[0].outcome, Outcome::Gone);
    assert!(stray.is_alive());
}

#[test]
fn a_name_alone_or_no_limit_is_refused() {
    for (args, hint) in [
        (&["--exe", "sleep", "--over", "1MiB"][..], "whole path"),
        (&["--exe", "/bin/sleep"][..], "--over or --orphan-after"),
    ] {
        let output = sweep(args);
        assert_exit(&output, 2);
        assert!(stderr(&output).contains(hint), "{}", stderr(&output));
    }
}

#[test]
fn the_guard_sweeps_on_schedule_and_acts_only_where_it_is_told_to() {
    let folder = Folder::new();
    let left = copy(&folder, "sleep", "left-alone");
    let ended = copy(&folder, "sleep", "to-be-ended");
    let rule = |exe: &Path, act: bool| {
        format!(
            "[[sweep]]\nmatch = {{ exe = {exe:?}, args = \"1000\" }}\nover = \"100KiB\"\nevery = \"1s\"\nact = {act}\n"
        )
    };
    let config = worker("reports", &["sleep", "3000"], "") + &rule(&left, false) + &rule(&ended, true);
    let left = Stray::start(&left, &["1000"]);
    let mut doomed = Stray::start(&ended, &["1000"]);
    let reaper = std::thread::spawn(move || doomed.0.wait().unwrap());
    let mut guard = folder.start(&config);
    guard.next("stray_ended");
    assert!(!reaper.join().unwrap().success());
    let found = guard.told_of("stray_found");
    assert!(!found.is_empty() || guard.next("stray_found").kind == "stray_found");
    assert!(left.is_alive());
}
