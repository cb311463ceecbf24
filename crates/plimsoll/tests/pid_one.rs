//! As a container's first process: PID 1 of its own namespace, in a group with a limit, with groups that may not be
//! written.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::fs;
use std::process::Command;

use common::config::{sample, worker};
use common::guard::{Folder, Guard};
use common::memory_group::MemoryGroup;
use common::{EXE, is_root, leftovers, until, until_some};
use rustix::process::Signal;

fn unshare(script: Option<&str>) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    match script {
        Some(script) => command.args(["sh", "-c", &format!("{script} && exec \"$0\" \"$@\""), EXE]),
        None => command.arg(EXE),
    };
    command
}

fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Our own number of what is 1 in there.
fn pid_one(guard: &Guard) -> i32 {
    until_some("the namespace has its first process", || children(guard.pid()).first().copied())
}

/// SIGTERM to the first process, as container engines do.
#[track_caller]
fn stop(mut guard: Guard) {
    leftovers::kill(pid_one(&guard), Signal::TERM);
    assert!(guard.wait().success(), "{}", guard.story());
}

#[test]
fn as_pid_one_it_reaps_what_is_left_to_it_survives_its_guard_and_stops_when_told() {
    if !is_root("a namespace of its own") {
        return;
    }
    // Each orphan is nobody's child but the first process's.
    let script =
        "for i in 1 2 3 4 5 6 7 8; do (sleep 0.2 & exec true); done; echo left >left; exec sleep 1000";
    let config = worker("reports", &["sh", "-c", script], "");
    let mut guard = Folder::new().start_by(unshare(None), &config);
    guard.next("ready");
    until("the orphans are there", || !guard.folder.read("left").is_empty());
    let first = pid_one(&guard);
    assert_eq!(guard.status().guard.init_pid, Some(1));
    until("the orphans are gone, and nobody is a zombie", || children(first).len() == 2);
    let states = |pid: &i32| leftovers::state(*pid);
    assert!(children(first).iter().all(|pid| states(pid) != Some('Z')));
    let before = guard.lead("reports").pid;
    let decides = children(first).into_iter().find(|pid| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains("run-guard"))
    });
    leftovers::kill(decides.unwrap(), Signal::KILL);
    guard.next("guard_restarted");
    assert_eq!(guard.lead("reports").pid, before);
    stop(guard);
}

#[test]
fn a_containers_own_limit_is_the_wall_and_the_line_is_set_under_it() {
    if !is_root("a memory group") {
        return;
    }
    let Some(around) = MemoryGroup::with_limit(256 << 20) else {
        common::not_run("it needs a memory group of v1 that may be made");
        return;
    };
    let enter = format!("echo $$ >{}", around.file("cgroup.procs").display());
    let mut guard = Folder::new().start_by(unshare(Some(&enter)), &sample("", ""));
    guard.next("ready");
    let service = guard.service("reports");
    let limit = |layer: &str| service.layers.iter().find(|it| it.layer == layer).unwrap().limit_bytes;
    assert_eq!(limit("hard_wall"), Some(224 << 20));
    assert!(limit("kill_switch") < limit("hard_wall"));
    let degraded = guard.status().degraded;
    assert!(degraded.iter().any(|it| it.contains("224 MiB instead of 512 MiB")), "{degraded:?}");
    stop(guard);
}

#[test]
fn groups_that_may_not_be_written_are_reported_and_sampling_stands_in() {
    if !is_root("a mount of its own") {
        return;
    }
    let seal = "mount --make-rprivate / && mount -o remount,ro,bind /sys/fs/cgroup && \
                for it in /sys/fs/cgroup/*; do mount -o remount,ro,bind $it 2>/dev/null || true; done";
    let mut guard = Folder::new().start_by(unshare(Some(seal)), &sample("", ""));
    guard.next("ready");
    let wall = guard.service("reports").layers.into_iter().find(|it| it.layer == "hard_wall").unwrap();
    assert_eq!(wall.enforced_by, "sampling");
    assert!(wall.notes.iter().any(|note| note.contains("writable")), "{:?}", wall.notes);
    stop(guard);
}
