//! The world's own account of every request, and the rules that the gate has to keep.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_core::gate::{Gate, GateConfig, Outcome, Phase, Reason, Refusal, Standing, Ticket};
use plimsoll_core::units::{Bytes, Instant};
use plimsoll_core::{InstanceId, ServiceId};

use super::instances::Instances;
use super::replays::Replays;
use super::request::{Place, Request};

/// A rule that was broken: which, and how.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) rule: &'static str,
    pub(crate) what: String,
}

pub(crate) type Verdict = Result<(), Broken>;

pub(crate) fn rule(name: &'static str, holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Broken { rule: name, what: what() }) }
}

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) config: GateConfig,
    /// What may be held: as configured, or as much as was held when that became less.
    bounds: (usize, Bytes),
    pub(crate) open: BTreeMap<Ticket, Request>,
    /// Those that wait, in their order, and by their deadlines.
    line: BTreeSet<(ServiceId, Ticket)>,
    until: BTreeSet<(Instant, Ticket)>,
    held_bytes: Bytes,
    standing: BTreeMap<ServiceId, Standing>,
    pub(super) instances: Instances,
    pub(super) replays: Replays,
}

impl Ledger {
    pub(crate) fn new(config: GateConfig) -> Self {
        Self {
            config,
            bounds: (config.hold_requests as usize, config.hold_bytes),
            open: BTreeMap::new(),
            line: BTreeSet::new(),
            until: BTreeSet::new(),
            held_bytes: Bytes::ZERO,
            standing: BTreeMap::new(),
            instances: Instances::default(),
            replays: Replays::default(),
        }
    }

    /// New bounds; what waits already stays.
    pub(crate) fn configure(&mut self, config: GateConfig) {
        self.config = config;
        self.narrow();
    }

    fn narrow(&mut self) {
        let (held, bytes) = (self.line.len(), self.held_bytes);
        self.bounds = ((self.config.hold_requests as usize).max(held), self.config.hold_bytes.max(bytes));
    }

    pub(crate) fn stand(&mut self, service: ServiceId, standing: Standing) {
        self.standing.insert(service, standing);
    }

    /// It takes a place in the line.
    pub(crate) fn hold(&mut self, now: Instant, ticket: Ticket, mut request: Request) -> Verdict {
        let service = request.service;
        let until = now + self.config.hold_wait.saturating_sub(request.waited);
        request.place = Place::Held { since: now, until };
        self.line.insert((service, ticket));
        self.until.insert((until, ticket));
        self.held_bytes = self.held_bytes + request.body;
        self.open.insert(ticket, request);
        rule("hold", !self.is_stopped(service), || format!("{ticket:?} waits for s{}, stopped", service.0))
    }

    /// It leaves the line, if it is there.
    pub(crate) fn unhold(&mut self, now: Instant, ticket: Ticket) -> Option<Request> {
        let Place::Held { until, .. } = self.open.get(&ticket)?.place else { return None };
        let mut request = self.open.remove(&ticket)?;
        request.waited = request.waited_at(now);
        self.line.remove(&(request.service, ticket));
        self.until.remove(&(until, ticket));
        self.held_bytes = self.held_bytes - request.body;
        Some(request)
    }

    /// The same for one that is answered: it must be there, and nobody may have had time for it.
    pub(crate) fn answer(&mut self, now: Instant, ticket: Ticket) -> Result<Request, Broken> {
        let place = self.open.get(&ticket).map(|it| it.place);
        let (Some(Place::Held { since, .. }), Some(request)) = (place, self.unhold(now, ticket)) else {
            let what = format!("{ticket:?} does not wait, and is answered");
            return Err(Broken { rule: "answers", what });
        };
        self.instances.nobody_idles(now, request.service, since)?;
        Ok(request)
    }

