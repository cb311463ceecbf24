//! Compares what is with what is wanted, and takes the next steps. Called after every event; calling it twice changes
//! nothing.

use core::time::Duration;

use super::leave::slot_number;
use super::{Cx, Service};
use crate::action::Action;
use crate::cause::{Cause, Urgency};
use crate::config::Handover;
use crate::deadlines::Due;
use crate::gate::Standing;
use crate::ids::InstanceId;
use crate::instance::{Instance, Life, Role};
use crate::planted::Planted;
use crate::record::Kind;
use crate::units::Instant;
use crate::view::Intent;

/// Lead, successor, and former ones that will not die: with more, each would hold memory that the others need.
const SLOT_INSTANCES_MAX: usize = 4;
/// Taking over, parting and starting a successor follow from each other, and nothing follows from that.
const SETTLE_ROUNDS_MAX: usize = 4;

impl Service {
    pub(crate) fn settle(&mut self, cx: &mut Cx<'_>) {
        // One step can make the next one due: a spare that takes over wants a spare of its own.
        for _ in 0..SETTLE_ROUNDS_MAX {
            let before = cx.actions.len();
            self.settle_slots(cx);
            if cx.actions.len() == before {
                break;
            }
        }
        while self.slots.len() > self.slots_wanted() && self.is_slot_empty(self.slots.len() - 1) {
            self.slots.pop();
        }
        if self.intent == Intent::Down
            && self.instances.is_empty()
            && !core::mem::replace(&mut self.stop_told, true)
        {
            cx.tell(self.id, None, None, Kind::Stopped);
        }
        self.update_dark(cx.now);
        self.update_standing(cx);
        self.close_incident_when_settled(cx);
    }

    /// What requests may expect that find nobody to go to; told when it changes.
    fn update_standing(&mut self, cx: &mut Cx<'_>) {
        let standing = match self.intent {
            Intent::Down => Standing::Stopped,
            Intent::Up if self.instances.iter().any(|it| !it.is_leaving()) => {
                Standing::Expected { not_before: None }
            }
            Intent::Up => {
                let due = |slot| cx.deadlines.get(Due::Lead(self.id, slot_number(slot)));
                Standing::Expected { not_before: (0..self.slots.len()).filter_map(due).min() }
            }
        };
        if core::mem::replace(&mut self.standing, standing) != standing {
            cx.act(Action::Stand { service: self.id, standing });
        }
    }

    /// For somebody who has been told nothing and takes it to be expected.
    pub(crate) fn tell_stopped(&self, cx: &mut Cx<'_>) {
        if self.standing == Standing::Stopped {
            cx.act(Action::Stand { service: self.id, standing: self.standing });
        }
    }

    fn settle_slots(&mut self, cx: &mut Cx<'_>) {
        for slot in 0..self.slots.len() {
            if self.intent == Intent::Up && slot < self.slots_wanted() {
                self.settle_up(cx, slot);
            } else {
                self.settle_down(cx, slot);
            }
        }
    }

    pub(crate) fn slots_wanted(&self) -> usize {
        usize::from(self.config.replicas.max(1))
    }

    fn settle_down(&mut self, cx: &mut Cx<'_>, slot: usize) {
        cx.deadlines.clear(Due::Lead(self.id, slot_number(slot)));
        cx.deadlines.clear(Due::Relief(self.id, slot_number(slot)));
        if cx.plant.has(Planted::RestartWhenDown)
            && self.is_slot_empty(slot)
            && self.slots[slot].lead_failures > 0
        {
            self.spawn(cx, slot, Role::Lead);
        }
        let leaving: alloc::vec::Vec<usize> = (0..self.instances.len())
            .filter(|index| usize::from(self.instances[*index].slot) == slot)
            .filter(|index| !self.instances[*index].is_leaving())
            .collect();
        for index in leaving {
            self.instances[index].doom = None;
            self.leave(cx, index, Cause::Ordered);
        }
    }

    fn settle_up(&mut self, cx: &mut Cx<'_>, slot: usize) {
        let Some(lead) = self.lead_of(slot) else {
            self.settle_without_lead(cx, slot);
            return;
        };
        let relief = self.relief_of(slot);
        let relief_stands = relief.is_some_and(|it| self.can_take_over(cx, it));
        let leaving = self.instances[lead].is_leaving();
        let doom = self.instances[lead].doom;
        match (self.config.recovery.handover, doom) {
            (Handover::Overlap | Handover::Standby, _) if leaving => match relief {
                Some(relief) if relief_stands => self.promote(cx, lead, relief),
                None if doom.is_some() => self.spawn_relief(cx, slot),
                Some(_) | None => {}
            },
            (_, _) if leaving => {
                if cx.plant.has(Planted::SpawnBeforeGone) && relief.is_none() {
                    self.spawn(cx, slot, Role::Relief);
                }
            }
            (Handover::Hold, Some(doom)) => {
                if doom.urgency > Urgency::Gentle || self.has_turn(cx, slot) {
                    self.leave(cx, lead, doom.cause);
                }
            }
            (Handover::Overlap | Handover::Standby, Some(doom)) => match relief {
                Some(relief) if relief_stands => {
                    self.promote(cx, lead, relief);
                    self.leave(cx, lead, doom.cause);
                }
                None if doom.urgency > Urgency::Gentle || self.has_turn(cx, slot) => {
                    self.spawn_relief(cx, slot);
                }
                Some(_) | None => {}
            },
            (Handover::Standby, None) => {
                if relief.is_none() && self.instances[lead].is_ready() {
                    self.spawn_relief(cx, slot);
                }
            }
            (Handover::Hold | Handover::Overlap, None) => {
                if let Some(relief) = relief {
                    self.leave(cx, relief, Cause::Ordered);
                }
            }
        }
    }

