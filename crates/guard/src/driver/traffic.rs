//! Who may have requests, told to whoever carries them; and what comes back.

use std::future::pending;
use std::time::Duration;

use plimsoll_core::gate::Standing;
use plimsoll_core::{Event, IncidentId, InstanceId, ServiceId};

use super::Driver;
use crate::records::RequestsRecord;
use crate::traffic::{Happened, Traffic, TrafficNews};

/// A connection's end is seen this much before the exit that caused it, at the most.
const RECENT_KEPT: Duration = Duration::from_secs(3);
const RECENT_MAX: usize = 512;
/// Requests of an unknown outcome that one incident lists.
const UNKNOWN_MAX: usize = 100;

impl Driver {
    fn carrier_of(&self, service: ServiceId) -> Option<&dyn Traffic> {
        self.traffic.as_deref().filter(|it| it.carries(service))
    }

    pub(super) fn admit(&mut self, instance: InstanceId) {
        if let Some(running) = self.instances.get_mut(&instance) {
            running.admitted = true;
        }
        let Some(carrier) = self.carrier_of(instance.service) else { return };
        let Some(running) = self.instances.get(&instance) else { return };
        let Some(address) = &running.address else { return };
        carrier.admit(instance, &running.name, address);
        // From now on its drain waits for an answer.
        self.tell_head(Event::InFlight { instance, count: 0 });
    }

    pub(super) fn withdraw(&mut self, instance: InstanceId, drain: Duration) {
        if let Some(running) = self.instances.get_mut(&instance) {
            running.admitted = false;
        }
        let Some(carrier) = self.carrier_of(instance.service) else { return };
        let count = carrier.withdraw(instance, drain);
        self.tell_head(Event::InFlight { instance, count });
    }

    /// Has whoever carries requests take over what was read again. Services whose requests it carries from now on are
    /// made known to it.
    pub(super) fn change_traffic(
        &mut self,
        services: &[(String, ServiceId)],
    ) -> Result<Option<String>, String> {
        let carried = |driver: &Self, service| driver.carrier_of(service).is_some();
        let before: Vec<bool> = services.iter().map(|(_, service)| carried(self, *service)).collect();
        let Some(traffic) = &mut self.traffic else { return Ok(None) };
        let changed = traffic.change(services)?;
        for ((_, service), before) in services.iter().zip(before) {
            if !before && carried(self, *service) {
                let own = self.instances.values().filter(|it| it.admitted && it.id.service == *service);
                let own: Vec<InstanceId> = own.map(|it| it.id).collect();
                for instance in own {
                    self.admit(instance);
                }
            }
        }
        Ok(changed)
    }

    pub(super) fn stand(&mut self, service: ServiceId, standing: Standing) {
        let now = self.clock.now();
        let Some(carrier) = self.carrier_of(service) else { return };
        match standing {
            Standing::Stopped => carrier.stopped(service),
            Standing::Expected { not_before } => {
                carrier.expected(service, not_before.map(|at| at.since(now)));
            }
        }
    }

    pub(super) fn take_news(&mut self, news: TrafficNews) {
        for (instance, count) in news.in_flight {
            self.tell_head(Event::InFlight { instance, count });
        }
        for instance in news.stalled {
            self.tell_head(Event::Stalled { instance });
        }
        for said in news.said {
            let seat = said.service.and_then(|service| self.seat_of(service));
            let service = seat.map_or("front", |seat| seat.workload.name()).to_owned();
            self.say_of(&service, said.instance, said.kind, said.severity, &said.message);
        }
        for (service, happened) in news.happened {
            self.put_on_incident(service, happened);
        }
        self.forget_closed();
    }

    /// To the incident that is open or has just ended; else it is kept for one that may open in a moment, since a
    /// connection that ends is seen before the exit of the process at its other end.
    fn put_on_incident(&mut self, service: ServiceId, happened: Happened) {
        let name = self.seat_of(service).map(|seat| seat.workload.name().to_owned());
        let latest =
            self.incidents.values().filter(|it| Some(&it.service) == name.as_ref()).map(|it| it.id).max();
        if let Some(id) = latest {
            self.update_incident(IncidentId(id), |it| add(it.requests.get_or_insert_default(), happened));
            return;
        }
        if self.happened.len() >= RECENT_MAX {
            self.happened.pop_front();
        }
        self.happened.push_back(Recent { at: tokio::time::Instant::now(), service, happened });
    }

    /// What happened just before this incident was opened belongs to it.
    pub(super) fn catch_up(&mut self, incident: IncidentId, service: &str) {
        let Some(id) = self.service_named(service) else { return };
        let mut own = Vec::new();
        self.happened.retain(|it| {
            let fresh = it.at.elapsed() < RECENT_KEPT;
            if fresh && it.service == id {
                own.push(it.happened.clone());
            }
            fresh && it.service != id
        });
        if !own.is_empty() {
            self.update_incident(incident, |it| {
                let requests = it.requests.get_or_insert_default();
                for happened in own {
                    add(requests, happened);
                }
            });
        }
    }
}

/// What became of a request, waiting for its incident.
#[derive(Debug)]
pub(super) struct Recent {
    at: tokio::time::Instant,
    service: ServiceId,
    happened: Happened,
}

fn add(requests: &mut RequestsRecord, happened: Happened) {
    match happened {
        Happened::Held { requests: count, refused, longest } => {
            let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
            requests.held += count;
            requests.refused += refused;
            requests.longest_hold_ms = requests.longest_hold_ms.max(longest_ms);
        }
        Happened::Replayed => requests.replayed += 1,
        Happened::Unknown(request) => {
            requests.unknown_count += 1;
            if requests.unknown.len() < UNKNOWN_MAX {
                requests.unknown.push(request);
            }
        }
    }
}

/// News from whoever carries the traffic; none for ever where nobody does.
pub(super) async fn news(traffic: Option<&dyn Traffic>) -> TrafficNews {
    match traffic {
        Some(traffic) => traffic.news().await,
        None => pending().await,
    }
}
