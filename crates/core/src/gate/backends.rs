//! The instances of one service as the front sees them: who may have the next request, who fails, who stalls.

use core::time::Duration;

use crate::ids::InstanceId;
use crate::planted::{Plant, Planted};
use crate::units::Instant;

/// A fresh instance gets this many of those that waited at once, and one more with each that it answers.
const WINDOW_FIRST: u32 = 8;
/// A window this wide is no window any more.
const WINDOW_WIDE: u32 = 1024;
/// Where nothing is answered, the window still grows this often, by what it began with: a slow answer is an answer.
const WINDOW_GROWS: Duration = Duration::from_millis(500);
/// An instance that refuses a connection is left alone this long, then twice as long, up to the last.
const COOL_FIRST: Duration = Duration::from_millis(50);
const COOL_MAX: Duration = Duration::from_secs(5);
/// So many failures in a row, with others to turn to, and it is left out for a while.
const STRIKES: u32 = 3;
const EJECT_FIRST: Duration = Duration::from_secs(1);
const EJECT_MAX: Duration = Duration::from_secs(30);
/// Streams of an instance that drains are closed this much before its time is over, so that it sees them end.
const STREAMS_BEFORE: Duration = Duration::from_millis(250);
/// While others wait for its successor, streams get this long once they are all that is left.
pub(super) const STREAMS_YIELD: Duration = Duration::from_secs(1);

/// How far a request had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sent, or being sent; no answer yet.
    Waiting,
    /// The response's head had come.
    Answering,
    /// It had become a stream.
    Streaming,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole response came.
    Served,
    /// No connection could be had; nothing was sent.
    Unreachable,
    /// The connection ended before the response did.
    Lost,
    /// The answer did not come in its time.
    TimedOut,
    /// The client left, or the request was given up for a reason of its own.
    Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Open,
    /// No new ones; since when, and when its streams are closed (once).
    Draining {
        since: Instant,
        close_streams: Option<Instant>,
    },
}

/// How many requests a fresh instance may have at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    size: u32,
    grows: Instant,
}

/// No requests until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pause {
    until: Instant,
    /// For failing rather than for refusing connections: it could serve, if nobody else can.
    ejected: bool,
}

#[derive(Debug)]
pub(super) struct Backend {
    pub(super) id: InstanceId,
    stand: Stand,
    pub(super) in_flight: u32,
    /// Of those, the ones without an answer yet.
    waiting: u32,
    pub(super) streams: u32,
    window: Option<Window>,
    /// Requests wait there and nothing comes: how many it may have at once, until something does. If it hangs, all that
    /// it gets is lost; if it is only slow, one more will show it.
    stalled: Option<Window>,
    /// Failures in a row.
    strikes: u32,
    pauses: u32,
    pause: Option<Pause>,
    /// The last sign of life, or the beginning of the oldest wait since.
    progress: Instant,
}

impl Backend {
    pub(super) fn new(now: Instant, id: InstanceId) -> Self {
        Self {
            id,
            stand: Stand::Open,
            in_flight: 0,
            waiting: 0,
            streams: 0,
            window: None,
            stalled: None,
            strikes: 0,
            pauses: 0,
            pause: None,
            progress: now,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stand == Stand::Open
    }

    /// Admitted again after a withdrawal.
    pub(super) fn open(&mut self) {
        self.stand = Stand::Open;
        self.pause = None;
        self.pauses = 0;
        self.strikes = 0;
    }

    /// A crowd waits: it is let through at the rate that this instance stands, from `at` on.
    fn narrow(&mut self, at: Instant, size: u32) {
        self.window = Some(Window { size, grows: at + WINDOW_GROWS });
    }

    pub(super) fn narrow_for_a_crowd(&mut self, now: Instant) {
        self.narrow(now, WINDOW_FIRST);
    }

    pub(super) fn drain(&mut self, now: Instant, drain: Duration) {
        if self.is_open() {
            let close = now + drain.saturating_sub(STREAMS_BEFORE);
            self.stand = Stand::Draining { since: now, close_streams: Some(close) };
        }
    }

    /// Whether one more may go to it.
    pub(super) fn has_room(&self, now: Instant, in_flight_max: u32) -> bool {
        let windows = [self.window, self.stalled].into_iter().flatten();
        let allowed = windows.map(|window| window.size).fold(in_flight_max, u32::min);
        // With none at all nothing would ever move again.
        self.is_open() && self.busy() < allowed.max(1) && !self.is_paused(now)
    }

    /// A stream is a connection and hardly any work: it takes no place from those that want an answer.
    fn busy(&self) -> u32 {
        self.in_flight.saturating_sub(self.streams)
    }

    /// What it carries; less is better.
    pub(super) fn load(&self) -> (u32, u32) {
        (self.busy(), self.streams)
    }

    /// One more goes to it.
    pub(super) fn take(&mut self, now: Instant) {
        self.in_flight += 1;
        self.waiting += 1;
        if self.waiting == 1 {
            self.progress = now;
        }
    }

    /// Whether it had stalled until now.
    pub(super) fn answered(&mut self, now: Instant) -> bool {
        self.waiting = self.waiting.saturating_sub(1);
        self.progresses(now)
    }

    fn progresses(&mut self, now: Instant) -> bool {
        self.progress = now;
        let had_stalled = self.stalled.take().is_some();
        if had_stalled && self.window.is_none() {
            // Whoever was kept back meanwhile is a crowd.
            self.narrow(now, self.busy() + WINDOW_FIRST);
        }
        had_stalled
    }

    pub(super) fn streams(&mut self, now: Instant) {
        self.streams += 1;
        // The others were closed already, and this one has come too late to last.
        if let Stand::Draining { close_streams: close @ None, .. } = &mut self.stand {
            *close = Some(now);
        }
    }

    pub(super) fn done(&mut self, now: Instant, phase: Phase, outcome: Outcome) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match phase {
            Phase::Waiting => self.waiting = self.waiting.saturating_sub(1),
            Phase::Answering => {}
            Phase::Streaming => self.streams = self.streams.saturating_sub(1),
        }
        match outcome {
            Outcome::Served => self.served(now),
            Outcome::Unreachable | Outcome::Lost | Outcome::TimedOut => self.strikes += 1,
            Outcome::Left => {}
        }
    }

