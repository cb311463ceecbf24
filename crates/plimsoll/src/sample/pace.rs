//! How much of a fault is due at a tick, so that a rate holds on average.

use std::time::Duration;

/// How often a running fault does its next piece: small against the 100 ms in which the guard promises to act.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// The most a late tick makes up for. Without it, a process that was stopped for seconds would jump, and a jump is a
/// spike and not a leak.
const CATCH_UP_MAX: Duration = Duration::from_millis(200);

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// An amount (bytes, descriptors) handed out at a rate until a total is reached.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: u64,
    left: u64,
    /// What earlier ticks were short of a whole unit, in billionths of one.
    remainder: u128,
}

impl Pace {
    pub(super) fn new(per_second: u64, total: u64) -> Self {
        Self { per_second, left: total, remainder: 0 }
    }

    /// The pace that hands out `total` within `over`.
    pub(super) fn within(total: u64, over: Duration) -> Self {
        let per_second = u128::from(total) * NANOS_PER_SECOND / over.as_nanos().max(1);
        Self::new(u64::try_from(per_second).unwrap_or(u64::MAX), total)
    }

    /// What is due after a further `elapsed`.
    pub(super) fn due(&mut self, elapsed: Duration) -> u64 {
        let owed = u128::from(self.per_second) * elapsed.min(CATCH_UP_MAX).as_nanos() + self.remainder;
        self.remainder = owed % NANOS_PER_SECOND;
        let amount = u64::try_from(owed / NANOS_PER_SECOND).unwrap_or(u64::MAX).min(self.left);
        self.left -= amount;
        amount
    }

    /// Whether the total was handed out.
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_below_one_per_tick_still_adds_up() {
        let mut pace = Pace::new(7, 100);
        let taken: u64 = (0..1000).map(|_| pace.due(TICK)).sum();
        assert_eq!(taken, 70, "ten seconds at seven per second");
    }

    #[test]
    fn it_ends_exactly_at_the_total() {
        let mut pace = Pace::new(30 << 20, 1 << 20);
        let taken: u64 = (0..100).map(|_| pace.due(TICK)).sum();
        assert_eq!(taken, 1 << 20);
        assert!(pace.is_spent());
        assert_eq!(pace.due(TICK), 0);
    }

    #[test]
    fn a_tick_that_comes_late_does_not_become_a_spike() {
        let mut pace = Pace::new(1000, u64::MAX);
        assert_eq!(pace.due(Duration::from_mins(1)), 200);
    }

    #[test]
    fn no_time_at_all_means_everything_at_the_first_tick() {
        assert_eq!(Pace::within(600 << 20, Duration::ZERO).due(TICK), 600 << 20);
    }
}
