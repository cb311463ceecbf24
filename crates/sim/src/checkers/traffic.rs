//! Requests go to instances that are ready, to every such one, and to none that is on its way out.

use std::collections::BTreeSet;

use plimsoll_core::{Action, InstanceId, InstanceState};

use super::{Checker, rule};
use crate::facts::Step;

#[derive(Debug, Default)]
pub(crate) struct Traffic {
    admitted: BTreeSet<InstanceId>,
}

impl Checker for Traffic {
    fn name(&self) -> &'static str {
        "traffic"
    }

    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        for action in step.actions {
            self.acted(step, action)?;
        }
        for id in &self.admitted {
            rule(!step.is_leaving(*id), || format!("{id:?} is on its way out and still gets requests"))?;
        }
        let views = step.views.iter().flat_map(|view| &view.instances);
        for view in views.filter(|view| view.state == InstanceState::Ready) {
            let admitted = self.admitted.contains(&view.id);
            rule(admitted != view.relief, || {
                format!("{:?} is ready: relief {}, gets requests {admitted}", view.id, view.relief)
            })?;
        }
        Ok(())
    }
}

impl Traffic {
    fn acted(&mut self, step: &Step<'_>, action: &Action) -> Result<(), String> {
        match action {
            Action::Admit { instance } => {
                let starting = step.state(*instance) == Some(InstanceState::Starting);
                rule(!starting, || format!("{instance:?} gets requests before it is ready"))?;
                rule(self.admitted.insert(*instance), || format!("{instance:?} was admitted twice"))
            }
            Action::Withdraw { instance, .. } => {
                rule(self.admitted.remove(instance), || format!("{instance:?} was withdrawn unadmitted"))
            }
            Action::Signal { instance } | Action::KillTree { instance } | Action::Release { instance } => {
                let admitted = self.admitted.contains(instance);
                rule(!admitted, || format!("{action:?} while requests still go to it"))
            }
            Action::Spawn { .. }
            | Action::Sample { .. }
            | Action::Probe { .. }
            | Action::KeepEvidence { .. }
            | Action::SetHigh { .. }
            | Action::Stand { .. }
            | Action::Tell(_) => Ok(()),
        }
    }
}
