//! The one way out: evidence and drain, stop signal, kill, gone.

use core::time::Duration;

use super::{Cx, Service};
use crate::action::Action;
use crate::cause::{Cause, Urgency};
use crate::deadlines::Due;
use crate::instance::{Instance, Life, Role, Stage};
use crate::layers::recovery::{HEALTHY_LIFE, Retry};
use crate::planted::Planted;
use crate::record::Kind;
use crate::view::Intent;

/// Longest time that an instance lives on for the sake of evidence.
pub(crate) const EVIDENCE_GENTLE: Duration = Duration::from_millis(500);
/// The same while it grows towards the wall, so that the signal is out within 100 ms.
const EVIDENCE_URGENT: Duration = Duration::from_millis(60);
/// The same near the wall, where the kernel would take it.
const EVIDENCE_HARD: Duration = Duration::from_millis(40);
/// An instance that answers nobody gets no longer than this to react to its stop signal.
const GRACE_DEAF: Duration = Duration::from_millis(500);
/// A kill is repeated this often until nothing is left.
const KILL_AGAIN: Duration = Duration::from_secs(1);
/// Killed for this long and still there: uninterruptible sleep, which only a person or the kernel can end.
const KILL_LATE: Duration = Duration::from_secs(10);
/// A spare or successor that failed is not tried again sooner.
const RELIEF_AGAIN: Duration = Duration::from_secs(1);

impl Service {
    /// Begins the end of an instance. How much time it gets follows from its doom's urgency and the cause.
    pub(crate) fn leave(&mut self, cx: &mut Cx<'_>, index: usize, cause: Cause) {
        let urgency = self.instances[index].doom.map_or(Urgency::Gentle, |doom| doom.urgency);
        match self.instances[index].life {
            Life::Leaving { .. } => return,
            Life::Spawning => {
                self.die(cx, index, cause);
                self.kill(cx, index);
                return;
            }
            Life::Starting { .. } | Life::Ready | Life::Unready => {}
        }
        let then_kill = urgency == Urgency::Hard;
        // Whoever carries its traffic answers at once how much of it is still there.
        let carried = self.instances[index].admitted && self.instances[index].in_flight.is_some();
        let drains = carried && !cause.is_deaf() && !then_kill;
        let drain = if drains { self.config.recovery.drain } else { Duration::ZERO };
        self.withdraw(cx, index, drain);
        let evidence_until = self.keep_evidence(cx, index, cause, urgency);
        let instance = &mut self.instances[index];
        let id = instance.id;
        let drain_until = drains.then_some(cx.now + drain);
        instance.left = Some(cx.now);
        instance.life =
            Life::Leaving { stage: Stage::Draining { evidence_until, drain_until, then_kill }, cause };
        cx.deadlines.clear(Due::Probe(id));
        cx.deadlines.clear(Due::Started(id));
        if cause != Cause::Ordered {
            cx.tell(self.id, Some(id.number), Some(cause), Kind::Recycling);
        }
        self.advance(cx, index);
    }

    fn keep_evidence(
        &self,
        cx: &mut Cx<'_>,
        index: usize,
        cause: Cause,
        urgency: Urgency,
    ) -> Option<crate::units::Instant> {
        let incident = self.incident.as_ref().filter(|_| cause != Cause::Ordered)?.id;
        let budget = match urgency {
            Urgency::Gentle => EVIDENCE_GENTLE,
            Urgency::Urgent => EVIDENCE_URGENT,
            Urgency::Hard => EVIDENCE_HARD,
        };
        cx.act(Action::KeepEvidence { instance: self.instances[index].id, incident, budget });
        Some(cx.now + budget)
    }

    pub(crate) fn evidence_kept(&mut self, cx: &mut Cx<'_>, index: usize) {
        if let Life::Leaving { stage: Stage::Draining { evidence_until, .. }, .. } =
            &mut self.instances[index].life
        {
            *evidence_until = None;
            self.advance(cx, index);
        }
    }

    pub(crate) fn in_flight(&mut self, cx: &mut Cx<'_>, index: usize, count: u32) {
        let number = self.instances[index].id.number;
        let instance = &mut self.instances[index];
        instance.in_flight = Some(count);
        let Life::Leaving { stage: Stage::Draining { drain_until: drain_until @ Some(_), .. }, cause } =
            &mut instance.life
        else {
            return;
        };
        let cause = *cause;
        if count == 0 {
            *drain_until = None;
            self.advance(cx, index);
        } else if !core::mem::replace(&mut instance.drain_told, true) {
            cx.tell(self.id, Some(number), Some(cause), Kind::Draining);
        }
    }

