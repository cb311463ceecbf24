//! How a moment is restored: from which snapshot, and through which segments. From names alone, of which a week may have
//! hundreds of thousands.

mod index;

use std::fmt;

use crate::names::{Millis, SegmentName, SnapshotName};
use crate::position::{Epoch, Tx};

use index::Index;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Latest,
    /// What had been seen by then.
    Time(Millis),
    Tx(Tx),
    /// This snapshot and nothing after it.
    Snapshot(SnapshotName),
}

/// Where to stop inside of the last segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Tx(Tx),
    Time(Millis),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub snapshot: SnapshotName,
    pub steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub segment: SegmentName,
    pub bound: Bound,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("there is no snapshot in the store")]
    Nothing,
    #[error("no snapshot, or more than one, begins with {0}: see `plimsoll vault list`")]
    NoSuch(String),
    #[error("nothing as old as {0} is kept: the oldest snapshot is of {1}")]
    TooOld(jiff::Timestamp, jiff::Timestamp),
    #[error("transaction {0} is older than what is kept: the oldest snapshot is at transaction {1}")]
    TxTooOld(Tx, Tx),
    #[error("transaction {tx} is not in the store: it ends at transaction {last}")]
    TxMissing { tx: Tx, last: Tx },
    #[error("segments are missing after transaction {after} of epoch {epoch}, and later ones are there")]
    Hole { epoch: Epoch, after: Tx },
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => out.write_str("the latest position"),
            Self::Time(time) => write!(out, "{}", time.timestamp()),
            Self::Tx(tx) => write!(out, "transaction {tx}"),
            Self::Snapshot(name) => write!(out, "snapshot {}", name.short()),
        }
    }
}

pub fn plan(snapshots: &[SnapshotName], segments: &[SegmentName], target: Target) -> Result<Plan, PlanError> {
    let snapshot = base(snapshots, target)?;
    if matches!(target, Target::Snapshot(_)) {
        return Ok(Plan { snapshot, steps: Vec::new() });
    }
    let mut path = Path::from(segments, snapshot.epoch, snapshot.tx);
    path.walk(target);
    match target {
        Target::Tx(tx) if path.tx < tx => {
            path.refuse_hole()?;
            return Err(PlanError::TxMissing { tx, last: path.tx });
        }
        Target::Latest => path.refuse_hole()?,
        Target::Time(time) if path.steps.last().is_none_or(|it| it.segment.time <= time) => {
            path.refuse_hole_before(time)?;
        }
        Target::Tx(_) | Target::Time(_) | Target::Snapshot(_) => {}
    }
    Ok(Plan { snapshot, steps: path.steps })
}

/// The segments that lead from a position on, up to and with transaction `upto`, as far as there are any.
pub fn follow(segments: &[SegmentName], epoch: Epoch, tx: Tx, upto: Tx) -> Vec<Step> {
    let mut path = Path::from(segments, epoch, tx);
    path.walk(Target::Tx(upto));
    path.steps
}

/// The rest of a way that ended with `end`, from where `done` led to, or `snapshot`: what was listed before may be in
/// larger segments by now. `None`: it does not lead there any more.
pub fn rest(
    segments: &[SegmentName],
    snapshot: &SnapshotName,
    done: Option<&Step>,
    end: &Step,
) -> Option<Vec<Step>> {
    let reached = |step: &Step| match step.bound {
        Bound::Tx(tx) => (step.segment.epoch, tx.min(step.segment.last)),
        Bound::Time(_) => (step.segment.epoch, step.segment.last),
    };
    let (epoch, tx) = done.map_or((snapshot.epoch, snapshot.tx), reached);
    let mut path = Path::from(segments, epoch, tx);
    path.walk(match end.bound {
        Bound::Tx(tx) => Target::Tx(tx),
        Bound::Time(time) => Target::Time(time),
    });
    let last = path.steps.last()?.segment;
    (last.epoch == end.segment.epoch && last.last >= end.segment.last).then_some(path.steps)
}

/// Where what is in the store ends, following on from its newest snapshot.
pub fn end(snapshots: &[SnapshotName], segments: &[SegmentName]) -> Option<(Epoch, Tx)> {
    let snapshot = base(snapshots, Target::Latest).ok()?;
    let mut path = Path::from(segments, snapshot.epoch, snapshot.tx);
    path.walk(Target::Latest);
    Some((path.epoch, path.tx))
}

