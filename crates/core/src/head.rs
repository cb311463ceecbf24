//! The head: four verbs, and nothing else.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::action::Action;
use crate::config::ServiceConfig;
use crate::deadlines::{Deadlines, Due};
use crate::event::Event;
use crate::ids::{IncidentId, InstanceId, ServiceId};
use crate::planted::Plant;
use crate::record::{Kind, Record};
use crate::saved::{Saved, SavedService};
use crate::service::{Cx, Found, Service};
use crate::units::Instant;
use crate::view::ServiceView;

/// Every decision about every service. Drive it with [`Head::handle`] and [`Head::handle_deadline`], carry out what
/// [`Head::next_action`] gives until it gives nothing, and come back no later than [`Head::next_deadline`].
#[derive(Debug)]
pub struct Head {
    services: Vec<Service>,
    deadlines: Deadlines,
    actions: VecDeque<Action>,
    next_incident: u64,
    /// Services that may have something new to save.
    changed: BTreeSet<ServiceId>,
    plant: Plant,
}

impl Head {
    /// `next_incident` is the first incident's number, so that a ledger's numbers go on over a restart of the guard.
    pub fn new(next_incident: u64) -> Self {
        Self {
            services: Vec::new(),
            deadlines: Deadlines::default(),
            actions: VecDeque::new(),
            next_incident: next_incident.max(1),
            changed: BTreeSet::new(),
            plant: Plant::default(),
        }
    }

    /// Adds a service, which is wanted down until it is ordered to start. `next_number` is its first instance's number.
    pub fn add(&mut self, config: ServiceConfig, next_number: u64) -> ServiceId {
        let index = u32::try_from(self.services.len()).expect("fewer than four billion services");
        let id = ServiceId(index);
        self.services.push(Service::new(id, config, next_number));
        self.changed.insert(id);
        id
    }

    /// First verb: something happened.
    pub fn handle(&mut self, now: Instant, event: Event) {
        let id = service_of(&event);
        let Some((service, mut cx)) = self.at(now, id) else {
            self.actions.push_back(Action::Tell(Record {
                service: id,
                instance: None,
                cause: None,
                kind: Kind::Anomaly { what: "event for a service that is not known" },
            }));
            return;
        };
        let before = cx.actions.len();
        let told = matches!(event, Event::Sampled { .. } | Event::Probed { .. } | Event::InFlight { .. });
        service.handle(&mut cx, event);
        service.settle(&mut cx);
        // An answer that leads to nothing changes nothing that has to outlive us.
        if !told || cx.actions.len() > before {
            self.changed.insert(id);
        }
    }

    /// Second verb: deal with everything that is due.
    pub fn handle_deadline(&mut self, now: Instant) {
        while let Some(due) = self.deadlines.take_due(now) {
            let id = service_due(due);
            let Some((service, mut cx)) = self.at(now, id) else { continue };
            let before = cx.actions.len();
            service.due(&mut cx, due);
            // A question changes nothing; there are a thousand of them a second, and each answer settles.
            if !matches!(due, Due::Sample(_)) {
                service.settle(&mut cx);
            }
            let asks = |action: &Action| matches!(action, Action::Sample { .. } | Action::Probe { .. });
            if !cx.actions.iter().skip(before).all(asks) {
                self.changed.insert(id);
            }
        }
    }

    /// Third verb: when to come back at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Fourth verb: the next thing to do, in the order decided.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What the next head has to know, should this one end. [`crate::Book`] gives the same with less work.
    pub fn save(&self) -> Saved {
        let services = self.services.iter().map(|service| service.save(&self.deadlines)).collect();
        Saved { next_incident: self.next_incident, services }
    }

    /// A number for an incident that is not a service's.
    pub const fn next_incident(&mut self) -> IncidentId {
        let id = IncidentId(self.next_incident);
        self.next_incident += 1;
        id
    }

    /// Numbers below this were given by an earlier head.
    pub fn go_on_from_incident(&mut self, next: u64) {
        self.next_incident = next.max(1);
    }

    pub(crate) fn take_changed(&mut self) -> BTreeSet<ServiceId> {
        core::mem::take(&mut self.changed)
    }

    pub(crate) fn save_service(&self, index: usize) -> Option<SavedService> {
        self.services.get(index).map(|service| service.save(&self.deadlines))
    }

    pub(crate) const fn next_incident_number(&self) -> u64 {
        self.next_incident
    }

