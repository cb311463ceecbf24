//! Taking a service over from a guard that ended: what goes on where it was, what is begun with, what is killed, and
//! what is only forgotten.
//!
//! Two accounts meet here. What the other guard saved may be a step behind, or not readable at all; what init holds is
//! the truth about processes, and knows nothing of roles and promises. [`decide`] is the whole decision.

use alloc::vec::Vec;
use core::time::Duration;

use super::leave::slot_number;
use super::{Cx, Service};
use crate::action::Action;
use crate::cause::Cause;
use crate::deadlines::Due;
use crate::ids::InstanceId;
use crate::incident::Incident;
use crate::instance::{Instance, Life, Role, Stage};
use crate::layers::health;
use crate::layers::kill_switch::INTERVAL_NEAR;
use crate::layers::recovery::{Budget, Streak};
use crate::planted::Planted;
use crate::record::Kind;
use crate::saved::{SavedInstance, SavedService, SavedSlot};
use crate::view::Intent;

/// An instance that is still held for the guard that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub number: u64,
    pub remains: Remains,
}

/// What is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Its main process runs, or is just being started.
    Main,
    /// Its main process has ended, and something else of it lives.
    Others,
    Nothing,
}

/// What becomes of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on where it was.
    Resume(SavedInstance),
    /// It runs, nothing is known of it, and this slot has room: it is watched as one that has just been started.
    Begin { slot: u16 },
    /// It runs where it has no place.
    Kill { slot: u16 },
    /// It was saved, and nobody holds it any more: it ended, or its start never came about.
    Gone(SavedInstance),
    /// It was dealt with to the end, only not given back.
    Forget,
}

/// The fate of everything that was saved or found, in the order of their numbers.
pub(crate) fn decide(saved: Option<&SavedService>, found: &[Found], slots: usize) -> Vec<(u64, Fate)> {
    let known: &[SavedInstance] = saved.map_or(&[], |saved| &saved.instances);
    let is_found = |number| found.iter().any(|it| it.number == number);
    let mut fates: Vec<(u64, Fate)> = known
        .iter()
        .map(|it| (it.number, if is_found(it.number) { Fate::Resume(*it) } else { Fate::Gone(*it) }))
        .collect();
    let mut others: Vec<Found> = found.to_vec();
    others.retain(|it| known.iter().all(|other| other.number != it.number));
    // Who runs finds a place before what is only dying; among equals the older one.
    others.sort_unstable_by_key(|it| (it.remains != Remains::Main, it.number));
    // What is dying takes a place too: with `hold` nobody may be started beside it. One that was asked for and never came
    // to be has none to keep.
    let holds = |fate: &Fate, slot: usize| match fate {
        Fate::Resume(it) => usize::from(it.slot) == slot,
        Fate::Begin { slot: taken } | Fate::Kill { slot: taken } => usize::from(*taken) == slot,
        Fate::Gone(_) | Fate::Forget => false,
    };
    for it in others {
        let taken = |slot: usize| fates.iter().filter(|(_, fate)| holds(fate, slot)).count();
        let free = (0..slots).find(|slot| taken(*slot) == 0);
        // Spread out, so that no slot is thought to have room for more.
        let emptiest = (0..slots).min_by_key(|slot| taken(*slot)).unwrap_or(0);
        let fate = match (it.remains, free) {
            (Remains::Main, Some(slot)) => Fate::Begin { slot: slot_number(slot) },
            (Remains::Main | Remains::Others, _) => Fate::Kill { slot: slot_number(emptiest) },
            (Remains::Nothing, _) => Fate::Forget,
        };
        fates.push((it.number, fate));
    }
    fates.sort_unstable_by_key(|(number, _)| *number);
    fates
}

impl Service {
    pub(crate) fn adopt(&mut self, cx: &mut Cx<'_>, saved: Option<&SavedService>, found: &[Found]) {
        match saved {
            Some(saved) => self.restore(cx, saved),
            None => self.intent = Intent::Up,
        }
        let past = found.iter().map(|it| it.number + 1).max().unwrap_or(0);
        self.next_number = self.next_number.max(past);
        let mut found = found.to_vec();
        found.retain(|it| !cx.plant.has(Planted::AdoptNobody) && !overlooked_start(cx, saved, it.number));
        let fates = decide(saved, &found, self.slots_wanted());
        for (number, fate) in fates {
            let id = InstanceId { service: self.id, number };
            match fate {
                Fate::Resume(saved) => self.resume(cx, id, &saved),
                Fate::Begin { slot } => self.begin_with(cx, id, slot),
                Fate::Kill { slot } => self.kill_found(cx, id, slot),
                Fate::Gone(saved) => self.was_gone(cx, id, &saved),
                Fate::Forget => cx.act(Action::Release { instance: id }),
            }
        }
    }

