//! The thread that copies transactions, and stands still for a moment when a snapshot is to be taken.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use crate::engine::{Engine, Pinned, pin_log};
use crate::error::{Error, Result};
use crate::names::Millis;
use crate::shared::Shared;
use crate::shipper::{Began, Pressed, Shipper, Ticked};
use crate::status::Mode;
use crate::table::Table;
use crate::tripwire::{Alarm, is_announced};

/// After a failure it is tried again, at first soon.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Between two times that the table of pages is saved.
const TABLE_EVERY: Duration = Duration::from_mins(1);

/// What the copier is asked for.
#[derive(Debug)]
pub enum Ask {
    Pin(SyncSender<Result<Pinned>>),
    /// A snapshot was taken; what its scan found.
    Scanned {
        table: Option<Table>,
        foreign_pages: usize,
    },
    /// Somebody says that something will change.
    Announce,
}

#[derive(Debug)]
pub struct Copier {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    shipper: Option<Shipper>,
    retry: Duration,
    not_before: Instant,
    announced: Option<Millis>,
    saved: Instant,
}

impl Copier {
    pub fn new(engine: Arc<Engine>, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        if !engine.config.is_continuous {
            shared.update(|status| {
                status.mode = Mode::Snapshots;
                status.why = Some("continuous is off in the configuration".to_owned());
            });
        }
        Self {
            engine,
            shared,
            shipper: None,
            retry: RETRY_FIRST,
            not_before: now,
            announced: None,
            saved: now,
        }
    }