    /// Takes a service over from a head that ended, instead of starting it: `saved` is what that one left, where it can
    /// be read, and `found` every instance that is still held for it, whatever has become of it. Instances whose main
    /// process has ended are told of with [`Event::Exited`] as always, right after this.
    pub fn adopt(&mut self, now: Instant, id: ServiceId, saved: Option<&SavedService>, found: &[Found]) {
        if let Some((service, mut cx)) = self.at(now, id) {
            service.adopt(&mut cx, saved, found);
            service.settle(&mut cx);
            service.tell_stopped(&mut cx);
        }
        self.changed.insert(id);
    }

    /// What is to be seen of a service.
    pub fn view(&self, now: Instant, id: ServiceId) -> Option<ServiceView> {
        self.services.get(id.0 as usize).map(|service| service.view(now))
    }

    pub fn config(&self, id: ServiceId) -> Option<&ServiceConfig> {
        self.services.get(id.0 as usize).map(|service| &service.config)
    }

    /// Puts a bug to work, for the simulator's own test.
    #[cfg(feature = "planted")]
    pub fn plant(&mut self, bug: crate::planted::Planted) {
        self.plant = Plant(Some(bug));
    }

    fn at(&mut self, now: Instant, id: ServiceId) -> Option<(&mut Service, Cx<'_>)> {
        let service = self.services.get_mut(id.0 as usize)?;
        let cx = Cx {
            now,
            deadlines: &mut self.deadlines,
            actions: &mut self.actions,
            next_incident: &mut self.next_incident,
            plant: self.plant,
        };
        Some((service, cx))
    }
}

impl Service {
    fn handle(&mut self, cx: &mut Cx<'_>, event: Event) {
        match event {
            Event::Ordered { order, .. } => self.ordered(cx, order),
            Event::Configured { config, .. } => self.configured(cx, config),
            Event::Spawned { instance } => self.spawned(cx, instance),
            Event::SpawnFailed { instance, failure } => self.spawn_failed(cx, instance, failure),
            Event::Exited { instance, exit, oom, tree_empty } => {
                self.exited(cx, instance, exit, oom, tree_empty);
            }
            Event::Emptied { instance } => self.emptied(cx, instance),
            // Answers to questions about an instance that has gone meanwhile are nothing special.
            Event::Sampled { instance, sample } => {
                self.with(instance, |it, index| it.sampled(cx, index, sample));
            }
            Event::SampleFailed { instance } => self.with(instance, |it, index| it.sample_failed(cx, index)),
            Event::Noticed { instance, notice } => {
                self.with(instance, |it, index| it.noticed(cx, index, notice));
            }
            Event::Probed { instance, outcome } => {
                self.with(instance, |it, index| it.probed(cx, index, outcome));
            }
            Event::EvidenceKept { instance } => self.with(instance, |it, index| it.evidence_kept(cx, index)),
            Event::InFlight { instance, count } => {
                self.with(instance, |it, index| it.in_flight(cx, index, count));
            }
            Event::Stalled { instance } => self.with(instance, |it, index| it.stalled(cx, index)),
        }
    }

    fn due(&mut self, cx: &mut Cx<'_>, due: Due) {
        match due {
            Due::Sample(id) => self.with(id, |it, index| it.sample_due(cx, index)),
            Due::Probe(id) => self.with(id, |it, index| it.probe_due(cx, index)),
            Due::Started(id) => self.with(id, |it, index| it.start_due(cx, index)),
            Due::Stage(id) => self.with(id, |it, index| it.stage_due(cx, index)),
            // The deadline itself was the wait: settling does the rest.
            Due::Lead(..) | Due::Relief(..) => {}
            Due::Calm(_) => self.calm_due(cx),
        }
    }

    fn with(&mut self, id: InstanceId, step: impl FnOnce(&mut Self, usize)) {
        if let Some(index) = self.position(id) {
            step(self, index);
        }
    }
}

const fn service_of(event: &Event) -> ServiceId {
    match event {
        Event::Ordered { service, .. } | Event::Configured { service, .. } => *service,
        Event::Spawned { instance }
        | Event::SpawnFailed { instance, .. }
        | Event::Exited { instance, .. }
        | Event::Emptied { instance }
        | Event::Sampled { instance, .. }
        | Event::SampleFailed { instance }
        | Event::Noticed { instance, .. }
        | Event::Probed { instance, .. }
        | Event::EvidenceKept { instance }
        | Event::InFlight { instance, .. }
        | Event::Stalled { instance } => instance.service,
    }
}

const fn service_due(due: Due) -> ServiceId {
    match due {
        Due::Sample(id) | Due::Probe(id) | Due::Started(id) | Due::Stage(id) => id.service,
        Due::Lead(service, _) | Due::Relief(service, _) | Due::Calm(service) => service,
    }
}
