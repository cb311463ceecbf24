//! Takes away what no kept point needs.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::catalogue::{self, Catalogue};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::names::{self, Hash, Millis, SnapshotName};
use crate::retention;

/// A chunk that nothing needs may be of a snapshot that is being taken.
const CHUNK_AGE_MIN: Duration = Duration::from_hours(1);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub snapshots: Vec<SnapshotName>,
    pub segments: usize,
    pub chunks: usize,
    pub bytes: u64,
    pub kept: usize,
}

/// With `act` unset nothing is deleted, and what would be is told.
///
/// Everything that is kept is found out first, and a manifest that cannot be read ends it before anything is deleted.
pub fn run(engine: &Engine, now: Millis, act: bool) -> Result<Pruned> {
    let store = engine.store();
    // What waits may be a manifest whose chunks are in the store already.
    if act && !engine.outbox().waiting().is_empty() {
        return Err(Error::Ended("something still waits for the store, and may need what would be deleted"));
    }
    let catalogue = Catalogue::read(store)?;
    let (keep, history) = (engine.config.keep, engine.config.history);
    let kept = retention::kept(&catalogue.snapshots, |it| catalogue.is_backup(it), keep, history, now);
    let mut needed: BTreeSet<Hash> = BTreeSet::new();
    for snapshot in &kept {
        needed.extend(catalogue::manifest(store, &engine.identity, snapshot)?.objects());
    }
    let gone: Vec<SnapshotName> =
        catalogue.snapshots.iter().filter(|it| !kept.contains(it)).copied().collect();
    let segments = retention::outlived(&catalogue.segments, &kept, history, now);
    let mut pruned =
        Pruned { snapshots: gone, segments: segments.len(), kept: kept.len(), ..Pruned::default() };
    if act {
        // Manifests first: a snapshot without its chunks would be found spoiled.
        for snapshot in &pruned.snapshots {
            store.delete(&snapshot.to_string())?;
            for outcome in catalogue.verified.get(&snapshot.hash).into_iter().flatten() {
                store.delete(&outcome.to_string())?;
            }
        }
        for segment in &segments {
            store.delete(&segment.to_string())?;
        }
    }
    for listed in store.list(names::CHUNKS)? {
        let Some(hash) = Hash::from_chunk(&listed.name) else { continue };
        if needed.contains(&hash) || now.since(listed.changed) < CHUNK_AGE_MIN {
            continue;
        }
        pruned.chunks += 1;
        pruned.bytes += listed.bytes;
        if act {
            store.delete(&listed.name)?;
        }
    }
    Ok(pruned)
}
