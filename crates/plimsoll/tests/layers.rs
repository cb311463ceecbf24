//! The six layers, each made to act on a real service.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::fs;
use std::time::Duration;

use common::config::{sample, worker};
use common::guard::{Folder, Guard};
use common::{MIB, leftovers, until, until_some};
use rustix::process::Signal;

const BROKEN: &str = "too many open files";

/// The environment of the one that serves.
fn environment(guard: &Guard, service: &str) -> Vec<String> {
    let pid = guard.lead(service).pid.unwrap();
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
    environ.split(|byte| *byte == 0).map(|it| String::from_utf8_lossy(it).into_owned()).collect()
}

/// The layer as `status` shows it: how it is enforced.
fn enforced_by(guard: &Guard, layer: &str) -> String {
    let layers = guard.service("reports").layers;
    layers.into_iter().find(|it| it.layer == layer).unwrap().enforced_by
}

/// Whether the kernel has a wall for us here; where it has not, what is told of one has no place.
fn has_cgroup(guard: &Guard) -> bool {
    let found = enforced_by(guard, "hard_wall").starts_with("cgroup");
    if !found {
        common::not_run("it needs a memory cgroup");
    }
    found
}

#[test]
fn the_soft_limit_of_node_is_appended_to_what_the_user_set() {
    let rest = "env = { NODE_OPTIONS = \"--trace-warnings\" }\n[service.reports.memory]\nhard = \"256MiB\"\n";
    let mut guard =
        Folder::new().start(&worker("reports", &["node", "-e", "setInterval(() => 0, 1e6)"], rest));
    guard.next("ready");
    // Seven eighths of the wall: V8 aborts at its limit, so the line has to come first.
    let wanted = "NODE_OPTIONS=--trace-warnings --max-old-space-size=224";
    let found = environment(&guard, "reports");
    assert!(found.iter().any(|it| it == wanted), "{found:?}");
    assert_eq!(enforced_by(&guard, "soft_limit"), "--max-old-space-size=224 in NODE_OPTIONS");
}

#[test]
fn the_soft_limit_of_a_jvm_is_appended_to_what_the_user_set() {
    let rest = "env = { JAVA_TOOL_OPTIONS = \"-Dx=y\" }\n[service.reports.memory]\nruntime = \"jvm\"\nsoft = \"200MiB\"\n";
    let mut guard = Folder::new().start(&worker("reports", &["sleep", "1000"], rest));
    guard.next("ready");
    let found = environment(&guard, "reports");
    let options = found.iter().find_map(|it| it.strip_prefix("JAVA_TOOL_OPTIONS=")).unwrap_or_default();
    assert!(options.starts_with("-Dx=y ") && options.contains("-Xmx200m"), "{found:?}");
}

#[test]
fn a_limit_that_the_user_set_is_not_overridden() {
    let rest = "env = { NODE_OPTIONS = \"--max-old-space-size=99\" }\n[service.reports.memory]\nruntime = \"node\"\n";
    let mut guard = Folder::new().start(&worker("reports", &["sleep", "1000"], rest));
    guard.next("ready");
    let found = environment(&guard, "reports");
    assert!(found.iter().any(|it| it == "NODE_OPTIONS=--max-old-space-size=99"), "{found:?}");
}

#[test]
fn a_spike_past_the_wall_is_ended_by_the_kernel_even_while_the_guard_stands_still() {
    let memory = "[service.reports.memory]\nhard = \"96MiB\"\nrecycle = \"64MiB\"\nruntime = \"none\"\n";
    let mut guard = Folder::alone().start(&sample("", memory));
    guard.next("ready");
    if !has_cgroup(&guard) {
        return;
    }
    guard.inject("reports", "/fault/fork");
    let detached = detached_child(&guard);
    let pid = guard.lead("reports").pid.unwrap();
    let address = guard.address("reports");
    guard.signal(Signal::STOP);
    common::http::post(address, "/fault/spike?size=600MiB&over=100ms", "").unwrap();
    // As long as a part of it is left, a guard that is awake may find it near the wall before it hears of its end.
    until("the kernel kills at the wall", || leftovers::is_over(pid));
    guard.signal(Signal::CONT);

    let opened = guard.next("incident_opened");
    assert_eq!((opened.layer.as_deref(), opened.cause.as_deref()), (Some("hard_wall"), Some("oom")));
    guard.next("ready");
    assert!(!leftovers::is_alive(detached), "group kill takes the children too");
    let incident = guard.incident(1);
    let evidence = incident.evidence.unwrap();
    assert!(evidence.oom.oom_kill > 0, "{:?}", evidence.oom);
    assert_eq!(evidence.exit.unwrap().signal, Some(9));
    assert_eq!(guard.service("reports").restarts, 1);
}

