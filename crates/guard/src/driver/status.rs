//! What `status` shows.

use plimsoll_core::{Intent, LineView, ServiceId};

use super::{Driver, Seat};
use crate::records::{GuardStatus, InstanceStatus, LayerStatus, ServiceStatus, Status};

impl Driver {
    pub(super) fn status(&self) -> Status {
        let mut degraded = self.degraded.clone();
        let ledger = self.ledger.health();
        if !ledger.ok {
            degraded.push(ledger.message);
        }
        let logs = self.pump.health();
        if !logs.ok {
            degraded.push(logs.message);
        }
        Status {
            version: self.settings.version.clone(),
            guard: GuardStatus {
                pid: std::process::id(),
                init_pid: self.init_pid.and_then(|pid| u32::try_from(pid).ok()),
                started: self.started,
                after_incident: self.after_incident,
            },
            services: self.services().into_iter().filter_map(|id| self.service_status(id)).collect(),
            degraded,
            front: self.traffic.as_ref().map(|it| it.status()),
            vaults: self.vaults.as_ref().map(|it| it.status()).unwrap_or_default(),
        }
    }

    fn service_status(&self, id: ServiceId) -> Option<ServiceStatus> {
        let seat = self.seat_of(id)?;
        let view = self.head.view(self.clock.now(), id)?;
        if seat.retired && view.instances.is_empty() {
            return None;
        }
        Some(ServiceStatus {
            name: seat.workload.name().to_owned(),
            intent: if view.intent == Intent::Up { "up" } else { "down" }.to_owned(),
            state: view.state.name().to_owned(),
            instances: view.instances.iter().map(|it| self.instance_status(it)).collect(),
            recycles: view.recycles,
            recycles_in_hour: view.recycles_in_hour,
            recycles_per_hour: seat.workload.head.recovery.recycles_per_hour,
            restarts: view.restarts,
            incident: view.incident.map(|id| id.0),
            layers: self.layers(seat, &view),
            warnings: seat.last_refusal.iter().cloned().collect(),
            traffic: self.traffic.as_ref().and_then(|it| it.status_of(id)),
        })
    }

    fn instance_status(&self, view: &plimsoll_core::InstanceView) -> InstanceStatus {
        let running = self.instances.get(&view.id);
        // The head's figure may be an upper bound far from the line; a person gets the exact one.
        let exact = running.and_then(|it| it.group.as_ref()).and_then(|group| group.memory().ok());
        InstanceStatus {
            id: running.map(|it| it.name.clone()).unwrap_or_default(),
            pid: running.and_then(|it| it.main).map(|main| main.pid),
            state: view.state.name().to_owned(),
            role: if view.relief { "relief" } else { "lead" }.to_owned(),
            address: running.and_then(|it| it.address.as_ref()).map(ToString::to_string),
            started: running.map_or(self.started, |it| it.started),
            memory_bytes: exact.map(|it| it.working_set()).or(view.working_set.map(|it| it.0)),
            memory_slope_bytes_per_second: view.slope.0,
            descriptors: view.descriptors,
            descriptors_per_second: view.descriptors_per_second,
        }
    }

    /// The layers as planned, with what only the running instances can tell.
    fn layers(&self, seat: &Seat, view: &plimsoll_core::ServiceView) -> Vec<LayerStatus> {
        let mut layers = self.ground.layers(&seat.workload);
        let refused = view.instances.iter().find_map(|it| match it.line {
            LineView::Refused { baseline } => Some(baseline),
            LineView::Armed => None,
        });
        if let Some(baseline) = refused {
            for layer in layers.iter_mut().filter(|it| it.layer == "kill_switch") {
                layer.notes.push(format!(
                    "line refused: the service needs {baseline} just to run; raise memory.recycle"
                ));
            }
        }
        layers
    }
}
