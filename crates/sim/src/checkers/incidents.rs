//! One trouble, one incident: opened once, joined while open, closed once.

use std::collections::BTreeMap;

use plimsoll_core::{IncidentId, Kind, Record, ServiceId};

use super::{Checker, rule};
use crate::facts::Step;

#[derive(Debug, Default)]
pub(crate) struct Incidents {
    open: BTreeMap<ServiceId, IncidentId>,
    last: u64,
}

impl Checker for Incidents {
    fn name(&self) -> &'static str {
        "incidents"
    }

    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        for record in step.records() {
            self.told(record)?;
        }
        for (view, id) in step.views.iter().zip(0..) {
            let open = self.open.get(&ServiceId(id)).copied();
            rule(view.incident == open, || format!("{:?} is shown and {open:?} was told", view.incident))?;
        }
        Ok(())
    }
}

impl Incidents {
    fn told(&mut self, record: &Record) -> Result<(), String> {
        if let Kind::IncidentOpened { incident } = record.kind {
            rule(incident.0 > self.last, || format!("{incident:?} was used before"))?;
            self.last = incident.0;
            let before = self.open.insert(record.service, incident);
            rule(before.is_none(), || format!("{incident:?} opened while {before:?} was open"))?;
        }
        if let Kind::IncidentJoined { incident } = record.kind {
            let open = self.open.get(&record.service) == Some(&incident);
            rule(open, || format!("{incident:?} was joined and is not open"))?;
        }
        if let Kind::IncidentClosed { incident, dark, lasted } = record.kind {
            let open = self.open.remove(&record.service) == Some(incident);
            rule(open, || format!("{incident:?} was closed and is not open"))?;
            rule(dark <= lasted, || format!("{incident:?} was dark for {dark:?} of {lasted:?}"))?;
        }
        Ok(())
    }
}
