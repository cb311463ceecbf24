//! The ledger's thread: the only one that touches the disk, so that only it waits for it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::error::LedgerError;
use super::numbers::Numbers;
use super::pending::Pending;
use super::prune;
use super::shared::{Life, Question, Shared, State};
use super::store::{self, Store};
use crate::records::EventRecord;

/// How long a failed ledger is left alone: first, and at most.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);
/// How often what is over is summed up and what is old is thrown away.
const TEND_EVERY: Duration = Duration::from_mins(1);
/// The same while a table has too many rows.
const TEND_SOON: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    shared: Arc<Shared>,
    path: PathBuf,
    store: Option<Store>,
    /// Set while the ledger fails.
    failure: Option<Failure>,
    tend_at: Instant,
}

struct Failure {
    retry_at: Instant,
    delay: Duration,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, path: PathBuf) -> Self {
        Self { shared, path, store: None, failure: None, tend_at: Instant::now() + TEND_EVERY }
    }

    /// Works until told to close. A bug in here costs the batch that it struck at, and the guard nothing.
    pub(super) fn run(mut self) {
        self.unless_bug(Self::begin);
        self.shared.finish(|state| state.reach(Life::Open));
        while self.unless_bug(Self::step) != Some(true) {}
        drop(self.store.take());
        self.shared.finish(State::end);
    }

    fn unless_bug<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let acted = catch_unwind(AssertUnwindSafe(|| act(self))).ok();
        if acted.is_none() {
            self.store = None;
            self.fail("the ledger's thread failed by a bug of its own", Pending::default());
        }
        acted
    }

    fn begin(&mut self) {
        let opened = self.open();
        let numbers = match &opened {
            Ok(numbers) => Some(numbers.clone()),
            Err(_) => store::salvage_numbers(&self.path),
        };
        self.shared.finish(|state| {
            match numbers {
                // Somebody did not wait for us and was given numbers from the time.
                Some(numbers) if state.pending.numbers => state.numbers.raise(&numbers),
                Some(numbers) => state.numbers = numbers,
                None => {}
            }
            // Shows at once whether the disk takes anything.
            state.pending.numbers = true;
        });
        if let Err(error) = opened {
            self.failed(&error, Pending::default());
        }
    }

    /// Opens the ledger; a broken one is set aside and a new one begun.
    fn open(&mut self) -> Result<Numbers, LedgerError> {
        match self.open_as_is() {
            Err(error) if error.is_corrupt() => self.begin_anew(&error),
            other => other,
        }
    }

    fn open_as_is(&mut self) -> Result<Numbers, LedgerError> {
        let store = Store::open(&self.path)?;
        let numbers = store.numbers()?;
        self.store = Some(store);
        Ok(numbers)
    }

    fn begin_anew(&mut self, error: &LedgerError) -> Result<Numbers, LedgerError> {
        self.store = None;
        let known = store::salvage_numbers(&self.path);
        let aside = store::set_aside(&self.path, Timestamp::now())?;
        let mut numbers = self.open_as_is()?;
        numbers.raise(&known.unwrap_or_else(|| Numbers::from_time(Timestamp::now())));
        let message = format!("{error}; it was set aside as {} and a new one begun", aside.display());
        self.shared.finish(|state| {
            // Until a first write has shown that the new one works.
            state.health.ok = false;
            state.health.message.clone_from(&message);
        });
        self.tell("ledger_set_aside", "warning", &message);
        Ok(numbers)
    }

    /// Returns whether it was the last one.
    fn step(&mut self) -> bool {
        let now = Instant::now();
        let can_write = self.failure.as_ref().is_none_or(|failure| now >= failure.retry_at);
        let due = self.failure.as_ref().map_or(self.tend_at, |failure| self.tend_at.min(failure.retry_at));
        let is_tending = now >= self.tend_at;
        if is_tending {
            self.shared.end_minutes(Timestamp::now());
        }
        let work = self.shared.take(if is_tending { now } else { due }, can_write);
        if can_write || work.closing {
            self.write(work.batch, &work.numbers);
        }
        self.answer(work.questions);
        if is_tending {
            self.tend();
        }
        work.closing
    }

    fn write(&mut self, mut batch: Pending, numbers: &Numbers) {
        // While it fails there is always something to try it with.
        batch.numbers |= self.failure.is_some();
        if batch.is_empty() {
            return;
        }
        match self.try_write(&batch, numbers) {
            Ok(()) => self.written(),
            Err(error) => self.failed(&error, batch),
        }
    }

    fn try_write(&mut self, batch: &Pending, numbers: &Numbers) -> Result<(), LedgerError> {
        if self.store.is_none() {
            let found = self.open()?;
            self.shared.finish(|state| state.numbers.raise(&found));
        }
        match &mut self.store {
            Some(store) => store.write(batch, numbers),
            None => Err(LedgerError::Missing { path: self.path.clone() }),
        }
    }

    fn written(&mut self) {
        self.shared.finish(|state| {
            state.written();
            state.health.ok = true;
            state.health.message.clear();
        });
        if self.failure.take().is_some() {
            let dropped = self.shared.lock().health.dropped;
            let message =
                format!("the ledger is written again; {dropped} records were lost since the guard started");
            self.tell("ledger_recovered", "info", &message);
        }
    }

    fn failed(&mut self, error: &LedgerError, batch: Pending) {
        if error.is_corrupt() && self.store.is_some() && self.failure.is_none() {
            // It broke while it was open: begin anew at once, and write there.
            match self.begin_anew(error) {
                Ok(numbers) => {
                    self.shared.finish(|state| {
                        state.numbers.raise(&numbers);
                        state.put_back(batch);
                    });
                }
                Err(error) => self.fail(&error.to_string(), batch),
            }
            return;
        }
        // A full disk can still be read.
        if !error.is_full() {
            self.store = None;
        }
        self.fail(&error.to_string(), batch);
    }

    fn fail(&mut self, why: &str, batch: Pending) {
        let before = self.failure.as_ref().map(|failure| failure.delay);
        let delay = before.map_or(RETRY_FIRST, |delay| (delay * 2).min(RETRY_MAX));
        self.failure = Some(Failure { retry_at: Instant::now() + delay, delay });
        let message = format!(
            "{why}; guarding goes on, events and incidents are kept in memory until it can be written"
        );
        self.shared.finish(|state| {
            state.put_back(batch);
            state.health.ok = false;
            state.health.message.clone_from(&message);
        });
        if before.is_none() {
            self.tell("ledger_failed", "warning", &message);
        }
    }

    fn answer(&mut self, questions: VecDeque<Question>) {
        for question in questions {
            let Some(store) = &self.store else { return };
            if let Err(source) = question(&store.connection) {
                let error = LedgerError::sqlite("read", &self.path, source);
                if error.is_corrupt() {
                    self.failed(&error, Pending::default());
                }
            }
        }
    }

    fn tend(&mut self) {
        let now = Timestamp::now();
        let mut every = TEND_EVERY;
        if let (Some(store), None) = (&self.store, &self.failure) {
            let tended = prune::sum_up_hours(&store.connection, now)
                .and_then(|()| prune::step(&store.connection, now));
            match tended {
                Ok(more) => every = if more { TEND_SOON } else { TEND_EVERY },
                Err(source) => {
                    let error = LedgerError::sqlite("tend", &self.path, source);
                    self.failed(&error, Pending::default());
                }
            }
        }
        self.tend_at = Instant::now() + every;
    }

    /// An event of the ledger's own: also what becomes of it should be on record.
    fn tell(&self, kind: &str, severity: &str, message: &str) {
        let mut detail = Map::new();
        detail.insert("message".to_owned(), Value::from(message));
        detail.insert("severity".to_owned(), Value::from(severity));
        self.shared.event(EventRecord {
            time: Timestamp::now(),
            service: "guard".to_owned(),
            instance: None,
            kind: kind.to_owned(),
            layer: None,
            cause: None,
            detail,
        });
    }
}