    /// Goes on from draining once nothing more is waited for.
    fn advance(&mut self, cx: &mut Cx<'_>, index: usize) {
        let Life::Leaving { stage: Stage::Draining { evidence_until, drain_until, then_kill }, cause } =
            self.instances[index].life
        else {
            return;
        };
        let due = Due::Stage(self.instances[index].id);
        match evidence_until.or(drain_until) {
            Some(until) => cx.deadlines.set(due, until),
            None if then_kill => self.kill(cx, index),
            None => self.stop(cx, index, cause),
        }
    }

    pub(crate) fn stop(&mut self, cx: &mut Cx<'_>, index: usize, cause: Cause) {
        let id = self.instances[index].id;
        self.instances[index].life = Life::Leaving { stage: Stage::Stopping, cause };
        cx.act(Action::Signal { instance: id });
        cx.tell(self.id, Some(id.number), Some(cause), Kind::Stopping);
        let grace = self.config.recovery.stop_grace;
        let grace = if cause.is_deaf() { grace.min(GRACE_DEAF) } else { grace };
        if !cx.plant.has(Planted::NoKillAfterGrace) {
            cx.due_in(Due::Stage(id), grace);
        }
    }

    /// Kills the whole tree, whatever the stage.
    pub(crate) fn kill(&mut self, cx: &mut Cx<'_>, index: usize) {
        let id = self.instances[index].id;
        let Life::Leaving { stage, cause } = self.instances[index].life else { return };
        if !matches!(stage, Stage::Killing { .. }) {
            let stage = Stage::Killing { since: cx.now, told: false };
            self.instances[index].life = Life::Leaving { stage, cause };
        }
        if self.instances[index].exit.is_none() {
            cx.tell(self.id, Some(id.number), Some(cause), Kind::Killing);
        }
        cx.act(Action::KillTree { instance: id });
        if !cx.plant.has(Planted::KillOnce) {
            cx.due_in(Due::Stage(id), KILL_AGAIN);
        }
    }

    /// A stage took as long as it may.
    pub(crate) fn stage_due(&mut self, cx: &mut Cx<'_>, index: usize) {
        let now = cx.now;
        let id = self.instances[index].id;
        let Life::Leaving { stage, cause } = &mut self.instances[index].life else { return };
        let cause = *cause;
        match stage {
            Stage::Draining { evidence_until, drain_until, .. } => {
                *evidence_until = evidence_until.filter(|until| *until > now);
                *drain_until = drain_until.filter(|until| *until > now);
                self.advance(cx, index);
            }
            Stage::Stopping => self.kill(cx, index),
            Stage::Killing { since, told } => {
                let after = now.since(*since);
                if after >= KILL_LATE && !core::mem::replace(told, true) {
                    cx.tell(self.id, Some(id.number), Some(cause), Kind::KillLate { after });
                }
                cx.act(Action::KillTree { instance: id });
                cx.due_in(Due::Stage(id), KILL_AGAIN);
            }
        }
    }

    /// Marks an instance as past saving, without doing anything to it yet.
    pub(crate) fn die(&mut self, cx: &mut Cx<'_>, index: usize, cause: Cause) {
        self.withdraw(cx, index, Duration::ZERO);
        let stage = Stage::Killing { since: cx.now, told: false };
        let instance = &mut self.instances[index];
        instance.left = Some(cx.now);
        instance.life = Life::Leaving { stage, cause };
        let id = instance.id;
        for due in [Due::Probe(id), Due::Started(id), Due::Sample(id)] {
            cx.deadlines.clear(due);
        }
    }

    fn withdraw(&mut self, cx: &mut Cx<'_>, index: usize, drain: Duration) {
        let instance = &mut self.instances[index];
        if core::mem::take(&mut instance.admitted) && !cx.plant.has(Planted::ForgetWithdraw) {
            cx.act(Action::Withdraw { instance: instance.id, drain });
        }
    }

