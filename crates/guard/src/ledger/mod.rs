//! The ledger: what happened, kept in SQLite in the state folder. Nothing that guards ever waits for it.
//!
//! One thread owns the file. Whoever tells the ledger something leaves it in memory and goes on; whoever asks waits for
//! the thread, for a moment at most. While the file cannot be written, because the disk is full, the folder read-only
//! or the file broken, the same memory serves, bounded and counting what it loses; [`LedgerHandle::health`] says so,
//! and what is still there is written when it can be. It does not know what an event means and decides nothing.

mod error;
mod health;
mod numbers;
mod pending;
mod prune;
mod read;
mod rollup;
mod schema;
mod shared;
mod store;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::broadcast;

pub use error::LedgerError;
pub use health::LedgerHealth;
pub use read::{ROWS_MAX, Reader, Span, read_only};

use crate::records::{EventRecord, IncidentRecord, SampleRollup, SampleRow};
use shared::Shared;
use writer::Writer;

/// The ledger's file in the state folder.
pub const FILE_NAME: &str = "ledger.db";
/// At the start the numbers are waited for this long; on a disk that is slower they come from the time.
const OPEN_WAIT: Duration = Duration::from_secs(3);
/// A question waits this long for the thread; then it is answered from memory alone.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// The guard's way to the ledger. Cheap to clone; the ledger closes when the last clone is gone.
#[derive(Clone, Debug)]
pub struct LedgerHandle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl LedgerHandle {
    /// Opens `ledger.db` in the state folder, or begins it. Always gives a ledger: whether it reaches the disk,
    /// [`LedgerHandle::health`] says. Waits three seconds at most.
    pub fn open(state_dir: &Path) -> Self {
        Self::open_within(state_dir, OPEN_WAIT)
    }

    /// The same for somebody who knows the numbers already and is waited for.
    pub fn open_within(state_dir: &Path, wait: Duration) -> Self {
        let shared = Arc::new(Shared::new(Timestamp::now()));
        let writer = Writer::new(Arc::clone(&shared), state_dir.join(FILE_NAME));
        let spawned = std::thread::Builder::new().name("plimsoll-ledger".to_owned()).spawn(|| writer.run());
        match spawned {
            Ok(_) => _ = shared.wait_until(wait, shared::State::is_opened),
            Err(error) => shared.finish(|state| {
                state.health.ok = false;
                state.health.message =
                    format!("the ledger has no thread ({error}): only memory keeps what happens");
                state.end();
            }),
        }
        Self { inner: Arc::new(Inner { shared }) }
    }

    /// Memory alone, and why.
    pub fn without_disk(why: &str) -> Self {
        let shared = Arc::new(Shared::new(Timestamp::now()));
        shared.finish(|state| {
            state.health.ok = false;
            why.clone_into(&mut state.health.message);
            state.end();
        });
        Self { inner: Arc::new(Inner { shared }) }
    }

    /// Puts an event on record and gives it to every subscriber. Never waits, never fails.
    pub fn event(&self, event: EventRecord) {
        self.inner.shared.event(event);
    }

    /// Puts an incident on record, or what has become of it: the last one with the same number stands, and evidence
    /// stays when a later one has none. Never waits, never fails.
    pub fn incident(&self, incident: IncidentRecord) {
        self.inner.shared.incident(incident);
    }

    /// Adds one measurement to the instance's minute. Never waits, never fails.
    pub fn sample(&self, instance: &str, row: &SampleRow) {
        self.inner.shared.sample(instance, row);
    }

    /// The number for the next incident; it grows as incidents are put on record.
    pub fn next_incident_id(&self) -> u64 {
        self.inner.shared.lock().numbers.incident
    }

    /// The number for a service's next instance; it grows as they are noted.
    pub fn next_instance(&self, service: &str) -> u64 {
        self.inner.shared.lock().numbers.next_instance(service)
    }

