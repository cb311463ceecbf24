//! The one decision-maker. Whatever a layer finds comes through here; the most urgent decision wins, and everything
//! found while one trouble lasts belongs to one incident.

use core::time::Duration;

use super::{Cx, Service};
use crate::action::Action;
use crate::cause::{Axis, Cause, Urgency};
use crate::config::Handover;
use crate::deadlines::Due;
use crate::ids::IncidentId;
use crate::incident::Incident;
use crate::instance::{Doom, Life, Role, Stage};
use crate::planted::Planted;
use crate::record::Kind;

/// After repeated crashes an incident stays open until the service was well for this long.
const CALM: Duration = Duration::from_secs(10);
/// So many failed lives in a row are one trouble rather than several.
const LOOPING: u32 = 3;

impl Service {
    /// A layer found something. `urgency` is how little time there is.
    pub(crate) fn accuse(&mut self, cx: &mut Cx<'_>, index: usize, cause: Cause, urgency: Urgency) {
        let hard = urgency == Urgency::Hard;
        if let Life::Leaving { stage, .. } = self.instances[index].life {
            self.note(cx, index, cause);
            if hard && !matches!(stage, Stage::Killing { .. }) {
                self.kill(cx, index);
            }
            return;
        }
        // One that is past answering has nothing to wait for, whatever was decided about it before.
        let decided = self.instances[index].doom.is_some_and(|doom| doom.urgency >= urgency);
        if decided && (!cause.is_deaf() || cx.plant.has(Planted::DeafWaits)) {
            self.note(cx, index, cause);
            return;
        }
        let Some(over_budget) = self.spend(cx, index, cause, urgency) else { return };
        self.note(cx, index, cause);
        self.instances[index].doom(Doom { cause, urgency, over_budget });
        if hard || cause.is_deaf() || self.instances[index].role != Role::Lead {
            self.leave(cx, index, cause);
        }
    }

    /// The operator's recycle: the service's own handover, and nobody's budget.
    pub(super) fn order_recycle(&mut self) {
        for index in self.leads() {
            if !self.instances[index].is_leaving() {
                let doom = Doom { cause: Cause::Ordered, urgency: Urgency::Gentle, over_budget: false };
                self.instances[index].doom(doom);
            }
        }
    }

    /// Planned recycles have a budget. Past it only what cannot wait is done, and somebody is paged. `None` when it may
    /// not be done; else whether it is more than the budget allows.
    fn spend(&mut self, cx: &mut Cx<'_>, index: usize, cause: Cause, urgency: Urgency) -> Option<bool> {
        let per_hour = self.config.recovery.recycles_per_hour;
        if !cause.is_recycle() {
            return Some(false);
        }
        let allowed = self.budget.allows(cx.now, per_hour, cx.plant);
        if !allowed && self.budget.should_page() {
            let number = self.instances[index].id.number;
            let kind = Kind::BudgetSpent { recycles_per_hour: per_hour };
            cx.tell(self.id, Some(number), Some(cause), kind);
        }
        let cannot_wait = urgency > Urgency::Gentle;
        if (allowed || cannot_wait) && self.instances[index].doom.is_none() {
            self.budget.spend(cx.now, per_hour);
        }
        (allowed || cannot_wait).then_some(!allowed)
    }

    /// Opens the incident, or adds the cause to the open one.
    pub(crate) fn note(&mut self, cx: &mut Cx<'_>, index: usize, cause: Cause) {
        let number = self.instances[index].id.number;
        let dark = self.dark_total_at(cx.now);
        let fresh = self.incident.is_none() || cx.plant.has(Planted::ManyDeciders);
        if fresh {
            let id = IncidentId(*cx.next_incident);
            *cx.next_incident += 1;
            self.incident = Some(Incident::open(id, cx.now, dark));
        }
        let Some(incident) = self.incident.as_mut() else { return };
        if !incident.adds(number, cause) {
            return;
        }
        let incident = incident.id;
        let kind = if fresh { Kind::IncidentOpened { incident } } else { Kind::IncidentJoined { incident } };
        cx.tell(self.id, Some(number), Some(cause), kind);
        cx.deadlines.clear(Due::Calm(self.id));
    }

    /// What can still be had of an instance that died by itself. Nobody waits for it.
    pub(crate) fn keep_evidence_of_the_dead(&self, cx: &mut Cx<'_>, index: usize) {
        if let Some(incident) = &self.incident {
            let (instance, incident) = (self.instances[index].id, incident.id);
            cx.act(Action::KeepEvidence { instance, incident, budget: super::leave::EVIDENCE_GENTLE });
        }
    }

    /// Closes the incident once all is as wanted; after a series of crashes only when it has stayed so.
    pub(super) fn close_incident_when_settled(&mut self, cx: &mut Cx<'_>) {
        if self.incident.is_none() {
            return;
        }
        if !self.is_settled() {
            cx.deadlines.clear(Due::Calm(self.id));
            return;
        }
        let looping = self.slots.iter().any(|slot| slot.lead_failures >= LOOPING);
        if !looping {
            self.close_incident(cx);
        } else if !cx.deadlines.is_set(Due::Calm(self.id)) {
            cx.due_in(Due::Calm(self.id), CALM);
        }
    }

    pub(crate) fn calm_due(&mut self, cx: &mut Cx<'_>) {
        if self.is_settled() {
            self.close_incident(cx);
        }
    }

    fn close_incident(&mut self, cx: &mut Cx<'_>) {
        let Some(incident) = self.incident.take() else { return };
        cx.deadlines.clear(Due::Calm(self.id));
        // Well for long enough: what failed before is this incident's story and not the next one's.
        for slot in &mut self.slots {
            slot.lead_failures = 0;
        }
        let dark = self.dark_total_at(cx.now).saturating_sub(incident.dark_before);
        let lasted = cx.now.since(incident.opened);
        cx.tell(self.id, None, None, Kind::IncidentClosed { incident: incident.id, dark, lasted });
    }

    fn is_settled(&self) -> bool {
        if self.instances.iter().any(|it| it.is_leaving() || it.doom.is_some()) {
            return false;
        }
        if self.intent == crate::view::Intent::Down {
            return self.instances.is_empty();
        }
        (0..self.slots_wanted()).all(|slot| {
            let ready = self.lead_of(slot).is_some_and(|lead| self.instances[lead].is_ready());
            let relieved = self.relief_of(slot).is_some_and(|relief| self.instances[relief].is_ready());
            let spare_well = self.config.recovery.handover != Handover::Standby
                || relieved
                || self.slots[slot].relief_failures == 0;
            ready && spare_well
        })
    }
}

impl Cause {
    /// Killed near the wall: a planned end that says as much about the service as a crash does.
    pub(crate) const fn is_last_resort(self) -> bool {
        matches!(self, Self::Memory { axis: Axis::Level, .. })
    }
}
