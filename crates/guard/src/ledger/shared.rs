//! What the handle and the ledger's thread share. The lock is held for a few moves in memory, never over a system call.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::broadcast;

use super::health::LedgerHealth;
use super::numbers::Numbers;
use super::pending::Pending;
use super::rollup::Rollups;
use crate::records::{EventRecord, IncidentRecord, SampleRow};

/// Questions that wait for the thread; more are answered from memory.
const QUESTIONS_MAX: usize = 64;
/// Events that a slow follower may lie behind before it is told that it missed some.
const LIVE_EVENTS_MAX: usize = 256;

/// Asks the database something and sends the answer itself. Dropped unasked when there is no database to ask.
pub(super) type Question = Box<dyn FnOnce(&Connection) -> rusqlite::Result<()> + Send>;

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// For the thread: there is work.
    work: Condvar,
    /// For whoever waits for the thread.
    done: Condvar,
    live: broadcast::Sender<EventRecord>,
}

pub(super) struct State {
    pub(super) pending: Pending,
    pub(super) numbers: Numbers,
    rollups: Rollups,
    questions: VecDeque<Question>,
    pub(super) health: LedgerHealth,
    /// A batch is with the thread.
    writing: bool,
    life: Life,
}

/// How far the thread is in its life; it only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Life {
    /// The first attempt to open the file is under way.
    Opening,
    Open,
    /// Told to end.
    Closing,
    Closed,
}

impl std::fmt::Debug for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("State").field("health", &self.health).finish_non_exhaustive()
    }
}

/// What the thread takes to do.
pub(super) struct Work {
    pub(super) batch: Pending,
    pub(super) numbers: Numbers,
    pub(super) questions: VecDeque<Question>,
    pub(super) closing: bool,
}

impl Shared {
    pub(super) fn new(now: Timestamp) -> Self {
        let state = State {
            pending: Pending::default(),
            numbers: Numbers::from_time(now),
            rollups: Rollups::default(),
            questions: VecDeque::new(),
            health: LedgerHealth::default(),
            writing: false,
            life: Life::Opening,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
            live: broadcast::Sender::new(LIVE_EVENTS_MAX),
        }
    }

    /// A panic elsewhere leaves plain data behind: it is used on.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<EventRecord> {
        self.live.subscribe()
    }

    pub(super) fn event(&self, event: EventRecord) {
        // Nobody may be listening.
        let _ = self.live.send(event.clone());
        let mut state = self.lock();
        let dropped = state.pending.event(event);
        state.health.dropped += dropped;
        self.work.notify_one();
    }

    pub(super) fn incident(&self, incident: IncidentRecord) {
        let mut state = self.lock();
        state.numbers.incident = state.numbers.incident.max(incident.id.saturating_add(1));
        state.pending.numbers = true;
        let dropped = state.pending.incident(incident);
        state.health.dropped += dropped;
        self.work.notify_one();
    }

    /// Does not wake the thread: minutes are written when they are over.
    pub(super) fn sample(&self, instance: &str, row: &SampleRow) {
        let mut state = self.lock();
        let minute = state.rollups.add(instance, row);
        let dropped = state.pending.minutes(minute);
        state.health.dropped += dropped;
    }

    pub(super) fn note_instance(&self, service: &str, number: u64) {
        let mut state = self.lock();
        if state.numbers.raise_instance(service, number.saturating_add(1)) {
            state.pending.numbers = true;
            self.work.notify_one();
        }
    }

    /// False when too many are waiting.
    pub(super) fn ask(&self, question: Question) -> bool {
        let mut state = self.lock();
        if state.life == Life::Closed || state.questions.len() >= QUESTIONS_MAX {
            return false;
        }
        state.questions.push_back(question);
        self.work.notify_one();
        true
    }

    /// Waits until `is_done` or the time is up; says which.
    pub(super) fn wait_until(&self, within: Duration, is_done: impl Fn(&State) -> bool) -> bool {
        let state = self.lock();
        let (state, _) = self
            .done
            .wait_timeout_while(state, within, |state| !is_done(state))
            .unwrap_or_else(PoisonError::into_inner);
        is_done(&state)
    }

    pub(super) fn close(&self) {
        self.lock().reach(Life::Closing);
        self.work.notify_one();
    }

    /// For the thread: waits for work until `until`. What is to be written is taken only with `can_write`, or at the end.
    pub(super) fn take(&self, until: Instant, can_write: bool) -> Work {
        let mut state = self.lock();
        loop {
            let urgent = can_write && state.pending.is_urgent();
            let left = until.saturating_duration_since(Instant::now());
            if urgent || state.life >= Life::Closing || !state.questions.is_empty() || left.is_zero() {
                break;
            }
            (state, _) = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        let closing = state.life >= Life::Closing;
        if closing {
            let minutes = state.rollups.take_all();
            let dropped = state.pending.minutes(minutes);
            state.health.dropped += dropped;
        }
        let takes = can_write || closing;
        let batch = if takes { std::mem::take(&mut state.pending) } else { Pending::default() };
        state.writing = !batch.is_empty();
        Work {
            batch,
            numbers: state.numbers.clone(),
            questions: std::mem::take(&mut state.questions),
            closing,
        }
    }

    /// For the thread: the minutes that are over are to be written now.
    pub(super) fn end_minutes(&self, now: Timestamp) {
        let mut state = self.lock();
        let minutes = state.rollups.take_before(now.as_second());
        let dropped = state.pending.minutes(minutes);
        state.health.dropped += dropped;
    }

    /// For the thread: changes the state and tells whoever waits.
    pub(super) fn finish(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.done.notify_all();
    }
}

impl State {
    /// Minutes of measurements apart, which are not waited for.
    pub(super) fn is_written(&self) -> bool {
        !self.pending.is_urgent() && !self.writing
    }

    pub(super) fn is_opened(&self) -> bool {
        self.life > Life::Opening
    }

    pub(super) fn is_closed(&self) -> bool {
        self.life == Life::Closed
    }

    pub(super) fn reach(&mut self, life: Life) {
        self.life = self.life.max(life);
    }

    pub(super) fn written(&mut self) {
        self.writing = false;
    }

    pub(super) fn put_back(&mut self, batch: Pending) {
        self.writing = false;
        let dropped = self.pending.put_back(batch);
        self.health.dropped += dropped;
    }

    /// Questions that are still there are dropped, which tells who asks that nobody answers.
    pub(super) fn end(&mut self) {
        self.reach(Life::Closed);
        self.questions.clear();
    }
}