fn base(snapshots: &[SnapshotName], target: Target) -> Result<SnapshotName, PlanError> {
    let order = |it: &&SnapshotName| (it.tx, it.time, it.hash);
    let oldest = snapshots.iter().min_by_key(order).ok_or(PlanError::Nothing)?;
    let found = match target {
        Target::Latest => snapshots.iter().max_by_key(order),
        Target::Time(time) => snapshots.iter().filter(|it| it.time <= time).max_by_key(order),
        Target::Tx(tx) => snapshots.iter().filter(|it| it.tx <= tx).max_by_key(order),
        Target::Snapshot(name) => return Ok(name),
    };
    found.copied().ok_or_else(|| match target {
        Target::Time(time) => PlanError::TooOld(time.timestamp(), oldest.time.timestamp()),
        Target::Tx(tx) => PlanError::TxTooOld(tx, oldest.tx),
        Target::Latest | Target::Snapshot(_) => PlanError::Nothing,
    })
}

struct Path<'a> {
    segments: &'a [SegmentName],
    index: Index<'a>,
    epoch: Epoch,
    tx: Tx,
    steps: Vec<Step>,
}

impl<'a> Path<'a> {
    fn from(segments: &'a [SegmentName], epoch: Epoch, tx: Tx) -> Self {
        Self { segments, index: Index::new(segments), epoch, tx, steps: Vec::new() }
    }

    fn walk(&mut self, target: Target) {
        loop {
            // Where a later epoch goes on from here, this one is left, even if more of it was shipped.
            let leave = self.index.leaves_at(self.epoch, self.tx);
            if leave == Some(self.tx) {
                let Some(bridge) = self.index.bridge(self.epoch, self.tx) else { return };
                if !self.take(bridge, None, target) {
                    return;
                }
                continue;
            }
            let Some(next) = self.index.next(self.epoch, self.tx) else { return };
            if !self.take(next, leave, target) {
                return;
            }
        }
    }

    /// Whether it goes on behind them.
    fn take(&mut self, segments: Vec<SegmentName>, leave: Option<Tx>, target: Target) -> bool {
        let Some(last) = segments.last().copied() else { return false };
        let wanted = match target {
            Target::Tx(tx) => tx,
            Target::Latest | Target::Time(_) | Target::Snapshot(_) => Tx(u64::MAX),
        };
        if wanted <= self.tx {
            return false;
        }
        let upto = wanted.min(leave.unwrap_or(last.last)).min(last.last);
        let is_past = matches!(target, Target::Time(time) if last.time > time);
        let bound = match target {
            Target::Time(time) if is_past && upto == last.last => Bound::Time(time),
            Target::Time(_) | Target::Latest | Target::Tx(_) | Target::Snapshot(_) => Bound::Tx(upto),
        };
        // Nothing of a transaction in parts, or of a bridge, is wanted unless all of it is.
        if is_past && (segments.len() > 1 || last.bridge.is_some()) {
            return false;
        }
        self.steps.extend(segments.into_iter().map(|segment| Step { segment, bound }));
        (self.epoch, self.tx) = (last.epoch, upto);
        !is_past
    }

    /// Later transactions of the epoch are there and the next is not: something was lost.
    fn refuse_hole(&self) -> Result<(), PlanError> {
        self.refuse_hole_before(Millis(u64::MAX))
    }

