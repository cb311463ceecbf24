//! Bad days: each ends in a clear error or an alert, and the guard goes on.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::config::{sample, worker};
use common::guard::{Folder, Guard};
use common::{
    EXE, MIB, assert_exit, http, is_root, leftovers, plimsoll, plimsoll_command, stderr, until, until_some,
};
use plimsoll_guard::records::EventRecord;
use rustix::process::Signal;

const BACKOFF: &str = "[service.reports.recovery]\nbackoff_max = \"300ms\"\nstop_grace = \"1s\"\n";

fn message(event: &EventRecord) -> String {
    event.detail["message"].as_str().unwrap_or_default().to_owned()
}

fn kill_lead(guard: &Guard) {
    leftovers::kill(guard.lead("reports").pid.unwrap(), Signal::KILL);
}

/// `run` on this configuration, which it has to refuse.
fn refused(folder: &Folder, config: &str, by: &mut Command) -> (Option<i32>, String) {
    folder.write("plimsoll.toml", config);
    common::forget_developer(by);
    let output = by.arg("run").arg(folder.file()).arg("--state").arg(folder.state()).output().unwrap();
    (output.status.code(), stderr(&output))
}

#[test]
fn a_command_that_vanishes_is_named_and_tried_again_until_it_is_back() {
    let folder = Folder::new();
    folder.script("service", "#!/bin/sh\necho up >up\nexec sleep 1000\n");
    let mut guard = folder.start(&worker("reports", &["./service"], BACKOFF));
    guard.next("ready");
    // Before, the shell may not have opened its script yet.
    until("the script runs", || !guard.folder.read("up").is_empty());
    let path = guard.folder.path().join("service");
    let away = guard.folder.path().join("away");
    fs::rename(&path, &away).unwrap();
    kill_lead(&guard);
    let failed = guard.next("spawn_failed");
    assert!(message(&failed).contains("service"), "{failed:?}");
    assert!(guard.service("reports").warnings[0].contains("service"));
    guard.next("spawn_failed");
    fs::rename(&away, &path).unwrap();
    guard.next("ready");
    assert!(guard.service("reports").warnings.is_empty());
    assert_eq!(guard.incidents()[0].causes.last().unwrap().cause, "spawn_failed");
}

#[test]
fn a_command_that_loses_its_permission_is_named_and_tried_again() {
    let folder = Folder::new();
    let path = folder.script("service", "#!/bin/sh\nexec sleep 1000\n");
    let mut guard = folder.start(&worker("reports", &["./service"], BACKOFF));
    guard.next("ready");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    kill_lead(&guard);
    let failed = guard.next("spawn_failed");
    assert!(message(&failed).contains("./service: not executable"), "{failed:?}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    guard.next("ready");
}

#[test]
fn a_configuration_that_cannot_work_is_refused_before_anything_starts() {
    let folder = Folder::new();
    folder.write("plain", "no program\n");
    for (config, hint) in [
        (worker("reports", &["./nothing"], ""), "does not exist"),
        (worker("reports", &["./plain"], ""), "not executable"),
        (worker("reports", &["sleep", "1"], "user = \"no-such-user\"\n"), "no-such-user"),
        (worker("reports", &["sleep", "1"], "colour = \"red\"\n"), "unknown"),
        (worker("reports", &["sleep", "1"], "[service.reports.memory]\nhard = \"300\"\n"), "300MiB"),
        (
            worker(
                "reports",
                &["sleep", "1"],
                "[service.reports.memory]\nhard = \"200MiB\"\nrecycle = \"300MiB\"\n",
            ),
            "line",
        ),
    ] {
        let (code, said) = refused(&folder, &config, &mut plimsoll_command());
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(hint) && said.contains("plimsoll.toml:"), "{hint:?} in {said}");
    }
    assert!(!folder.state().exists(), "nothing was begun");
}

#[test]
fn a_taken_port_names_who_holds_it_and_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = sample(&format!("address = \"{address}\"\n"), "")
        .replace("\"sample-service\"", &format!("\"sample-service\", \"--port\", \"{}\"", address.port()));
    let mut guard = Folder::new().start(&config);
    let failed = guard.next("spawn_failed");
    let said = message(&failed);
    assert!(said.contains(&address.to_string()), "{said}");
    assert!(said.contains(&format!("(pid {})", std::process::id())), "{said}");
    drop(listener);
    guard.next("ready");
    assert_eq!(guard.address("reports"), address);
}