    fn restore(&mut self, cx: &mut Cx<'_>, saved: &SavedService) {
        self.intent = if cx.plant.has(Planted::AdoptAsUp) { Intent::Up } else { saved.intent };
        // Saved before each start: whatever else was counted knows no better, and may only have guessed.
        self.next_number = saved.next_number;
        (self.recycles, self.restarts) = (saved.recycles, saved.restarts);
        (self.dark_since, self.dark_total) = (saved.dark_since, saved.dark_total);
        (self.was_lit, self.boot_time) = (saved.was_lit, saved.boot_time);
        (self.line_refusal_told, self.stop_told) = (saved.line_refusal_told, saved.stop_told);
        self.budget = Budget::restored(&saved.budget_spent, saved.budget_paged);
        self.incident = saved.incident.as_ref().map(Incident::restored);
        if let Some(at) = saved.calm_due {
            cx.deadlines.set(Due::Calm(self.id), at);
        }
        for (number, slot) in (0..).zip(&saved.slots) {
            self.restore_slot(cx, number, slot);
        }
        // Slots that are wanted no longer are still taken by what has to leave them.
        let most = saved.instances.iter().map(|it| usize::from(it.slot) + 1).max().unwrap_or(0);
        while self.slots.len() < most {
            self.slots.push(super::Slot::default());
        }
    }

    fn restore_slot(&mut self, cx: &mut Cx<'_>, number: u16, saved: &SavedSlot) {
        let Some(slot) = self.slots.get_mut(usize::from(number)) else { return };
        slot.streak = Streak(saved.streak);
        slot.relief_streak = Streak(saved.relief_streak);
        (slot.lead_failures, slot.relief_failures) = (saved.lead_failures, saved.relief_failures);
        for (due, at) in
            [(Due::Lead(self.id, number), saved.lead_due), (Due::Relief(self.id, number), saved.relief_due)]
        {
            if let Some(at) = at {
                cx.deadlines.set(due, at);
            }
        }
    }

    /// Puts it back as it was saved. Returns its place.
    fn place(&mut self, id: InstanceId, saved: &SavedInstance) -> usize {
        let mut instance = Instance::new(id, saved.slot, saved.role);
        (instance.life, instance.doom, instance.exit) = (saved.life, saved.doom, saved.exit);
        (instance.first_ready, instance.left) = (saved.first_ready, saved.left);
        match saved.baseline {
            Some(baseline) => _ = instance.kill_switch.settle_baseline(baseline, &self.config.memory),
            None => instance.baseline_due = saved.first_ready.is_some(),
        }
        self.instances.push(instance);
        self.instances.len() - 1
    }

    fn resume(&mut self, cx: &mut Cx<'_>, id: InstanceId, saved: &SavedInstance) {
        let index = self.place(id, saved);
        match saved.life {
            // It has come to be after all, or is about to.
            Life::Spawning => self.begin_starting(cx, index),
            Life::Starting { since } => {
                self.watch_again(
                    cx,
                    index,
                    Some(cx.now + health::start_interval(Duration::ZERO, &self.config.health)),
                );
                if self.config.health.probed {
                    cx.deadlines.set(Due::Started(id), since + self.config.health.start_period);
                }
            }
            Life::Ready | Life::Unready => {
                self.watch_again(cx, index, saved.probe_due);
                if saved.admitted {
                    self.admit(cx, index);
                }
            }
            Life::Leaving { stage, cause } => self.leave_on(cx, index, stage, cause, saved),
        }
    }

    /// Samples and probes go on.
    fn watch_again(&mut self, cx: &mut Cx<'_>, index: usize, probe: Option<crate::units::Instant>) {
        let id = self.instances[index].id;
        // At once: nobody has looked for a while.
        cx.deadlines.set(Due::Sample(id), cx.now);
        cx.act(Action::SetHigh { instance: id, at: self.config.memory.recycle });
        if self.config.health.probed {
            cx.deadlines.set(Due::Probe(id), probe.unwrap_or(cx.now).max(cx.now));
        }
    }

    /// What was in flight ended with the guard, so nothing is left to drain. A signal may have been sent or not: once
    /// more does less harm than never.
    fn leave_on(&mut self, cx: &mut Cx<'_>, index: usize, stage: Stage, cause: Cause, saved: &SavedInstance) {
        let id = self.instances[index].id;
        match stage {
            Stage::Draining { then_kill: false, .. } => self.stop(cx, index, cause),
            Stage::Stopping => {
                cx.act(Action::Signal { instance: id });
                cx.deadlines.set(Due::Stage(id), saved.stage_due.unwrap_or(cx.now));
            }
            Stage::Draining { then_kill: true, .. } | Stage::Killing { .. } => self.kill(cx, index),
        }
    }

    fn begin_with(&mut self, cx: &mut Cx<'_>, id: InstanceId, slot: u16) {
        self.instances.push(Instance::new(id, slot, Role::Lead));
        let index = self.instances.len() - 1;
        self.begin_starting(cx, index);
        cx.due_in(Due::Sample(id), INTERVAL_NEAR);
    }