/// The process that the fork fault left behind.
fn detached_child(guard: &Guard) -> i32 {
    let lead = guard.lead("reports").pid.unwrap();
    let mark = guard.folder.mark();
    let known = [lead, guard.pid(), guard.guard_pid()];
    let apart = |pid: &i32| !known.contains(pid) && leftovers::parent(*pid) == Some(guard.pid());
    until_some("a detached child", || leftovers::processes(&mark).into_iter().find(apart))
}

#[test]
fn without_group_kill_a_child_at_the_wall_leaves_the_main_process_alive() {
    let script =
        "while ! [ -e go ]; do sleep 0.05; done\ntail /dev/zero\necho tail ended >ended\nexec sleep 1000\n";
    let memory = "[service.reports.memory]\nhard = \"96MiB\"\nrecycle = \"64MiB\"\ngroup_kill = false\nruntime = \"none\"\n";
    let folder = Folder::alone();
    folder.script("main", &format!("#!/bin/sh\n{script}"));
    let mut guard = folder.start(&worker("reports", &["./main"], memory));
    guard.next("ready");
    if !has_cgroup(&guard) {
        return;
    }
    let before = guard.lead("reports");
    guard.signal(Signal::STOP);
    guard.folder.write("go", "");
    until("the kernel ends the child", || !guard.folder.read("ended").is_empty());
    guard.signal(Signal::CONT);
    let event = guard.next("oom_kill");
    assert_eq!(event.instance.as_deref(), Some("reports.1"));
    let after = guard.lead("reports");
    assert_eq!((after.id, after.pid), (before.id, before.pid));
    assert!(guard.incidents().is_empty(), "{}", guard.story());
}

#[test]
fn where_no_cgroup_may_be_written_sampling_ends_a_spike_and_says_that_it_does() {
    let memory = "[service.reports.memory]\nhard = \"256MiB\"\nrecycle = \"150MiB\"\nruntime = \"none\"\n";
    let folder = Folder::new();
    let (command, exe) = folder.as_nobody();
    let config = sample("", memory).replace(common::EXE, exe.to_str().unwrap());
    let mut guard = folder.start_by(command, &config);
    guard.next("ready");
    let layers = guard.service("reports").layers;
    let wall = layers.iter().find(|it| it.layer == "hard_wall").unwrap();
    assert_eq!(wall.enforced_by, "sampling");
    assert!(!wall.notes.is_empty(), "it says what would make it stronger");
    guard.inject("reports", "/fault/fork");
    guard.inject("reports", "/fault/spike?size=600MiB&over=2s&for=60s");
    let opened = guard.next("incident_opened");
    assert_eq!((opened.layer.as_deref(), opened.cause.as_deref()), (Some("kill_switch"), Some("memory")));
    let bytes = opened.detail["memory_bytes"].as_u64().unwrap();
    assert!(bytes < 400 * MIB, "ended before it had all: {bytes}");
    guard.next("ready");
    assert_eq!(guard.lead("reports").id, "reports.2");
}

