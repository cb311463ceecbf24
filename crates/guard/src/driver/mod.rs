//! The driver: owns the head, tells it what happens and does what it says. It decides nothing itself.
//!
//! One task owns everything here, so there is no lock. Whatever may block (making a cgroup, starting a process,
//! killing a tree, taking evidence) runs beside it and comes back as a `Report`.

mod act;
mod address;
mod clock;
mod exits;
mod keep;
mod launch;
mod link;
mod notices;
mod orders;
mod probes;
mod recent;
mod record;
mod reload;
mod running;
mod sample;
mod status;
mod strays;
mod take_over;
mod traffic;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::{Event, Head, IncidentId, InstanceId, ServiceId};
use plimsoll_init::protocol::ToInit;
use plimsoll_init::{Link, Told};
use plimsoll_kernel as kernel;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;

use crate::beside;
use crate::control::Ask;
use crate::ground::Ground;
use crate::ledger::LedgerHandle;
use crate::logs::PumpHandle;
use crate::nursery::Nursery;
use crate::quick::QuickMap;
use crate::records::{Evidence, IncidentRecord};
use crate::traffic::{Traffic, TrafficNews};
use crate::vaults::{self, VaultSaid, Vaults};
use crate::workload::{Settings, Workload};
use clock::Clock;
use launch::Launched;
pub use launch::{GUARD_VARIABLE, INSTANCE_VARIABLE, environment};
use link::Tie;
use notices::Watcher;
pub(crate) use notices::host_pressure;
use running::Running;

/// Reports under way from blocking work; beyond it that work waits.
const REPORTS_MAX: usize = 4096;
/// Exits of processes that we have not been told the pid of yet.
const EARLY_EXITS_MAX: usize = 4096;
/// A start takes no longer than this until it is reported.
const EARLY_EXIT_KEPT: Duration = Duration::from_secs(10);
/// While something is being emptied, it is looked at this often beside every child's end.
const EMPTY_CHECK: Duration = Duration::from_millis(25);

#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("cannot watch for signals: {0}")]
    Signals(std::io::Error),
    #[error("cannot watch the kernel's notifications: {0}")]
    Watcher(std::io::Error),
    #[error("cannot listen to init: {0}")]
    Init(std::io::Error),
}

/// How one service of the settings stands in the driver. Its place in the list is its [`ServiceId`].
#[derive(Debug)]
struct Seat {
    workload: Arc<Workload>,
    /// Taken out of the configuration: it is stopped, and shown until it is down.
    retired: bool,
    /// A fixed address or a picked port may keep being refused; said once per reason.
    last_refusal: Option<String>,
}

/// What comes back from work beside the driver.
#[derive(Debug)]
enum Report {
    Launched {
        instance: InstanceId,
        outcome: Result<Launched, launch::LaunchError>,
    },
    Probed {
        instance: InstanceId,
        probed: crate::probe::Probed,
    },
    /// A check command runs, or could not be started.
    Check(Option<(i32, oneshot::Sender<kernel::Exit>)>),
    Evidence {
        instance: InstanceId,
        incident: IncidentId,
        evidence: Box<Evidence>,
    },
    KillPassed {
        instance: InstanceId,
    },
    /// What the kernel will speak up about, on cgroup v1.
    Marked {
        instance: InstanceId,
        sources: Vec<notices::Source>,
        problem: Option<String>,
    },
    Swept {
        findings: Vec<crate::sweep::Finding>,
        problem: Option<String>,
    },
}

/// Why a pid of ours is waited for.
#[derive(Debug)]
enum Owner {
    Main(InstanceId),
    Check(oneshot::Sender<kernel::Exit>),
}

/// Reads the configuration again; the error is for the operator.
pub type Reloader = Box<dyn FnMut() -> Result<Settings, String>>;

/// What the driver is given at the start.
pub struct Parts {
    pub settings: Settings,
    pub ground: Arc<Ground>,
    pub ledger: LedgerHandle,
    pub pump: PumpHandle,
    pub asks: mpsc::Receiver<Ask>,
    pub reloader: Reloader,
    /// Who carries the services' requests, if anybody does.
    pub traffic: Option<Box<dyn Traffic>>,
    pub vaults: Option<Box<dyn Vaults>>,
    /// Called for every event, for the operator's terminal.
    pub on_event: Box<dyn FnMut(&crate::records::EventRecord)>,
    /// Things that are worse than they should be, said in `status`.
    pub degraded: Vec<String>,
    /// The way to init, which starts and reaps for us; without one we do so ourselves.
    pub link: Option<Link>,
}

/// How a guard's time ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything is stopped.
    Down,
    /// Another guard takes over; everything runs on.
    Replaced,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Parts").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The hands of the head.
