//! Small segments that follow each other become one: the same transactions, in fewer objects and fewer bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::names::{Hash, Millis, Part, SegmentName};
use crate::position::Epoch;
use crate::seal::Effort;
use crate::segment::{Segment, merge};

/// What is younger is left alone: it may be on its way still.
const SETTLED: Duration = Duration::from_secs(20);
/// Merged segments hold at most so many bytes of pages.
const MERGED_BYTES_MAX: usize = 8 << 20;
/// Within which segments become one: a minute at first, an hour later.
const SPANS_MS: [(u64, Duration); 2] = [(60_000, SETTLED), (3_600_000, Duration::from_hours(1))];
/// Segments that one run takes on.
const RUN_MAX: usize = 2000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    pub from: usize,
    pub into: usize,
}

/// Segments that may become one, in order: they follow each other, are whole, and were seen within the same span.
pub fn groups(segments: &[SegmentName], now: Millis) -> Vec<Vec<SegmentName>> {
    let mut by_epoch: BTreeMap<Epoch, Vec<SegmentName>> = BTreeMap::new();
    for segment in segments.iter().filter(|it| it.part == Part::WHOLE && it.bridge.is_none()) {
        by_epoch.entry(segment.epoch).or_default().push(*segment);
    }
    let mut groups = Vec::new();
    for segments in by_epoch.values_mut() {
        segments.sort_unstable_by_key(|it| (it.first, it.last));
        for (span, settled) in SPANS_MS {
            groups.extend(runs(segments, span, settled, now));
        }
    }
    // A segment goes into one at a time.
    let mut taken = std::collections::BTreeSet::new();
    groups.retain(|group| {
        let is_free = group.iter().all(|it| !taken.contains(&(it.epoch, it.first, it.last)));
        if is_free {
            taken.extend(group.iter().map(|it| (it.epoch, it.first, it.last)));
        }
        is_free
    });
    groups
}

fn runs(segments: &[SegmentName], span: u64, settled: Duration, now: Millis) -> Vec<Vec<SegmentName>> {
    let mut runs: Vec<Vec<SegmentName>> = Vec::new();
    for segment in segments.iter().filter(|it| now.since(it.time) > settled) {
        let follows = runs.last().and_then(|run| run.last()).is_some_and(|last| {
            last.last.next() == segment.first && last.time.0 / span == segment.time.0 / span
        });
        match runs.last_mut() {
            Some(run) if follows => run.push(*segment),
            _ => runs.push(vec![*segment]),
        }
    }
    runs.retain(|run| run.len() > 1);
    runs
}

/// Segments whose transactions are all in another, larger one.
pub fn covered(segments: &[SegmentName]) -> Vec<SegmentName> {
    let whole = |it: &&SegmentName| it.part == Part::WHOLE && it.bridge.is_none();
    let is_in = |one: &SegmentName, other: &SegmentName| {
        one.epoch == other.epoch
            && other.first <= one.first
            && one.last <= other.last
            && (other.first, other.last) != (one.first, one.last)
    };
    let covers: Vec<&SegmentName> = segments.iter().filter(whole).filter(|it| it.first < it.last).collect();
    segments
        .iter()
        .filter(whole)
        .filter(|one| covers.iter().any(|other| is_in(one, other)))
        .copied()
        .collect()
}

pub fn run(engine: &Engine, now: Millis) -> Result<Merged> {
    let listed = engine.store().list(crate::names::LOG)?;
    let segments: Vec<SegmentName> = listed.iter().filter_map(|it| it.name.parse().ok()).collect();
    let mut merged = Merged::default();
    for gone in covered(&segments).into_iter().take(RUN_MAX) {
        engine.store().delete(&gone.to_string())?;
    }
    for group in groups(&segments, now) {
        if merged.from >= RUN_MAX {
            break;
        }
        let mut pending: Vec<(SegmentName, Segment)> = Vec::new();
        let mut bytes = 0;
        for name in group {
            let segment = read(engine, &name)?;
            if bytes + segment.raw().len() > MERGED_BYTES_MAX {
                replace(engine, &mut pending, &mut merged)?;
                bytes = 0;
            }
            bytes += segment.raw().len();
            pending.push((name, segment));
        }
        replace(engine, &mut pending, &mut merged)?;
    }
    Ok(merged)
}

fn read(engine: &Engine, name: &SegmentName) -> Result<Segment> {
    let text = name.to_string();
    let raw = engine.common.seal.open(&engine.outbox().get_checked(&text, name.hash)?, &text)?;
    Segment::parse(raw).map_err(|source| Error::Segment { name: text, source })
}

/// The new one is stored before the old ones go: both say the same.
fn replace(engine: &Engine, pending: &mut Vec<(SegmentName, Segment)>, merged: &mut Merged) -> Result<()> {
    let (names, segments): (Vec<_>, Vec<_>) = std::mem::take(pending).into_iter().unzip();
    let Some((first, last)) = names.first().zip(names.last()).filter(|_| names.len() > 1) else {
        return Ok(());
    };
    let failed = |source| Error::Segment { name: first.to_string(), source };
    let one = merge(&segments).map_err(failed)?;
    let stored = engine.common.seal.pack(one.raw(), Effort::Thorough)?;
    let name = SegmentName { first: first.first, hash: Hash::of(&stored), ..*last };
    engine.store().put(&name.to_string(), stored)?;
    for old in &names {
        engine.store().delete(&old.to_string())?;
    }
    merged.from += names.len();
    merged.into += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Tx;

    fn segment(first: u64, last: u64, second: u64) -> SegmentName {
        SegmentName {
            epoch: Epoch { number: 1, nonce: 0 },
            first: Tx(first),
            last: Tx(last),
            time: Millis(second * 1000),
            part: Part::WHOLE,
            bridge: None,
            hash: Hash::of(b""),
        }
    }

    fn firsts(segments: &[SegmentName], now: u64) -> Vec<Vec<u64>> {
        let groups = groups(segments, Millis(now * 1000));
        groups.iter().map(|it| it.iter().map(|it| it.first.0).collect()).collect()
    }

    #[test]
    fn what_follows_each_other_within_a_minute_becomes_one() {
        let segments =
            [segment(1, 1, 10), segment(2, 3, 50), segment(4, 4, 70), segment(5, 6, 80), segment(8, 8, 90)];
        assert_eq!(firsts(&segments, 200), [vec![1, 2], vec![4, 5]]);
        // The last ones are not settled, and later the hour takes what the minutes left.
        assert_eq!(firsts(&segments, 85), [[1, 2]]);
        assert_eq!(firsts(&[segment(1, 3, 50), segment(4, 6, 80)], 9000), [[1, 4]]);
    }

    #[test]
    fn parts_and_bridges_are_left_alone() {
        let part = SegmentName { part: Part { index: 0, is_last: false }, ..segment(2, 2, 20) };
        let bridge = SegmentName { bridge: Some(Epoch { number: 0, nonce: 0 }), ..segment(3, 3, 20) };
        assert!(firsts(&[segment(1, 1, 10), part, bridge, segment(4, 4, 20)], 500).is_empty());
    }

    #[test]
    fn what_is_in_a_larger_one_is_covered() {
        let segments =
            [segment(1, 9, 10), segment(1, 3, 9), segment(4, 9, 9), segment(10, 11, 12), segment(1, 9, 10)];
        assert_eq!(covered(&segments), [segments[1], segments[2]]);
    }
}
