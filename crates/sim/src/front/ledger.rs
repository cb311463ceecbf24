//! The world's own account of every request, and the rules that the gate has to keep.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_core::gate::{Gate, GateConfig, Phase, Reach, Reason, Refusal, Ruling, Standing, Ticket, Why};
use plimsoll_core::units::{Bytes, Instant};
use plimsoll_core::{InstanceId, ServiceId};

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

/// The longest pause of an instance that refused a connection, and a little more.
const PAUSE_MAX: Duration = Duration::from_millis(5100);
/// A fresh instance gets no more of those that waited at once.
const WINDOW_FIRST: usize = 8;
/// Replays of a service that are always allowed, within ten seconds.
const BUDGET_FLOOR: u32 = 200;
/// Streams are told to end this much before the drain is over.
const STREAMS_BEFORE: Duration = Duration::from_millis(250);

/// What an instance has, as seen from the clients' side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flying {
    admitted: bool,
    withdrawn: Option<(Instant, Duration)>,
    count: u32,
    streams: u32,
    /// Since when it has nothing to do and nothing is held against it.
    free_since: Instant,
    ejected_until: Instant,
    streams_closed: bool,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) config: GateConfig,
    pub(crate) open: BTreeMap<Ticket, Request>,
    /// Those that wait, in their order, and by their deadlines.
    line: BTreeSet<(ServiceId, Ticket)>,
    until: BTreeSet<(Instant, Ticket)>,
    held_bytes: Bytes,
    flying: BTreeMap<InstanceId, Flying>,
    standing: BTreeMap<ServiceId, Standing>,
    poison: BTreeSet<(ServiceId, u64)>,
    replays: BTreeMap<ServiceId, u32>,
    /// The clock stood still or jumped last; what took long over that proves nothing.
    pub(crate) disturbed: Instant,
}

impl Ledger {
    pub(crate) fn new(config: GateConfig) -> Self {
        Self {
            config,
            open: BTreeMap::new(),
            line: BTreeSet::new(),
            until: BTreeSet::new(),
            held_bytes: Bytes::ZERO,
            flying: BTreeMap::new(),
            standing: BTreeMap::new(),
            poison: BTreeSet::new(),
            replays: BTreeMap::new(),
            disturbed: Instant::default(),
        }
    }

    pub(crate) fn stand(&mut self, service: ServiceId, standing: Standing) {
        self.standing.insert(service, standing);
    }

    pub(crate) fn admit(&mut self, now: Instant, id: InstanceId) {
        let fresh = Flying {
            admitted: true,
            withdrawn: None,
            count: 0,
            streams: 0,
            free_since: now,
            ejected_until: Instant::default(),
            streams_closed: false,
        };
        self.flying.entry(id).or_insert(fresh).admitted = true;
    }

    pub(crate) fn withdraw(&mut self, now: Instant, id: InstanceId, drain: Duration) {
        if let Some(flying) = self.flying.get_mut(&id) {
            flying.admitted = false;
            flying.withdrawn = Some((now, drain));
        }
    }

    pub(crate) fn forget(&mut self, id: InstanceId) {
        self.flying.remove(&id);
    }

    /// An instance is told to stop, or is killed: what it still has must have had its time.
    pub(crate) fn signalled(&self, now: Instant, id: InstanceId) -> Verdict {
        let Some(flying) = self.flying.get(&id) else { return Ok(()) };
        let Some((at, drain)) = flying.withdrawn else {
            return rule("drain", false, || format!("{id:?} is stopped and was never withdrawn"));
        };
        let in_time = now < at + drain;
        rule("drain", flying.count == flying.streams || !in_time, || {
            format!("{id:?} is stopped {:?} into its drain of {drain:?} with {flying:?}", now.since(at))
        })?;
        let told = flying.streams == 0 || flying.streams_closed || drain <= STREAMS_BEFORE;
        rule("drain", told, || format!("{id:?} is stopped and its streams were not told: {flying:?}"))
    }

    pub(crate) fn streams_closed(&mut self, id: InstanceId) {
        if let Some(flying) = self.flying.get_mut(&id) {
            flying.streams_closed = true;
        }
    }

    pub(crate) fn ejected(&mut self, now: Instant, id: InstanceId, pause: Duration) -> Verdict {
        let others =
            self.flying.iter().any(|(other, it)| *other != id && other.service == id.service && it.admitted);
        if let Some(flying) = self.flying.get_mut(&id) {
            flying.ejected_until = now + pause;
        }
        rule("eject", others, || format!("{id:?} is the last one and was left out"))
    }

    /// It takes a place in the line.
    pub(crate) fn hold(&mut self, now: Instant, ticket: Ticket, mut request: Request) -> Verdict {
        let service = request.service;
        let stopped = self.standing.get(&service).is_none_or(|it| *it == Standing::Stopped);
        let until = now + self.config.hold_wait.saturating_sub(request.waited);
        request.place = Place::Held { since: now, until };
        self.line.insert((service, ticket));
        self.until.insert((until, ticket));
        self.held_bytes = self.held_bytes + request.body;
        self.open.insert(ticket, request);
        rule("hold", !stopped, || format!("{ticket:?} waits for s{} that is stopped", service.0))
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
        let since = self.open.get(&ticket).map(|it| it.place);
        let (Some(Place::Held { since, .. }), Some(request)) = (since, self.unhold(now, ticket)) else {
            let what = format!("{ticket:?} does not wait, and is answered");
            return Err(Broken { rule: "answers", what });
        };
        self.nobody_idles(now, request.service, since)?;
        Ok(request)
    }

