//! A life begins with one Spawn and ends with one Release, and nothing of it is alive after that.

use std::collections::BTreeMap;

use plimsoll_core::{Action, InstanceId};

use super::{Checker, rule};
use crate::facts::Step;
use crate::world::Left;

/// Lead, successor, and one that is still going: more than this in one slot is a pile-up.
const PER_SLOT_MAX: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Lives {
    /// False once released.
    held: BTreeMap<InstanceId, bool>,
}

impl Checker for Lives {
    fn name(&self) -> &'static str {
        "lives"
    }

    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        for action in step.actions {
            self.acted(step, action)?;
        }
        self.ends_are_released(step)?;
        nothing_lives_unseen(step)?;
        no_pile_up(step)
    }

    fn forgotten(&mut self, is_held: &dyn Fn(InstanceId) -> bool) {
        self.held.retain(|id, held| !*held || is_held(*id));
    }

    fn lost(&mut self, actions: &[Action], left: Left, is_held: &dyn Fn(InstanceId) -> bool) {
        for action in actions {
            if let Action::Release { instance } = action {
                // One step back nobody had thought of giving it back.
                self.held.insert(*instance, left == Left::Before || is_held(*instance));
            } else if let Action::Spawn { instance } = action
                && left != Left::Saved
            {
                self.held.remove(instance);
            }
        }
    }
}

impl Lives {
    fn acted(&mut self, step: &Step<'_>, action: &Action) -> Result<(), String> {
        match action {
            Action::Spawn { instance } => {
                let before = self.held.insert(*instance, true);
                rule(before.is_none(), || format!("{instance:?} was spawned twice"))
            }
            Action::Release { instance } => {
                let held = self.held.insert(*instance, false) == Some(true);
                rule(held, || format!("{instance:?} was released twice, or never held"))?;
                rule(!step.kernel.may_live(*instance), || {
                    format!("{instance:?} was released while something of it lives")
                })
            }
            Action::Sample { instance, .. }
            | Action::Probe { instance, .. }
            | Action::Admit { instance }
            | Action::Withdraw { instance, .. }
            | Action::KeepEvidence { instance, .. }
            | Action::Signal { instance }
            | Action::KillTree { instance }
            | Action::SetHigh { instance, .. } => {
                let held = self.held.get(instance) == Some(&true);
                rule(held, || format!("{action:?} on an instance that is gone"))
            }
            Action::Stand { .. } | Action::Tell(_) => Ok(()),
        }
    }

    // Released ones are only kept to know a second release by.
    fn ends_are_released(&self, step: &Step<'_>) -> Result<(), String> {
        let lost = self.held.iter().filter(|(_, held)| **held).find(|(id, _)| step.state(**id).is_none());
        rule(lost.is_none(), || format!("{lost:?} is gone and was never released"))
    }
}

fn nothing_lives_unseen(step: &Step<'_>) -> Result<(), String> {
    let unseen = step.kernel.living().find(|id| step.state(*id).is_none());
    rule(unseen.is_none(), || format!("{unseen:?} lives and the head holds it for gone"))
}

fn no_pile_up(step: &Step<'_>) -> Result<(), String> {
    for (view, service) in step.views.iter().zip(&step.facts.services) {
        let most = PER_SLOT_MAX * usize::from(service.most_replicas);
        let count = view.instances.len();
        rule(count <= most, || format!("{count} instances of {}", service.config.name))?;
    }
    Ok(())
}