#[test]
fn a_second_guard_on_the_same_state_folder_is_refused_and_the_first_goes_on() {
    let mut guard = Folder::new().start(&sample("", ""));
    guard.next("ready");
    let second = plimsoll(&guard.folder.state(), &["run", guard.folder.file().to_str().unwrap()]);
    assert_exit(&second, 2);
    assert!(stderr(&second).contains("one guard at a time"), "{}", stderr(&second));
    assert!(matches!(http::get(guard.address("reports"), "/health"), Ok((200, _))));
    assert_exit(&guard.cli(&["status"]), 0);
}

#[test]
fn a_state_folder_that_may_not_be_written_is_an_error_of_permission() {
    if !is_root("taking a folder away from another user") {
        return;
    }
    let folder = Folder::new();
    fs::create_dir(folder.state()).unwrap();
    let (mut command, _) = folder.as_nobody();
    let (code, said) = refused(&folder, &worker("reports", &["sleep", "1"], ""), &mut command);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("state folder") && said.contains("--state"), "{said}");
}

/// `plimsoll`, in mounts of its own, with a file system of this kind on the state folder.
fn mounted(folder: &Folder, options: &str, then: &str) -> Command {
    fs::create_dir(folder.state()).unwrap();
    let state = folder.state();
    let state = state.display();
    let script = format!("mount -t tmpfs {options} tmpfs {state} && {then} exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, EXE]);
    command
}

#[test]
fn a_read_only_state_folder_is_named() {
    if !is_root("mounting") {
        return;
    }
    let folder = Folder::new();
    let mut command = mounted(&folder, "-o ro", "");
    let (code, said) = refused(&folder, &worker("reports", &["sleep", "1"], ""), &mut command);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("state folder") && said.contains("ead-only"), "{said}");
}

#[test]
fn on_a_full_disk_guarding_goes_on_and_says_so() {
    if !is_root("mounting") {
        return;
    }
    let mut folder = Folder::new();
    folder.socket = Some(folder.path().join("control.sock"));
    let filler =
        format!("{{ head -c 2M /dev/zero >{}/filler 2>/dev/null; true; }} &&", folder.state().display());
    let command = mounted(&folder, "-o size=1m", &filler);
    let mut guard = folder.start_by(command, &sample("", ""));
    guard.next("ready");
    guard.inject("reports", "/fault/crash?code=3");
    guard.next("incident_closed");
    until("it says that it cannot write", || !guard.status().degraded.is_empty());
    assert_exit(&guard.cli(&["status"]), 0);
    // Nor does the guard's own end need any room.
    let before = guard.lead("reports");
    leftovers::kill(guard.guard_pid(), Signal::KILL);
    guard.next("guard_restarted");
    let after = guard.lead("reports");
    assert_eq!((after.id, after.pid), (before.id, before.pid));
    guard.inject("reports", "/fault/hang");
    guard.next("incident_closed");
    assert_eq!(guard.service("reports").restarts, 2);
}

#[test]
fn a_corrupt_ledger_is_set_aside_and_said() {
    let folder = Folder::new();
    fs::create_dir(folder.state()).unwrap();
    fs::write(folder.state().join("ledger.db"), "this is no database, whatever its name says\n".repeat(500))
        .unwrap();
    let mut guard = folder.start(&sample("", ""));
    guard.next("ready");
    let told = guard.ok(&["events"]);
    assert!(told.contains("it was set aside as ") && told.contains("a new one begun"), "{told}");
    let names = fs::read_dir(guard.folder.state()).unwrap().flatten();
    assert!(names.into_iter().any(|it| it.file_name().to_string_lossy().starts_with("ledger.db.corrupt-")));
    guard.inject("reports", "/fault/crash?code=3");
    guard.next("incident_closed");
    assert_eq!(guard.incidents().len(), 1);
}