    /// Until the vault ends.
    pub fn run(mut self, asks: &Receiver<Ask>) {
        let mut due = Instant::now();
        while !self.shared.is_ended() {
            match asks.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(ask) => self.answer(ask),
                Err(RecvTimeoutError::Timeout) => {
                    due = Instant::now() + self.engine.config.tick;
                    self.step();
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // What was committed just now goes along.
        self.not_before = Instant::now();
        self.step();
        self.detach();
    }

    fn step(&mut self) {
        if !self.engine.config.is_continuous || Instant::now() < self.not_before {
            return;
        }
        let stepped = match self.shipper.take() {
            None => self.attach().map(|shipper| self.shipper = Some(shipper)),
            Some(mut shipper) => {
                let began = Millis::now();
                let ticked = shipper.tick(&self.engine.state);
                self.shipper = Some(shipper);
                ticked.map(|ticked| self.ticked(ticked, began))
            }
        };
        match stepped {
            Ok(()) => {
                self.retry = RETRY_FIRST;
                self.shared.solved("vault_copying");
            }
            Err(error) => self.failed(&error),
        }
    }

    fn attach(&mut self) -> Result<Shipper> {
        if !self.engine.has_log()? {
            let why = "the database has no write-ahead log, so that only snapshots can be taken: PRAGMA journal_mode=WAL, once, changes that";
            self.shared.update(|status| {
                status.mode = Mode::Snapshots;
                status.why = Some(why.to_owned());
            });
            // It may get one.
            self.not_before = Instant::now() + RETRY_MAX;
            return Err(Error::Ended("no log"));
        }
        let (shipper, began) = self.engine.attach()?;
        match began {
            Began::Resumed | Began::Bridged { pages: 0 } => {}
            Began::Bridged { pages } => {
                let message = format!(
                    "something was missed while nobody copied; {pages} pages that differ were copied, as one transaction"
                );
                self.shared.say("vault_gap", "warning", message);
            }
            Began::Fresh => {
                self.shared.want_snapshot();
                self.shared.say("vault_began", "info", "a new epoch begins with a snapshot".to_owned());
            }
        }
        self.shared.update(|status| {
            status.mode = Mode::Continuous;
            status.why = None;
        });
        Ok(shipper)
    }

    /// All that was committed when it began is copied.
    fn ticked(&mut self, ticked: Ticked, now: Millis) {
        let Some(shipper) = &self.shipper else { return };
        let (position, log_bytes, one) = (shipper.position(), shipper.log_bytes(), shipper.page_one());
        let backlog = self.engine.outbox().backlog();
        self.shared.update(|status| {
            status.epoch = Some(position.epoch.to_string());
            status.tx = Some(position.tx.0);
            status.log_bytes = log_bytes;
            status.waiting_bytes = backlog.bytes;
            status.fresh_as_of = Some(backlog.oldest.unwrap_or(now));
            status.sqlite_version = one.version().map(|it| it.to_string());
            let held = ticked.pressed.map_or(Duration::ZERO, |it| it.held);
            let held_ms = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
            status.held_ms_max = status.held_ms_max.max(held_ms);
        });
        self.look_at_log(ticked.pressed, log_bytes);
        if self.saved.elapsed() >= TABLE_EVERY {
            self.saved = Instant::now();
            let _ = shipper.save_table(&self.engine.state);
        }
        let is_other_file = ticked
            .alarms
            .iter()
            .any(|it| matches!(it, Alarm::Replaced | Alarm::Gone | Alarm::Overwritten { .. }));
        for alarm in ticked.alarms {
            self.alarm(&alarm, now);
        }
        if is_other_file {
            self.detach();
            self.not_before = Instant::now() + self.retry;
        }
    }

    /// A reader that is open for long keeps the log from beginning again, whoever copies.
    fn look_at_log(&self, pressed: Option<Pressed>, log_bytes: u64) {
        let pressure = self.engine.config.pressure;
        if log_bytes <= pressure || pressed.is_some_and(|it| it.is_whole) {
            self.shared.solved("vault_reader");
        } else if pressed.is_some() && log_bytes > pressure * 2 {
            let who = self.shipper.as_ref().map(Shipper::other_readers).unwrap_or_default();
            let who = if who.is_empty() { "unknown".to_owned() } else { who.join(", ") };
            let message = format!(
                "the log has grown to {} MiB and cannot begin again while a reader stands in it; who reads now: {who}",
                log_bytes >> 20
            );
            self.shared.problem("vault_reader", "warning", message);
        }
    }

    fn alarm(&mut self, alarm: &Alarm, now: Millis) {
        let position = self.shipper.as_ref().map(Shipper::position);
        let good = position.map_or_else(String::new, |it| {
            format!("; the last point before it is transaction {}, at {}", it.tx, now.timestamp())
        });
        let severity = match (is_announced(self.announced, now), alarm.is_page()) {
            (true, _) => "info",
            (false, true) => "page",
            (false, false) => "warning",
        };
        self.shared.say(alarm.kind(), severity, format!("{}{good}", alarm.in_words()));
    }

    fn failed(&mut self, error: &Error) {
        self.detach();
        self.not_before = self.not_before.max(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(RETRY_MAX);
        if !matches!(error, Error::Ended(_)) {
            // Nobody is to see that it is stopped and not why.
            self.shared.problem("vault_copying", "warning", format!("nothing is copied: {error}"));
            self.shared.update(|status| status.mode = Mode::Stopped);
        }
    }

    /// Lets go of the database; what is known of its pages is kept.
    fn detach(&mut self) {
        if let Some(shipper) = self.shipper.take() {
            let _ = shipper.save_table(&self.engine.state);
        }
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Pin(reply) => {
                let pinned = self.pin();
                let _ = reply.try_send(pinned);
            }
            Ask::Scanned { table, foreign_pages } => self.scanned(table, foreign_pages),
            Ask::Announce => self.announced = Some(Millis::now()),
        }
    }

    fn pin(&mut self) -> Result<Pinned> {
        if !self.engine.has_log()? {
            return self.engine.pin_whole();
        }
        let mut shipper = match self.shipper.take() {
            Some(shipper) => shipper,
            None if self.engine.config.is_continuous => self.attach()?,
            None => self.engine.attach()?.0,
        };
        let pinned = pin_log(&self.engine, &mut shipper);
        self.shipper = Some(shipper);
        pinned
    }

    fn scanned(&mut self, table: Option<Table>, foreign_pages: usize) {
        if let Some(shipper) = &mut self.shipper {
            if let Some(table) = table {
                shipper.adopt(table);
            }
            shipper.rebase();
            let _ = shipper.save_table(&self.engine.state);
        }
        if foreign_pages > 0 {
            self.alarm(&Alarm::Overwritten { pages: foreign_pages }, Millis::now());
            // What differs is copied when it begins again.
            let _ = self.engine.state.head.forget();
            self.detach();
        }
        if !self.engine.config.is_continuous {
            self.detach();
        }
    }
}
