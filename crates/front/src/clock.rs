//! The front's own monotonic clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant as StdInstant;

use plimsoll_core::units::Instant;

/// Counts from its own start.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    start: StdInstant,
    /// Milliseconds as of the last look around, for what needs no better.
    coarse: Arc<AtomicU32>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: StdInstant::now(), coarse: Arc::new(AtomicU32::new(0)) }
    }

    pub(crate) fn now(&self) -> Instant {
        self.at(StdInstant::now())
    }

    pub(crate) fn at(&self, time: StdInstant) -> Instant {
        let passed = u64::try_from(time.duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        // Never zero, which the gate may take for a time before all others.
        Instant(passed.saturating_add(1))
    }

    pub(crate) fn coarse(&self) -> &Arc<AtomicU32> {
        &self.coarse
    }

    /// Sets the coarse time; wraps after seven weeks.
    pub(crate) fn look(&self) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it wraps, and differences are taken with wrapping"
        )]
        let millis = self.start.elapsed().as_millis() as u32;
        self.coarse.store(millis, Ordering::Relaxed);
    }
}