#[test]
fn a_service_that_puts_itself_in_the_background_is_told_and_its_child_ended() {
    let script = "setsid sleep 4321 & echo $! >>children; exit 0";
    let mut guard = Folder::new().start(&worker("reports", &["sh", "-c", script], BACKOFF));
    let opened = guard.next("incident_opened");
    assert_eq!(opened.cause.as_deref(), Some("daemonized"), "{}", guard.story());
    guard.next_where("the next try", |it| {
        it.kind == "starting" && it.instance.as_deref() == Some("reports.2")
    });
    let first: i32 = guard.folder.read("children").lines().next().unwrap().parse().unwrap();
    assert!(!leftovers::is_alive(first));
}

#[test]
fn a_service_that_ends_at_once_with_0_is_started_more_and_more_slowly() {
    let mut guard = Folder::new().start(&worker("reports", &["true"], BACKOFF));
    let ended = guard.next("exited");
    assert_eq!((&ended.detail["planned"], &ended.detail["exit_code"]), (&false.into(), &0.into()));
    guard.next("backing_off");
    guard.next("crash_loop");
}

#[test]
fn a_fork_bomb_stays_within_its_tasks_and_goes_with_its_service() {
    let bomb = "bomb() { bomb | bomb & }; bomb 2>/dev/null; exec sleep 1000";
    let mut guard =
        Folder::new().start(&worker("reports", &["sh", "-c", bomb], &format!("tasks = 32\n{BACKOFF}")));
    guard.next("ready");
    let Some(file) = guard.group_file("reports.1", "pids.current") else {
        common::not_run("it needs the pids controller");
        return;
    };
    let limit = file.with_file_name("pids.max");
    assert_eq!(fs::read_to_string(limit).unwrap().trim(), "32");
    let mark = guard.folder.mark();
    let refused =
        || fs::read_to_string(file.with_file_name("pids.events")).is_ok_and(|it| it.trim() != "max 0");
    until("the bomb meets its limit", refused);
    assert!(leftovers::processes(&mark).len() <= 34, "its tasks, the guard and init");
    guard.ok(&["stop", "reports"]);
    let ours = [guard.pid(), guard.guard_pid()];
    until("nothing of it is left", || leftovers::processes(&mark).iter().all(|pid| ours.contains(pid)));
}

#[test]
fn a_service_that_closes_its_output_runs_on() {
    let mut guard =
        Folder::new().start(&worker("reports", &["sh", "-c", "exec >&- 2>&-; exec sleep 1000"], ""));
    guard.next("ready");
    let pid = guard.lead("reports").pid.unwrap();
    until("it has closed it", || fs::read_link(format!("/proc/{pid}/fd/1")).is_err());
    assert_exit(&guard.cli(&["status"]), 0);
    let pid = guard.guard_pid();
    let before = cpu_ticks(pid);
    guard.ok(&["recycle", "reports"]);
    assert!(cpu_ticks(pid) - before < 100, "a closed pipe keeps the guard busy");
}

/// User and system time.
fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_guard_short_of_descriptors_says_so_and_guards() {
    if !is_root("becoming a user who cannot raise the limit") {
        return;
    }
    let folder = Folder::new();
    let (nobody, exe) = folder.as_nobody();
    let mut command = Command::new("prlimit");
    command.arg("--nofile=64:64").arg(nobody.get_program()).args(nobody.get_args());
    let mut guard = folder.start_by(command, &sample("", "").replace(EXE, exe.to_str().unwrap()));
    guard.next("ready");
    let degraded = guard.status().degraded;
    assert!(degraded.iter().any(|it| it.contains("may open 64 descriptors")), "{degraded:?}");
    guard.inject("reports", "/fault/crash?code=3");
    guard.next("incident_closed");
}

#[test]
fn root_without_the_right_to_raise_limits_gives_what_it_has_and_says_so() {
    if !is_root("giving a right up") {
        return;
    }
    let folder = Folder::new();
    let mut command = Command::new("prlimit");
    command.args(["--nofile=2000:2000", "setpriv", "--bounding-set", "-sys_resource", EXE]);
    let mut guard = folder.start_by(command, &sample("", "[service.reports.descriptors]\nlimit = 4096\n"));
    guard.next("ready");
    let pid = guard.lead("reports").pid.unwrap();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert!(open_files.contains(" 2000 "), "{open_files}");
    let service = guard.service("reports");
    let descriptors = service.layers.iter().find(|row| row.layer == "descriptors").unwrap();
    let told = |note: &String| note.contains("may give at most 2000");
    assert!(descriptors.notes.iter().any(told), "{descriptors:?}");
}

