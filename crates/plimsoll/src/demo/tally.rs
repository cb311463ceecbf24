//! What became of the requests, counted per window. A window reaches from one fault to the next; the first one is
//! before any fault.

use std::time::{Duration, Instant};

/// Latencies kept: more than two minutes of traffic.
const LATENCIES_MAX: usize = 8192;
/// Width of a bucket of the rate, and how many are kept.
pub(super) const BUCKET: Duration = Duration::from_millis(500);
const BUCKETS_MAX: usize = 512;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) sent: u64,
    pub(super) failed: u64,
    /// Of an unknown outcome, and said to be.
    pub(super) unsure: u64,
    /// Longest time without an answered request.
    pub(super) dark: Duration,
}

/// Requests that ended in one bucket of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) answered: u64,
    pub(super) failed: u64,
}

#[derive(Debug)]
pub(super) struct Tally {
    began: Instant,
    windows: Vec<Window>,
    last_answer: Option<Instant>,
    /// Requests answered in a row, none failing between.
    streak: u32,
    latencies: Vec<Duration>,
    buckets: Vec<Bucket>,
}

/// The window that a request was sent in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket(usize);

impl Tally {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            windows: vec![Window::default()],
            last_answer: None,
            streak: 0,
            latencies: Vec::new(),
            buckets: Vec::new(),
        }
    }

    /// The window before is over: whoever wants to know more of it asked.
    pub(super) fn open_window(&mut self) {
        self.windows.push(Window::default());
        self.break_streak();
    }

    pub(super) fn sent(&mut self) -> Ticket {
        let last = self.windows.len() - 1;
        self.windows[last].sent += 1;
        Ticket(last)
    }

    /// `intended` is when the request was to be sent, whether or not somebody was there to take it.
    pub(super) fn answered(&mut self, _ticket: Ticket, intended: Instant, now: Instant) {
        self.note_silence(now);
        self.last_answer = Some(now);
        self.streak = self.streak.saturating_add(1);
        if self.latencies.len() < LATENCIES_MAX {
            self.latencies.push(now.saturating_duration_since(intended));
        }
        self.bucket(now, |bucket| bucket.answered += 1);
    }

    pub(super) fn failed(&mut self, ticket: Ticket, now: Instant) {
        self.windows[ticket.0].failed += 1;
        self.streak = 0;
        self.bucket(now, |bucket| bucket.failed += 1);
    }

    /// An honest word, and no answer.
    pub(super) fn unsure(&mut self, ticket: Ticket, now: Instant) {
        self.windows[ticket.0].unsure += 1;
        self.streak = 0;
        self.bucket(now, |bucket| bucket.failed += 1);
    }

    /// Counts the silence that lasts until now to the present window.
    pub(super) fn note_silence(&mut self, now: Instant) {
        let Some(last_answer) = self.last_answer else { return };
        let silence = now.saturating_duration_since(last_answer);
        if let Some(window) = self.windows.last_mut() {
            window.dark = window.dark.max(silence);
        }
    }

    /// What was answered so far does not count any more.
    pub(super) fn break_streak(&mut self) {
        self.streak = 0;
    }

    pub(super) fn streak(&self) -> u32 {
        self.streak
    }

    /// The window before any fault is number 0.
    pub(super) fn window(&self, number: usize) -> Window {
        self.windows.get(number).copied().unwrap_or_default()
    }

    pub(super) fn total(&self) -> Window {
        self.windows.iter().fold(Window::default(), |sum, window| Window {
            sent: sum.sent + window.sent,
            failed: sum.failed + window.failed,
            unsure: sum.unsure + window.unsure,
            dark: sum.dark.max(window.dark),
        })
    }

    /// The latency within which so many of a hundred answered requests were answered.
    pub(super) fn latency(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied()
    }

    /// Oldest first, up to now; the last one is not full yet.
    pub(super) fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    fn bucket(&mut self, now: Instant, count: impl FnOnce(&mut Bucket)) {
        let index = now.saturating_duration_since(self.began).as_millis() / BUCKET.as_millis();
        let index = usize::try_from(index).unwrap_or(usize::MAX).min(BUCKETS_MAX - 1);
        if self.buckets.len() <= index {
            self.buckets.resize(index + 1, Bucket::default());
        }
        count(&mut self.buckets[index]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_request_counts_to_the_window_it_was_sent_in() {
        let now = Instant::now();
        let mut tally = Tally::new(now);
        let early = tally.sent();
        tally.open_window();
        let late = tally.sent();
        tally.failed(early, now);
        tally.answered(late, now, now + MS);
        assert_eq!((tally.window(0).sent, tally.window(0).failed), (1, 1));
        assert_eq!((tally.window(1).sent, tally.window(1).failed), (1, 0));
    }

    #[test]
    fn dark_is_the_longest_time_without_an_answer_even_when_it_has_not_ended() {
        let now = Instant::now();
        let mut tally = Tally::new(now);
        for millis in [0, 20, 320, 340] {
            let ticket = tally.sent();
            tally.answered(ticket, now, now + MS * millis);
        }
        assert_eq!(tally.window(0).dark, MS * 300);
        tally.open_window();
        tally.note_silence(now + MS * 940);
        assert_eq!(tally.window(1).dark, MS * 600);
        assert_eq!(tally.total().dark, MS * 600);
    }

    #[test]
    fn latency_counts_from_the_intended_send_time() {
        let now = Instant::now();
        let mut tally = Tally::new(now);
        assert_eq!(tally.latency(50), None);
        for millis in 1..=100 {
            let ticket = tally.sent();
            tally.answered(ticket, now, now + MS * millis);
        }
        assert_eq!(tally.latency(50), Some(MS * 50));
        assert_eq!(tally.latency(99), Some(MS * 99));
    }

    #[test]
    fn a_failure_ends_the_streak() {
        let now = Instant::now();
        let mut tally = Tally::new(now);
        let [first, second] = [tally.sent(), tally.sent()];
        tally.answered(first, now, now);
        assert_eq!(tally.streak(), 1);
        tally.failed(second, now);
        assert_eq!(tally.streak(), 0);
        assert_eq!(tally.buckets(), [Bucket { answered: 1, failed: 1 }]);
    }
}
