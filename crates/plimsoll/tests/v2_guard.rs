//! The guard on pure cgroup v2, where the kernel has `memory.high`, `memory.oom.group` and pressure. Runs in the VM.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::config::sample;
use common::guard::{Folder, Guard};
use common::{EXE, MIB, until, until_some};
use plimsoll_guard::records::LayerStatus;
use plimsoll_kernel::process::Signal;

/// The line and the wall of every test here; the kernel's brake stands at 112 MiB between them.
const LIMITS: &str = "[service.reports.memory]\nhard = \"128MiB\"\nrecycle = \"75MiB\"\nfor = \"1s\"\n";

/// Emulation is slow: checks get more time than on a real machine.
const PATIENT: &str = "[service.reports.health]\nhttp = \"/health\"\ninterval = \"5s\"\ntimeout = \"5s\"\n";

/// True where these tests cannot say anything; in the VM that is a failure.
fn is_elsewhere() -> bool {
    let here = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|it| it.contains("memory"));
    assert!(
        here || std::env::var_os("PLIMSOLL_REQUIRE").is_none(),
        "this host has no memory controller on v2"
    );
    !here
}

fn start() -> Guard {
    start_in(Folder::new())
}

fn start_in(folder: Folder) -> Guard {
    let mut guard = folder.start(&sample("", &format!("{LIMITS}{PATIENT}")));
    guard.next("ready");
    guard
}

fn file(guard: &Guard, instance: &str, name: &str) -> String {
    let path = guard.group_file(instance, name).expect("the instance has a group");
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn layer(guard: &Guard, name: &str) -> LayerStatus {
    guard.service("reports").layers.into_iter().find(|it| it.layer == name).expect("all six are shown")
}

#[test]
fn the_wall_is_the_kernels_and_the_trip_wire_stands_at_the_line() {
    if is_elsewhere() {
        return;
    }
    let mut guard = start();
    let instance = guard.lead("reports").id;
    assert_eq!(file(&guard, &instance, "memory.max"), (128 * MIB).to_string());
    assert_eq!(file(&guard, &instance, "memory.high"), (75 * MIB).to_string());
    assert_eq!(file(&guard, &instance, "memory.oom.group"), "1");
    assert_eq!(layer(&guard, "hard_wall").enforced_by, "cgroup-v2");
    assert_eq!(layer(&guard, "kill_switch").enforced_by, "sampling+memory.high+psi");
    guard.end();
}

#[test]
fn the_kernel_takes_any_other_process_before_init_and_guard() {
    if is_elsewhere() {
        return;
    }
    let mut guard = start();
    let score = |pid: i32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    let instance = guard.lead("reports").pid.unwrap();
    let scores = [guard.pid(), guard.guard_pid(), instance].map(|pid| score(pid).trim().to_owned());
    assert_eq!(scores, ["-900", "-900", "0"]);
    guard.end();
}

#[test]
fn a_containers_own_limit_is_the_wall_and_the_line_is_set_under_it() {
    if is_elsewhere() {
        return;
    }
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").expect("we are root in the VM");
    let around = Path::new("/sys/fs/cgroup/container");
    fs::create_dir(around).expect("we are root in the VM");
    fs::write(around.join("memory.max"), (256 * MIB).to_string()).expect("we are root in the VM");
    let enter = format!("echo $$ >{}/cgroup.procs && exec \"$0\" \"$@\"", around.display());
    let mut command = Command::new("sh");
    command.args(["-c", &enter, EXE]);
    let mut guard = Folder::new().start_by(command, &sample("", PATIENT));
    guard.next("ready");
    assert_eq!(layer(&guard, "hard_wall").limit_bytes, Some(224 * MIB));
    assert!(layer(&guard, "kill_switch").limit_bytes < Some(224 * MIB));
    let degraded = guard.status().degraded;
    assert!(degraded.iter().any(|it| it.contains("224 MiB instead of 512 MiB")), "{degraded:?}");
    guard.end();
    // The leaf that init and guard have moved into, and then the group around it.
    until("the groups are gone", || {
        let _ = fs::remove_dir(around.join("guard"));
        fs::remove_dir(around).is_ok()
    });
}

#[test]
fn a_leak_over_the_line_fires_the_wire_and_is_recycled_with_evidence() {
    if is_elsewhere() {
        return;
    }
    let mut guard = start();
    guard.inject("reports", "/fault/leak-heap?rate=30MiB&total=100MiB");
    let opened = guard.next("incident_opened");
    assert_eq!(opened.layer.as_deref(), Some("kill_switch"));
    guard.next("recycled");
    guard.next("ready");
    // A sample may have seen the line crossed first; the kernel tells of it all the same.
    assert_eq!(guard.told_of("trip_wire").len(), 1, "{}", guard.story());
    let incident = guard.incident(1);
    let evidence = incident.evidence.expect("it was waited for");
    assert!(
        evidence.memory_stat.get("anon").is_some_and(|anon| *anon > 60 * MIB),
        "{:?}",
        evidence.memory_stat
    );
    assert!(!evidence.samples.is_empty());
    guard.end();
}

#[test]
fn a_kill_at_the_wall_is_the_kernels_and_is_named_so() {
    if is_elsewhere() {
        return;
    }
    let mut guard = start_in(Folder::alone());
    let instance = guard.lead("reports").id;
    let path = |name| guard.group_file(&instance, name).expect("the instance has a group");
    let (events, members, high) = (path("memory.events"), path("cgroup.events"), path("memory.high"));
    let address = guard.address("reports");
    // Asleep, the guard cannot be quicker than the kernel; and the wire, which it cannot raise now, would brake the
    // service over the line for as long as it sleeps.
    guard.signal(Signal::STOP);
    fs::write(high, "max").expect("we are root in the VM");
    let injected = common::http::post(address, "/fault/spike?size=300MiB&over=0s", "");
    until("the kernel kills", || counted(&events, "oom_kill").is_some_and(|kills| kills > 0));
    // The kernel counts a kill when it decides on it. Until the killed process has let go of its memory, a guard that
    // is awake sees it near the wall, and rightly says so first.
    until("the killed process is gone", || counted(&members, "populated") == Some(0));
    guard.signal(Signal::CONT);
    let opened = guard.next("incident_opened");
    assert_eq!(opened.layer.as_deref(), Some("hard_wall"), "{injected:?}\n{}", guard.story());
    assert_eq!(opened.cause.as_deref(), Some("oom"));
    guard.next("ready");
    guard.end();
}

/// The count beside `name` in a file of names and counts.
fn counted(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.parse().ok()
}

#[test]
fn group_kill_takes_the_children_along() {
    if is_elsewhere() {
        return;
    }
    let mut guard = start();
    guard.inject("reports", "/fault/fork?for=600s");
    let instance = guard.lead("reports").id;
    let procs = guard.group_file(&instance, "cgroup.procs").expect("the instance has a group");
    let count = || fs::read_to_string(&procs).map_or(0, |text| text.lines().count());
    until("the stray is in the group", || count() > 1);
    guard.ok(&["restart", "reports"]);
    until_some("the old group is gone with all of it", || (!procs.exists()).then_some(()));
    guard.end();
}
