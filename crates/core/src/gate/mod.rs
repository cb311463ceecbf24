//! Whether a request goes, waits or is refused: the decisions of the front, pure.
//!
//! One gate for all services. The front asks it for every request and reports what became of it; the guard tells it
//! which instances may have requests. It answers with the same four verbs as the head: an event with `now`, a deadline
//! with `now`, the next deadline, the next action. [`hold`] is the queue, [`backends`] the instances, [`replay`] what
//! may be sent twice.

mod backends;
mod hold;
mod replay;
mod service;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

pub use backends::{Outcome, Phase};
pub use hold::Ticket;
pub use replay::{Plea, Reach, Ruling, Why};

use crate::ids::{InstanceId, ServiceId};
use crate::planted::{Plant, Planted};
use crate::units::{Bytes, Instant};
use hold::Held;
use service::Service;

pub const HOLD_WAIT_DEFAULT: Duration = Duration::from_secs(30);
pub const HOLD_REQUESTS_DEFAULT: u32 = 10_000;
pub const HOLD_BYTES_DEFAULT: Bytes = Bytes::mib(64);
/// Requests that one instance may have at a time; more wait. Far above what a healthy instance has, and low enough that
/// one that answers nobody does not swallow every connection there is.
pub const IN_FLIGHT_MAX_DEFAULT: u32 = 4096;
/// A shorter `hang` would be told more often than it can be looked at.
const HANG_MIN: Duration = Duration::from_millis(10);
/// What a client is told to wait when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The same for a service that somebody stopped.
const RETRY_AFTER_STOPPED: Duration = Duration::from_secs(30);

/// What the whole front may hold, over all services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateConfig {
    /// Longest time that one request waits, all its waits together.
    pub hold_wait: Duration,
    pub hold_requests: u32,
    /// Bodies of held requests, in bytes.
    pub hold_bytes: Bytes,
    /// Requests in flight on one instance.
    pub in_flight_max: u32,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            hold_wait: HOLD_WAIT_DEFAULT,
            hold_requests: HOLD_REQUESTS_DEFAULT,
            hold_bytes: HOLD_BYTES_DEFAULT,
            in_flight_max: IN_FLIGHT_MAX_DEFAULT,
        }
    }
}

/// What may be expected of a service while none of its instances may have requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is wanted down: nobody waits for it.
    Stopped,
    /// It is wanted up. `not_before` is when its next start is due, where it is backing off.
    Expected { not_before: Option<Instant> },
}

/// What becomes of a request that has arrived, or comes back to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Send it there. Owes an [`Gate::done`].
    Go {
        instance: InstanceId,
    },
    /// It waits. Ends in `Release`, `Refuse`, or [`Gate::left`].
    Held,
    Refused(Refusal),
}

/// Why a request is not sent. It was not sent: the client may safely try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub retry_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody stopped the service.
    Stopped,
    /// As many requests wait as may.
    HoldFull,
    /// The bodies of those that wait take as much memory as they may.
    HoldBytes,
    /// It has waited for as long as it may.
    HoldTimeout,
    /// The next start comes too late for it.
    BackingOff,
    /// No such service any more.
    Gone,
}

impl Reason {
    /// The word in `Plimsoll-Reason`, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "service-stopped",
            Self::HoldFull => "hold-full",
            Self::HoldBytes => "hold-bytes-full",
            Self::HoldTimeout => "hold-timeout",
            Self::BackingOff => "service-backing-off",
            Self::Gone => "service-gone",
        }
    }
}

/// What the gate wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateAction {
    /// A held request goes to this instance. Owes a [`Gate::done`], also where its client has left meanwhile.
    Release { ticket: Ticket, instance: InstanceId },
    /// A held request is refused.
    Refuse { ticket: Ticket, refusal: Refusal },
    /// For the head: requests in flight on an instance that gets no new ones.
    InFlight { instance: InstanceId, count: u32 },
    /// For the head: requests wait for an answer there and none came for the service's `hang`.
    Stalled { instance: InstanceId },
    /// End its upgraded connections and event streams cleanly: their time is over.
    CloseStreams { instance: InstanceId },
    /// For the operator.
    Tell { service: ServiceId, what: GateRecord },
}

/// What the gate puts on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateRecord {
    /// The first request of a service waits.
    HoldBegan,
    /// None waits any more. `longest` is the longest wait of one request.
    HoldEnded { requests: u64, refused: u64, longest: Duration },
    /// An instance of several gets no requests for a while: it failed too many in a row.
    Ejected { instance: InstanceId, pause: Duration },
}

