//! The head never spins, never floods, and never forgets to look.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_core::units::Instant;
use plimsoll_core::{Action, Event, InstanceId, InstanceState};

use super::{Checker, rule};
use crate::facts::Step;

/// One step on one instance is a handful of actions.
const ACTIONS_PER_INSTANCE: usize = 12;
const ACTIONS_BASE: usize = 12;
/// The slowest pace of samples, on its grid, counted from the answer before.
const LOOK_AGAIN: Duration = Duration::from_millis(1150);

#[derive(Debug, Default)]
pub(crate) struct Bounds {
    looked: BTreeMap<InstanceId, Instant>,
}

impl Checker for Bounds {
    fn name(&self) -> &'static str {
        "bounds"
    }

    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        let instances: usize = step.views.iter().map(|view| view.instances.len()).sum();
        let (count, most) = (step.actions.len(), ACTIONS_BASE + ACTIONS_PER_INSTANCE * instances);
        rule(count <= most, || format!("{count} actions in one step for {instances} instances"))?;
        let spins = step.event.is_none() && step.next_deadline.is_some_and(|at| at <= step.now);
        rule(!spins, || "a deadline is due again at once".into())?;
        self.keeps_looking(step)
    }
}

impl Bounds {
    fn keeps_looking(&mut self, step: &Step<'_>) -> Result<(), String> {
        if let Some(
            Event::Spawned { instance } | Event::Sampled { instance, .. } | Event::SampleFailed { instance },
        ) = step.event
        {
            self.looked.insert(*instance, step.now);
        }
        for action in step.actions {
            if let Action::Sample { instance, .. } = action {
                self.looked.insert(*instance, step.now);
            }
        }
        self.looked.retain(|id, _| match step.state(*id) {
            None | Some(InstanceState::Killing) => false,
            Some(
                InstanceState::Starting
                | InstanceState::Ready
                | InstanceState::Unready
                | InstanceState::Draining
                | InstanceState::Stopping,
            ) => true,
        });
        for (id, at) in &self.looked {
            rule(step.now.since(*at) <= LOOK_AGAIN, || format!("{id:?} was not measured since {at:?}"))?;
        }
        Ok(())
    }
}
