//! Restores a snapshot for no other reason than to see that it can be. Only then it is a backup.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalogue::{self, Catalogue};
use crate::error::{Error, Result};
use crate::names::{Millis, SnapshotName, VerifiedName};
use crate::plan::Target;
use crate::progress::Progress;
use crate::restore::{Restored, Restorer};
use crate::room;

/// A restore of the oldest is due after so many of the newest, and one drawn by lot after so many.
const OLDEST_EVERY: u64 = 30;
const RANDOM_EVERY: u64 = 7;

/// What was found, kept beside the store's snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub snapshot: String,
    pub time: Millis,
    pub is_good: bool,
    /// In words; what was wrong, if anything.
    pub message: String,
    pub took_ms: u64,
    pub rows: u64,
    pub pages: u32,
    /// The transactions since the snapshot before lead to exactly this one.
    pub is_reached: bool,
    pub program: String,
}

#[derive(Clone, Debug)]
pub struct Verified {
    pub snapshot: SnapshotName,
    pub restored: Restored,
    pub is_reached: bool,
    /// The transactions that lead to it are spoiled, from which snapshot on and how: it is a backup, and moments before it
    /// cannot be restored to.
    pub broken: Option<String>,
}

impl Verified {
    /// For `--json`.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "snapshot": self.snapshot.short(),
            "tx": self.snapshot.tx,
            "rows": self.restored.contents.rows(),
            "took_ms": u64::try_from(self.restored.took.as_millis()).unwrap_or(u64::MAX),
            "is_reached": self.is_reached,
            "broken": self.broken,
        })
    }
}

/// Which is due: mostly the newest; now and then one drawn by lot, and the oldest. `turn` counts the days.
pub fn due(catalogue: &Catalogue, turn: u64, drawn: u64) -> Option<SnapshotName> {
    let all = &catalogue.snapshots;
    let newest = all.last()?;
    if !catalogue.is_backup(newest) {
        return Some(*newest);
    }
    if turn.is_multiple_of(OLDEST_EVERY) {
        return all.first().copied();
    }
    if turn.is_multiple_of(RANDOM_EVERY) {
        let index = usize::try_from(drawn % all.len() as u64).unwrap_or(0);
        return all.get(index).copied();
    }
    Some(*newest)
}

/// Restores it into `scratch`, compares, and leaves nothing there. What came of it is put on record in the store unless
/// the circumstances were at fault.
pub fn run(
    restorer: &Restorer<'_>,
    snapshot: &SnapshotName,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<Verified> {
    let began = std::time::Instant::now();
    let outcome = both(restorer, snapshot, scratch, progress);
    let record = match &outcome {
        Ok(verified) => {
            let broken = verified.broken.as_ref().map(|it| format!("; what leads to it is spoiled, {it}"));
            let message = format!("restored and compared{}", broken.unwrap_or_default());
            Some((true, message, Some(verified)))
        }
        Err(error) if is_key_missing(error) => None,
        Err(error) if error.is_refusal() => Some((false, error.to_string(), None)),
        Err(_) => None,
    };
    if let Some((is_good, message, verified)) = record {
        keep(restorer, snapshot, is_good, message, verified, began.elapsed())?;
    }
    outcome
}

/// Without the key nothing is proved either way.
fn is_key_missing(error: &Error) -> bool {
    matches!(error, Error::Key { .. })
}

fn keep(
    restorer: &Restorer<'_>,
    snapshot: &SnapshotName,
    is_good: bool,
    message: String,
    verified: Option<&Verified>,
    took: Duration,
) -> Result<()> {
    let time = Millis::now();
    let record = Record {
        snapshot: snapshot.to_string(),
        time,
        is_good,
        message,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        rows: verified.map_or(0, |it| it.restored.contents.rows()),
        pages: verified.map_or(0, |it| it.restored.pages),
        is_reached: verified.is_some_and(|it| it.is_reached),
        program: concat!("plimsoll ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let name = VerifiedName { snapshot: snapshot.hash, time, is_good };
    restorer.store.put(&name.to_string(), serde_json::to_vec(&record).unwrap_or_default())
}

fn both(
    restorer: &Restorer<'_>,
    snapshot: &SnapshotName,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<Verified> {
    fs::create_dir_all(scratch).map_err(Error::file("make", scratch))?;
    let path = scratch.join("verify.db");
    let cleared = || drop(fs::remove_file(&path));
    cleared();
    // Nobody waits for it: whoever shares the disk comes first.
    let bytes = catalogue::manifest(restorer.store, &restorer.identity()?, snapshot)?.database_bytes();
    room::check(&path, bytes, bytes / room::SPARE)?;
    let copy = restorer.build(Target::Snapshot(*snapshot), &path, progress);
    cleared();
    let copy = copy?;
    // The one before it, and the transactions since, have to lead to the very same.
    let catalogue = Catalogue::read(restorer.store)?;
    let before = catalogue.snapshots.iter().filter(|it| it.tx < snapshot.tx && !catalogue.is_bad(it));
    let mut verified = Verified { snapshot: *snapshot, restored: copy, is_reached: false, broken: None };
    let Some(before) = before.max_by_key(|it| (it.tx, it.time)) else { return Ok(verified) };
    let reached = restorer.build_from(*before, snapshot, &path, progress);
    cleared();
    match reached {
        Ok(reached) => verified.is_reached = reached.is_some(),
        // The one before is of another key.
        Err(error) if is_key_missing(&error) => {}
        Err(error) if error.is_refusal() => {
            verified.broken = Some(format!("from snapshot {} on: {error}", before.short()));
        }
        Err(error) => return Err(error),
    }
    Ok(verified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Hash;
    use crate::position::{Epoch, Tx};

    fn snapshot(day: u64) -> SnapshotName {
        let epoch = Epoch { number: 1, nonce: 0 };
        SnapshotName { time: Millis(day), epoch, tx: Tx(day), hash: Hash::of(&day.to_be_bytes()) }
    }

    #[test]
    fn the_newest_is_due_daily_one_by_lot_weekly_and_the_oldest_monthly() {
        let mut catalogue = Catalogue { snapshots: (0..5).map(snapshot).collect(), ..Catalogue::default() };
        // Whatever the day, one that was never restored comes first.
        assert_eq!(due(&catalogue, 30, 1), Some(snapshot(4)));
        let good = VerifiedName { snapshot: snapshot(4).hash, time: Millis(9), is_good: true };
        catalogue.verified.insert(good.snapshot, vec![good]);
        let days: Vec<u64> = (1..=30).filter_map(|day| due(&catalogue, day, 2)).map(|it| it.tx.0).collect();
        let count = |tx| days.iter().filter(|it| **it == tx).count();
        assert_eq!((count(4), count(2), count(0)), (25, 4, 1));
        assert_eq!(due(&Catalogue::default(), 1, 1), None);
    }
}
