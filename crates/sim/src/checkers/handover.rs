//! With `overlap` and `standby` the old one serves until the new one does, unless it is past serving.

use plimsoll_core::{Action, Axis, Cause, Event, Handover, InstanceId, InstanceState, Intent, Kind, Order};

use super::{Checker, rule};
use crate::facts::Step;

#[derive(Debug, Default)]
pub(crate) struct Handovers;

impl Checker for Handovers {
    fn name(&self) -> &'static str {
        "handover"
    }

    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        for action in step.actions {
            if let Action::Withdraw { instance, .. } = action {
                let served = has_successor(step, *instance) || may_leave_a_gap(step, *instance);
                rule(served, || format!("{instance:?} stopped serving before another one did"))?;
            }
        }
        Ok(())
    }
}

fn has_successor(step: &Step<'_>, id: InstanceId) -> bool {
    let view = step.view(id.service);
    view.instances.iter().any(|it| it.id != id && it.state == InstanceState::Ready && !it.relief)
}

fn may_leave_a_gap(step: &Step<'_>, id: InstanceId) -> bool {
    let service = step.service(id.service);
    let overlaps = match service.config.recovery.handover {
        Handover::Hold => false,
        Handover::Overlap | Handover::Standby => !service.mixed_handover && service.most_replicas == 1,
    };
    !overlaps || service.intent == Intent::Down || ended_by_itself(step, id) || is_past_serving(step, id)
}

fn ended_by_itself(step: &Step<'_>, id: InstanceId) -> bool {
    match step.event {
        Some(Event::Exited { instance, .. } | Event::Emptied { instance }) => *instance == id,
        Some(Event::Ordered { service, order: Order::Restart }) => *service == id.service,
        Some(
            Event::Ordered { .. }
            | Event::Configured { .. }
            | Event::Spawned { .. }
            | Event::SpawnFailed { .. }
            | Event::Sampled { .. }
            | Event::SampleFailed { .. }
            | Event::Noticed { .. }
            | Event::Probed { .. }
            | Event::EvidenceKept { .. }
            | Event::InFlight { .. }
            | Event::Stalled { .. },
        )
        | None => false,
    }
}

/// Deaf, or so near the wall that the kernel would take it.
fn is_past_serving(step: &Step<'_>, id: InstanceId) -> bool {
    step.records().filter(|record| record.instance == Some(id.number) && record.service == id.service).any(
        |record| {
            let last_resort = matches!(record.cause, Some(Cause::Memory { axis: Axis::Level, .. }));
            record.kind == Kind::Recycling && (last_resort || record.cause.is_some_and(Cause::is_deaf))
        },
    )
}
