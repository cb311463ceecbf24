//! Restarts are at once, then slower, never slower than `backoff_max`, and never given up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_core::units::Instant;
use plimsoll_core::{Action, Axis, Cause, Event, InstanceId, Intent, Kind, Order, Record, ServiceId};

use super::{Checker, rule};
use crate::facts::Step;

const FIRST: Duration = Duration::from_millis(250);
const HEALTHY_LIFE: Duration = Duration::from_mins(1);
/// Over this time crashes are counted for every handover.
const WINDOW: Duration = Duration::from_secs(10);
/// So many come before the delays have grown to their most.
const CRASHES_FREE: u64 = 12;

#[derive(Debug, Default)]
struct Series {
    /// Failed lives in a row, none of them healthy.
    failures: u32,
    earliest: Instant,
    latest: Option<Instant>,
    crashes: Vec<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    series: BTreeMap<ServiceId, Series>,
    ready: BTreeMap<InstanceId, Instant>,
    failed: BTreeSet<InstanceId>,
    /// How long those served that are on their way out.
    served: BTreeMap<InstanceId, Duration>,
}

impl Checker for Backoff {
    fn name(&self) -> &'static str {
        "backoff"
    }

    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        self.forgiven(step);
        self.left(step);
        for action in step.actions {
            match action {
                Action::Tell(record) => self.told(step, record)?,
                Action::Release { instance } => self.gone(step, *instance),
                Action::Spawn { instance } => self.spawned(step, *instance)?,
                Action::Sample { .. }
                | Action::Probe { .. }
                | Action::Admit { .. }
                | Action::Stand { .. }
                | Action::Withdraw { .. }
                | Action::KeepEvidence { .. }
                | Action::Signal { .. }
                | Action::KillTree { .. }
                | Action::SetHigh { .. } => {}
            }
        }
        self.never_given_up(step)
    }
}

impl Backoff {
    /// A start that an operator asked for, and new settings, begin a new series.
    fn forgiven(&mut self, step: &Step<'_>) {
        if let Some(
            Event::Ordered { service, order: Order::Start | Order::Restart | Order::Stop }
            | Event::Configured { service, .. },
        ) = step.event
        {
            self.series.remove(service);
        }
    }

    fn left(&mut self, step: &Step<'_>) {
        for (id, since) in self.ready.iter().filter(|(id, _)| step.is_leaving(**id)) {
            self.served.entry(*id).or_insert(step.now.since(*since));
        }
    }

    fn told(&mut self, step: &Step<'_>, record: &Record) -> Result<(), String> {
        if let Kind::BackingOff { delay, .. } = record.kind {
            let most = step.service(record.service).config.recovery.backoff_max;
            rule(delay <= most, || format!("backs off for {delay:?}, allowed {most:?}"))?;
        }
        let Some(number) = record.instance else { return Ok(()) };
        let id = InstanceId { service: record.service, number };
        if let Kind::SpawnFailed { .. } | Kind::Exited { planned: false, .. } = record.kind {
            self.failed.insert(id);
            return self.crashed(step, id);
        }
        if let Kind::Ready { .. } = record.kind {
            self.ready.entry(id).or_insert(step.now);
        } else if record.kind == Kind::Recycling {
            let short = self.ready_for(step, id) < HEALTHY_LIFE;
            let last_resort = matches!(record.cause, Some(Cause::Memory { axis: Axis::Level, .. }));
            if record.cause.is_some_and(|cause| !cause.is_recycle() || (last_resort && short)) {
                self.failed.insert(id);
            }
        }
        Ok(())
    }

    /// Whatever the handover, a loop of crashes slows down.
    fn crashed(&mut self, step: &Step<'_>, id: InstanceId) -> Result<(), String> {
        let service = step.service(id.service);
        let slowest = service.config.recovery.backoff_max.min(WINDOW);
        let paced = WINDOW.as_nanos() / slowest.as_nanos().max(1);
        let most =
            (u64::try_from(paced).unwrap_or(u64::MAX) + CRASHES_FREE) * 2 * u64::from(service.most_replicas);
        let crashes = &mut self.series.entry(id.service).or_default().crashes;
        crashes.retain(|at| step.now.since(*at) < WINDOW);
        crashes.push(step.now);
        let count = crashes.len() as u64;
        rule(count <= most, || format!("{count} crashes in {WINDOW:?}, at most {most} with back-off"))
    }

    fn gone(&mut self, step: &Step<'_>, id: InstanceId) {
        let ready_for = self.ready_for(step, id);
        self.ready.remove(&id);
        self.served.remove(&id);
        let failed = self.failed.remove(&id);
        let most = step.config(id).recovery.backoff_max;
        let series = self.series.entry(id.service).or_default();
        if ready_for >= HEALTHY_LIFE {
            series.failures = 0;
        }
        let mut delay = Duration::ZERO;
        if failed {
            if let Some(doublings) = series.failures.checked_sub(1) {
                delay = FIRST.saturating_mul(1 << doublings.min(12)).min(most);
            }
            series.failures += 1;
        }
        series.earliest = step.now + delay;
        series.latest = Some(step.now + most);
    }

    fn spawned(&mut self, step: &Step<'_>, id: InstanceId) -> Result<(), String> {
        let series = self.series.entry(id.service).or_default();
        series.latest = None;
        let early = step.is_plain_hold(id.service) && step.now < series.earliest;
        rule(!early, || {
            format!("{id:?} starts after {} failures, too soon before {:?}", series.failures, series.earliest)
        })
    }

    fn never_given_up(&self, step: &Step<'_>) -> Result<(), String> {
        for (id, series) in &self.series {
            let waits = step.view(*id).instances.is_empty() && step.service(*id).intent == Intent::Up;
            let late = waits && series.latest.is_some_and(|at| step.now > at);
            rule(!late, || format!("{id:?} is wanted up and was not tried again"))?;
        }
        Ok(())
    }

    fn ready_for(&self, step: &Step<'_>, id: InstanceId) -> Duration {
        let until_now = self.ready.get(&id).map_or(Duration::ZERO, |since| step.now.since(*since));
        self.served.get(&id).copied().unwrap_or(until_now)
    }
}
