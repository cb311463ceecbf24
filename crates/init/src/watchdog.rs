//! Notices a guard that lives and decides nothing: stopped, deadlocked, spinning.
//!
//! Time is counted in looks of our own and not by the clock: a machine that stood still as a whole (a suspended virtual
//! machine, a frozen group) has given the guard no chance to be late.

use std::time::Duration;

use plimsoll_kernel::Roots;
use plimsoll_kernel::process::{Identity, Stat};

pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks without a completed decision cycle, of a guard that the kernel says is stopped (`SIGSTOP`).
const STOPPED_LOOKS: u32 = 2;
/// Of any other guard: it may only be short of processor time.
const SILENT_LOOKS: u32 = 10;
/// Until it guards: reading files, opening the ledger on a slow disk, taking over a thousand instances.
const STARTING_LOOKS: u32 = 60;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watchdog {
    looks: u32,
}

impl Watchdog {
    pub(crate) fn fed(&mut self) {
        self.looks = 0;
    }

    /// One more look at a guard that said nothing since the last one; true when it is to be replaced.
    pub(crate) fn bites(&mut self, ready: bool, is_stopped: impl FnOnce() -> bool) -> bool {
        self.looks += 1;
        let limit = if ready { SILENT_LOOKS } else { STARTING_LOOKS };
        self.looks >= limit || (self.looks >= STOPPED_LOOKS && is_stopped())
    }
}

/// Whether the kernel says that it is stopped.
pub(crate) fn is_stopped(roots: &Roots, guard: Identity) -> bool {
    Stat::of(roots, guard.pid).is_ok_and(|stat| stat.identity() == guard && matches!(stat.state, 'T' | 't'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_guard_is_found_soon_and_a_silent_one_later() {
        let mut watchdog = Watchdog::default();
        assert!(!watchdog.bites(true, || true));
        assert!(watchdog.bites(true, || true));
        let mut watchdog = Watchdog::default();
        let looks = (1..1000).find(|_| watchdog.bites(true, || false));
        assert_eq!(looks, Some(SILENT_LOOKS));
    }

    #[test]
    fn a_completed_cycle_starts_the_count_again() {
        let mut watchdog = Watchdog::default();
        for _ in 0..100 {
            assert!(!watchdog.bites(true, || true));
            watchdog.fed();
        }
    }

    #[test]
    fn a_guard_that_starts_is_given_time() {
        let mut watchdog = Watchdog::default();
        let looks = (1..1000).find(|_| watchdog.bites(false, || false));
        assert_eq!(looks, Some(STARTING_LOOKS));
    }
}