/// How a service stands with the front, for `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTraffic {
    pub held: u32,
    pub in_flight: u32,
    pub streams: u32,
    pub requests: u64,
    pub held_ever: u64,
    pub refused: u64,
    pub replayed: u64,
    pub longest_hold: Duration,
}

/// What is taken of what may be held, over all services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    config: GateConfig,
    held: u32,
    held_bytes: Bytes,
}

/// Every decision about every request.
#[derive(Debug)]
pub struct Gate {
    services: Vec<Service>,
    capacity: Capacity,
    actions: VecDeque<GateAction>,
    next_ticket: u64,
    /// There may be more room than before, for those who wait.
    reconfigured: bool,
    plant: Plant,
}

/// What a step may use and change besides the service itself.
pub(crate) struct Cx<'a> {
    pub(crate) now: Instant,
    pub(crate) capacity: &'a mut Capacity,
    pub(crate) actions: &'a mut VecDeque<GateAction>,
    pub(crate) plant: Plant,
}

impl Gate {
    pub fn new(config: GateConfig) -> Self {
        let capacity = Capacity { config, held: 0, held_bytes: Bytes::ZERO };
        Self {
            services: Vec::new(),
            capacity,
            actions: VecDeque::new(),
            next_ticket: 1,
            reconfigured: false,
            plant: Plant::default(),
        }
    }

    /// New bounds. What waits already stays; its deadline too. Where there is room now, [`Gate::next_deadline`] is at
    /// once.
    pub fn configure(&mut self, config: GateConfig) {
        self.capacity.config = config;
        self.reconfigured = true;
    }

    /// A service whose requests come through here. `hang`: no answer for this long with requests waiting is a stall.
    pub fn add(&mut self, service: ServiceId, hang: Duration) {
        while self.services.len() <= service.0 as usize {
            let id = ServiceId(u32::try_from(self.services.len()).expect("fewer than four billion services"));
            self.services.push(Service::new(id));
        }
        if let Some(known) = self.services.get_mut(service.0 as usize) {
            known.hang = hang.max(HANG_MIN);
        }
    }

    /// Who waits, may wait: this is what may be expected.
    pub fn stand(&mut self, now: Instant, service: ServiceId, standing: Standing) {
        self.with(now, service, |it, cx| it.stand(cx, standing));
    }

    /// The instance may have requests from now on.
    pub fn admit(&mut self, now: Instant, instance: InstanceId) {
        self.with(now, instance.service, |it, cx| it.admit(cx, instance));
    }

    /// No new requests to it. Those in flight get `drain`, after which its streams are closed. Answers how many there
    /// are; each later change comes as [`GateAction::InFlight`], down to none.
    pub fn withdraw(&mut self, now: Instant, instance: InstanceId, drain: Duration) -> u32 {
        self.with(now, instance.service, |it, cx| it.withdraw(cx, instance, drain)).unwrap_or(0)
    }

    /// The instance is gone.
    pub fn forget(&mut self, now: Instant, instance: InstanceId) {
        self.with(now, instance.service, |it, cx| it.forget(cx, instance));
    }