    fn settle_without_lead(&mut self, cx: &mut Cx<'_>, slot: usize) {
        if let Some(relief) = self.relief_of(slot).filter(|it| !self.instances[*it].is_leaving()) {
            // The back-off is not for the one that stands by already, but for whoever would come after it.
            if let Some(at) = cx.deadlines.take(Due::Lead(self.id, slot_number(slot)))
                && !cx.plant.has(Planted::SparesWithoutBackoff)
            {
                cx.deadlines.set(Due::Relief(self.id, slot_number(slot)), at);
            }
            self.take_lead(cx, relief);
            return;
        }
        let waits = cx.deadlines.is_set(Due::Lead(self.id, slot_number(slot)));
        let alone = self.is_slot_empty(slot) || self.config.recovery.handover != Handover::Hold;
        if !waits && alone {
            self.spawn(cx, slot, Role::Lead);
        }
    }

    fn can_take_over(&self, cx: &Cx<'_>, relief: usize) -> bool {
        let early = cx.plant.has(Planted::AdmitUnready)
            && matches!(self.instances[relief].life, Life::Starting { .. });
        self.instances[relief].is_ready() || early
    }

    /// The successor serves from now on; the former lead only has to go.
    fn promote(&mut self, cx: &mut Cx<'_>, lead: usize, relief: usize) {
        self.instances[lead].role = Role::Former;
        self.take_lead(cx, relief);
    }

    fn take_lead(&mut self, cx: &mut Cx<'_>, relief: usize) {
        self.instances[relief].role = Role::Lead;
        let slot = usize::from(self.instances[relief].slot);
        self.slots[slot].relief_streak.forgive();
        self.slots[slot].relief_failures = 0;
        if self.can_take_over(cx, relief) {
            self.admit(cx, relief);
        }
    }

    pub(crate) fn admit(&mut self, cx: &mut Cx<'_>, index: usize) {
        let instance = &mut self.instances[index];
        if !core::mem::replace(&mut instance.admitted, true) {
            cx.act(Action::Admit { instance: instance.id });
        }
    }

    fn spawn_relief(&mut self, cx: &mut Cx<'_>, slot: usize) {
        let waits = cx.deadlines.is_set(Due::Relief(self.id, slot_number(slot)));
        let living = self.instances.iter().filter(|it| usize::from(it.slot) == slot).count();
        if !waits && (living < SLOT_INSTANCES_MAX || cx.plant.has(Planted::PileUp)) {
            self.spawn(cx, slot, Role::Relief);
        }
    }

    fn spawn(&mut self, cx: &mut Cx<'_>, slot: usize, role: Role) {
        let id = InstanceId { service: self.id, number: self.next_number };
        self.next_number += 1;
        self.instances.push(Instance::new(id, slot_number(slot), role));
        cx.tell(self.id, Some(id.number), None, Kind::Starting);
        cx.act(Action::Spawn { instance: id });
    }

    /// One planned replacement at a time: every other slot must stand before this one may go.
    fn has_turn(&self, cx: &Cx<'_>, slot: usize) -> bool {
        if cx.plant.has(Planted::AllAtOnce) {
            return true;
        }
        (0..self.slots_wanted()).filter(|other| *other != slot).all(|other| {
            let lead = self.lead_of(other).map(|lead| &self.instances[lead]);
            let stands = lead.is_some_and(|lead| lead.is_ready() && lead.doom.is_none_or(|_| other > slot));
            let busy = self.relief_of(other).is_some() && self.config.recovery.handover == Handover::Overlap;
            let parting =
                self.instances.iter().any(|it| usize::from(it.slot) == other && it.role == Role::Former);
            stands && !busy && !parting
        })
    }

    fn is_slot_empty(&self, slot: usize) -> bool {
        !self.instances.iter().any(|it| usize::from(it.slot) == slot)
    }

    /// Dark: up is wanted, something had been ready, and nothing can answer now.
    fn update_dark(&mut self, now: Instant) {
        let lit = self.instances.iter().any(Instance::is_lit);
        self.was_lit = (self.was_lit || lit) && self.intent == Intent::Up;
        let dark = self.was_lit && !lit;
        match (dark, self.dark_since) {
            (true, None) => self.dark_since = Some(now),
            (false, Some(since)) => {
                self.dark_total += now.since(since);
                self.dark_since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    pub(crate) fn dark_total_at(&self, now: Instant) -> Duration {
        self.dark_total + self.dark_since.map_or(Duration::ZERO, |since| now.since(since))
    }
}
