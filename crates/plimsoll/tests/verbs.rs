//! The verbs, as scripts and people use them against a guard that runs, and where there is none.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::fs;
use std::process::Command;

use common::config::{sample, worker};
use common::guard::{Folder, Guard};
use common::{EXE, MIB, assert_exit, leftovers, plimsoll, plimsoll_command, stderr, stdout, until};
use plimsoll_guard::records::{EventRecord, ServiceStatus};
use rustix::process::Signal;

fn ready(config: &str) -> Guard {
    let mut guard = Folder::new().start(config);
    guard.next("ready");
    guard
}

/// Digits and units are others each time.
fn masked(text: &str) -> String {
    let line = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<String> = line.split_whitespace().map(word).collect();
        " ".repeat(indent) + &words.join(" ")
    };
    // A life too short for two samples has no curve.
    let is_curve = |line: &str| line.trim_start().starts_with(|letter| ('▁'..='█').contains(&letter));
    text.lines().filter(|it| !is_curve(it)).map(line).collect::<Vec<_>>().join("\n")
}

fn word(word: &str) -> String {
    let (plain, comma) = word.strip_suffix(',').map_or((word, ""), |plain| (plain, ","));
    if matches!(plain, "s" | "ms" | "min") {
        return format!("time{comma}");
    }
    if matches!(plain, "B" | "KiB" | "MiB") {
        return format!("bytes{comma}");
    }
    let mut masked = String::new();
    for letter in word.chars() {
        let letter = match letter {
            '0'..='9' => '#',
            letter => letter,
        };
        if !(masked.ends_with(letter) && letter == '#') {
            masked.push(letter);
        }
    }
    masked.replace("#.#", "#")
}

#[test]
fn status_says_by_its_exit_code_whether_all_is_well() {
    let check = "[service.reports.health]\ncommand = [\"test\", \"-e\", \"well\"]\n";
    let mut guard = Folder::new().start(&worker("reports", &["sleep", "1000"], check));
    guard.next("started");
    let output = guard.cli(&["status"]);
    assert_exit(&output, 1);
    assert!(stdout(&output).contains("starting (wanted up)"), "{}", stdout(&output));
    guard.folder.write("well", "");
    guard.next("ready");
    assert_exit(&guard.cli(&["status"]), 0);
    guard.ok(&["stop", "reports"]);
    assert_exit(&guard.cli(&["status"]), 0);
}

