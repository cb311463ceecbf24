//! Evidence: taken beside the driver, inside the head's budget, and kept with the incident.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::{Event, IncidentId, InstanceId};

use super::{Driver, Report};
use crate::evidence::{self, Scene};
use crate::records::Evidence;

/// What is not there by then is not waited for. The head goes on after its own, often shorter budget: what can be had
/// of an instance that is being stopped meanwhile is had, and the rest is listed as missing.
const EVIDENCE_MAX: Duration = Duration::from_millis(500);

impl Driver {
    pub(super) fn take_evidence(&mut self, instance: InstanceId, incident: IncidentId) {
        if self.reduced {
            return self.tell_head(Event::EvidenceKept { instance });
        }
        let Some(seat) = self.seat_of(instance.service) else { return };
        let (service, limit) = (seat.workload.name().to_owned(), seat.workload.head.descriptors.limit);
        let logs = self.settings.state_dir.join("logs");
        let Some(running) = self.instances.get_mut(&instance) else { return };
        running.taking_evidence = true;
        running.incident = Some(incident);
        let scene = Scene {
            service,
            instance: running.name.clone(),
            main: running.main,
            group: running.group.clone(),
            samples: running.samples.rows(),
            exit: running.exit.clone(),
            oom: running.oom(),
            descriptor_limit: limit,
            logs,
            budget: EVIDENCE_MAX,
        };
        let (ground, pump) = (Arc::clone(&self.ground), self.pump.clone());
        self.beside(move || {
            let evidence = Box::new(evidence::take(&ground.roots, &pump, scene));
            Report::Evidence { instance, incident, evidence }
        });
    }

    pub(super) fn keep(&mut self, instance: InstanceId, incident: IncidentId, evidence: Evidence) {
        // The first scene of an incident is the one that explains it.
        self.update_incident(incident, |it| {
            it.evidence.get_or_insert(evidence);
        });
        let release = match self.instances.get_mut(&instance) {
            Some(running) => {
                running.taking_evidence = false;
                std::mem::take(&mut running.release_wanted)
            }
            None => false,
        };
        if release {
            self.release(instance);
        } else {
            self.tell_head(Event::EvidenceKept { instance });
        }
        self.forget_closed();
    }
}
