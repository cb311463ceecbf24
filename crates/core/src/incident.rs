//! One incident per trouble, however many layers noticed it.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::cause::Cause;
use crate::ids::IncidentId;
use crate::saved::SavedIncident;
use crate::units::Instant;

/// More different causes than this for one incident are not told apart any more.
const CAUSES_MAX: usize = 32;

#[derive(Debug)]
pub(crate) struct Incident {
    pub(crate) id: IncidentId,
    pub(crate) opened: Instant,
    /// The service's dark time when the incident was opened.
    pub(crate) dark_before: Duration,
    causes: Vec<(u64, &'static str)>,
}

impl Incident {
    pub(crate) fn open(id: IncidentId, opened: Instant, dark_before: Duration) -> Self {
        Self { id, opened, dark_before, causes: Vec::new() }
    }

    /// For the next guard.
    pub(crate) fn saved(&self) -> SavedIncident {
        let causes = self.causes.iter().map(|(number, name)| (*number, String::from(*name))).collect();
        SavedIncident { id: self.id.0, opened: self.opened, dark_before: self.dark_before, causes }
    }

    pub(crate) fn restored(saved: &SavedIncident) -> Self {
        let known = |(number, name): &(u64, String)| Some((*number, Cause::known_name(name)?));
        Self {
            id: IncidentId(saved.id),
            opened: saved.opened,
            dark_before: saved.dark_before,
            causes: saved.causes.iter().filter_map(known).take(CAUSES_MAX).collect(),
        }
    }

    /// True when this instance was not yet accused of this.
    pub(crate) fn adds(&mut self, instance: u64, cause: Cause) -> bool {
        let entry = (instance, cause.name());
        if self.causes.contains(&entry) || self.causes.len() == CAUSES_MAX {
            return false;
        }
        self.causes.push(entry);
        true
    }
}