#[test]
fn a_descriptor_leak_is_recycled_before_anything_fails_and_its_kind_is_kept() {
    for (kind, word) in [("file", "file"), ("pipe", "pipe"), ("socket", "tcp")] {
        let limits = "[service.reports.descriptors]\nlimit = 256\nrecycle = 0.8\n";
        let mut guard = Folder::new().start(&sample("", limits));
        guard.next("ready");
        guard.inject("reports", &format!("/fault/leak-descriptors?kind={kind}&rate=80"));
        let opened = guard.next("incident_opened");
        let cause = (opened.layer.as_deref(), opened.cause.as_deref());
        assert_eq!(cause, (Some("descriptors"), Some("descriptors")), "{}", guard.story());
        guard.next("ready");
        let evidence = guard.incident(1).evidence.unwrap();
        let table = evidence.descriptors.unwrap();
        let leaked = table.kinds.iter().filter(|row| row.kind == word).map(|row| row.count).max();
        assert!(leaked.is_some_and(|count| count > 80), "{kind}: {table:?}");
        assert_eq!(table.limit, 256);
        let log = guard.ok(&["logs", "reports"]).to_lowercase();
        assert!(!log.contains(BROKEN), "{log}");
    }
}

#[test]
fn a_descriptor_leak_of_a_child_is_recycled_too() {
    let limits = "[service.reports.descriptors]\nlimit = 256\nrecycle = 0.8\n";
    let own = format!("[\"{}\", \"sample-service\"]", common::EXE);
    let config = sample("", limits);
    let wrapped =
        config.replace(&own, &format!("[\"sh\", \"-c\", \"{} sample-service; exit 3\"]", common::EXE));
    assert_ne!(config, wrapped);
    let mut guard = Folder::new().start(&wrapped);
    guard.next("ready");
    guard.inject("reports", "/fault/leak-descriptors?kind=pipe&rate=80");
    let opened = guard.next("incident_opened");
    assert_eq!(opened.cause.as_deref(), Some("descriptors"), "{}", guard.story());
    guard.next("ready");
}

#[test]
fn a_line_under_what_the_service_needs_is_refused_and_paged_once() {
    let memory = "[service.reports.memory]\nhard = \"96MiB\"\nrecycle = \"1MiB\"\nfor = \"50ms\"\nruntime = \"none\"\n";
    let mut guard = Folder::new().start(&sample("", memory));
    let refused = guard.next("line_refused");
    assert_eq!(refused.detail["severity"], "page");
    assert!(refused.detail["baseline_bytes"].as_u64().unwrap() > MIB);
    guard.ok(&["restart", "reports"]);
    // As long as a recycle loop would need for several rounds.
    let started = guard.lead("reports").started;
    let age = || Duration::try_from(jiff::Timestamp::now().duration_since(started)).unwrap_or_default();
    until("the second one has been up for a while", || age() > Duration::from_millis(1500));
    assert_eq!(guard.lead("reports").id, "reports.2");
    assert_eq!(guard.told_of("line_refused").len(), 1, "{}", guard.story());
    assert!(guard.told_of("recycling").is_empty() && guard.incidents().is_empty(), "{}", guard.story());
    assert!(guard.ok(&["status"]).contains("line refused"));
}

#[test]
fn a_slow_leak_that_stays_over_the_line_is_recycled_gently() {
    // The wall is so far away that no burst of a busy machine looks like a leak that would outrun the stop.
    let memory = "[service.reports.memory]\nhard = \"4GiB\"\nrecycle = \"60MiB\"\nfor = \"500ms\"\nruntime = \"none\"\n";
    let mut guard = Folder::new().start(&sample("", memory));
    guard.next("ready");
    guard.inject("reports", "/fault/leak-heap?rate=100MiB&total=70MiB");
    let opened = guard.next("incident_opened");
    assert_eq!(opened.detail["axis"], "persistence", "{}", guard.story());
    let ended = guard.next("exited");
    assert_eq!((&ended.detail["planned"], &ended.detail["exit_code"]), (&true.into(), &0.into()));
    guard.next("incident_closed");
    let service = guard.service("reports");
    assert_eq!((service.recycles, service.restarts), (1, 0));
    let evidence = guard.incident(1).evidence.unwrap();
    assert!(evidence.missing.is_empty(), "{:?}", evidence.missing);
    assert!(evidence.samples.iter().any(|it| it.memory_bytes > 60 * MIB));
    assert!(evidence.smaps_rollup["rss_bytes"] > 60 * MIB, "{:?}", evidence.smaps_rollup);
    assert!(evidence.descriptors.is_some_and(|table| !table.kinds.is_empty()));
    assert!(!evidence.threads.is_empty() && !evidence.log_tail.is_empty());
}

