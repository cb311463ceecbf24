//! The driver's clock, as the head counts time: monotonic, so that a step of the wall clock moves no deadline.

use std::time::Duration;

use plimsoll_core::units::Instant;
use rustix::time::{ClockId, clock_gettime};

#[derive(Debug)]
pub(super) struct Clock {
    start: tokio::time::Instant,
    /// Nanoseconds since boot at the start, so that deadlines go on over the end of a guard.
    base: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let base =
            u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0);
        Self { start: tokio::time::Instant::now(), base }
    }

    pub(super) fn now(&self) -> Instant {
        Instant(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(self.base))
    }

    pub(super) fn tokio(&self, at: Instant) -> tokio::time::Instant {
        self.start + Duration::from_nanos(at.0.saturating_sub(self.base))
    }
}