#[test]
fn without_a_guard_verbs_that_need_one_say_so_and_exit_with_4() {
    let folder = Folder::new();
    for args in [
        &["status"][..],
        &["recycle", "reports"],
        &["restart", "reports"],
        &["stop", "reports"],
        &["start", "reports"],
        &["reload"],
        &["events"],
        &["incidents"],
    ] {
        let output = plimsoll(&folder.state(), args);
        assert_exit(&output, 4);
        assert!(stderr(&output).starts_with("plimsoll: "), "{args:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1, "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn stop_start_restart_and_recycle_wait_until_it_is_done() {
    let guard = ready(&sample("", ""));
    let told = |args: &[&str]| guard.ok(args);
    assert!(told(&["stop", "reports"]).starts_with("reports is down (took "));
    assert!(guard.service("reports").instances.is_empty());
    assert!(told(&["start", "reports"]).starts_with("reports is ready: reports.2 (took "));
    assert!(told(&["restart", "reports"]).starts_with("reports is ready: reports.3 (took "));
    assert!(told(&["recycle", "reports"]).starts_with("reports is ready: reports.4 (took "));
    let after: ServiceStatus = serde_json::from_str(&told(&["recycle", "reports", "--json"])).unwrap();
    assert_eq!((after.name.as_str(), after.state.as_str()), ("reports", "ready"));
    assert!(guard.incidents().is_empty(), "what was asked for is no incident");
    for order in ["stop", "start", "restart", "recycle"] {
        let output = guard.cli(&[order, "nobody"]);
        assert_exit(&output, 2);
        assert!(stderr(&output).contains("no service is named \"nobody\"; there is reports"));
    }
}

#[test]
fn status_in_json_is_the_contracts_record() {
    let guard = ready(&sample("", ""));
    let status: serde_json::Value = serde_json::from_str(&guard.ok(&["status", "--json"])).unwrap();
    let service = &status["services"][0];
    assert_eq!(status["guard"]["init_pid"], guard.pid());
    let decides = i32::try_from(status["guard"]["pid"].as_i64().unwrap()).unwrap();
    assert_eq!(leftovers::parent(decides), Some(guard.pid()));
    assert_eq!(
        (&service["name"], &service["intent"], &service["state"]),
        (&"reports".into(), &"up".into(), &"ready".into())
    );
    let instance = &service["instances"][0];
    assert!(instance["memory_bytes"].as_u64().unwrap() > MIB);
    assert!(instance["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    let layers: Vec<&str> =
        service["layers"].as_array().unwrap().iter().filter_map(|it| it["layer"].as_str()).collect();
    assert_eq!(layers, ["soft_limit", "hard_wall", "descriptors", "kill_switch", "recovery", "health"]);
}

#[test]
fn events_follow_what_happens_and_can_be_read_without_a_guard() {
    let mut guard = ready(&sample("", ""));
    let following = guard.cli_on(&["events", "-f", "--json", "-n", "1"]);
    // One line of the past, and it stands.
    following.line("\"ready\"");
    guard.inject("reports", "/fault/crash?code=3");
    let line = following.line("\"incident_opened\"");
    let event: EventRecord = serde_json::from_str(&line).unwrap();
    assert_eq!(event.cause.as_deref(), Some("exit"));
    guard.next("incident_closed");
    guard.end();

    let state = guard.folder.state();
    let past = plimsoll(&state, &["events", "--json"]);
    assert_exit(&past, 0);
    let kinds: Vec<String> =
        stdout(&past).lines().map(|line| serde_json::from_str::<EventRecord>(line).unwrap().kind).collect();
    for kind in ["starting", "ready", "incident_opened", "incident_closed", "stopped"] {
        assert!(kinds.iter().any(|it| it == kind), "{kind} in {kinds:?}");
    }
    assert_eq!(kinds, guard.told().into_iter().map(|it| it.kind).collect::<Vec<_>>());
    let last = stdout(&plimsoll(&state, &["events", "reports", "-n", "1"]));
    assert!(last.lines().count() == 1 && last.contains("stopped"), "{last}");
    assert_exit(&plimsoll(&state, &["incidents", "show", "1"]), 0);
}

#[test]
fn incidents_read_like_a_short_post_mortem() {
    let mut guard = ready(&sample("", ""));
    assert_eq!(guard.ok(&["incidents", "--service", "reports"]), "no incidents\n");
    guard.inject("reports", "/fault/crash?code=3");
    guard.next("incident_closed");
    guard.incident(1);
    insta::assert_snapshot!("incidents_list", masked(&guard.ok(&["incidents"])));
    insta::assert_snapshot!("incidents_show_crash", masked(&guard.ok(&["incidents", "show", "1"])));
    for of_nobody in
        [&["incidents", "--service", "other"][..], &["events", "other"], &["logs", "-f", "other"]]
    {
        let output = guard.cli(of_nobody);
        assert_exit(&output, 2);
        assert!(stderr(&output).contains("no service is named \"other\"; there is reports"), "{output:?}");
    }
    let output = guard.cli(&["incidents", "show", "99"]);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
    assert!(stderr(&output).contains("no incident 99"), "{}", stderr(&output));
}

#[test]
fn an_incident_of_memory_shows_the_curve_and_what_the_process_held() {
    // With the wall this far away it is a gentle recycle, with all the time there is for evidence.
    let memory = "[service.reports.memory]\nhard = \"4GiB\"\nrecycle = \"80MiB\"\nfor = \"300ms\"\nruntime = \"none\"\n";
    let mut guard = ready(&sample("", memory));
    guard.inject("reports", "/fault/leak-heap?rate=60MiB&total=120MiB");
    guard.next("incident_closed");
    guard.incident(1);
    let text = guard.ok(&["incidents", "show", "1"]);
    for part in [
        "layer     kill_switch",
        "Memory  ",
        "▇",
        "Process  resident",
        "Descriptors  ",
        "Threads",
        "fault: LeakHeap",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

#[test]
fn logs_show_what_a_service_printed_from_a_time_on_and_as_it_comes() {
    let guard = ready(&sample("", ""));
    guard.inject("reports", "/fault/slow?delay=1ms&for=1s");
    until("the line is stored", || guard.ok(&["logs", "reports"]).contains("fault: Slow"));
    assert!(guard.ok(&["logs", "reports", "--since", "1h"]).contains("fault: Slow"));
    assert_eq!(guard.ok(&["logs", "reports", "--since", "2999-01-01T00:00:00Z"]), "");
    assert_eq!(guard.ok(&["logs", "reports", "-n", "1"]).lines().count(), 1);
    let following = guard.cli_on(&["logs", "reports", "-f", "--json"]);
    following.line("fault: Slow");
    guard.inject("reports", "/fault/ignore-term");
    let line: serde_json::Value = serde_json::from_str(&following.line("IgnoreTerm")).unwrap();
    assert_eq!(line["instance"], "reports.1");
    let output = guard.cli(&["logs", "other"]);
    assert_exit(&output, 1);
    assert!(stderr(&output).contains("reports"), "it says what there is: {}", stderr(&output));
}

fn wall(guard: &Guard, instance: &str) -> Option<u64> {
    let names = ["memory.limit_in_bytes", "memory.max"];
    let file = names.into_iter().find_map(|name| guard.group_file(instance, name))?;
    fs::read_to_string(file).unwrap().trim().parse().ok()
}

fn limits(hard: u64, extra: &str) -> String {
    sample("", &format!("[service.reports.memory]\nhard = \"{hard}MiB\"\nruntime = \"none\"\n{extra}"))
}

#[test]
fn reload_moves_a_limit_under_the_running_instance() {
    let guard = ready(&limits(200, ""));
    let before = guard.lead("reports");
    guard.folder.write("plimsoll.toml", &limits(300, ""));
    assert_eq!(guard.ok(&["reload"]), "reloaded: reports changed without a restart\n");
    let after = guard.lead("reports");
    assert_eq!((after.id, after.pid), (before.id, before.pid));
    match wall(&guard, "reports.1") {
        Some(bytes) => assert_eq!(bytes, 300 * MIB),
        None => assert_eq!(guard.service("reports").layers[1].enforced_by, "sampling"),
    }
    assert_eq!(guard.service("reports").layers[1].limit_bytes, Some(300 * MIB));
    assert_eq!(guard.ok(&["reload"]), "reloaded: nothing changed\n");
}

#[test]
fn reload_moves_the_limits_on_descriptors_and_tasks_under_whatever_runs() {
    let limits = |descriptors: u32, tasks: u32| {
        let top = format!("tasks = {tasks}\n");
        sample(&top, &format!("[service.reports.descriptors]\nlimit = {descriptors}\n"))
    };
    let guard = ready(&limits(1024, 100));
    guard.inject("reports", "/fault/fork?for=600s");
    let main = guard.lead("reports").pid.unwrap();
    let open_files = |pid: i32| {
        // Empty where it has just ended.
        let all = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
        let line = all.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
        line.split_whitespace().skip(3).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(open_files(main), ["1024", "1024"]);
    guard.folder.write("plimsoll.toml", &limits(512, 200));
    assert_eq!(guard.ok(&["reload"]), "reloaded: reports changed without a restart\n");
    assert_eq!(open_files(main), ["512", "512"]);
    assert_eq!(guard.lead("reports").pid, Some(main));
    if let Some(file) = guard.group_file("reports.1", "pids.max") {
        assert_eq!(fs::read_to_string(&file).unwrap().trim(), "200");
        let all = fs::read_to_string(file.with_file_name("cgroup.procs")).unwrap();
        let limits: Vec<_> = all.lines().map(|pid| open_files(pid.parse().unwrap())).collect();
        assert_eq!(limits, [["512", "512"]; 2], "also of what it left behind");
    }
    // To raise a hard limit takes a privilege that not even every root has: then a new process gets it.
    guard.folder.write("plimsoll.toml", &limits(2048, 200));
    guard.ok(&["reload"]);
    until("the new limit is in force", || {
        guard.lead("reports").pid.map(open_files) == Some(vec!["2048".to_owned(); 2])
    });
}

#[test]
fn reload_recycles_a_service_whose_command_changed_and_adds_and_removes_others() {
    let mut guard = ready(&sample("", ""));
    let more = sample("", "").replace("\"sample-service\"", "\"sample-service\", \"--boot-ms\", \"1\"");
    guard.folder.write("plimsoll.toml", &(more + &worker("extra", &["sleep", "1000"], "")));
    let said = guard.ok(&["reload"]);
    assert!(said.contains("reports changed and is being recycled") && said.contains("extra added"), "{said}");
    guard.next_where("the extra one", |it| it.kind == "ready" && it.service == "extra");
    until("the new command runs", || guard.lead("reports").id == "reports.2");
    guard.folder.write("plimsoll.toml", &sample("", ""));
    let said = guard.ok(&["reload"]);
    assert!(said.contains("extra removed and stopped"), "{said}");
    until("it is gone from the listing", || guard.status().services.len() == 1);
}

#[test]
fn a_wrong_file_changes_nothing_and_says_why() {
    let mut guard = ready(&limits(200, ""));
    guard.folder.write("plimsoll.toml", &limits(300, "recylce = \"100MiB\"\n"));
    let output = guard.cli(&["reload"]);
    assert_exit(&output, 2);
    assert!(
        stderr(&output).contains("did you mean") && stderr(&output).contains("plimsoll.toml"),
        "{}",
        stderr(&output)
    );
    guard.signal(Signal::HUP);
    let refused = guard.next_where("a refusal", |it| it.kind == "reload_refused");
    assert_eq!(refused.detail["severity"], "warning");
    assert_eq!(guard.service("reports").layers[1].limit_bytes, Some(200 * MIB));
    assert_eq!(guard.lead("reports").id, "reports.1");
}

#[test]
fn one_command_is_guarded_with_the_defaults() {
    let folder = Folder::new();
    let mut guard = folder.launch(Command::new(EXE), &["--health", "none", "--", "sleep", "1000"]);
    guard.next("ready");
    let service = guard.service("sleep");
    assert_eq!(service.layers[1].limit_bytes, Some(512 * MIB));
    assert!(guard.end().success());
}

#[test]
fn a_command_is_told_its_port_and_checked_there() {
    let folder = Folder::new();
    let what = ["--health", "/health", "--", EXE, "sample-service", "--port", "{port}"];
    let mut guard = folder.launch(Command::new(EXE), &what);
    guard.next("ready");
    assert!(matches!(common::http::get(guard.address("plimsoll"), "/stats"), Ok((200, _))));
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = plimsoll_command().args(["completions", shell]).output().unwrap();
        assert_exit(&output, 0);
        assert!(stdout(&output).contains("recycle") && stdout(&output).contains("plimsoll"), "{shell}");
    }
}

#[test]
fn check_shows_what_enforces_each_layer_without_starting_anything() {
    let folder = Folder::new();
    folder.write("plimsoll.toml", &sample("", ""));
    let file = folder.file();
    let output = plimsoll_command().args(["check", file.to_str().unwrap()]).output().unwrap();
    assert_exit(&output, 0);
    for layer in ["soft_limit", "hard_wall", "descriptors", "kill_switch", "recovery", "health"] {
        assert!(stdout(&output).contains(layer), "{}", stdout(&output));
    }
}

#[test]
fn sigterm_ends_every_service_and_the_guard_says_done() {
    let mut guard = ready(&(sample("", "") + &worker("extra", &["sleep", "1000"], "")));
    assert_eq!(guard.end().code(), Some(0));
    assert_eq!(guard.told_of("stopped").len(), 2);
}