pub struct Driver {
    head: Head,
    clock: Clock,
    settings: Settings,
    ground: Arc<Ground>,
    seats: Vec<Seat>,
    instances: QuickMap<InstanceId, Running>,
    by_pid: HashMap<i32, Owner>,
    early_exits: HashMap<i32, (tokio::time::Instant, kernel::Exit)>,
    launches: usize,
    emptying: BTreeSet<InstanceId>,
    incidents: BTreeMap<u64, IncidentRecord>,
    /// Closed, and perhaps still waiting for evidence.
    closing: Vec<(IncidentId, tokio::time::Instant)>,
    /// What became of requests a moment ago, for an incident that is not open yet.
    happened: VecDeque<traffic::Recent>,
    watcher: Watcher,
    ledger: LedgerHandle,
    pump: PumpHandle,
    asks: mpsc::Receiver<Ask>,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    reloader: Reloader,
    traffic: Option<Box<dyn Traffic>>,
    vaults: Option<Box<dyn Vaults>>,
    on_event: Box<dyn FnMut(&crate::records::EventRecord)>,
    degraded: Vec<String>,
    started: jiff::Timestamp,
    ending: Option<tokio::time::Instant>,
    sweeper: strays::Sweeper,
    nursery: Nursery,
    tie: Option<Tie>,
    init_pid: Option<i32>,
    /// Of the end of the guard before this one.
    after_incident: Option<u64>,
    /// Services that go on from an earlier guard and are not started anew.
    taken_over: BTreeSet<ServiceId>,
    /// Only what is needed: earlier guards ended too quickly.
    reduced: bool,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Driver").field("head", &self.head).finish_non_exhaustive()
    }
}

/// What woke the driver.
enum Wake {
    End,
    Reload,
    Children,
    Report(Report),
    Ask(Ask),
    Kernel,
    Empty,
    Deadline,
    Sweep,
    News(TrafficNews),
    Init(Told),
    Vault(VaultSaid),
}

impl Driver {
    pub fn new(parts: Parts) -> Result<Self, DriverError> {
        let (reporter, reports) = mpsc::channel(REPORTS_MAX);
        let mut driver = Self {
            head: Head::new(parts.ledger.next_incident_id()),
            clock: Clock::start(),
            seats: Vec::new(),
            instances: QuickMap::default(),
            by_pid: HashMap::new(),
            early_exits: HashMap::new(),
            launches: 0,
            emptying: BTreeSet::new(),
            incidents: BTreeMap::new(),
            closing: Vec::new(),
            happened: VecDeque::new(),
            watcher: Watcher::new(&parts.ground.roots).map_err(DriverError::Watcher)?,
            ground: parts.ground,
            ledger: parts.ledger,
            pump: parts.pump,
            asks: parts.asks,
            reports,
            reporter,
            reloader: parts.reloader,
            traffic: parts.traffic,
            vaults: parts.vaults,
            on_event: parts.on_event,
            degraded: parts.degraded,
            started: jiff::Timestamp::now(),
            ending: None,
            sweeper: strays::Sweeper::new(&parts.settings.sweeps),
            nursery: parts.link.clone().map_or(Nursery::Own, Nursery::Init),
            tie: parts.link.map(Tie::new).transpose().map_err(DriverError::Init)?,
            init_pid: None,
            after_incident: None,
            taken_over: BTreeSet::new(),
            reduced: false,
            settings: parts.settings,
        };
        // From here on each has its seat, and a second copy of a thousand would be megabytes.
        for workload in std::mem::take(&mut driver.settings.workloads) {
            driver.seat(workload);
        }
        Ok(driver)
    }

    /// Starts every service that was not taken over and guards until told to end or to make way. Also given back is
    /// whoever carried the traffic, to be closed.
    pub async fn run(mut self) -> Result<(Ended, Option<Box<dyn Traffic>>), DriverError> {
        let on = |kind| signal(kind).map_err(DriverError::Signals);
        let mut children = on(SignalKind::child())?;
        let mut ends = [on(SignalKind::terminate())?, on(SignalKind::interrupt())?];
        let mut reload = on(SignalKind::hangup())?;
        self.start_all();
        self.save_state();
        self.nursery.say(&ToInit::Ready);
        loop {
            self.carry_out();
            self.save_state();
            if self.is_over() {
                self.close_vaults();
                return Ok((Ended::Down, self.traffic));
            }
            if self.has_yielded() {
                self.close_vaults();
                self.traffic.iter().for_each(|it| it.let_go());
                return Ok((Ended::Replaced, self.traffic));
            }
            let wake = self.wait(&mut children, &mut ends, &mut reload).await;
            let completed = self.step(|driver| driver.wake(wake)) & self.step(Self::deadlines);
            // Before it is acted on: a promise that nobody knows of could not be kept.
            self.save_state();
            if completed {
                self.feed_init();
            }
        }
    }

