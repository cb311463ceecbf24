//! What is on its way to the store. A folder gets it at once; a bucket gets it from a spool on this disk, in order, so
//! that a store that is slow or away for a day costs freshness and nothing else.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::names::{Hash, Millis, SegmentName, SnapshotName};
use crate::state::write_whole;
use crate::store::Store;

const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// What can wait is refused once the store has taken nothing for so long: whoever waits holds the log.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks whether there is room, and whether it is still wanted.
const ROOM_EVERY: Duration = Duration::from_millis(500);
/// Between a sequence number and a name; `/` becomes [`SLASH`].
const SEPARATOR: char = '~';
const SLASH: char = '+';

#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    file: PathBuf,
    name: String,
    bytes: u64,
    since: Millis,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Waiting>,
    bytes: u64,
    next: u64,
    /// Why the store did not take the last one, since when.
    problem: Option<(String, Millis)>,
    ended: bool,
}

/// How it stands with the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub objects: usize,
    pub bytes: u64,
    /// Since when the oldest has waited.
    pub oldest: Option<Millis>,
    pub problem: Option<(String, Millis)>,
}

#[derive(Debug)]
pub struct Outbox {
    store: Store,
    spool: PathBuf,
    bytes_max: u64,
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Outbox {
    /// Takes up what was left in the spool.
    pub fn open(store: Store, spool: PathBuf, bytes_max: u64) -> Result<Arc<Self>> {
        fs::create_dir_all(&spool).map_err(Error::file("make", &spool))?;
        let mut inner = Inner::default();
        let mut found = Vec::new();
        for entry in fs::read_dir(&spool).map_err(Error::file("read", &spool))? {
            let entry = entry.map_err(Error::file("read", &spool))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let bytes = entry.metadata().map_err(Error::file("look at", &entry.path()))?.len();
            match name.split_once(SEPARATOR) {
                Some((number, name)) if Path::new(name).extension().is_none_or(|it| it != "new") => {
                    let number = u64::from_str_radix(number, 16).unwrap_or(0);
                    found.push((number, entry.path(), name.replace(SLASH, "/"), bytes));
                }
                // Half-written when the last process ended.
                Some(_) | None => drop(fs::remove_file(entry.path())),
            }
        }
        found.sort();
        let since = Millis::now();
        for (number, file, name, bytes) in found {
            inner.next = inner.next.max(number + 1);
            inner.bytes += bytes;
            inner.queue.push_back(Waiting { file, name, bytes, since });
        }
        Ok(Arc::new(Self { store, spool, bytes_max, inner: Mutex::new(inner), changed: Condvar::new() }))
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Keeps an object for good: in the store, or in the spool until it is there.
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let bytes = Bytes::from(bytes);
        if self.store.is_local() && self.lock().queue.is_empty() {
            match self.store.put(name, bytes.clone()) {
                Ok(()) => {
                    self.lock().problem = None;
                    return Ok(());
                }
                Err(error) => self.note(&error),
            }
        }
        self.spool(name, &bytes)
    }

    /// As [`put`](Self::put), for what can wait: half of the spool stays free for transactions, and a store that is only
    /// slow, or away for a moment, is waited for, until `stop` is set.
    pub fn put_in_time(&self, name: &str, bytes: Vec<u8>, stop: &AtomicBool) -> Result<()> {
        let length = bytes.len() as u64;
        let mut inner = self.lock();
        while inner.bytes + length > self.bytes_max / 2 && !inner.queue.is_empty() {
            if stop.load(Ordering::Relaxed) || inner.ended {
                return Err(Error::Ended("it was ended while it waited for the store"));
            }
            if let Some((why, since)) = &inner.problem
                && Millis::now().since(*since) > PATIENCE
            {
                return Err(self.refused(name, format!("the store does not take anything: {why}")));
            }
            inner = self.changed.wait_timeout(inner, ROOM_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(inner);
        self.put(name, bytes)
    }

    fn spool(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let length = bytes.len() as u64;
        let file = {
            let mut inner = self.lock();
            if inner.bytes + length > self.bytes_max {
                let why = match &inner.problem {
                    Some((why, _)) => {
                        format!("the spool is full, since the store does not take anything: {why}")
                    }
                    None => "the spool is full: the store takes less than there is to store".to_owned(),
                };
                return Err(self.refused(name, why));
            }
            inner.bytes += length;
            inner.next += 1;
            let number = inner.next;
            self.spool.join(format!("{number:016x}{SEPARATOR}{}", name.replace('/', &SLASH.to_string())))
        };
        if let Err(error) = write_whole(&file, bytes) {
            self.lock().bytes -= length;
            return Err(error);
        }
        let waiting = Waiting { file, name: name.to_owned(), bytes: length, since: Millis::now() };
        self.lock().queue.push_back(waiting);
        self.changed.notify_all();
        Ok(())
    }

    fn refused(&self, name: &str, why: String) -> Error {
        Error::Store {
            store: self.store.address().to_owned(),
            verb: "store",
            name: name.to_owned(),
            why,
            is_missing: false,
        }
    }

    /// From the store, or from the spool where it still waits.
    pub fn get_checked(&self, name: &str, hash: Hash) -> Result<Vec<u8>> {
        let file = self.lock().queue.iter().find(|it| it.name == name).map(|it| it.file.clone());
        if let Some(bytes) = file.and_then(|file| fs::read(file).ok())
            && Hash::of(&bytes) == hash
        {
            return Ok(bytes);
        }
        self.store.get_checked(name, hash)
    }

    /// All segments, in the store and on their way there.
    pub fn segments(&self) -> Result<Vec<SegmentName>> {
        let listed = self.store.list(crate::names::LOG)?.into_iter().map(|it| it.name);
        Ok(listed.chain(self.waiting()).filter_map(|name| name.parse().ok()).collect())
    }

    /// All snapshots, in the store and on their way there.
    pub fn snapshots(&self) -> Result<Vec<SnapshotName>> {
        let listed = self.store.list(crate::names::SNAPSHOTS)?.into_iter().map(|it| it.name);
        Ok(listed.chain(self.waiting()).filter_map(|name| name.parse().ok()).collect())
    }

    pub fn is_snapshot_waiting(&self) -> bool {
        self.lock().queue.iter().any(|it| it.name.starts_with(crate::names::SNAPSHOTS))
    }

    /// Names that wait.
    pub fn waiting(&self) -> Vec<String> {
        self.lock().queue.iter().map(|it| it.name.clone()).collect()
    }

    pub fn backlog(&self) -> Backlog {
        let inner = self.lock();
        Backlog {
            objects: inner.queue.len(),
            bytes: inner.bytes,
            oldest: inner.queue.front().map(|it| it.since),
            problem: inner.problem.clone(),
        }
    }

    /// Carries the spool to the store until told to end; for a thread of its own.
    pub fn carry(&self) {
        let mut backoff = BACKOFF_FIRST;
        while let Some(next) = self.next() {
            let sent = fs::read(&next.file)
                .map_err(Error::file("read", &next.file))
                .and_then(|bytes| self.store.put(&next.name, bytes));
            match sent {
                Ok(()) => {
                    self.sent(&next);
                    backoff = BACKOFF_FIRST;
                }
                Err(error) => {
                    self.note(&error);
                    self.wait(backoff);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    fn next(&self) -> Option<Waiting> {
        let mut inner = self.lock();
        loop {
            if inner.ended {
                return None;
            }
            if let Some(next) = inner.queue.front() {
                return Some(next.clone());
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn sent(&self, sent: &Waiting) {
        let _ = fs::remove_file(&sent.file);
        let mut inner = self.lock();
        inner.queue.pop_front();
        inner.bytes = inner.bytes.saturating_sub(sent.bytes);
        inner.problem = None;
        drop(inner);
        self.changed.notify_all();
    }

    fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut inner = self.lock();
        while !inner.ended && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until nothing waits any more; whether that came about in time.
    pub fn drain(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        let mut inner = self.lock();
        while !inner.queue.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || inner.ended {
                return false;
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// [`carry`](Self::carry) returns; what waits stays in the spool.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn note(&self, error: &Error) {
        let mut inner = self.lock();
        let since = inner.problem.as_ref().map_or_else(Millis::now, |(_, since)| *since);
        inner.problem = Some((error.to_string(), since));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreConfig;

    #[test]
    fn what_the_store_does_not_take_waits_in_order_and_goes_there_later() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        let config = StoreConfig { to: format!("file://{}", root.display()), bandwidth: None };
        let store = Store::open(&config).unwrap();
        fs::remove_dir_all(&root).unwrap();
        // A file in the way of the folder: nothing can be stored.
        fs::write(&root, "").unwrap();
        let spool = folder.path().join("spool");
        let outbox = Outbox::open(store.clone(), spool.clone(), 100).unwrap();
        outbox.put("log/a/1", vec![1; 40]).unwrap();
        outbox.put("log/a/2", vec![2; 40]).unwrap();
        let full = outbox.put("log/a/3", vec![3; 40]).unwrap_err().to_string();
        assert!(full.contains("the spool is full") && full.contains("log/a/3"), "{full}");
        assert_eq!(outbox.get_checked("log/a/2", Hash::of(&[2; 40])).unwrap(), [2; 40]);
        drop(outbox);
        // Another process takes it up.
        let outbox = Outbox::open(store.clone(), spool, 100).unwrap();
        assert_eq!(
            (outbox.waiting(), outbox.backlog().bytes),
            (vec!["log/a/1".to_owned(), "log/a/2".to_owned()], 80)
        );
        fs::remove_file(&root).unwrap();
        fs::create_dir(&root).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| outbox.carry());
            assert!(outbox.drain(Duration::from_secs(20)));
            outbox.end();
        });
        assert_eq!(store.get("log/a/2").unwrap(), [2; 40]);
        assert_eq!(outbox.backlog(), Backlog::default());
    }
}
