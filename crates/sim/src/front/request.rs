//! One request of a client: what it asks for, and where it is.

use std::time::Duration;

use plimsoll_core::gate::{Back, Phase, Plea, Reach, Ticket};
use plimsoll_core::units::{Bytes, Instant};
use plimsoll_core::{InstanceId, ServiceId};

use crate::rng::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
    /// With an `Idempotency-Key`.
    KeyedPost,
}

/// What becomes of it once the service has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered,
    /// The answer goes on as a stream.
    Streams,
    /// The service dies of it.
    Kills,
    /// The service hangs up instead of answering.
    Resets,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// It has just come.
    New,
    Held {
        since: Instant,
        until: Instant,
    },
    /// `reached`: the service has it.
    Sent {
        instance: InstanceId,
        phase: Phase,
        since: Instant,
        reached: bool,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) service: ServiceId,
    pub(crate) method: Method,
    pub(crate) body: Bytes,
    /// Once sent, the body is still there to be sent again.
    body_kept: bool,
    pub(crate) fingerprint: u64,
    /// From reaching the service to the answer.
    pub(crate) takes: Duration,
    /// From the answer's head to its end; `None`: both at once.
    pub(crate) goes_on: Option<Duration>,
    pub(crate) fate: Fate,
    pub(crate) deaths: u8,
    /// How often it was carried out, and whether this attempt was.
    pub(crate) runs: u32,
    pub(crate) ran: bool,
    pub(crate) attempt: u32,
    pub(crate) waited: Duration,
    pub(crate) place: Place,
}

/// What a seed's clients and services are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Customs {
    killers: u64,
    resets: u64,
    streams: u64,
    pub(crate) leavers: u64,
    /// So many come at once that even their replays are too many.
    pub(crate) storms: bool,
    /// Who asks for what is known to kill is not let in.
    pub(crate) fences: bool,
}

impl Customs {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let storms = rng.chance(2);
        Self {
            killers: rng.pick(&[0, 0, 0, 4]),
            resets: if storms { 80 } else { rng.pick(&[0, 0, 1, 40]) },
            streams: rng.pick(&[0, 5, 30]),
            leavers: rng.pick(&[0, 5, 25]),
            storms,
            fences: rng.chance(30),
        }
    }

    /// The end of all faults.
    pub(crate) fn heal(&mut self) {
        self.killers = 0;
        self.resets = 0;
    }
}

impl Request {
    pub(crate) fn draw(rng: &mut Rng, customs: &Customs, service: ServiceId) -> Self {
        let method = rng.pick(&[Method::Get, Method::Get, Method::Post, Method::Post, Method::KeyedPost]);
        let fate = match (rng.between(0, 99), rng.between(0, 99)) {
            (kills, _) if kills < customs.killers => Fate::Kills,
            (_, resets) if resets < customs.resets => Fate::Resets,
            _ if method == Method::Get && rng.chance(customs.streams) => Fate::Streams,
            _ => Fate::Answered,
        };
        let takes = match rng.between(0, 19) {
            0 => rng.millis(2000, 15_000),
            1..=6 => rng.millis(50, 1500),
            7.. => rng.latency(1, 40),
        };
        let goes_on = match rng.between(0, 9) {
            _ if fate == Fate::Streams => Some(rng.millis(500, 12_000)),
            0..=2 => Some(rng.latency(1, 300)),
            3.. => None,
        };
        // Many ask for the same.
        let same = if customs.storms { 5 } else { 40 };
        let fingerprint = if rng.chance(same) { rng.between(0, 3) } else { rng.between(4, 1 << 40) };
        Self {
            service,
            method,
            body: if method == Method::Get { Bytes::ZERO } else { Bytes(rng.between(0, 100_000)) },
            body_kept: rng.chance(90),
            fingerprint,
            takes,
            goes_on,
            fate,
            deaths: 0,
            runs: 0,
            ran: false,
            attempt: 0,
            waited: Duration::ZERO,
            place: Place::New,
        }
    }

    /// GET, HEAD and the like.
    fn is_safe(&self) -> bool {
        self.method == Method::Get
    }

    pub(crate) fn may_run_twice(&self) -> bool {
        self.method != Method::Post
    }

    /// What was sent of it can be sent again, and it does no harm.
    pub(crate) fn can_be_replayed(&self) -> bool {
        self.may_run_twice() && self.body_kept
    }

    pub(crate) fn plea(&self, reach: Reach) -> Plea {
        Plea {
            reach,
            safe: self.is_safe(),
            repeatable: self.method == Method::KeyedPost,
            body_kept: self.body_kept || reach == Reach::NotSent,
            deaths: self.deaths,
            fingerprint: self.fingerprint,
        }
    }

    pub(crate) fn back(&self, ticket: Ticket) -> Back {
        Back { ticket, body: self.body, waited: self.waited }
    }

    /// How long it has been held, all in all.
    pub(crate) fn waited_at(&self, now: Instant) -> Duration {
        match self.place {
            Place::Held { since, .. } => self.waited + now.since(since),
            Place::New | Place::Sent { .. } => self.waited,
        }
    }
}