    pub(crate) fn send(
        &mut self,
        now: Instant,
        ticket: Ticket,
        mut request: Request,
        instance: InstanceId,
    ) -> Verdict {
        let line = (request.service, Ticket(0))..(request.service, ticket);
        let overtaken = self.line.range(line).next();
        rule("order", overtaken.is_none(), || format!("{ticket:?} overtook {overtaken:?}"))?;
        rule("replay", request.deaths < 2, || {
            format!("{ticket:?} was in flight at {} deaths and is sent again", request.deaths)
        })?;
        rule("release", instance.service == request.service, || {
            format!("{ticket:?} is for s{} and was sent to {instance:?}", request.service.0)
        })?;
        self.instances.send(now, instance, self.config.in_flight_max)?;
        request.attempt += 1;
        request.ran = false;
        request.place = Place::Sent { instance, phase: Phase::Waiting, since: now, reached: false };
        self.open.insert(ticket, request);
        Ok(())
    }

    /// What was sent is over.
    pub(crate) fn landed(
        &mut self,
        now: Instant,
        ticket: Ticket,
        outcome: Outcome,
    ) -> Option<(Request, InstanceId, Phase)> {
        let Place::Sent { instance, phase, .. } = self.open.get(&ticket)?.place else { return None };
        self.instances.landed(now, instance, phase, outcome);
        Some((self.open.remove(&ticket)?, instance, phase))
    }

    pub(crate) fn refused(
        &self,
        now: Instant,
        ticket: Ticket,
        request: &Request,
        refusal: Refusal,
    ) -> Verdict {
        let standing = self.standing.get(&request.service).copied().unwrap_or(Standing::Stopped);
        let config = &self.config;
        let held = matches!(request.place, Place::Held { .. });
        let deadline = now + config.hold_wait.saturating_sub(request.waited);
        let right = match refusal.reason {
            Reason::Stopped => standing == Standing::Stopped,
            Reason::HoldFull => !held && self.line.len() >= config.hold_requests as usize,
            Reason::HoldBytes => !held && self.held_bytes + request.body > config.hold_bytes,
            Reason::HoldTimeout => match request.place {
                Place::Held { until, .. } => now >= until,
                Place::New | Place::Sent { .. } => request.waited >= config.hold_wait,
            },
            Reason::BackingOff => match standing {
                Standing::Stopped | Standing::Expected { not_before: None } => false,
                Standing::Expected { not_before: Some(at) } => !held && at > deadline,
            },
            Reason::Gone => false,
        };
        rule("answers", right, || format!("{ticket:?} {refusal:?} with {standing:?}: {request:?}"))
    }

    /// After each step: the gate's account is the same as this one, and nothing is over its bounds.
    pub(crate) fn agree(&mut self, now: Instant, gate: &Gate) -> Verdict {
        let (held, bytes) = (self.line.len(), self.held_bytes);
        rule("hold", gate.held() as usize == held, || format!("{held} wait, the gate has {}", gate.held()))?;
        let fits = held <= self.bounds.0 && bytes <= self.bounds.1;
        rule("hold", fits, || format!("{held} wait with {bytes}: more than {:?}", self.config))?;
        self.narrow();
        let late = self.until.first().filter(|(until, _)| *until < now);
        rule("hold", late.is_none(), || format!("{late:?} waits past its time"))?;
        for service in self.standing.keys().copied() {
            let (waits, stopped) = (self.crowd(service), self.is_stopped(service));
            rule("hold", !waits || !stopped, || format!("some wait for s{}, stopped", service.0))?;
            if !waits {
                self.instances.calm(service);
            }
        }
        self.instances.agree(now, gate)
    }

    /// Whether any wait for this service.
    pub(crate) fn crowd(&self, service: ServiceId) -> bool {
        self.line.range((service, Ticket(0))..).next().is_some_and(|(it, _)| *it == service)
    }

    fn is_stopped(&self, service: ServiceId) -> bool {
        self.standing.get(&service).is_none_or(|it| *it == Standing::Stopped)
    }
}