    /// No transaction is copied by two guards.
    fn close_vaults(&self) {
        if let Some(vaults) = &self.vaults {
            vaults.close();
        }
    }

    async fn wait(&mut self, children: &mut Signal, ends: &mut [Signal; 2], reload: &mut Signal) -> Wake {
        let deadline = self.next_wake();
        let empty_check = !self.emptying.is_empty();
        let sweep = self.sweeper.next();
        let [terminate, interrupt] = ends;
        tokio::select! {
            biased;
            _ = children.recv() => Wake::Children,
            _ = terminate.recv() => Wake::End,
            _ = interrupt.recv() => Wake::End,
            told = told(self.tie.as_mut()) => Wake::Init(told),
            () = self.watcher.ready() => Wake::Kernel,
            Some(report) = self.reports.recv() => Wake::Report(report),
            news = traffic::news(self.traffic.as_deref()) => Wake::News(news),
            said = vaults::news(self.vaults.as_deref()) => Wake::Vault(said),
            () = at(deadline) => Wake::Deadline,
            Some(ask) = self.asks.recv() => Wake::Ask(ask),
            _ = reload.recv() => Wake::Reload,
            () = tokio::time::sleep(EMPTY_CHECK), if empty_check => Wake::Empty,
            () = at(sweep) => Wake::Sweep,
        }
    }

    fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::Children => self.reap(),
            Wake::Empty => self.check_emptying(),
            Wake::End => self.begin_end(),
            Wake::Reload => {
                let done = self.reload();
                self.tell_reload(&done);
            }
            Wake::Report(report) => self.report(report),
            Wake::Ask(ask) => self.answer(ask),
            Wake::Kernel => self.take_notices(),
            Wake::Deadline => {}
            Wake::Sweep => self.sweep(),
            Wake::News(news) => self.take_news(news),
            Wake::Init(told) => self.told(told),
            Wake::Vault(said) => {
                self.say(&format!("vault {}", said.vault), said.kind, said.severity, &said.message);
            }
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Launched { instance, outcome } => self.launched(instance, outcome),
            Report::Probed { instance, probed } => self.probed(instance, &probed),
            Report::Check(started) => self.own_check(started),
            Report::Evidence { instance, incident, evidence } => self.keep(instance, incident, *evidence),
            Report::KillPassed { instance } => self.kill_passed(instance),
            Report::Marked { instance, sources, problem } => self.marked(instance, sources, problem),
            Report::Swept { findings, problem } => self.swept(findings, problem),
        }
    }

    /// Runs one step so that a bug in it costs that step and not the guard. False where it did; a guard that gets through
    /// no step any more is replaced by init, which hears of completed ones alone.
    fn step(&mut self, step: impl FnOnce(&mut Self)) -> bool {
        let completed = catch_unwind(AssertUnwindSafe(|| step(self))).is_ok();
        if !completed {
            let said = "a step of the guard failed by a bug of its own; it goes on".to_owned();
            if !self.degraded.contains(&said) {
                self.degraded.push(said);
            }
        }
        completed
    }

    /// Has work done beside the driver, and its report sent. Where the host has no thread to give, it is done right
    /// here: the driver is late then, and nothing is lost.
    fn beside(&self, work: impl FnOnce() -> Report + Send + 'static) {
        let here = std::thread::current().id();
        let reporter = self.reporter.clone();
        let whole = move || {
            let report = work();
            // Sent in vain, the driver has ended, or its queue is full while it cannot empty it.
            let _ = if std::thread::current().id() == here {
                reporter.try_send(report).is_ok()
            } else {
                reporter.blocking_send(report).is_ok()
            };
        };
        if let Err(whole) = beside::start(whole) {
            whole();
        }
    }

    fn deadlines(&mut self) {
        let now = self.clock.now();
        if self.head.next_deadline().is_some_and(|at| at <= now) {
            self.head.handle_deadline(now);
        }
    }

    fn tell_head(&mut self, event: Event) {
        self.head.handle(self.clock.now(), event);
    }

    fn next_wake(&self) -> Option<tokio::time::Instant> {
        let deadline = self.head.next_deadline().map(|at| self.clock.tokio(at));
        let tie = self.tie.as_ref().map(Tie::next_due);
        deadline.into_iter().chain(self.ending).chain(tie).min()
    }

    fn seat_of(&self, service: ServiceId) -> Option<&Seat> {
        self.seats.get(service.0 as usize)
    }
}

/// Init has something to say.
async fn told(tie: Option<&mut Tie>) -> Told {
    match tie {
        Some(tie) => tie.next().await,
        None => pending().await,
    }
}

async fn at(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
