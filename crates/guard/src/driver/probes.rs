//! Asking an instance whether it is well, beside the driver.

use std::fs::OpenOptions;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::{Event, InstanceId, ProbeOutcome};
use plimsoll_init::protocol::ChildKind;
use plimsoll_kernel::process::Identity;
use plimsoll_kernel::{self as kernel, spawn};
use tokio::sync::{mpsc, oneshot};

use super::launch::command;
use super::{Driver, Owner, Report};
use crate::beside;
use crate::endpoint::Endpoint;
use crate::ground::Ground;
use crate::nursery::Nursery;
use crate::probe::{self, Answer, Probed};
use crate::tree;
use crate::workload::{ProbeKind, Workload};

/// Descriptors that a check command may open.
const CHECK_DESCRIPTORS: u64 = 1024;

impl Driver {
    pub(super) fn probe(&mut self, instance: InstanceId, limit: Duration, patience: Duration) {
        let Some(workload) = self.seat_of(instance.service).map(|seat| Arc::clone(&seat.workload)) else {
            return;
        };
        let Some(running) = self.instances.get(&instance) else { return };
        let question = Question {
            workload,
            address: running.address.clone(),
            name: running.name.clone(),
            ground: Arc::clone(&self.ground),
            limit,
            patience,
            nursery: self.nursery.clone(),
        };
        if matches!(question.workload.probe, ProbeKind::Command { .. }) {
            // From here on an exit may come before its pid is known.
            self.launches += 1;
        }
        let reporter = self.reporter.clone();
        tokio::task::spawn_local(async move {
            let probed = question.ask(&reporter).await;
            let _ = reporter.send(Report::Probed { instance, probed }).await;
        });
    }

    pub(super) fn probed(&mut self, instance: InstanceId, probed: &Probed) {
        if let Some(why) = &probed.why {
            self.note_why(instance, why);
        }
        self.tell_head(Event::Probed { instance, outcome: probed.outcome });
    }

    /// A check command was started, or could not be.
    pub(super) fn own_check(&mut self, started: Option<(i32, oneshot::Sender<kernel::Exit>)>) {
        self.launches = self.launches.saturating_sub(1);
        let Some((pid, ended)) = started else { return };
        match self.take_early_exit(pid) {
            Some(exit) => {
                let _ = ended.send(exit);
            }
            None => {
                self.by_pid.insert(pid, Owner::Check(ended));
            }
        }
    }
}

struct Question {
    workload: Arc<Workload>,
    address: Option<Endpoint>,
    name: String,
    ground: Arc<Ground>,
    limit: Duration,
    patience: Duration,
    nursery: Nursery,
}

impl Question {
    async fn ask(&self, reporter: &mpsc::Sender<Report>) -> Probed {
        match (&self.workload.probe, &self.address) {
            (ProbeKind::Tcp, Some(address)) => {
                probe::timed(probe::tcp(address), self.limit, self.patience).await
            }
            (ProbeKind::Http { path }, Some(address)) => {
                probe::timed(probe::http(address, path), self.limit, self.patience).await
            }
            (ProbeKind::Command { argv }, _) => self.run(argv, reporter).await,
            (ProbeKind::None | ProbeKind::Tcp | ProbeKind::Http { .. }, _) => {
                Probed { outcome: ProbeOutcome::Passed { took: Duration::ZERO }, why: None }
            }
        }
    }

    /// Runs the check command to its end, or ends it with everything it started when patience does.
    async fn run(&self, argv: &[String], reporter: &mpsc::Sender<Report>) -> Probed {
        let started = match self.command(argv) {
            Ok(command) => started(self.nursery.clone(), self.name.clone(), command).await,
            Err(error) => Err((ProbeOutcome::NotAsked, error.to_string())),
        };
        let check: Identity = match started {
            Ok(check) => check,
            Err((outcome, why)) => {
                let _ = reporter.send(Report::Check(None)).await;
                return Probed { outcome, why: Some(format!("check command: {why}")) };
            }
        };
        let (ended, end) = oneshot::channel();
        let _ = reporter.send(Report::Check(Some((check.pid, ended)))).await;
        let probed = probe::timed(answer(end), self.limit, self.patience).await;
        tree::kill_session(&self.ground.roots, check);
        probed
    }

    fn command(&self, argv: &[String]) -> std::io::Result<spawn::Command> {
        let output = OpenOptions::new().write(true).open("/dev/null")?.into();
        let mut command =
            command(&self.ground, &self.workload, argv, &self.name, self.address.as_ref(), output);
        command.nofile = Some(CHECK_DESCRIPTORS);
        Ok(command)
    }
}

/// What it means for the service when its check cannot be started: nothing, where the host is short of something.
async fn started(
    nursery: Nursery,
    name: String,
    command: spawn::Command,
) -> Result<Identity, (ProbeOutcome, String)> {
    let not_asked = |why: &str| (ProbeOutcome::NotAsked, why.to_owned());
    let Ok(child) = beside::start(move || nursery.spawn(ChildKind::Check, &name, "", &command, None)) else {
        return Err(not_asked("the host has no thread to start it with"));
    };
    match child.await {
        Ok(Some(Ok(child))) => Ok(child.identity),
        Ok(Some(Err(error))) if error.is_retryable() => Err(not_asked(&error.to_string())),
        Ok(Some(Err(error))) => Err((ProbeOutcome::Refused, error.to_string())),
        Ok(None) => Err(not_asked("it was not started")),
        Err(error) => Err(not_asked(&error.to_string())),
    }
}

async fn answer(end: oneshot::Receiver<kernel::Exit>) -> Answer {
    match end.await {
        Ok(kernel::Exit::Code(0)) => Answer::Yes,
        Ok(exit) => Answer::No {
            why: format!("check command: {}", crate::tell::exit_words(super::exits::head_exit(exit))),
        },
        Err(_) => Answer::No { why: "check command: its end was lost".to_owned() },
    }
}
