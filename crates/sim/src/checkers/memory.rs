//! The line: acted on in time, by every axis, and never for what was not measured.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_core::units::{Bytes, Instant};
use plimsoll_core::{
    Action, Axis, Cause, Event, InstanceId, InstanceState, Kind, MemoryConfig, Record, Sample, ServiceId,
    layers,
};

use super::{Checker, rule};
use crate::facts::Step;

/// From a sample near the wall until the kill is sent.
const HARD_WITHIN: Duration = Duration::from_millis(40);
/// From a sample over the line until the next look.
const LOOK_WITHIN: Duration = Duration::from_millis(50);
const SLOPE_WINDOW: Duration = Duration::from_secs(1);
const SLOPE_SPAN_MIN: Duration = Duration::from_millis(20);
const HOUR: Duration = Duration::from_hours(1);

#[derive(Debug, Default)]
struct Watch {
    /// Within the last second, oldest first.
    samples: Vec<(Instant, Bytes)>,
    over_since: Option<Instant>,
    awaits_baseline: bool,
    baseline: Option<Bytes>,
    kill_by: Option<Instant>,
    look_by: Option<Instant>,
}

#[derive(Debug, Default)]
struct PerService {
    /// The instances that the budget may have been spent on.
    spent: BTreeMap<InstanceId, Instant>,
    refusals_told: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Memory {
    watches: BTreeMap<InstanceId, Watch>,
    services: BTreeMap<ServiceId, PerService>,
}

impl Checker for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        self.configured(step);
        self.blind(step);
        self.sampled(step)?;
        for action in step.actions {
            match action {
                Action::Tell(record) => self.told(step, record)?,
                Action::KillTree { instance } => self.watch(*instance).kill_by = None,
                Action::Sample { instance, .. } => self.watch(*instance).look_by = None,
                Action::Spawn { .. }
                | Action::Probe { .. }
                | Action::Admit { .. }
                | Action::Stand { .. }
                | Action::Withdraw { .. }
                | Action::KeepEvidence { .. }
                | Action::Signal { .. }
                | Action::SetHigh { .. }
                | Action::Release { .. } => {}
            }
        }
        self.watches.retain(|id, _| step.state(*id).is_some());
        self.acts_in_time(step)
    }
}

impl Memory {
    fn watch(&mut self, id: InstanceId) -> &mut Watch {
        self.watches.entry(id).or_default()
    }

    /// Under new settings the time over the line starts anew.
    fn configured(&mut self, step: &Step<'_>) {
        let Some(Event::Configured { service, .. }) = step.event else { return };
        self.services.entry(*service).or_default().refusals_told = 0;
        for (_, watch) in self.watches.iter_mut().filter(|(id, _)| id.service == *service) {
            watch.over_since = None;
            watch.look_by = None;
        }
    }

    /// A measurement that failed over the line is no reason to look less often.
    fn blind(&mut self, step: &Step<'_>) {
        let Some(Event::SampleFailed { instance }) = step.event else { return };
        let memory = &step.config(*instance).memory;
        let settled = matches!(step.state(*instance), Some(InstanceState::Ready | InstanceState::Unready));
        let watch = self.watch(*instance);
        let over = watch.samples.last().is_some_and(|(_, level)| *level > memory.recycle);
        if settled && over && !watch.is_refused(memory) {
            watch.look_by = Some(step.now + LOOK_WITHIN);
        }
    }

    fn sampled(&mut self, step: &Step<'_>) -> Result<(), String> {
        let Some(Event::Sampled { instance, sample }) = step.event else { return Ok(()) };
        let (id, memory) = (*instance, &step.config(*instance).memory);
        if step.state(id).is_none() {
            return Ok(());
        }
        let now = step.now;
        let watch = self.watch(id);
        watch.observe(now, sample, memory);
        watch.look_by = None;
        let state = step.state(id);
        if state == Some(InstanceState::Ready) && std::mem::take(&mut watch.awaits_baseline) {
            watch.baseline = Some(sample.working_set);
        }
        let near = sample.working_set >= layers::hard_wall::near(memory);
        if near && state != Some(InstanceState::Killing) && watch.kill_by.is_none() {
            watch.kill_by = Some(now + HARD_WITHIN);
        }
        let settled = matches!(state, Some(InstanceState::Ready | InstanceState::Unready));
        if settled && sample.working_set > memory.recycle && !watch.is_refused(memory) {
            watch.look_by = Some(now + LOOK_WITHIN);
        }
        self.must_leave(step, id)
    }

