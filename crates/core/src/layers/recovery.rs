//! Layer 5: restart at once, then more slowly, for ever; and a budget for recycles that crashes do not touch.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::planted::{Plant, Planted};
use crate::units::Instant;

/// The second restart in a row waits this long; each further one twice as long, up to `backoff_max`.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// A life that was ready for this long is a healthy one: the next crash is a first crash again.
pub const HEALTHY_LIFE: Duration = Duration::from_mins(1);
/// So many failed lives in a row are a crash loop, which pages.
pub const CRASH_LOOP: u32 = 5;
/// A crash loop that goes on pages again each time it has grown by this (about ten minutes at the slowest pace).
const PAGE_AGAIN: u32 = 60;
const HOUR: Duration = Duration::from_hours(1);
const GIVE_UP_AFTER: u32 = 10;

/// Failed lives in a row of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streak(pub(crate) u32);

/// What follows a failed life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    pub(crate) attempt: u32,
    pub(crate) delay: Duration,
    pub(crate) pages: bool,
}

impl Streak {
    /// `ready_for` is how long the life that just failed was ready.
    pub(crate) fn failed(&mut self, ready_for: Duration, backoff_max: Duration, plant: Plant) -> Retry {
        if ready_for >= HEALTHY_LIFE {
            self.0 = 0;
        }
        let delay = if plant.has(Planted::NoBackoff) { Duration::ZERO } else { delay(self.0, backoff_max) };
        self.0 = self.0.saturating_add(1);
        let delay =
            if plant.has(Planted::GiveUp) && self.0 > GIVE_UP_AFTER { HOUR * 24 * 365 } else { delay };
        let again = self.0 > CRASH_LOOP && (self.0 - CRASH_LOOP).is_multiple_of(PAGE_AGAIN);
        Retry { attempt: self.0, delay, pages: self.0 == CRASH_LOOP || again }
    }

    pub(crate) fn forgive(&mut self) {
        self.0 = 0;
    }
}

/// Immediate, then doubling from [`BACKOFF_FIRST`] to `backoff_max`.
fn delay(failures_before: u32, backoff_max: Duration) -> Duration {
    let Some(doublings) = failures_before.checked_sub(1) else { return Duration::ZERO };
    BACKOFF_FIRST.saturating_mul(1 << doublings.min(16)).min(backoff_max)
}

/// Recycles in the last hour.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    spent: VecDeque<Instant>,
    paged: bool,
}

impl Budget {
    /// Whether one more planned recycle may be made now.
    pub(crate) fn allows(&mut self, now: Instant, per_hour: u32, plant: Plant) -> bool {
        while self.spent.front().is_some_and(|at| now.since(*at) >= HOUR) {
            self.spent.pop_front();
            self.paged = false;
        }
        plant.has(Planted::BudgetIgnored) || self.spent.len() < per_hour as usize
    }

    /// Remembers a recycle. More than the budget allows are made only where waiting would cost the instance, and the
    /// list stays bounded all the same.
    pub(crate) fn spend(&mut self, now: Instant, per_hour: u32) {
        if self.spent.len() >= per_hour.max(1) as usize {
            self.spent.pop_front();
        }
        self.spent.push_back(now);
    }

    /// For the next guard: when each was spent, and whether it was paged.
    pub(crate) fn saved(&self) -> (Vec<Instant>, bool) {
        (self.spent.iter().copied().collect(), self.paged)
    }

    pub(crate) fn restored(spent: &[Instant], paged: bool) -> Self {
        Self { spent: spent.iter().copied().collect(), paged }
    }

    /// How many of the last hour's are spent.
    pub(crate) fn spent(&self, now: Instant) -> u32 {
        let recent = self.spent.iter().filter(|at| now.since(**at) < HOUR).count();
        u32::try_from(recent).unwrap_or(u32::MAX)
    }

    /// True once for each time the budget runs out.
    pub(crate) fn should_page(&mut self) -> bool {
        !core::mem::replace(&mut self.paged, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(10);

    #[test]
    fn the_first_restart_is_at_once_and_later_ones_slow_down_to_the_cap() {
        let mut streak = Streak::default();
        let delays: Vec<u128> =
            (0..8).map(|_| streak.failed(Duration::ZERO, MAX, Plant::default()).delay.as_millis()).collect();
        assert_eq!(delays, [0, 250, 500, 1000, 2000, 4000, 8000, 10_000]);
    }

    #[test]
    fn a_service_that_dies_every_two_seconds_reaches_the_cap() {
        let mut streak = Streak::default();
        for _ in 0..20 {
            streak.failed(Duration::from_secs(2), MAX, Plant::default());
        }
        assert_eq!(streak.failed(Duration::from_secs(2), MAX, Plant::default()).delay, MAX);
    }

    #[test]
    fn a_healthy_life_makes_the_next_crash_a_first_one() {
        let mut streak = Streak::default();
        for _ in 0..9 {
            streak.failed(Duration::ZERO, MAX, Plant::default());
        }
        assert_eq!(streak.failed(HEALTHY_LIFE, MAX, Plant::default()).delay, Duration::ZERO);
    }

    #[test]
    fn a_loop_pages_at_five_and_again_much_later() {
        let mut streak = Streak::default();
        let pages: Vec<u32> = (0..130)
            .map(|_| streak.failed(Duration::ZERO, MAX, Plant::default()))
            .filter(|retry| retry.pages)
            .map(|retry| retry.attempt)
            .collect();
        assert_eq!(pages, [5, 65, 125]);
    }

    #[test]
    fn the_budget_frees_up_an_hour_after_each_recycle() {
        let mut budget = Budget::default();
        let start = Instant(1);
        assert!(budget.allows(start, 1, Plant::default()));
        budget.spend(start, 1);
        assert!(!budget.allows(start + HOUR / 2, 1, Plant::default()));
        assert!(budget.should_page());
        assert!(!budget.should_page());
        assert!(budget.allows(start + HOUR, 1, Plant::default()));
    }
}
