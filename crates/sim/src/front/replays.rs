//! What was sent again, what it cost, and what is known to kill.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use plimsoll_core::ServiceId;
use plimsoll_core::gate::{Reach, Ruling, Ticket, Why};
use plimsoll_core::units::Instant;

use super::ledger::{Verdict, rule};
use super::request::Request;

/// Replays within ten seconds: this many at any rate, or this part of the requests. The gate counts whole seconds, so
/// that its ten are between nine and ten.
const BUDGET_FLOOR: usize = 200;
const BUDGET_PART: usize = 5;
const SHORT: Duration = Duration::from_secs(9);
const LONG: Duration = Duration::from_secs(10);
/// One that was in flight at so many deaths may be their cause, and is remembered with so many others, for so long.
const DEATHS: u8 = 2;
const POISON_MAX: usize = 64;
const POISON_KEPT: Duration = Duration::from_mins(10);

#[derive(Debug, Default)]
struct Account {
    requests: VecDeque<Instant>,
    replays: VecDeque<Instant>,
    /// The latest last.
    poison: VecDeque<(Instant, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Replays(BTreeMap<ServiceId, Account>);

impl Replays {
    pub(super) fn arrived(&mut self, now: Instant, service: ServiceId) {
        let account = self.0.entry(service).or_default();
        forget_before(&mut account.requests, now);
        account.requests.push_back(now);
    }

    pub(super) fn is_poison(&self, now: Instant, service: ServiceId, fingerprint: u64) -> bool {
        self.0.get(&service).is_some_and(|account| account.is_poison(now, fingerprint))
    }

    /// Whether the gate's answer to a failed request is right.
    pub(super) fn ruled(
        &mut self,
        now: Instant,
        ticket: Ticket,
        request: &Request,
        reach: Reach,
        ruling: Ruling,
    ) -> Verdict {
        let account = self.0.entry(request.service).or_default();
        let sent = reach == Reach::Sent;
        let suspect = sent
            && (request.deaths >= DEATHS
                || (request.deaths > 0 && account.is_poison(now, request.fingerprint)));
        if suspect {
            account.remember(now, request.fingerprint);
        }
        let right = match ruling {
            Ruling::Again if sent => {
                let within = account.may_have_budget(now);
                account.replay(now);
                request.can_be_replayed() && !suspect && within
            }
            Ruling::Again => reach == Reach::NotSent,
            Ruling::GiveUp(Why::MayHaveRun) => sent && !suspect && !request.can_be_replayed(),
            Ruling::GiveUp(Why::Answered) => reach == Reach::Answered,
            Ruling::GiveUp(Why::Poison) => suspect,
            Ruling::GiveUp(Why::Budget) => sent && account.may_lack_budget(now),
            Ruling::GiveUp(Why::BodyGone | Why::Gone) => false,
        };
        rule("replay", right, || format!("{ticket:?} {reach:?}, {ruling:?}: {request:?}"))
    }
}

impl Account {
    fn may_have_budget(&self, now: Instant) -> bool {
        within(&self.replays, now, SHORT) < allowed(within(&self.requests, now, LONG))
    }

    fn may_lack_budget(&self, now: Instant) -> bool {
        within(&self.replays, now, LONG) >= allowed(within(&self.requests, now, SHORT))
    }

    fn replay(&mut self, now: Instant) {
        forget_before(&mut self.replays, now);
        self.replays.push_back(now);
    }

    fn is_poison(&self, now: Instant, fingerprint: u64) -> bool {
        self.poison.iter().any(|(at, known)| *known == fingerprint && now.since(*at) < POISON_KEPT)
    }

    fn remember(&mut self, now: Instant, fingerprint: u64) {
        self.poison.retain(|(_, known)| *known != fingerprint);
        self.poison.push_back((now, fingerprint));
        if self.poison.len() > POISON_MAX {
            self.poison.pop_front();
        }
    }
}

fn allowed(requests: usize) -> usize {
    BUDGET_FLOOR.max(requests / BUDGET_PART)
}

fn within(times: &VecDeque<Instant>, now: Instant, span: Duration) -> usize {
    times.iter().rev().take_while(|at| now.since(**at) < span).count()
}

fn forget_before(times: &mut VecDeque<Instant>, now: Instant) {
    while times.front().is_some_and(|at| now.since(*at) > LONG) {
        times.pop_front();
    }
}
