//! When the log is written into the database by us: decided here, from its length alone, and done elsewhere.

use std::time::{Duration, Instant};

/// Between two times.
const EVERY: Duration = Duration::from_millis(500);
/// A log that is so many times as long as it should be is written to faster than it is copied.
const OUTRUN: u64 = 4;
/// So many times the pressure takes long to copy.
const FAR: u64 = 8;

#[derive(Debug)]
pub struct Pressure {
    bytes: u64,
    /// When it was written into the database last, and how long it was then.
    last: Instant,
    last_bytes: u64,
    /// A reader stood in it.
    is_stuck: bool,
    /// At the last look there was much to copy at once.
    is_far: bool,
}

impl Pressure {
    /// From a log of so many bytes on.
    pub fn new(bytes: u64, now: Instant) -> Self {
        Self { bytes, last: now, last_bytes: 0, is_stuck: false, is_far: false }
    }

    /// Of a log that is copied up to here. One that is in the database, and was not written to since, begins again by
    /// itself.
    pub fn is_due(&self, log_bytes: u64, now: Instant) -> bool {
        let has_moved = self.is_stuck || log_bytes != self.last_bytes;
        has_moved && log_bytes > self.bytes && now.duration_since(self.last) >= EVERY
    }

    /// Whether it is better done before more is copied: of somebody who writes faster than that, as much is added
    /// meanwhile. They are held soon and shortly, not late and for long. One large transaction is copied first, while
    /// nobody is held, and so is what stands behind a reader.
    pub fn is_outrun(&mut self, log_bytes: u64, copied_bytes: u64) -> bool {
        let is_far = log_bytes.saturating_sub(copied_bytes) > self.bytes.saturating_mul(FAR);
        let was_far = std::mem::replace(&mut self.is_far, is_far);
        let is_long = log_bytes != self.last_bytes && log_bytes > self.bytes.saturating_mul(OUTRUN);
        is_long && !self.is_stuck && (was_far || !is_far)
    }

    /// It was done; a reader stood in the way of all of it being in the database, unless `is_whole`.
    pub fn done(&mut self, log_bytes: u64, is_whole: bool, now: Instant) {
        (self.last, self.last_bytes, self.is_stuck) = (now, log_bytes, !is_whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 1000;

    fn pressure() -> (Pressure, Instant) {
        let now = Instant::now();
        (Pressure::new(BYTES, now), now)
    }

    #[test]
    fn a_log_that_is_too_long_is_due_twice_a_second_and_only_when_it_was_written_to() {
        let (mut pressure, now) = pressure();
        assert!(!pressure.is_due(BYTES + 1, now) && !pressure.is_due(BYTES, now + EVERY));
        assert!(pressure.is_due(BYTES + 1, now + EVERY));
        pressure.done(BYTES + 1, true, now + EVERY);
        assert!(!pressure.is_due(BYTES + 2, now + EVERY));
        assert!(!pressure.is_due(BYTES + 1, now + EVERY * 2) && pressure.is_due(BYTES + 2, now + EVERY * 2));
    }

    #[test]
    fn behind_a_reader_it_is_tried_again_without_a_word_and_without_haste() {
        let (mut pressure, now) = pressure();
        pressure.done(BYTES * 5, false, now);
        assert!(!pressure.is_due(BYTES * 5, now) && pressure.is_due(BYTES * 5, now + EVERY));
        assert!(!pressure.is_outrun(BYTES * 6, BYTES * 5));
        pressure.done(BYTES * 6, true, now);
        assert!(pressure.is_outrun(BYTES * 7, BYTES * 6));
    }

    #[test]
    fn somebody_who_outruns_the_copying_is_held_at_once() {
        let (mut pressure, now) = pressure();
        assert!(!pressure.is_outrun(BYTES * OUTRUN, 0));
        assert!(pressure.is_outrun(BYTES * OUTRUN + 1, 0));
        pressure.done(BYTES * OUTRUN + 1, true, now);
        assert!(!pressure.is_outrun(BYTES * OUTRUN + 1, BYTES * OUTRUN + 1), "it begins again by itself");
    }

    #[test]
    fn one_large_transaction_is_copied_while_nobody_is_held_and_only_once() {
        let (mut pressure, _) = pressure();
        assert!(!pressure.is_outrun(BYTES * 100, 0));
        assert!(pressure.is_outrun(BYTES * 200, BYTES * 100), "it was no single one");
        let (mut pressure, _) = self::pressure();
        assert!(!pressure.is_outrun(BYTES * 100, 0));
        assert!(pressure.is_outrun(BYTES * 101, BYTES * 100));
    }

    #[test]
    fn no_size_is_too_large() {
        let mut pressure = Pressure::new(u64::MAX, Instant::now());
        assert!(!pressure.is_outrun(u64::MAX, 0));
    }
}