/// A user that nobody else on this machine is.
const LIMITED: u32 = 61_234;

/// Only a user's own processes may have their limits changed, even by root where that is confined.
fn limit_tasks(pid: i32, limit: &str) {
    let id = LIMITED.to_string();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        &id,
        "--regid",
        &id,
        "--clear-groups",
        "prlimit",
        "--pid",
        &pid.to_string(),
        limit,
    ]);
    assert!(command.status().unwrap().success());
}

#[test]
fn when_no_process_can_be_started_it_backs_off_and_recovers() {
    if !is_root("becoming a user with a limit on processes") {
        return;
    }
    let folder = Folder::alone();
    let (command, exe) = folder.as_user(LIMITED);
    let mut guard = folder.start_by(command, &sample("", BACKOFF).replace(EXE, exe.to_str().unwrap()));
    guard.next("ready");
    // Without a thread to spare it is harder than with one.
    let tasks = || fs::read_dir(format!("/proc/{}/task", guard.pid())).unwrap().flatten();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    let pid = guard.lead("reports").pid.unwrap();
    until("the guard's helpers have gone home", || !tasks().map(name).any(|it| it.starts_with("tokio")));
    limit_tasks(guard.pid(), "--nproc=1:");
    leftovers::kill(pid, Signal::KILL);
    guard.next("spawn_failed");
    guard.next("backing_off");
    limit_tasks(guard.pid(), "--nproc=1000:");
    guard.next("ready");
    assert_exit(&guard.cli(&["status"]), 0);
}

#[test]
fn a_service_that_prints_a_hundred_megabytes_a_second_neither_blocks_nor_fills_the_disk() {
    // It prints with the thread that answers: on a busy machine that is slow, and no hang.
    let tables = "[service.reports.logs]\nsize = \"2MB\"\nkeep = 3\n\
                  [service.reports.health]\nhttp = \"/health\"\ninterval = \"5s\"\ntimeout = \"5s\"\n";
    let mut guard = Folder::new().start(&sample("", tables));
    guard.next("ready");
    guard.inject("reports", "/fault/log?rate=100MiB&for=3s");
    let address = guard.address("reports");
    let folder = guard.folder.state().join("logs/reports");
    let begun = std::time::Instant::now();
    let mut largest = 0;
    while begun.elapsed().as_secs() < 4 {
        assert!(matches!(http::get(address, "/health"), Ok((200, _))), "it answers all the while");
        largest = largest.max(size(&folder));
    }
    assert!(largest < 8 * MIB, "{largest}");
    assert!(guard.incidents().is_empty(), "{}", guard.story());
    assert_eq!(guard.lead("reports").id, "reports.1");
}

fn size(folder: &std::path::Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                size(&entry.path())
            } else {
                entry.metadata().map_or(0, |it| it.len())
            }
        })
        .sum()
}

#[test]
fn a_stopped_service_is_a_hang_and_is_replaced() {
    let mut guard = Folder::new().start(&sample("", ""));
    guard.next("ready");
    leftovers::kill(guard.lead("reports").pid.unwrap(), Signal::STOP);
    let opened = guard.next("incident_opened");
    assert_eq!(opened.layer.as_deref(), Some("health"));
    guard.next("incident_closed");
    let evidence = guard.incident(1).evidence.unwrap();
    assert!(evidence.threads.iter().any(|it| it.state == "T"), "{:?}", evidence.threads);
}

/// A process in the freezer of cgroup v1 waits without hearing any signal, as one does that waits for a disk that hangs.
struct Frozen {
    group: PathBuf,
    thawed: bool,
}

impl Frozen {
    fn freeze(pid: i32) -> Option<Self> {
        let group = Path::new("/sys/fs/cgroup/freezer").join(format!("plimsoll-test-{pid}"));
        fs::create_dir(&group).ok()?;
        fs::write(group.join("cgroup.procs"), pid.to_string()).unwrap();
        fs::write(group.join("freezer.state"), "FROZEN").unwrap();
        until("it is frozen", || leftovers::state(pid) == Some('D'));
        Some(Self { group, thawed: false })
    }

