//! Recycles that could wait stay within their budget, whatever else goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_core::units::Instant;
use plimsoll_core::{Axis, Cause, Kind, ServiceId};

use super::{Checker, rule};
use crate::facts::Step;

/// A little under the hour: from the decision to its turn some time may pass.
const WINDOW: Duration = Duration::from_mins(50);

#[derive(Debug, Default)]
pub(crate) struct Budget {
    gentle: BTreeMap<ServiceId, Vec<Instant>>,
    /// The largest budget that its settings ever gave it.
    most: BTreeMap<ServiceId, u32>,
}

impl Checker for Budget {
    fn name(&self) -> &'static str {
        "budget"
    }

    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        for record in step.records() {
            let gentle = matches!(record.cause, Some(Cause::Memory { axis: Axis::Persistence, .. }));
            if gentle && record.kind == Kind::Recycling {
                self.recycled(step, record.service)?;
            } else if record.kind == Kind::Configured {
                self.raise(step, record.service);
            }
        }
        Ok(())
    }
}

impl Budget {
    fn recycled(&mut self, step: &Step<'_>, service: ServiceId) -> Result<(), String> {
        let most = self.raise(step, service);
        let times = self.gentle.entry(service).or_default();
        times.retain(|at| step.now.since(*at) < WINDOW);
        times.push(step.now);
        let count = times.len();
        rule(count <= most as usize, || format!("{count} gentle recycles in an hour, {most} allowed"))
    }

    fn raise(&mut self, step: &Step<'_>, service: ServiceId) -> u32 {
        let now = step.service(service).config.recovery.recycles_per_hour;
        let most = self.most.entry(service).or_default();
        *most = now.max(*most);
        *most
    }
}
