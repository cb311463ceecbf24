//! One service at the gate: its queue and its instances brought together.

use alloc::vec::Vec;
use core::time::Duration;

use super::backends::{Backend, Outcome, Phase};
use super::hold::{Held, Queue, Ticket};
use super::replay::{Plea, Replays, Ruling};
use super::{
    Answer, Cx, GateAction, GateRecord, RETRY_AFTER, RETRY_AFTER_STOPPED, Reason, Refusal, ServiceTraffic,
    Standing,
};
use crate::config::HANG_DEFAULT;
use crate::ids::{InstanceId, ServiceId};
use crate::planted::{Plant, Planted};
use crate::units::{Bytes, Instant};

/// An odd step that visits all numbers, evenly spread (2^32 over the golden ratio).
const TURN: u32 = 0x9e37_79b9;

#[derive(Debug)]
pub(super) struct Service {
    pub(super) id: ServiceId,
    pub(super) hang: Duration,
    standing: Standing,
    backends: Vec<Backend>,
    queue: Queue,
    replays: Replays,
    episode: Episode,
    requests: u64,
    held_ever: u64,
    refused: u64,
    longest_hold: Duration,
    /// Who is asked first when those that wait go: another one each time.
    turn: u32,
}

/// From the first that waits to the last that goes.
#[derive(Clone, Copy, Debug, Default)]
struct Episode {
    requests: u64,
    refused: u64,
    longest: Duration,
}

impl Service {
    pub(super) fn new(id: ServiceId) -> Self {
        Self {
            id,
            hang: HANG_DEFAULT,
            standing: Standing::Stopped,
            backends: Vec::new(),
            queue: Queue::default(),
            replays: Replays::default(),
            episode: Episode::default(),
            requests: 0,
            held_ever: 0,
            refused: 0,
            longest_hold: Duration::ZERO,
            turn: 0,
        }
    }

    pub(super) fn stand(&mut self, cx: &mut Cx<'_>, standing: Standing) {
        self.standing = standing;
        if standing == Standing::Stopped && !cx.plant.has(Planted::ForgetHeldOnStop) {
            while let Some((ticket, held)) = self.queue.pop(cx.capacity) {
                self.refuse_held(cx, ticket, &held, Reason::Stopped);
            }
            self.end_episode_when_empty(cx);
        }
    }

    pub(super) fn admit(&mut self, cx: &mut Cx<'_>, instance: InstanceId) {
        match self.position(instance) {
            Some(index) => self.backends[index].open(),
            None => self.backends.push(Backend::new(cx.now, instance)),
        }
        if !self.queue.is_empty()
            && !cx.plant.has(Planted::ReleaseAll)
            && let Some(index) = self.position(instance)
        {
            self.backends[index].narrow_for_a_crowd(cx.now);
        }
        self.release(cx);
    }

    pub(super) fn withdraw(&mut self, cx: &mut Cx<'_>, instance: InstanceId, drain: Duration) -> u32 {
        let Some(index) = self.position(instance) else { return 0 };
        if !cx.plant.has(Planted::ReleaseToWithdrawn) {
            self.backends[index].drain(cx.now, drain);
        }
        self.keep_one(cx.now);
        self.release(cx);
        self.position(instance).map_or(0, |index| self.backends[index].in_flight)
    }

    pub(super) fn forget(&mut self, cx: &mut Cx<'_>, instance: InstanceId) {
        let Some(index) = self.position(instance) else { return };
        // What is still in flight there ends with its connection, and then is not found any more.
        self.backends.swap_remove(index);
        self.keep_one(cx.now);
        self.release(cx);
    }

    pub(super) fn count(&mut self, now: Instant) {
        self.requests += 1;
        self.replays.count(now);
    }

    /// Go, wait, or be refused.
    pub(super) fn place(&mut self, cx: &mut Cx<'_>, ticket: Ticket, mut held: Held, draw: u32) -> Answer {
        if cx.plant.has(Planted::WaitBeginsAnew) {
            held.waited = Duration::ZERO;
        }
        if cx.plant.has(Planted::HoldBytesIgnored) {
            held.body = Bytes::ZERO;
        }
        // One that is in the line already gives up its place there: it is answered once.
        self.left(cx, ticket);
        // Time may have made room. Nobody overtakes those who wait and came before.
        if !self.queue.is_first(ticket) {
            self.release(cx);
        }
        self.grow(cx.now);
        if self.queue.is_first(ticket)
            && let Some(index) = self.pick(cx.now, cx.in_flight_max(), draw)
        {
            self.backends[index].take(cx.now);
            return Answer::Go { instance: self.backends[index].id };
        }
        let begins = self.queue.is_empty();
        if let Some(refusal) = self.refusal(cx, &held) {
            self.refused += 1;
            return Answer::Refused(refusal);
        }
        if let Err(reason) = self.queue.push(cx.capacity, ticket, held, cx.plant) {
            self.refused += 1;
            if !begins {
                self.episode.refused += 1;
            }
            return Answer::Refused(Refusal { reason, retry_after: retry_after(draw) });
        }
        if begins {
            cx.act(GateAction::Tell { service: self.id, what: GateRecord::HoldBegan });
        }
        self.held_ever += 1;
        self.episode.requests += 1;
        // Its place may be before the others', and one of the instances may have room for whoever is first.
        self.release(cx);
        Answer::Held
    }

