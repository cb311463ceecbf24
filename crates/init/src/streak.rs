//! Guards that end again and again: how long to wait, and when to ask less of the next one.

use std::time::Duration;

/// A guard that guarded this long has done well; what comes next is a new trouble.
const WELL: Duration = Duration::from_mins(1);
const DELAY_FIRST: Duration = Duration::from_millis(250);
const DELAY_MAX: Duration = Duration::from_secs(10);
/// From the fourth quick end in a row on, the next guard does only what is needed.
const REDUCED_AFTER: u32 = 4;

/// Quick ends in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streak(pub(crate) u32);

impl Streak {
    /// A guard ended after it had guarded for `lived` (zero where it never did). When to start the next one.
    pub(crate) fn ended(&mut self, lived: Duration) -> Duration {
        if lived >= WELL {
            self.0 = 0;
        }
        self.0 = self.0.saturating_add(1);
        match self.0 {
            1 => Duration::ZERO,
            more => DELAY_FIRST.saturating_mul(1 << (more - 2).min(16)).min(DELAY_MAX),
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
    fn the_first_restart_is_at_once_and_a_loop_slows_down_and_asks_less() {
        let mut streak = Streak::default();
        let delays: Vec<u128> = (0..8).map(|_| streak.ended(Duration::ZERO).as_millis()).collect();
        assert_eq!(delays, [0, 250, 500, 1000, 2000, 4000, 8000, 10_000]);
        assert!(streak.wants_reduced());
        assert_eq!(streak.ended(WELL), Duration::ZERO);
        assert!(!streak.wants_reduced());
    }

    #[test]
    fn reduced_begins_with_the_fourth() {
        let mut streak = Streak::default();
        let reduced: Vec<bool> = (0..5)
            .map(|_| {
                streak.ended(Duration::from_secs(1));
                streak.wants_reduced()
            })
            .collect();
        assert_eq!(reduced, [false, false, false, true, true]);
    }
}
