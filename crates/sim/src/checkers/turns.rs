//! Of several replicas one at a time is replaced where that can wait: the others stand meanwhile.

use plimsoll_core::{Axis, Cause, Handover, InstanceState, Kind, Record};

use super::{Checker, rule};
use crate::facts::Step;

#[derive(Debug, Default)]
pub(crate) struct Turns;

impl Checker for Turns {
    fn name(&self) -> &'static str {
        "turns"
    }

    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        step.records().filter(|record| can_wait(record)).try_for_each(|record| others_stand(step, record))
    }
}

fn can_wait(record: &Record) -> bool {
    record.kind == Kind::Recycling
        && matches!(record.cause, Some(Cause::Memory { axis: Axis::Persistence, .. }))
}

/// After the step, so that the one that goes is not among them.
fn others_stand(step: &Step<'_>, record: &Record) -> Result<(), String> {
    let service = step.service(record.service);
    if service.config.recovery.handover != Handover::Hold || service.mixed_handover {
        return Ok(());
    }
    let stands = step.view(record.service).instances.iter();
    let stands = stands.filter(|it| it.state == InstanceState::Ready && !it.relief).count();
    let others = usize::from(service.config.replicas.max(1)) - 1;
    rule(stands >= others, || {
        let (service, number) = (record.service.0, record.instance);
        format!("s{service}.{number:?} is replaced while {stands} of {others} others stand")
    })
}