    /// Why it may not even wait.
    fn refusal(&self, cx: &Cx<'_>, held: &Held) -> Option<Refusal> {
        let deadline = held.deadline(cx.config().hold_wait);
        match self.standing {
            Standing::Stopped => Some(Refusal { reason: Reason::Stopped, retry_after: RETRY_AFTER_STOPPED }),
            Standing::Expected { not_before: Some(at) } if at > deadline && !self.has_open() => {
                let retry_after = at.since(cx.now).max(RETRY_AFTER);
                Some(Refusal { reason: Reason::BackingOff, retry_after })
            }
            Standing::Expected { .. } if deadline <= cx.now => {
                Some(Refusal { reason: Reason::HoldTimeout, retry_after: RETRY_AFTER })
            }
            Standing::Expected { .. } => None,
        }
    }

    pub(super) fn left(&mut self, cx: &mut Cx<'_>, ticket: Ticket) {
        let before = *cx.capacity;
        let Some(held) = self.queue.remove(cx.capacity, ticket) else { return };
        if cx.plant.has(Planted::HoldLeaksPlace) {
            *cx.capacity = before;
        }
        if cx.plant.has(Planted::AnswerTwice) {
            self.refuse_held(cx, ticket, &held, Reason::Gone);
        }
        self.waited(held.waited_at(cx.now));
        self.end_episode_when_empty(cx);
    }

    pub(super) fn answered(&mut self, cx: &mut Cx<'_>, instance: InstanceId) {
        if let Some(index) = self.position(instance)
            && self.backends[index].answered(cx.now)
        {
            self.release(cx);
        }
    }

    pub(super) fn streams(&mut self, cx: &mut Cx<'_>, instance: InstanceId) {
        if let Some(index) = self.position(instance) {
            self.backends[index].streams(cx.now);
            // A stream takes no place, so one that waits may have it.
            self.release(cx);
        }
    }

    pub(super) fn done(&mut self, cx: &mut Cx<'_>, instance: InstanceId, phase: Phase, outcome: Outcome) {
        let Some(index) = self.position(instance) else { return };
        if cx.plant.has(Planted::LeftIsNotDone) && outcome == Outcome::Left {
            return;
        }
        let backend = &mut self.backends[index];
        backend.done(cx.now, phase, outcome);
        if cx.plant.has(Planted::RampForgotten) && outcome == Outcome::Served {
            backend.forget_window();
        }
        if !backend.is_open() {
            let count = backend.in_flight;
            cx.act(GateAction::InFlight { instance, count });
            return;
        }
        match outcome {
            Outcome::Served if self.queue.is_empty() => self.backends[index].widen_when_calm(),
            Outcome::Unreachable => {
                self.backends[index].cool(cx.now);
                self.keep_one(cx.now);
            }
            Outcome::Lost | Outcome::TimedOut => self.eject(cx, index),
            Outcome::Served | Outcome::Left => {}
        }
        self.release(cx);
    }

    /// Never the last one.
    fn eject(&mut self, cx: &mut Cx<'_>, index: usize) {
        if (self.has_others(cx.now, index) || cx.plant.has(Planted::EjectLast))
            && let Some(pause) = self.backends[index].eject(cx.now)
        {
            let what = GateRecord::Ejected { instance: self.backends[index].id, pause };
            cx.act(GateAction::Tell { service: self.id, what });
            if cx.plant.has(Planted::EjectedGetsMore) {
                self.backends[index].take_back();
            }
        }
    }

    /// Where the others are gone, one that was left out for failing is better than none.
    fn keep_one(&mut self, now: Instant) {
        if !self.backends.iter().any(|it| it.is_open() && !it.is_paused(now)) {
            self.backends.iter_mut().for_each(Backend::take_back);
        }
    }

    pub(super) fn plead(&mut self, cx: &Cx<'_>, plea: &Plea) -> Ruling {
        self.replays.plead(cx.now, plea, cx.plant)
    }

    pub(super) fn is_poison(&mut self, now: Instant, fingerprint: u64) -> bool {
        self.replays.is_poison(now, fingerprint)
    }

    pub(super) fn due(&mut self, cx: &mut Cx<'_>) {
        let crowd = !self.queue.is_empty();
        for backend in &mut self.backends {
            let instance = backend.id;
            if backend.stalls(cx.now, self.hang) && !cx.plant.has(Planted::StallUntold) {
                cx.actions.push_back(GateAction::Stalled { instance });
            }
            if backend.closes_streams(cx.now, crowd) && !cx.plant.has(Planted::StreamsNeverClosed) {
                cx.actions.push_back(GateAction::CloseStreams { instance });
            }
        }
        self.release(cx);
        while let Some((ticket, held)) = self.queue.pop_expired(cx.capacity, cx.now) {
            if !cx.plant.has(Planted::ExpiredUntold) {
                self.refuse_held(cx, ticket, &held, Reason::HoldTimeout);
            }
        }
        self.end_episode_when_empty(cx);
    }

