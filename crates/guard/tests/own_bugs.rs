//! A bug of the guard's own: a step that panics costs that step. The guard says so and guards on.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use plimsoll_core::ServiceConfig;
use plimsoll_core::layers::soft_limit::SoftLimit;
use plimsoll_guard::control::client::Client;
use plimsoll_guard::records::{EventRecord, Status};
use plimsoll_guard::{Address, Ended, Guard, Hooks, LogBounds, ProbeKind, Settings, Workload};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

fn sleeper(folder: &Path) -> Workload {
    Workload {
        head: ServiceConfig::named("sleeper"),
        command: ["sleep", "1000"].map(str::to_owned).to_vec(),
        cwd: folder.to_owned(),
        env: vec![("PATH".to_owned(), std::env::var("PATH").unwrap())],
        ids: None,
        no_new_privs: true,
        tasks_max: 64,
        address: Address::None,
        probe: ProbeKind::None,
        stop_signal: Signal::TERM,
        soft_limit: SoftLimit { variables: Vec::new(), how: "none".to_owned(), note: None },
        logs: LogBounds::default(),
    }
}

fn wait_for(events: &Receiver<EventRecord>, kind: &str) -> EventRecord {
    let until = Instant::now() + PATIENCE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let event = events.recv_timeout(left).unwrap_or_else(|_| panic!("no {kind} came"));
        if event.kind == kind {
            return event;
        }
    }
}

fn status(socket: &Path) -> Status {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Client::new(socket).get("/api/v1/status")).unwrap()
}

/// The only test of its file: the guard takes the signals and the children of its whole process.
#[test]
fn a_step_that_panics_costs_that_step_and_not_the_guard() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control");
    let settings = Settings {
        state_dir: folder.path().join("state"),
        socket: socket.clone(),
        workloads: vec![sleeper(folder.path())],
        sweeps: Vec::new(),
        version: "0".to_owned(),
        notes: Vec::new(),
    };
    let (sender, events) = sync_channel(1024);
    let mut panics_left = 3;
    let guarding = thread::spawn(move || {
        Guard::prepare(settings).unwrap().run(Hooks {
            reloader: Box::new(|| Err("there is nothing to read".to_owned())),
            traffic: None,
            vaults: None,
            on_event: Box::new(move |event| {
                sender.send(event.clone()).unwrap();
                if event.kind == "ready" && panics_left > 0 {
                    panics_left -= 1;
                    panic!("a bug, planted by a test");
                }
            }),
            on_listening: Box::new(|| {}),
        })
    });
    for number in 1..=4 {
        let ready = wait_for(&events, "ready");
        assert_eq!(ready.instance, Some(format!("sleeper.{number}")));
        let status = status(&socket);
        let said = status.degraded.iter().any(|it| it.contains("a bug of its own"));
        assert!(said, "{:?}", status.degraded);
        let pid = status.services[0].instances[0].pid.unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        assert_eq!(wait_for(&events, "exited").detail["signal"], 9);
    }
    kill_process(rustix::process::getpid(), Signal::TERM).unwrap();
    assert!(matches!(guarding.join().unwrap(), Ok(Ended::Down)));
}