    /// In the plainest case: over the line for long enough, or outrunning the stop, and still there.
    fn must_leave(&self, step: &Step<'_>, id: InstanceId) -> Result<(), String> {
        let config = step.config(id);
        let (memory, watch) = (&config.memory, &self.watches[&id]);
        let stays = matches!(step.state(id), Some(InstanceState::Ready | InstanceState::Unready));
        if !stays || !step.is_plain_hold(id.service) || watch.baseline.is_none() || watch.is_refused(memory) {
            return Ok(());
        }
        let outruns = watch.outruns(config.recovery.stop_grace, memory);
        rule(!outruns, || format!("{id:?} outruns its stop and stays: {:?}", watch.samples))?;
        let long = watch.over_since.is_some_and(|since| step.now.since(since) >= memory.persistence);
        let spent = self
            .services
            .get(&id.service)
            .map_or(0, |service| service.spent.values().filter(|at| step.now.since(**at) <= HOUR).count());
        let may_stay = spent >= config.recovery.recycles_per_hour as usize;
        rule(!long || may_stay, || format!("{id:?} is over the line since {:?} and stays", watch.over_since))
    }

    fn told(&mut self, step: &Step<'_>, record: &Record) -> Result<(), String> {
        let Some(number) = record.instance else { return Ok(()) };
        let id = InstanceId { service: record.service, number };
        if let Kind::Ready { .. } = record.kind {
            let watch = self.watch(id);
            watch.awaits_baseline |= watch.baseline.is_none();
        }
        if let Kind::OverLine { working_set, .. } | Kind::UnderLine { working_set, .. } = record.kind {
            let measured = matches!(step.event, Some(Event::Sampled { instance, sample })
                if *instance == id && sample.working_set == working_set);
            rule(measured, || format!("{record:?}, and nothing was measured"))?;
        }
        if let Kind::LineRefused { .. } = record.kind {
            let told = &mut self.services.entry(record.service).or_default().refusals_told;
            *told += 1;
            rule(*told == 1, || format!("the line was refused {told} times under the same settings"))?;
        }
        if let Kind::IncidentOpened { .. } | Kind::IncidentJoined { .. } | Kind::Recycling = record.kind {
            self.spent(step, id, record.cause);
        }
        if record.kind == Kind::Recycling { self.recycled(step, id, record.cause) } else { Ok(()) }
    }

    fn spent(&mut self, step: &Step<'_>, id: InstanceId, cause: Option<Cause>) {
        if cause.is_some_and(Cause::is_recycle) {
            self.services.entry(id.service).or_default().spent.insert(id, step.now);
        }
    }

    /// A recycle by persistence or slope has its reasons in what was measured.
    fn recycled(&mut self, step: &Step<'_>, id: InstanceId, cause: Option<Cause>) -> Result<(), String> {
        let Some(Cause::Memory { axis, .. }) = cause else { return Ok(()) };
        let memory = &step.config(id).memory;
        let plain = step.is_plain_hold(id.service);
        let watch = self.watch(id);
        rule(axis == Axis::Level || !watch.is_refused(memory), || {
            format!("{id:?} was recycled by a line under its baseline {:?}", watch.baseline)
        })?;
        let long = watch.over_since.is_some_and(|since| step.now.since(since) >= memory.persistence);
        rule(axis != Axis::Persistence || long || !plain, || {
            format!("{id:?} was recycled for staying over the line since {:?}", watch.over_since)
        })
    }

    fn acts_in_time(&self, step: &Step<'_>) -> Result<(), String> {
        for (id, watch) in &self.watches {
            let late = watch.kill_by.is_some_and(|by| step.now > by);
            rule(!late, || format!("{id:?} is near the wall and was not killed by {:?}", watch.kill_by))?;
            let blind = watch.look_by.is_some_and(|by| step.now > by) && !step.is_leaving(*id);
            rule(!blind, || format!("{id:?} is over the line and was not looked at by {:?}", watch.look_by))?;
        }
        Ok(())
    }
}

impl Watch {
    fn observe(&mut self, now: Instant, sample: &Sample, memory: &MemoryConfig) {
        self.samples.retain(|(at, _)| now.since(*at) <= SLOPE_WINDOW);
        self.samples.push((now, sample.working_set));
        if sample.working_set > memory.recycle {
            self.over_since.get_or_insert(now);
        } else {
            self.over_since = None;
        }
    }

    fn is_refused(&self, memory: &MemoryConfig) -> bool {
        self.baseline.is_some_and(|baseline| baseline > memory.recycle)
    }

    /// Whether, by the slowest growth that any two samples of the last second show, a stop would come too late.
    fn outruns(&self, stop: Duration, memory: &MemoryConfig) -> bool {
        let Some(((at, level), before)) = self.samples.split_last() else { return false };
        let rising = before.last().is_some_and(|(_, last)| level > last);
        if !rising || *level <= memory.recycle {
            return false;
        }
        let growths =
            before.iter().filter(|(then, _)| at.since(*then) >= SLOPE_SPAN_MIN).map(|(then, from)| {
                let micros = u64::try_from(at.since(*then).as_micros()).unwrap_or(u64::MAX);
                (*level - *from).scaled(u64::try_from(stop.as_micros()).unwrap_or(u64::MAX), micros)
            });
        // A hundredth less, since the head rounds differently.
        let slowest = growths.min().map_or(Bytes::ZERO, |growth| growth.scaled(99, 100));
        slowest > Bytes::ZERO && *level + slowest >= layers::hard_wall::near(memory)
    }
}
