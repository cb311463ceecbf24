//! The driver's clock, as the head counts time: monotonic, so that a step of the wall clock moves no deadline.

use std::time::Duration;

use plimsoll_core::units::Instant;

#[derive(Debug)]
pub(super) struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    pub(super) fn now(&self) -> Instant {
        Instant(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn tokio(&self, at: Instant) -> tokio::time::Instant {
        self.start + Duration::from_nanos(at.0)
    }
}
