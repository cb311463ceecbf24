//! `hold` means one writer: no second process tree in a slot, whoever may be dying there.

use plimsoll_core::{Action, Handover, InstanceId};

use super::{Checker, rule};
use crate::facts::Step;

#[derive(Debug, Default)]
pub(crate) struct Slots {
    spawned: Vec<InstanceId>,
}

impl Checker for Slots {
    fn name(&self) -> &'static str {
        "slots"
    }

    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        self.spawned.retain(|id| step.kernel.may_live(*id));
        for action in step.actions {
            if let Action::Spawn { instance } = action {
                self.spawned.push(*instance);
                self.at_most_one_a_slot(step, *instance)?;
            }
        }
        Ok(())
    }
}

impl Slots {
    /// Slots have no names out here, but with one tree in each there are never more trees than slots.
    fn at_most_one_a_slot(&self, step: &Step<'_>, id: InstanceId) -> Result<(), String> {
        let service = step.service(id.service);
        if service.config.recovery.handover != Handover::Hold || service.mixed_handover {
            return Ok(());
        }
        let trees = self.spawned.iter().filter(|other| other.service == id.service).count();
        let slots = usize::from(service.most_replicas);
        rule(trees <= slots, || format!("{id:?} makes {trees} living trees in {slots} slots, with hold"))
    }
}
