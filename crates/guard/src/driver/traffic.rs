//! Who may have requests, told to whoever carries them; and what comes back.

use std::future::pending;
use std::time::Duration;

use plimsoll_core::gate::Standing;
use plimsoll_core::{Event, InstanceId, ServiceId};

use super::Driver;
use crate::traffic::{Traffic, TrafficNews};

impl Driver {
    fn carrier_of(&self, service: ServiceId) -> Option<&dyn Traffic> {
        self.traffic.as_deref().filter(|it| it.carries(service))
    }

    pub(super) fn admit(&mut self, instance: InstanceId) {
        let Some(carrier) = self.carrier_of(instance.service) else { return };
        let Some(running) = self.instances.get(&instance) else { return };
        let Some(address) = &running.address else { return };
        carrier.admit(instance, &running.name, address);
        // From now on its drain waits for an answer.
        self.tell_head(Event::InFlight { instance, count: 0 });
    }

    pub(super) fn withdraw(&mut self, instance: InstanceId, drain: Duration) {
        let Some(carrier) = self.carrier_of(instance.service) else { return };
        let count = carrier.withdraw(instance, drain);
        self.tell_head(Event::InFlight { instance, count });
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
    }
}

/// News from whoever carries the traffic; none for ever where nobody does.
pub(super) async fn news(traffic: Option<&dyn Traffic>) -> TrafficNews {
    match traffic {
        Some(traffic) => traffic.news().await,
        None => pending().await,
    }
}