    fn kill_found(&mut self, cx: &mut Cx<'_>, id: InstanceId, slot: u16) {
        self.instances.push(Instance::new(id, slot, Role::Former));
        let index = self.instances.len() - 1;
        self.anomaly(cx, id, "an instance without a place was found and is ended");
        self.die(cx, index, Cause::Ordered);
        self.kill(cx, index);
    }

    fn was_gone(&mut self, cx: &mut Cx<'_>, id: InstanceId, saved: &SavedInstance) {
        let index = self.place(id, saved);
        match saved.life {
            // Asked for, and never started: nobody's failure.
            Life::Spawning => {
                self.instances.swap_remove(index);
                cx.act(Action::Release { instance: id });
            }
            Life::Starting { .. } | Life::Ready | Life::Unready | Life::Leaving { .. } => {
                cx.tell(
                    self.id,
                    Some(id.number),
                    None,
                    Kind::Anomaly { what: "it ended while no guard looked" },
                );
                self.emptied(cx, id);
            }
        }
    }
}

/// A bug for the simulator.
fn overlooked_start(cx: &Cx<'_>, saved: Option<&SavedService>, number: u64) -> bool {
    let starting = |it: &SavedInstance| it.number == number && it.life == Life::Spawning;
    cx.plant.has(Planted::AdoptNoStarts) && saved.is_some_and(|saved| saved.instances.iter().any(starting))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Exit;

    fn saved(number: u64, slot: u16, life: Life) -> SavedInstance {
        SavedInstance {
            number,
            slot,
            role: Role::Lead,
            life,
            doom: None,
            exit: None,
            first_ready: None,
            left: None,
            admitted: true,
            baseline: None,
            stage_due: None,
            probe_due: None,
        }
    }

    fn service(instances: &[SavedInstance]) -> SavedService {
        let config = crate::config::ServiceConfig::named("reports");
        let fresh = Service::new(crate::ids::ServiceId(0), config, 1);
        let mut service = fresh.save(&crate::deadlines::Deadlines::default());
        service.instances = instances.to_vec();
        service
    }

    fn found(number: u64, remains: Remains) -> Found {
        Found { number, remains }
    }

    #[test]
    fn what_runs_and_was_saved_goes_on() {
        let it = saved(7, 0, Life::Ready);
        let fates = decide(Some(&service(&[it])), &[found(7, Remains::Main)], 1);
        assert_eq!(fates, [(7, Fate::Resume(it))]);
    }

    #[test]
    fn without_a_readable_state_each_slot_keeps_one_and_the_rest_is_ended() {
        let all = [found(9, Remains::Main), found(7, Remains::Main), found(8, Remains::Others)];
        let fates = decide(None, &all, 1);
        assert_eq!(
            fates,
            [(7, Fate::Begin { slot: 0 }), (8, Fate::Kill { slot: 0 }), (9, Fate::Kill { slot: 0 })]
        );
    }

    #[test]
    fn nobody_is_started_beside_one_that_is_dying() {
        let fates = decide(None, &[found(7, Remains::Others), found(8, Remains::Main)], 2);
        assert_eq!(fates, [(7, Fate::Kill { slot: 1 }), (8, Fate::Begin { slot: 0 })]);
    }

    #[test]
    fn one_that_was_started_after_the_last_save_gets_the_slot_that_is_free() {
        let it = saved(7, 0, Life::Ready);
        let fates = decide(Some(&service(&[it])), &[found(7, Remains::Main), found(8, Remains::Main)], 2);
        assert_eq!(fates[1], (8, Fate::Begin { slot: 1 }));
        // A start that never came about takes no place.
        let lost = saved(7, 0, Life::Spawning);
        let fates = decide(Some(&service(&[lost])), &[found(8, Remains::Main)], 1);
        assert_eq!(fates, [(7, Fate::Gone(lost)), (8, Fate::Begin { slot: 0 })]);
    }

    #[test]
    fn what_was_dealt_with_is_forgotten_and_never_ends_twice() {
        let it = saved(7, 0, Life::Ready);
        let all = [found(6, Remains::Nothing), found(7, Remains::Main)];
        assert_eq!(decide(Some(&service(&[it])), &all, 1)[0], (6, Fate::Forget));
    }

    #[test]
    fn one_that_leaves_goes_on_leaving_and_its_exit_is_remembered() {
        let cause = Cause::Died { exit: Exit::Code(1) };
        let stage = Stage::Killing { since: crate::units::Instant(1), told: false };
        let it = SavedInstance { exit: Some(Exit::Code(1)), ..saved(7, 0, Life::Leaving { stage, cause }) };
        let service = service(&[it]);
        assert!(service.has_exited(7) && !service.has_exited(8));
        assert_eq!(decide(Some(&service), &[found(7, Remains::Others)], 1), [(7, Fate::Resume(it))]);
    }
}