    fn nobody_idles(&self, now: Instant, service: ServiceId, since: Instant) -> Verdict {
        let idles = |id: InstanceId, it: &Flying| {
            let free = it.free_since.max(since).max(self.disturbed).max(it.ejected_until);
            id.service == service && it.admitted && it.count == 0 && now.since(free) > PAUSE_MAX
        };
        let idle = self.flying.iter().find(|(id, it)| idles(**id, it));
        rule("hold", idle.is_none(), || format!("one waited since {since:?} beside {idle:?}"))
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
        let flying = self.flying.get_mut(&instance).filter(|it| it.admitted);
        let Some(flying) = flying else {
            let what = format!("{ticket:?} was sent to {instance:?}, which may have none");
            return Err(Broken { rule: "release", what });
        };
        flying.count += 1;
        request.attempt += 1;
        request.ran = false;
        request.place = Place::Sent { instance, phase: Phase::Waiting, since: now, reached: false };
        self.open.insert(ticket, request);
        Ok(())
    }

    /// A crowd waited for this one, and so many went at once.
    pub(crate) fn crowd_went(&self, id: InstanceId, before: u32) -> Verdict {
        let count = self.flying.get(&id).map_or(0, |it| it.count.saturating_sub(before));
        rule("window", count as usize <= WINDOW_FIRST, || format!("{count} went to {id:?} at once"))
    }

    pub(crate) fn count(&self, id: InstanceId) -> u32 {
        self.flying.get(&id).map_or(0, |it| it.count)
    }

    pub(crate) fn becomes_stream(&mut self, id: InstanceId) {
        if let Some(flying) = self.flying.get_mut(&id) {
            flying.streams += 1;
            flying.streams_closed = false;
        }
    }

    /// What was sent there is over.
    pub(crate) fn landed(&mut self, now: Instant, id: InstanceId, phase: Phase) {
        if let Some(flying) = self.flying.get_mut(&id) {
            flying.count = flying.count.saturating_sub(1);
            flying.streams -= u32::from(phase == Phase::Streaming);
            flying.free_since = now;
        }
    }

    /// Whether the gate's answer to a failed request is right.
    pub(crate) fn ruled(
        &mut self,
        ticket: Ticket,
        request: &Request,
        reach: Reach,
        ruling: Ruling,
    ) -> Verdict {
        let sent = reach == Reach::Sent;
        let key = (request.service, request.fingerprint);
        if sent && request.deaths >= 2 {
            self.poison.insert(key);
        }
        let replays = self.replays.entry(request.service).or_default();
        let right = match ruling {
            Ruling::Again => {
                *replays += u32::from(sent);
                reach == Reach::NotSent || (sent && request.can_be_replayed())
            }
            Ruling::GiveUp(Why::MayHaveRun) => sent && !request.can_be_replayed(),
            Ruling::GiveUp(Why::Answered) => reach == Reach::Answered,
            Ruling::GiveUp(Why::Poison) => sent && self.poison.contains(&key),
            Ruling::GiveUp(Why::Budget) => sent && *replays >= BUDGET_FLOOR,
            Ruling::GiveUp(Why::BodyGone | Why::Gone) => false,
        };
        rule("replay", right, || format!("{ticket:?} {reach:?}, {ruling:?}: {request:?}"))
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
        let deadline = now + config.hold_wait.saturating_sub(request.waited);
        let right = match refusal.reason {
            Reason::Stopped => standing == Standing::Stopped,
            Reason::HoldFull => self.line.len() >= config.hold_requests as usize,
            Reason::HoldBytes => self.held_bytes + request.body > config.hold_bytes,
            Reason::HoldTimeout => request.waited >= config.hold_wait,
            Reason::BackingOff => match standing {
                Standing::Stopped | Standing::Expected { not_before: None } => false,
                Standing::Expected { not_before: Some(at) } => at > deadline,
            },
            Reason::Gone => false,
        };
        rule("answers", right, || format!("{ticket:?} {refusal:?} with {standing:?}: {request:?}"))
    }

    /// After each step: the gate's account is the same as this one, and nothing is over its bounds.
    pub(crate) fn agree(&self, now: Instant, gate: &Gate) -> Verdict {
        let (held, bytes) = (self.line.len(), self.held_bytes);
        rule("hold", gate.held() as usize == held, || format!("{held} wait, the gate has {}", gate.held()))?;
        let fits = held <= self.config.hold_requests as usize && bytes <= self.config.hold_bytes;
        rule("hold", fits, || format!("{held} wait with {bytes}: more than {:?}", self.config))?;
        let late = self.until.first().filter(|(until, _)| *until < now);
        rule("hold", late.is_none(), || format!("{late:?} waits past its time"))?;
        if let Some((service, ticket)) = self.line.iter().find(|(service, _)| self.is_stopped(*service)) {
            return rule("hold", false, || format!("{ticket:?} waits for s{} that is stopped", service.0));
        }
        for (id, flying) in &self.flying {
            let (count, gates) = (flying.count, gate.in_flight(*id));
            rule("drain", count == gates, || format!("{count} in flight on {id:?}, the gate has {gates}"))?;
        }
        Ok(())
    }

    pub(crate) fn crowd(&self, service: ServiceId) -> bool {
        self.line.range((service, Ticket(0))..).next().is_some_and(|(it, _)| *it == service)
    }

    fn is_stopped(&self, service: ServiceId) -> bool {
        self.standing.get(&service).is_none_or(|it| *it == Standing::Stopped)
    }
}
