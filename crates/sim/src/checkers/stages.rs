//! Nothing lasts for ever: every stage of a life has its bound, and a kill is repeated until nothing is left.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_core::units::Instant;
use plimsoll_core::{Action, Event, InstanceId, InstanceState};

use super::{Checker, rule};
use crate::facts::Step;

const EVIDENCE_MAX: Duration = Duration::from_millis(500);
const KILL_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Stages {
    stages: BTreeMap<InstanceId, (InstanceState, Instant)>,
}

impl Checker for Stages {
    fn name(&self) -> &'static str {
        "stages"
    }

    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        self.stages.retain(|id, _| step.state(*id).is_some());
        for view in step.views.iter().flat_map(|view| &view.instances) {
            let entered = self.stages.get(&view.id).is_none_or(|(state, _)| *state != view.state);
            if entered || renewed(step, view.id) {
                let until =
                    bound(step, view.id, view.state).map_or(Instant(u64::MAX), |span| step.now + span);
                self.stages.insert(view.id, (view.state, until));
            }
        }
        for (id, (state, until)) in &self.stages {
            rule(step.now <= *until, || format!("{id:?} is {} for too long", state.name()))?;
        }
        Ok(())
    }
}

/// `None` where only what happens outside can end it.
fn bound(step: &Step<'_>, id: InstanceId, state: InstanceState) -> Option<Duration> {
    let config = step.config(id);
    match state {
        InstanceState::Starting => {
            let spawned = matches!(step.event, Some(Event::Spawned { instance }) if *instance == id);
            (spawned && config.health.probed).then_some(config.health.start_period)
        }
        InstanceState::Ready | InstanceState::Unready => None,
        InstanceState::Draining => Some(config.recovery.drain.max(EVIDENCE_MAX)),
        InstanceState::Stopping => Some(config.recovery.stop_grace),
        InstanceState::Killing => Some(KILL_AGAIN),
    }
}

fn renewed(step: &Step<'_>, id: InstanceId) -> bool {
    let killed = step.actions.contains(&Action::KillTree { instance: id });
    killed || matches!(step.event, Some(Event::Spawned { instance }) if *instance == id)
}