    /// Nothing of the instance is alive any more.
    pub(crate) fn gone(&mut self, cx: &mut Cx<'_>, index: usize) {
        let mut instance = self.instances.swap_remove(index);
        if cx.plant.has(Planted::DyingIsLiving) {
            instance.left = None;
        }
        cx.deadlines.clear_instance(instance.id);
        if !cx.plant.has(Planted::ForgetRelease) {
            cx.act(Action::Release { instance: instance.id });
        }
        let Life::Leaving { cause, .. } = instance.life else { return };
        let ready_for = instance.ready_for(cx.now);
        let slot = usize::from(instance.slot);
        match instance.role {
            Role::Relief => self.relief_failed(cx, slot, instance.id.number, cause, ready_for),
            // One that died was replaced by its relief before it was gone; its failure counts all the same.
            Role::Lead | Role::Former => {
                self.count(cx, instance.id.number, cause);
                if self.intent == Intent::Up {
                    self.plan_restart(cx, slot, &instance, cause);
                }
            }
        }
    }

    fn count(&mut self, cx: &mut Cx<'_>, number: u64, cause: Cause) {
        if cause.is_recycle() {
            if self.intent == Intent::Up {
                self.recycles += 1;
                cx.tell(self.id, Some(number), Some(cause), Kind::Recycled);
            }
        } else {
            self.restarts += 1;
        }
    }

    /// Planned ends restart at once; the others by the slot's streak of failures. So do planned ones that say as much as
    /// a crash: killed near the wall after a short life, or more of them than the budget allows.
    fn plan_restart(&mut self, cx: &mut Cx<'_>, slot: usize, instance: &Instance, cause: Cause) {
        let (number, ready_for) = (instance.id.number, instance.ready_for(cx.now));
        let short_lived = ready_for < HEALTHY_LIFE;
        let over_budget = instance.doom.is_some_and(|doom| doom.over_budget);
        let state = &mut self.slots[slot];
        if cause.is_recycle() && !over_budget && !(cause.is_last_resort() && short_lived) {
            if cx.plant.has(Planted::RecycleForgivesCrashes) {
                state.streak.forgive();
            }
            return;
        }
        let retry = state.streak.failed(ready_for, self.config.recovery.backoff_max, cx.plant);
        state.lead_failures = retry.attempt;
        self.tell_retry(cx, number, cause, retry);
        if retry.delay > Duration::ZERO {
            let (id, number) = (self.id, slot_number(slot));
            let next =
                if self.lead_of(slot).is_some() { Due::Relief(id, number) } else { Due::Lead(id, number) };
            cx.due_in(next, retry.delay);
        }
    }

    fn tell_retry(&self, cx: &mut Cx<'_>, number: u64, cause: Cause, retry: Retry) {
        let (id, cause) = (self.id, Some(cause));
        if retry.delay > Duration::ZERO {
            let kind = Kind::BackingOff { attempt: retry.attempt, delay: retry.delay };
            cx.tell(id, Some(number), cause, kind);
        }
        if retry.pages {
            cx.tell(id, Some(number), cause, Kind::CrashLoop { attempt: retry.attempt });
        }
    }

    /// The old one stays; the new one is tried again later.
    fn relief_failed(
        &mut self,
        cx: &mut Cx<'_>,
        slot: usize,
        number: u64,
        cause: Cause,
        ready_for: Duration,
    ) {
        if self.intent == Intent::Down || cause == Cause::Ordered {
            return;
        }
        let state = &mut self.slots[slot];
        let retry = state.relief_streak.failed(ready_for, self.config.recovery.backoff_max, cx.plant);
        state.relief_failures = retry.attempt;
        let kind = Kind::HandoverFailed { attempt: retry.attempt };
        cx.tell(self.id, Some(number), Some(cause), kind);
        if retry.pages {
            cx.tell(self.id, Some(number), Some(cause), Kind::CrashLoop { attempt: retry.attempt });
        }
        cx.due_in(Due::Relief(self.id, slot_number(slot)), retry.delay.max(RELIEF_AGAIN));
        if cx.plant.has(Planted::StopOldAnyway)
            && let Some(lead) = self.lead_of(slot)
        {
            self.leave(cx, lead, cause);
        }
    }
}

/// Slots are counted in `u16` by the configuration, so this never saturates.
pub(super) fn slot_number(slot: usize) -> u16 {
    u16::try_from(slot).unwrap_or(u16::MAX)
}