    fn thaw(&mut self) {
        self.thawed = true;
        fs::write(self.group.join("freezer.state"), "THAWED").unwrap();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if !self.thawed {
            self.thaw();
        }
        let _ = fs::remove_dir(&self.group);
    }
}

#[test]
fn one_that_cannot_be_killed_is_paged_and_never_doubled_and_replaced_once_it_has_gone() {
    let recovery = "[service.reports.recovery]\ndrain = \"0s\"\nstop_grace = \"500ms\"\n";
    let mut guard = Folder::new().start(&sample("", recovery));
    guard.next("ready");
    let pid = guard.lead("reports").pid.unwrap();
    let Some(mut frozen) = Frozen::freeze(pid) else {
        return common::not_run("an uninterruptible wait needs root and the freezer of cgroup v1");
    };
    let opened = guard.next("incident_opened");
    assert_eq!(opened.layer.as_deref(), Some("health"));
    guard.next("killing");
    let late = guard.next("kill_late");
    assert_eq!(late.detail["severity"], "page");
    assert_eq!(late.instance.as_deref(), Some("reports.1"));
    assert_eq!(guard.told_of("starting").len(), 1, "no second one while the first is there");
    assert_eq!(leftovers::state(pid), Some('D'));
    frozen.thaw();
    assert_eq!(guard.next("exited").detail["signal"], 9);
    guard.next("ready");
    assert_eq!(guard.lead("reports").id, "reports.2");
    guard.next("incident_closed");
}

#[test]
fn a_service_runs_as_the_user_it_names_and_cannot_gain_more() {
    if !is_root("becoming another user") {
        return;
    }
    let mut guard = Folder::new().start(&worker("reports", &["sleep", "1000"], "user = \"nobody\"\n"));
    guard.next("ready");
    let pid = guard.lead("reports").pid.unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

#[test]
fn a_user_without_root_cannot_run_a_service_as_somebody_else() {
    let folder = Folder::new();
    let (mut command, _) = folder.as_nobody();
    let (code, said) =
        refused(&folder, &worker("reports", &["sleep", "1"], "user = \"root\"\n"), &mut command);
    assert!(matches!(code, Some(2 | 3)), "{code:?}: {said}");
    assert!(said.contains("root"), "{said}");
}

#[test]
fn what_a_killed_guard_left_running_without_control_groups_is_found_by_its_mark_and_ended() {
    if !is_root("becoming a user who may make no groups") {
        return;
    }
    let folder = Folder::new();
    let (command, exe) = folder.as_nobody();
    let config = sample("", "").replace(EXE, exe.to_str().unwrap());
    let mut guard = folder.start_by(command, &config);
    guard.next("ready");
    assert_eq!(guard.service("reports").layers[1].enforced_by, "sampling");
    let left = guard.lead("reports").pid.unwrap();
    guard.signal(Signal::KILL);
    guard.wait();
    assert!(leftovers::is_alive(left));
    let (command, _) = guard.folder.as_nobody();
    let mut next = guard.again_by(command);
    assert_eq!(next.next("ready").instance.as_deref(), Some("reports.2"), "numbers are never used again");
    until("the old one is gone", || !leftovers::is_alive(left));
    let degraded = next.status().degraded;
    assert!(degraded.iter().any(|it| it.contains("left running by an earlier guard")), "{degraded:?}");
}

#[test]
fn what_a_killed_guard_left_running_is_ended_by_the_next_one() {
    let mut guard = Folder::new().start(&sample("", ""));
    guard.next("ready");
    if !guard.service("reports").layers[1].enforced_by.starts_with("cgroup") {
        common::not_run("it needs a memory cgroup");
        return;
    }
    let left = guard.lead("reports").pid.unwrap();
    guard.signal(Signal::KILL);
    guard.wait();
    assert!(leftovers::is_alive(left));
    let mut next = guard.again();
    let ready = next.next("ready");
    assert_eq!(ready.instance.as_deref(), Some("reports.2"), "numbers are never used again");
    until("the old one is gone", || !leftovers::is_alive(left));
    let told =
        until_some("it is said", || next.status().degraded.into_iter().find(|it| it.contains("reports.1")));
    assert!(told.contains("earlier guard"), "{told}");
}
