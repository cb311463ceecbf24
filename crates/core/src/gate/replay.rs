//! What may be sent again after a failure, and what never.
//!
//! Nothing is ever carried out twice blindly: what was sent and is not safe to repeat goes again only where the client
//! or the operator said that it may.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::planted::{Plant, Planted};
use crate::units::Instant;

/// Replays of sent requests: a part of the requests of the last [`SLOTS`] seconds, and this many at any rate.
const BUDGET_FLOOR: u32 = 200;
const BUDGET_PART: u32 = 5;
const SLOTS: usize = 10;
const SLOT: Duration = Duration::from_secs(1);
/// In flight at so many deaths: it may well be the cause.
const DEATHS: u8 = 2;
/// How long such a request is remembered, and how many of them.
const POISON_KEPT: Duration = Duration::from_mins(10);
const POISON_MAX: usize = 64;

/// How much of a request may have reached the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Certainly nothing.
    NotSent,
    /// It was sent, whole or in part, and no byte of an answer came.
    Sent,
    /// An answer had begun.
    Answered,
}

/// A failed request that asks to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plea {
    pub reach: Reach,
    /// GET, HEAD, OPTIONS or TRACE.
    pub safe: bool,
    /// It carries an `Idempotency-Key`, or its route says `replay = "always"`.
    pub repeatable: bool,
    /// All of its body is still there to be sent again.
    pub body_kept: bool,
    /// How often it has been in flight when its connection died, this time included.
    pub deaths: u8,
    /// The same for requests that ask for the same thing.
    pub fingerprint: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    Again,
    GiveUp(Why),
}

/// Why a request is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It may have run, and is not safe to repeat.
    MayHaveRun,
    /// A part of the answer is with the client already.
    Answered,
    /// Its body is gone.
    BodyGone,
    /// It was in flight at two deaths.
    Poison,
    /// More is sent again already than a service should bear.
    Budget,
    /// No such service any more.
    Gone,
}

impl Why {
    /// The word in `Plimsoll-Reason`, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MayHaveRun => "may-have-run",
            Self::Answered => "answer-cut-off",
            Self::BodyGone => "body-not-kept",
            Self::Poison => "in-flight-at-two-deaths",
            Self::Budget => "replay-budget-spent",
            Self::Gone => "service-gone",
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    second: u64,
    requests: u32,
    replays: u32,
}

/// What a service's replays have cost so far, and which of its requests are suspected of killing it.
#[derive(Debug, Default)]
pub(super) struct Replays {
    slots: [Slot; SLOTS],
    poison: VecDeque<(Instant, u64)>,
    replayed: u64,
}

impl Replays {
    pub(super) fn count(&mut self, now: Instant) {
        self.slot(now).requests += 1;
    }

    pub(super) const fn replayed(&self) -> u64 {
        self.replayed
    }

    pub(super) fn plead(&mut self, now: Instant, plea: &Plea, plant: Plant) -> Ruling {
        if plea.reach == Reach::Answered {
            return Ruling::GiveUp(Why::Answered);
        }
        if plea.reach == Reach::Sent {
            let known = self.is_poison(now, plea.fingerprint);
            let suspect = plea.deaths >= DEATHS || (known && plea.deaths > 0);
            if suspect && !plant.has(Planted::PoisonReplayed) {
                if !plant.has(Planted::PoisonForgotten) {
                    self.remember(now, plea.fingerprint);
                }
                return Ruling::GiveUp(Why::Poison);
            }
            if !plea.safe && !plea.repeatable && !plant.has(Planted::ReplayPost) {
                return Ruling::GiveUp(Why::MayHaveRun);
            }
        }
        if !plea.body_kept {
            return Ruling::GiveUp(if plea.reach == Reach::Sent { Why::MayHaveRun } else { Why::BodyGone });
        }
        if plea.reach == Reach::Sent {
            if !self.allows(now) && !plant.has(Planted::ReplaysWithoutBudget) {
                return Ruling::GiveUp(Why::Budget);
            }
            self.slot(now).replays += 1;
            self.replayed += 1;
        }
        Ruling::Again
    }

    pub(super) fn is_poison(&mut self, now: Instant, fingerprint: u64) -> bool {
        while self.poison.front().is_some_and(|(at, _)| now.since(*at) >= POISON_KEPT) {
            self.poison.pop_front();
        }
        self.poison.iter().any(|(_, known)| *known == fingerprint)
    }

    fn remember(&mut self, now: Instant, fingerprint: u64) {
        self.poison.retain(|(_, known)| *known != fingerprint);
        if self.poison.len() >= POISON_MAX {
            self.poison.pop_front();
        }
        self.poison.push_back((now, fingerprint));
    }

    fn allows(&self, now: Instant) -> bool {
        let second = second(now);
        let recent = self.slots.iter().filter(|slot| second - slot.second.min(second) < SLOTS as u64);
        let (requests, replays) =
            recent.fold((0u32, 0u32), |(a, b), slot| (a + slot.requests, b + slot.replays));
        replays < BUDGET_FLOOR.max(requests / BUDGET_PART)
    }

    fn slot(&mut self, now: Instant) -> &mut Slot {
        let second = second(now);
        let slot = &mut self.slots[usize::try_from(second % SLOTS as u64).unwrap_or(0)];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot
    }
}

fn second(now: Instant) -> u64 {
    now.0 / u64::try_from(SLOT.as_nanos()).unwrap_or(u64::MAX)
}