    fn served(&mut self, now: Instant) {
        self.progresses(now);
        self.strikes = 0;
        self.pauses = 0;
        if let Some(window) = &mut self.window {
            window.size += 1;
        }
        self.drop_wide_window();
    }

    fn drop_wide_window(&mut self) {
        self.window = self.window.filter(|window| window.size < WINDOW_WIDE);
    }

    /// Nobody waits, and the window was never met: it has done its work.
    pub(super) fn widen_when_calm(&mut self) {
        if self.window.is_some_and(|window| self.in_flight * 2 < window.size) {
            self.window = None;
        }
    }

    /// As if no crowd had waited: a mistake, for the simulator's own test.
    pub(super) fn forget_window(&mut self) {
        self.window = None;
    }

    /// It refused a connection: nobody is sent there for a moment, and then one request finds out.
    pub(super) fn cool(&mut self, now: Instant) {
        if !self.is_paused(now) {
            let pause = COOL_FIRST.saturating_mul(1 << self.pauses.min(16)).min(COOL_MAX);
            self.pauses += 1;
            self.pause = Some(Pause { until: now + pause, ejected: false });
            self.narrow(now + pause, 1);
        }
    }

    /// Left out for a while, if it has failed too often in a row.
    pub(super) fn eject(&mut self, now: Instant) -> Option<Duration> {
        if self.strikes < STRIKES {
            return None;
        }
        let pause = EJECT_FIRST.saturating_mul(1 << self.pauses.min(16)).min(EJECT_MAX);
        self.strikes = 0;
        self.pauses += 1;
        self.pause = Some(Pause { until: now + pause, ejected: true });
        self.narrow(now + pause, 1);
        Some(pause)
    }

    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.pause.is_some_and(|pause| pause.until > now)
    }

    /// It is the last one: better it than nobody, one request at a time.
    pub(super) fn take_back(&mut self) {
        self.pause = self.pause.filter(|pause| !pause.ejected);
    }

    /// Requests wait there and nothing came for `hang`. Told once for each `hang`.
    pub(super) fn stalls(&mut self, now: Instant, hang: Duration) -> bool {
        let stalled = self.stall_due(hang).is_some_and(|at| at <= now);
        if stalled {
            self.progress = now;
            let first = Window { size: self.busy() + 1, grows: now + WINDOW_GROWS };
            self.stalled.get_or_insert(first);
        }
        stalled
    }

    /// One that drains has its deadline already, and is not asked any more.
    fn stall_due(&self, hang: Duration) -> Option<Instant> {
        (self.is_open() && self.waiting > 0).then(|| self.progress + hang)
    }

    /// Whether its streams are to be closed now: their time is over, or others wait and they are all that is left.
    pub(super) fn closes_streams(&mut self, now: Instant, crowd: bool) -> bool {
        let Some(due) = self.streams_due(crowd) else { return false };
        if due > now {
            return false;
        }
        if let Stand::Draining { close_streams, .. } = &mut self.stand {
            *close_streams = None;
        }
        true
    }

    fn streams_due(&self, crowd: bool) -> Option<Instant> {
        let Stand::Draining { since, close_streams: Some(close) } = self.stand else { return None };
        let alone = self.streams > 0 && self.streams >= self.in_flight;
        (self.streams > 0).then(|| if crowd && alone { close.min(since + STREAMS_YIELD) } else { close })
    }

    /// What time alone changes: a pause that is over, and the window's own growth.
    pub(super) fn grow(&mut self, now: Instant) {
        self.pause = self.pause.filter(|pause| pause.until > now);
        if let Some(window) = &mut self.window
            && window.grows <= now
        {
            window.size += WINDOW_FIRST;
            window.grows = now + WINDOW_GROWS;
        }
        if let Some(window) = &mut self.stalled
            && window.grows <= now
        {
            window.size += 1;
            window.grows = now + WINDOW_GROWS;
        }
        self.drop_wide_window();
    }

    pub(super) fn next_deadline(&self, hang: Duration, crowd: bool, plant: Plant) -> Option<Instant> {
        if plant.has(Planted::DrainingStalls) && !self.is_open() && self.waiting > 0 {
            return Some(self.progress + hang);
        }
        let awaited = crowd && self.is_open();
        let window = [self.window, self.stalled].into_iter().flatten().map(|window| window.grows).min();
        let window = window.filter(|_| awaited);
        let pause = self.pause.filter(|_| awaited).map(|pause| pause.until);
        [self.stall_due(hang), window, pause, self.streams_due(crowd)].into_iter().flatten().min()
    }
}
