//! One vault at a time writes to a target. Whoever does says so there, again and again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::names::{Millis, WRITER};
use crate::state::State;
use crate::store::Store;

/// Without so many of its signs of life, and half of one, a writer is gone.
const BEATS_MISSED: u32 = 4;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Writer {
    /// Of the folder in which it remembers: a process that follows another on the same one is the same writer.
    id: String,
    host: String,
    pid: u32,
    beat: Millis,
}

impl Writer {
    fn in_words(&self) -> String {
        format!("pid {} on {}, last heard of at {}", self.pid, self.host, self.beat.timestamp())
    }
}

#[derive(Clone, Debug)]
pub struct Fence {
    ours: Writer,
    /// Between two signs of life.
    beat: Duration,
}

impl Fence {
    /// All that write to one target have to agree on `beat`.
    pub fn new(state: &State, beat: Duration) -> Result<Self> {
        let id = if let Some(id) = state.read::<String>("writer-id.json") {
            id
        } else {
            let drawn = crate::shipper::next_epoch(None).nonce ^ std::process::id();
            let id = format!("{drawn:08x}{:012x}", Millis::now().0);
            state.write("writer-id.json", &id)?;
            id
        };
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        Ok(Self { ours: Writer { id, host, pid: std::process::id(), beat: Millis(0) }, beat })
    }

    /// Says that we write, unless somebody else does. A store that cannot be reached is no obstacle: what is on its way
    /// there waits anyhow, and this is asked again.
    pub fn claim(&self, store: &Store, now: Millis) -> Result<()> {
        self.refuse_other(store, now)?;
        let ours = Writer { beat: now, ..self.ours.clone() };
        store.put(WRITER, serde_json::to_vec(&ours).unwrap_or_default())?;
        // Of two that claim at the same moment, the one that was overwritten sees it here or at its next beat.
        self.refuse_other(store, now)
    }

    /// Says so again and again until `sleep` says that it is over; an error once somebody else writes. Where the store
    /// cannot be reached, we go on. Long work must not stand in the way of this: it has a thread of its own.
    pub fn keep(&self, store: &Store, mut sleep: impl FnMut(Duration) -> bool) -> Result<()> {
        while !sleep(self.beat) {
            if let Err(error @ Error::Fenced { .. }) = self.claim(store, Millis::now()) {
                return Err(error);
            }
        }
        Ok(())
    }

    fn gone_after(&self) -> Duration {
        self.beat * BEATS_MISSED + self.beat / 2
    }

    fn refuse_other(&self, store: &Store, now: Millis) -> Result<()> {
        let bytes = match store.get(WRITER) {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => return Ok(()),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice::<Writer>(&bytes) {
            Ok(writer) if writer.id != self.ours.id && now.since(writer.beat) < self.gone_after() => {
                Err(Error::Fenced { store: store.address().to_owned(), who: writer.in_words() })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Others need not wait.
    pub fn release(&self, store: &Store) {
        if self.refuse_other(store, Millis::now()).is_ok() {
            let _ = store.delete(WRITER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BEAT_DEFAULT;
    use crate::store::StoreConfig;

    #[test]
    fn a_second_writer_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let to = format!("file://{}/store", folder.path().display());
        let store = Store::open(&StoreConfig { to, bandwidth: None }).unwrap();
        let state = |name: &str| State::take(&folder.path().join(name)).unwrap().unwrap();
        let (one_state, other_state) = (state("one"), state("other"));
        let fence = |state| Fence::new(state, BEAT_DEFAULT).unwrap();
        let (one, other) = (fence(&one_state), fence(&other_state));
        let now = Millis(1_000_000);
        one.claim(&store, now).unwrap();
        let refused = other.claim(&store, Millis(now.0 + 60_000)).unwrap_err().to_string();
        assert!(refused.contains("another vault writes to it: pid"), "{refused}");
        // The same folder is the same writer, whichever process.
        fence(&one_state).claim(&store, now).unwrap();
        other.claim(&store, Millis(now.0 + 100_000)).unwrap();
        assert!(matches!(one.claim(&store, Millis(now.0 + 110_000)), Err(Error::Fenced { .. })));
        other.release(&store);
        one.claim(&store, Millis(now.0 + 120_000)).unwrap();
    }
}