#[test]
fn a_crash_is_followed_by_a_restart_at_once_and_further_ones_wait_longer() {
    let mut guard = Folder::new().start(&sample("", ""));
    guard.next("ready");
    for wanted in [None, Some(250), Some(500)] {
        guard.inject("reports", "/fault/crash?code=3");
        let ended = guard.next("exited");
        assert_eq!((&ended.detail["planned"], &ended.detail["exit_code"]), (&false.into(), &3.into()));
        if let Some(wanted) = wanted {
            assert_eq!(guard.next("backing_off").detail["delay_ms"], wanted);
        }
        guard.next("ready");
    }
    assert_eq!(guard.told_of("backing_off").len(), 2, "the first restart does not wait");
    let incidents = guard.incidents();
    assert!(incidents.iter().all(|it| it.layer.as_deref() == Some("recovery")), "{incidents:?}");
    assert_eq!(guard.service("reports").restarts, 3);
}

#[test]
fn a_crash_loop_pages_at_five_and_is_tried_again_for_ever() {
    let recovery = "[service.reports.recovery]\nbackoff_max = \"500ms\"\n";
    let mut guard = Folder::new().start(&worker("reports", &["sh", "-c", "exit 3"], recovery));
    let page = guard.next("crash_loop");
    assert_eq!((&page.detail["attempt"], &page.detail["severity"]), (&5.into(), &"page".into()));
    let next = guard.next_where("a further try", |it| it.kind == "backing_off" && it.detail["attempt"] == 8);
    assert_eq!(next.detail["delay_ms"], 500);
    assert_eq!(guard.told_of("crash_loop").len(), 1);
    // The first ones came to stand, if only for a moment; from the third failure on at the latest it is one trouble.
    let incidents = guard.incidents();
    assert!(incidents.len() <= 3, "{}", guard.story());
    assert!(incidents[0].closed.is_none() && incidents[0].causes.len() >= 5, "{incidents:?}");
    common::assert_exit(&guard.cli(&["status"]), 1);
}

#[test]
fn a_service_that_ignores_its_stop_signal_is_killed_after_the_grace() {
    let recovery = "[service.reports.recovery]\ndrain = \"0s\"\nstop_grace = \"700ms\"\n";
    let mut guard = Folder::new().start(&sample("", recovery));
    guard.next("ready");
    guard.inject("reports", "/fault/ignore-term");
    guard.ok(&["stop", "reports"]);
    let stopping = guard.next("stopping");
    let killing = guard.next("killing");
    let grace = killing.time.duration_since(stopping.time).as_millis();
    assert!((650..3000).contains(&grace), "{grace} ms");
    assert_eq!(guard.next("exited").detail["signal"], 9);
}

#[test]
fn a_child_that_detached_itself_goes_with_its_service() {
    let mut guard = Folder::new().start(&sample("", ""));
    guard.next("ready");
    guard.inject("reports", "/fault/fork");
    let detached = detached_child(&guard);
    guard.inject("reports", "/fault/crash?signal=9");
    guard.next("ready");
    assert!(!leftovers::is_alive(detached));
    guard.inject("reports", "/fault/fork");
    let detached = detached_child(&guard);
    guard.ok(&["stop", "reports"]);
    assert!(!leftovers::is_alive(detached));
}

#[test]
fn a_service_that_hangs_is_replaced() {
    let mut guard = Folder::new().start(&sample("", ""));
    guard.next("ready");
    guard.inject("reports", "/fault/hang");
    let opened = guard.next("incident_opened");
    assert_eq!((opened.layer.as_deref(), opened.cause.as_deref()), (Some("health"), Some("unhealthy")));
    guard.next("ready");
    assert_eq!(guard.lead("reports").id, "reports.2");
    assert_eq!(guard.incidents().len(), 1);
}