    /// Remembers that a number was given, so that it is never given again.
    pub fn note_instance(&self, service: &str, number: u64) {
        self.inner.shared.note_instance(service, number);
    }

    pub fn health(&self) -> LedgerHealth {
        self.inner.shared.lock().health.clone()
    }

    /// Every event from now on. Who lies 256 behind is told how many were missed.
    pub fn subscribe(&self) -> broadcast::Receiver<EventRecord> {
        self.inner.shared.subscribe()
    }

    /// Waits until every event and incident that was put on record is on the disk; false when that did not come about in time.
    pub fn flush(&self, within: Duration) -> bool {
        self.inner.shared.wait_until(within, shared::State::is_written)
    }

    /// Writes what there is, closes the file and ends the thread; false when that did not come about in time. What is
    /// put on record afterwards is kept nowhere.
    pub fn close(&self, within: Duration) -> bool {
        self.inner.shared.close();
        self.inner.shared.wait_until(within, shared::State::is_closed)
            && self.inner.shared.lock().pending.is_empty()
    }
}

/// Questions. Each waits for the ledger's thread, a second at most: keep them off the thread that guards. Everywhere the
/// newest `limit` of what matches, [`ROWS_MAX`] at most, oldest first.
impl LedgerHandle {
    pub fn events(&self, service: Option<&str>, since: Option<Timestamp>, limit: usize) -> Vec<EventRecord> {
        let name = service.map(str::to_owned);
        let mut found =
            self.ask(move |it| read::events(it, name.as_deref(), since, limit)).unwrap_or_default();
        let state = self.inner.shared.lock();
        let in_memory = state.pending.events.iter().filter(|it| {
            service.is_none_or(|name| it.service == name) && since.is_none_or(|since| it.time >= since)
        });
        found.extend(in_memory.cloned());
        newest(found, limit)
    }

    /// Without evidence; [`LedgerHandle::find_incident`] has it.
    pub fn incidents(&self, service: Option<&str>, limit: usize) -> Vec<IncidentRecord> {
        let name = service.map(str::to_owned);
        let mut found = self.ask(move |it| read::incidents(it, name.as_deref(), limit)).unwrap_or_default();
        let state = self.inner.shared.lock();
        let in_memory = state.pending.incidents.values();
        for incident in in_memory.filter(|it| service.is_none_or(|name| it.service == name)) {
            let bare = IncidentRecord { evidence: None, ..incident.clone() };
            match found.binary_search_by_key(&bare.id, |it| it.id) {
                Ok(place) => found[place] = bare,
                Err(place) => found.insert(place, bare),
            }
        }
        newest(found, limit)
    }

    /// One incident with its evidence.
    pub fn find_incident(&self, id: u64) -> Option<IncidentRecord> {
        let stored = self.ask(move |it| read::incident(it, id)).flatten();
        match self.inner.shared.lock().pending.incidents.get(&id) {
            Some(newer) => Some(pending::merged(stored, newer.clone())),
            None => stored,
        }
    }

    /// An instance's measurements by the minute or by the hour, as far as they are on the disk.
    pub fn samples(
        &self,
        instance: &str,
        span: Span,
        since: Option<Timestamp>,
        limit: usize,
    ) -> Vec<SampleRollup> {
        let instance = instance.to_owned();
        self.ask(move |it| read::samples(it, &instance, span, since, limit)).unwrap_or_default()
    }

    /// `None` when the disk gives no answer in time.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = sync_channel(1);
        let asked = self.inner.shared.ask(Box::new(move |connection| {
            let answer = question(connection)?;
            // Who asked may have given up.
            let _ = sender.send(answer);
            Ok(())
        }));
        if asked { receiver.recv_timeout(ANSWER_WAIT).ok() } else { None }
    }
}

fn newest<T>(mut rows: Vec<T>, limit: usize) -> Vec<T> {
    let over = rows.len().saturating_sub(limit.min(ROWS_MAX));
    rows.drain(..over);
    rows
}