    /// A request is here, its head read and checked. `body` is what is kept of its body, in bytes; `draw` any random
    /// number. The ticket is its name from now on, also when it comes back with [`Gate::again`].
    pub fn arrive(&mut self, now: Instant, service: ServiceId, body: Bytes, draw: u32) -> (Ticket, Answer) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let held = Held::arriving(now, body);
        let answer = self.with(now, service, |it, cx| {
            it.count(cx.now);
            it.place(cx, ticket, held, draw)
        });
        (
            ticket,
            answer.unwrap_or(Answer::Refused(Refusal { reason: Reason::Gone, retry_after: RETRY_AFTER })),
        )
    }

    /// A request that was sent, or was to be, comes back after a [`Gate::done`] to be sent again. It goes before all
    /// that arrived after it. `waited` is how long it has been held so far.
    pub fn again(&mut self, now: Instant, service: ServiceId, back: &Back, draw: u32) -> Answer {
        let held = Held::back(now, back.body, back.waited);
        let answer = self.with(now, service, |it, cx| it.place(cx, back.ticket, held, draw));
        answer.unwrap_or(Answer::Refused(Refusal { reason: Reason::Gone, retry_after: RETRY_AFTER }))
    }

    /// A held request's client is gone.
    pub fn left(&mut self, now: Instant, service: ServiceId, ticket: Ticket) {
        self.with(now, service, |it, cx| it.left(cx, ticket));
    }

    /// The response's head came.
    pub fn answered(&mut self, now: Instant, instance: InstanceId) {
        self.with(now, instance.service, |it, cx| it.answered(cx, instance));
    }

    /// The answer goes on for an unknown time: an upgraded connection or an event stream. Comes after
    /// [`Gate::answered`].
    pub fn streams(&mut self, now: Instant, instance: InstanceId) {
        self.with(now, instance.service, |it, cx| it.streams(cx, instance));
    }

    /// A request that was sent is over. `phase` is how far it had come.
    pub fn done(&mut self, now: Instant, instance: InstanceId, phase: Phase, outcome: Outcome) {
        self.with(now, instance.service, |it, cx| it.done(cx, instance, phase, outcome));
    }

    /// A request failed on its way: may it be sent again?
    pub fn plead(&mut self, now: Instant, service: ServiceId, plea: &Plea) -> Ruling {
        self.with(now, service, |it, cx| it.plead(cx, plea)).unwrap_or(Ruling::GiveUp(Why::Gone))
    }

    /// Whether a request like this one was in flight at two deaths not long ago.
    pub fn is_poison(&mut self, now: Instant, service: ServiceId, fingerprint: u64) -> bool {
        self.with(now, service, |it, _| it.is_poison(now, fingerprint)).unwrap_or(false)
    }

    pub fn handle_deadline(&mut self, now: Instant) {
        self.reconfigured = false;
        for index in 0..self.services.len() {
            if self.services[index].is_active() {
                let id = self.services[index].id;
                self.with(now, id, Service::due);
            }
        }
    }

    /// When to come back at the latest; `None` while nothing waits and nothing is in flight.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.reconfigured && self.held() > 0 {
            return Some(Instant::default());
        }
        let active = self.services.iter().filter(|it| it.is_active());
        active.filter_map(|it| it.next_deadline(self.plant)).min()
    }

    pub fn next_action(&mut self) -> Option<GateAction> {
        self.actions.pop_front()
    }

    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Puts a bug to work, for the simulator's own test.
    #[cfg(feature = "planted")]
    pub fn plant(&mut self, bug: crate::planted::Planted) {
        self.plant = Plant(Some(bug));
    }

    /// Requests held now, over all services.
    pub const fn held(&self) -> u32 {
        self.capacity.held
    }

    pub fn traffic(&self, service: ServiceId) -> Option<ServiceTraffic> {
        self.services.get(service.0 as usize).map(Service::traffic)
    }

    /// Requests in flight on one instance.
    pub fn in_flight(&self, instance: InstanceId) -> u32 {
        self.services.get(instance.service.0 as usize).map_or(0, |it| it.in_flight_on(instance))
    }

    fn with<T>(
        &mut self,
        now: Instant,
        service: ServiceId,
        step: impl FnOnce(&mut Service, &mut Cx<'_>) -> T,
    ) -> Option<T> {
        let service = self.services.get_mut(service.0 as usize)?;
        let mut cx = Cx { now, capacity: &mut self.capacity, actions: &mut self.actions, plant: self.plant };
        Some(step(service, &mut cx))
    }
}

/// A request that comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Back {
    pub ticket: Ticket,
    pub body: Bytes,
    pub waited: Duration,
}

impl Cx<'_> {
    pub(crate) fn act(&mut self, action: GateAction) {
        self.actions.push_back(action);
    }

    pub(crate) fn config(&self) -> &GateConfig {
        &self.capacity.config
    }

    pub(crate) fn in_flight_max(&self) -> u32 {
        if self.plant.has(Planted::InFlightUnbounded) { u32::MAX } else { self.config().in_flight_max }
    }
}

impl Capacity {
    /// Takes a place for one more, or says what is full.
    pub(crate) fn take(&mut self, body: Bytes, plant: Plant) -> Result<(), Reason> {
        if self.held >= self.config.hold_requests && !plant.has(Planted::HoldCountIgnored) {
            return Err(Reason::HoldFull);
        }
        if self.held_bytes + body > self.config.hold_bytes {
            return Err(Reason::HoldBytes);
        }
        self.held += 1;
        self.held_bytes = self.held_bytes + body;
        Ok(())
    }

    pub(crate) fn give_back(&mut self, body: Bytes) {
        self.held = self.held.saturating_sub(1);
        self.held_bytes = self.held_bytes - body;
    }
}