    fn refuse_hole_before(&self, time: Millis) -> Result<(), PlanError> {
        let later = |it: &SegmentName| {
            let follows = it.epoch == self.epoch && it.last > self.tx || it.bridge == Some(self.epoch);
            follows && it.time <= time
        };
        if self.segments.iter().any(later) {
            return Err(PlanError::Hole { epoch: self.epoch, after: self.tx });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Hash, Part};

    fn epoch(number: u32) -> Epoch {
        Epoch { number, nonce: 0 }
    }

    fn snapshot(number: u32, tx: u64) -> SnapshotName {
        SnapshotName { time: Millis(tx * 10), epoch: epoch(number), tx: Tx(tx), hash: Hash::of(b"") }
    }

    fn segment(number: u32, first: u64, last: u64) -> SegmentName {
        SegmentName {
            epoch: epoch(number),
            first: Tx(first),
            last: Tx(last),
            time: Millis(last * 10),
            part: Part::WHOLE,
            bridge: None,
            hash: Hash::of(b""),
        }
    }

    fn bridge(from: u32, to: u32, tx: u64) -> SegmentName {
        SegmentName { bridge: Some(epoch(from)), ..segment(to, tx, tx) }
    }

    /// The transactions of each step, and where the last one stops.
    fn planned(snapshots: &[SnapshotName], segments: &[SegmentName], target: Target) -> String {
        match plan(snapshots, segments, target) {
            Ok(plan) => {
                let steps = plan.steps.iter().map(|step| {
                    let bound = match step.bound {
                        Bound::Tx(tx) => tx.to_string(),
                        Bound::Time(time) => format!("at {}", time.0),
                    };
                    format!(" {}-{}:{bound}", step.segment.first, step.segment.last)
                });
                format!("{}{}", plan.snapshot.tx, steps.collect::<String>())
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_newest_snapshot_before_the_moment_and_what_follows() {
        let snapshots = [snapshot(1, 10), snapshot(1, 20)];
        let segments = [segment(1, 8, 12), segment(1, 13, 19), segment(1, 20, 22), segment(1, 23, 30)];
        assert_eq!(planned(&snapshots, &segments, Target::Latest), "20 20-22:22 23-30:30");
        assert_eq!(planned(&snapshots, &segments, Target::Tx(Tx(15))), "10 8-12:12 13-19:15");
        assert_eq!(planned(&snapshots, &segments, Target::Tx(Tx(20))), "20");
        assert_eq!(planned(&snapshots, &segments, Target::Time(Millis(125))), "10 8-12:12 13-19:at 125");
        assert_eq!(planned(&snapshots, &segments, Target::Snapshot(snapshots[0])), "10");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let snapshots = [snapshot(1, 10)];
        let segments = [segment(1, 11, 12), segment(1, 14, 15)];
        let told = |target| planned(&snapshots, &segments, target);
        assert!(told(Target::Latest).starts_with("segments are missing after transaction 12"));
        assert!(told(Target::Tx(Tx(15))).starts_with("segments are missing after transaction 12"));
        assert!(told(Target::Time(Millis(150))).starts_with("segments are missing after transaction 12"));
        assert!(told(Target::Tx(Tx(9))).contains("older than what is kept"));
        assert!(told(Target::Time(Millis(3))).contains("is kept"));
        assert_eq!(told(Target::Tx(Tx(12))), "10 11-12:12");
        assert!(planned(&[], &[], Target::Latest).contains("no snapshot"));
        assert!(planned(&snapshots, &segments[..1], Target::Tx(Tx(13))).contains("ends at transaction 12"));
    }

    #[test]
    fn a_merged_segment_is_taken_before_its_pieces() {
        let segments = [segment(1, 11, 11), segment(1, 11, 20), segment(1, 12, 12)];
        assert_eq!(planned(&[snapshot(1, 10)], &segments, Target::Latest), "10 11-20:20");
    }

    #[test]
    fn a_later_epoch_goes_on_where_it_bridges_from_even_inside_of_a_segment() {
        let segments = [segment(1, 11, 15), bridge(1, 2, 14), segment(2, 15, 16)];
        assert_eq!(planned(&[snapshot(1, 10)], &segments, Target::Latest), "10 11-15:13 14-14:14 15-16:16");
        assert_eq!(planned(&[snapshot(1, 10)], &segments, Target::Tx(Tx(12))), "10 11-15:12");
    }

    #[test]
    fn the_rest_of_a_way_goes_through_what_was_merged_meanwhile() {
        let (snapshot, pieces) =
            (snapshot(1, 10), [segment(1, 11, 12), segment(1, 13, 14), segment(1, 15, 16)]);
        let step = |index: usize, bound| Step { segment: pieces[index], bound };
        let (first, end) = (step(0, Bound::Tx(Tx(12))), step(2, Bound::Tx(Tx(15))));
        let merged = [segment(1, 11, 16)];
        let told = |segments: &[SegmentName], done, end| {
            let steps = rest(segments, &snapshot, done, end)?;
            Some(steps.iter().map(|it| (it.segment.first.0, it.bound)).collect::<Vec<_>>())
        };
        assert_eq!(told(&merged, Some(&first), &end), Some(vec![(11, Bound::Tx(Tx(15)))]));
        assert_eq!(told(&merged, None, &end), Some(vec![(11, Bound::Tx(Tx(15)))]));
        let end = step(2, Bound::Time(Millis(155)));
        assert_eq!(told(&merged, Some(&first), &end), Some(vec![(11, Bound::Time(Millis(155)))]));
        // It is gone, and in nothing else.
        let end = step(2, Bound::Tx(Tx(15)));
        assert_eq!(told(&pieces[..2], Some(&first), &end), None);
        assert_eq!(told(&pieces[2..], Some(&first), &end), None);
    }

    #[test]
    fn all_parts_of_a_transaction_or_none() {
        let part = |index, is_last| SegmentName { part: Part { index, is_last }, ..segment(1, 11, 11) };
        let parts = [part(0, false), part(1, false), part(2, true)];
        assert_eq!(planned(&[snapshot(1, 10)], &parts, Target::Latest), "10 11-11:11 11-11:11 11-11:11");
        let told = planned(&[snapshot(1, 10)], &[parts[0], parts[2]], Target::Latest);
        assert!(told.starts_with("segments are missing after transaction 10"), "{told}");
        // An unfinished one at the end never was.
        assert!(planned(&[snapshot(1, 10)], &parts[..1], Target::Tx(Tx(10))).starts_with("10"));
    }
}