#[test]
fn a_service_that_answers_late_is_busy_and_left_alone() {
    let health = "[service.reports.health]\nhttp = \"/health\"\ninterval = \"1500ms\"\ntimeout = \"200ms\"\nretries = 2\n";
    let mut guard = Folder::new().start(&sample("", health));
    guard.next("ready");
    guard.inject("reports", "/fault/slow?delay=400ms&for=60s");
    // One more than would end it, were late answers counted as none.
    for _ in 0..3 {
        guard.next("probe_late");
    }
    assert!(guard.told_of("probe_failed").is_empty(), "{}", guard.story());
    assert!(guard.incidents().is_empty());
    assert_eq!(guard.lead("reports").id, "reports.1");
}

#[test]
fn with_a_tcp_check_a_service_is_ready_once_its_port_is_open_and_replaced_when_it_closes() {
    let health =
        "[service.reports.health]\ntcp = true\ninterval = \"200ms\"\ntimeout = \"200ms\"\nretries = 2\n";
    let program = "const server = require('net').createServer(); \
                   setTimeout(() => server.listen(process.env.PORT, '127.0.0.1'), 400); \
                   process.on('SIGUSR2', () => server.close()); setInterval(() => 0, 1e6)";
    let config = format!("[service.reports]\ncommand = [\"node\", \"-e\", {program:?}]\n{health}");
    let mut guard = Folder::new().start(&config);
    let ready = guard.next("ready");
    assert!(ready.detail["after_ms"].as_u64().unwrap() >= 400, "{ready:?}");
    leftovers::kill(guard.lead("reports").pid.unwrap(), Signal::USR2);
    assert_eq!(guard.next("incident_opened").cause.as_deref(), Some("unhealthy"));
    guard.next("ready");
}

#[test]
fn with_a_command_check_a_worker_is_as_well_as_the_command_says() {
    let check = "[service.reports.health]\ncommand = [\"sh\", \"-c\", \"test -e well\"]\ninterval = \"200ms\"\nretries = 3\n";
    let folder = Folder::new();
    folder.write("well", "");
    let mut guard = folder.start(&worker("reports", &["sleep", "1000"], check));
    guard.next("ready");
    fs::remove_file(guard.folder.path().join("well")).unwrap();
    let failed = guard.next("probe_failed");
    assert!(failed.detail["message"].as_str().unwrap().contains("exit code 1"), "{failed:?}");
    guard.next("unready");
    guard.next("incident_opened");
    guard.folder.write("well", "");
    guard.next("ready");
}

#[test]
fn a_check_command_that_hangs_is_killed_with_its_children_and_counts_as_no_answer() {
    let check = "[service.reports.health]\ncommand = [\"sh\", \"-c\", \"if [ -e hang ]; then sleep 4321 & wait; fi\"]\n\
                 interval = \"200ms\"\ntimeout = \"200ms\"\nretries = 2\n";
    let mut guard = Folder::new().start(&worker("reports", &["sleep", "1000"], check));
    guard.next("ready");
    guard.folder.write("hang", "");
    guard.next("probe_failed");
    assert_eq!(guard.next("incident_opened").cause.as_deref(), Some("unhealthy"));
    fs::remove_file(guard.folder.path().join("hang")).unwrap();
    guard.next("ready");
    let mark = guard.folder.mark();
    let hanging = || leftovers::describe(&leftovers::processes(&mark)).contains("sleep 4321");
    until("the check's child is gone", || !hanging());
}

#[test]
fn a_service_that_never_gets_ready_is_tried_again() {
    let health = "[service.reports.health]\nhttp = \"/nothing-here\"\nstart_period = \"500ms\"\n";
    let mut guard = Folder::new().start(&sample("", health));
    let opened = guard.next("incident_opened");
    assert_eq!(opened.cause.as_deref(), Some("start_timeout"));
    assert!(opened.detail["message"].as_str().unwrap().contains("404"), "{opened:?}");
    guard.next_where("a second try", |it| {
        it.kind == "starting" && it.instance.as_deref() == Some("reports.2")
    });
}
