//! Guards that end again and again: how long to wait, and when to ask less of the next one.

use std::time::Duration;

/// A guard that guarded this long got through all that a start does: its end is none of a loop's. So a guard that is
/// killed by hand, however often, is replaced at once.
const WELL: Duration = Duration::from_secs(1);
/// So many quick ends in a row are replaced at once; it may be the machine that is short of something for a moment.
const AT_ONCE: u32 = 2;
const DELAY_FIRST: Duration = Duration::from_millis(250);
const DELAY_MAX: Duration = Duration::from_secs(10);
/// After so many quick ends in a row the next guard does only what is needed.
const REDUCED_AFTER: u32 = 4;

/// Quick ends in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streak(pub(crate) u32);

impl Streak {
    /// A guard ended after it had guarded for `lived` (zero where it never did). When to start the next one.
    pub(crate) fn ended(&mut self, lived: Duration) -> Duration {
        if lived >= WELL {
            self.0 = 0;
            return Duration::ZERO;
        }
        self.0 = self.0.saturating_add(1);
        match self.0.checked_sub(AT_ONCE + 1) {
            None => Duration::ZERO,
            Some(doublings) => DELAY_FIRST.saturating_mul(1 << doublings.min(16)).min(DELAY_MAX),
        }
    }

    pub(crate) const fn wants_reduced(self) -> bool {
        self.0 >= REDUCED_AFTER
    }

    pub(crate) const fn count(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_slows_down_and_asks_less() {
        let mut streak = Streak::default();
        let delays: Vec<(u128, bool)> =
            (0..9).map(|_| (streak.ended(Duration::ZERO).as_millis(), streak.wants_reduced())).collect();
        let expected = [0, 0, 250, 500, 1000, 2000, 4000, 8000, 10_000];
        let reduced = (0..).map(|index| index >= 3);
        assert_eq!(delays, expected.into_iter().zip(reduced).collect::<Vec<_>>());
    }

    #[test]
    fn a_guard_that_did_well_is_replaced_at_once_however_often() {
        let mut streak = Streak::default();
        for _ in 0..100 {
            assert_eq!(streak.ended(WELL), Duration::ZERO);
            assert!(!streak.wants_reduced());
        }
        streak.ended(Duration::ZERO);
        assert_eq!(streak.ended(WELL), Duration::ZERO);
        assert_eq!(streak, Streak(0));
    }
}
