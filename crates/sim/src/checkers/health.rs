//! Busy is not hung, hung is not kept, and nobody is forgotten by the prober.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_core::units::Instant;
use plimsoll_core::{Action, Cause, Event, InstanceId, InstanceState, Kind, ProbeOutcome, Record};

use super::{Checker, rule};
use crate::facts::Step;

/// After its patience a probe that nobody answered is given up on.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// The longest pause between two looks at one that starts.
const START_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(crate) struct Health {
    /// When the next probe must have been asked at the latest.
    asked_by: BTreeMap<InstanceId, Instant>,
}

impl Checker for Health {
    fn name(&self) -> &'static str {
        "health"
    }

    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        signs_of_life_count(step)?;
        the_deaf_leave(step)?;
        self.probes_keep_coming(step)
    }
}

/// No answer that came, however late, is held against an instance.
fn signs_of_life_count(step: &Step<'_>) -> Result<(), String> {
    let Some(Event::Probed { instance, outcome }) = step.event else { return Ok(()) };
    match outcome {
        ProbeOutcome::Refused | ProbeOutcome::Unanswered | ProbeOutcome::NotAsked => return Ok(()),
        ProbeOutcome::Passed { .. } | ProbeOutcome::Late { .. } => {}
    }
    let blamed = of(step, *instance)
        .any(|it| matches!(it.kind, Kind::ProbeFailed { .. }) || it.cause.is_some_and(Cause::is_deaf));
    rule(!blamed, || format!("{instance:?} answered ({outcome:?}) and was blamed for it"))
}

/// Past answering, there is nothing to wait for: not for a turn, not for a successor.
fn the_deaf_leave(step: &Step<'_>) -> Result<(), String> {
    for record in step.records() {
        let (Some(number), Some(cause)) = (record.instance, record.cause) else { continue };
        let id = InstanceId { service: record.service, number };
        let stays = cause.is_deaf() && !step.is_leaving(id);
        rule(!stays, || format!("{id:?} was found {} and goes on", cause.name()))?;
    }
    Ok(())
}

fn of<'a>(step: &'a Step<'_>, id: InstanceId) -> impl Iterator<Item = &'a Record> {
    step.records().filter(move |it| it.service == id.service && it.instance == Some(id.number))
}

impl Health {
    fn probes_keep_coming(&mut self, step: &Step<'_>) -> Result<(), String> {
        if let Some(Event::Configured { service, .. }) = step.event {
            for (id, by) in self.asked_by.iter_mut().filter(|(id, _)| id.service == *service) {
                *by = (*by).max(step.now + slowest(step, *id));
            }
        }
        if let Some(Event::Spawned { instance }) = step.event
            && step.config(*instance).health.probed
        {
            self.asked_by.insert(*instance, step.now + START_PAUSE);
        }
        for (id, by) in &mut self.asked_by {
            if is_answered(step, *id) {
                *by = (*by).max(step.now + step.config(*id).health.interval.max(START_PAUSE));
            }
        }
        for action in step.actions {
            if let Action::Probe { instance, .. } = action {
                self.asked_by.insert(*instance, step.now + slowest(step, *instance));
            }
        }
        self.asked_by.retain(|id, _| match step.state(*id) {
            Some(InstanceState::Starting | InstanceState::Ready | InstanceState::Unready) => true,
            Some(InstanceState::Draining | InstanceState::Stopping | InstanceState::Killing) | None => false,
        });
        let forgotten = self.asked_by.iter().find(|(_, by)| step.now > **by);
        rule(forgotten.is_none(), || format!("{forgotten:?} is past, and no probe was sent"))
    }
}

/// By the driver, or by the head in its place.
fn is_answered(step: &Step<'_>, id: InstanceId) -> bool {
    matches!(step.event, Some(Event::Probed { instance, .. }) if *instance == id)
        || of(step, id).any(|record| matches!(record.kind, Kind::Anomaly { .. }))
}

fn slowest(step: &Step<'_>, id: InstanceId) -> Duration {
    let health = &step.config(id).health;
    let patience = (health.timeout * 3 / 2).max(health.interval).max(health.hang);
    patience + LOST_AFTER + health.interval.max(START_PAUSE)
}