    pub(super) fn next_deadline(&self, plant: Plant) -> Option<Instant> {
        let crowd = !self.queue.is_empty() && !plant.has(Planted::CrowdForgotten);
        let backends = self.backends.iter().filter_map(|it| it.next_deadline(self.hang, crowd, plant));
        backends.chain(self.queue.next_deadline()).min()
    }

    /// Whether there is anything that time could change.
    pub(super) fn is_active(&self) -> bool {
        !self.queue.is_empty() || self.backends.iter().any(|it| it.in_flight > 0)
    }

    pub(super) fn traffic(&self) -> ServiceTraffic {
        ServiceTraffic {
            held: self.queue.len(),
            in_flight: self.backends.iter().map(|it| it.in_flight).sum(),
            streams: self.backends.iter().map(|it| it.streams).sum(),
            requests: self.requests,
            held_ever: self.held_ever,
            refused: self.refused,
            replayed: self.replays.replayed(),
            longest_hold: self.longest_hold,
        }
    }

    pub(super) fn in_flight_on(&self, instance: InstanceId) -> u32 {
        self.position(instance).map_or(0, |index| self.backends[index].in_flight)
    }

    /// Lets those go that have waited longest, for as long as somebody has room.
    fn release(&mut self, cx: &mut Cx<'_>) {
        self.grow(cx.now);
        while !self.queue.is_empty() {
            let Some(index) = self.pick(cx.now, cx.in_flight_max(), self.turn) else { return };
            let newest = cx.plant.has(Planted::Overtake);
            let next = if newest { self.queue.pop_newest(cx.capacity) } else { self.queue.pop(cx.capacity) };
            let Some((ticket, held)) = next else { return };
            self.waited(held.waited_at(cx.now));
            self.backends[index].take(cx.now);
            cx.act(GateAction::Release { ticket, instance: self.backends[index].id });
            self.turn = self.turn.wrapping_add(TURN);
        }
        self.end_episode_when_empty(cx);
    }

    fn grow(&mut self, now: Instant) {
        self.backends.iter_mut().for_each(|it| it.grow(now));
    }

    fn refuse_held(&mut self, cx: &mut Cx<'_>, ticket: Ticket, held: &Held, reason: Reason) {
        self.refused += 1;
        self.episode.refused += 1;
        self.waited(held.waited_at(cx.now));
        let retry_after =
            if reason == Reason::Stopped { RETRY_AFTER_STOPPED } else { self.expected_in(cx.now) };
        cx.act(GateAction::Refuse { ticket, refusal: Refusal { reason, retry_after } });
    }

    fn expected_in(&self, now: Instant) -> Duration {
        match self.standing {
            Standing::Stopped => RETRY_AFTER_STOPPED,
            Standing::Expected { not_before } => {
                not_before.map_or(RETRY_AFTER, |at| at.since(now).max(RETRY_AFTER))
            }
        }
    }

    fn waited(&mut self, wait: Duration) {
        self.episode.longest = self.episode.longest.max(wait);
        self.longest_hold = self.longest_hold.max(wait);
    }

    fn end_episode_when_empty(&mut self, cx: &mut Cx<'_>) {
        if self.queue.is_empty() && self.episode.requests > 0 {
            let Episode { requests, refused, longest } = core::mem::take(&mut self.episode);
            let what = GateRecord::HoldEnded { requests, refused, longest };
            cx.act(GateAction::Tell { service: self.id, what });
        }
    }

    /// The less loaded of two that are drawn among those with room; among two, simply of both.
    fn pick(&self, now: Instant, in_flight_max: u32, draw: u32) -> Option<usize> {
        let room = |it: &Backend| it.has_room(now, in_flight_max);
        if let [only] = self.backends.as_slice() {
            return room(only).then_some(0);
        }
        let count = self.backends.iter().filter(|it| room(it)).count();
        let nth = |n: usize| {
            self.backends.iter().enumerate().filter(|(_, it)| room(it)).nth(n).map(|(index, _)| index)
        };
        if count < 2 {
            return nth(0);
        }
        let one = draw as usize % count;
        let step = 1 + (draw >> 16) as usize % (count - 1);
        let (one, other) = (nth(one)?, nth((one + step) % count)?);
        let lighter = self.backends[other].load() < self.backends[one].load();
        Some(if lighter { other } else { one })
    }

    fn has_open(&self) -> bool {
        self.backends.iter().any(Backend::is_open)
    }

    /// Whether somebody else could take the requests of this one.
    fn has_others(&self, now: Instant, index: usize) -> bool {
        let serves = |it: &Backend| it.is_open() && !it.is_paused(now);
        self.backends.iter().enumerate().any(|(other, it)| other != index && serves(it))
    }

    fn position(&self, instance: InstanceId) -> Option<usize> {
        self.backends.iter().position(|it| it.id == instance)
    }
}

/// A crowd that is sent away must not come back as one.
fn retry_after(draw: u32) -> Duration {
    RETRY_AFTER + Duration::from_secs(u64::from(draw % 3))
}
