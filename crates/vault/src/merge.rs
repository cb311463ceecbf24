//! Small segments that follow each other become one: the same transactions, in fewer objects and fewer bytes. Each is
//! read once for its minute and once for its hour, however long the history behind them is.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::names::{self, Hash, Millis, Part, SegmentName};
use crate::pack::{self, Pack};
use crate::position::{Epoch, Tx};
use crate::seal::{Effort, Seal};
use crate::segment::{CUT_BYTES, Merger};

/// So long after its end a minute, or an hour, is merged: what is younger may be on its way still.
const SETTLED: Duration = Duration::from_secs(20);
/// Merged segments hold at most so many bytes, as those that are cut do.
const MERGED_BYTES_MAX: usize = CUT_BYTES;
/// What stands before the pages.
const FRONT_BYTES: usize = 64 * 1024;
/// Segments that one run reads or deletes, before it leaves the rest to the next.
const RUN_MAX: usize = 2000;
const DONE: &str = "merged.json";

/// Segments seen within the same of these become one: a minute at first, and the hour once it is over.
const SPANS_MS: [u64; 2] = [60_000, 3_600_000];

/// How far it has come with one span; kept in the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Done {
    /// Nothing is left to be merged up to here.
    upto: Option<(Epoch, Tx)>,
    /// The last minute, or hour, that was looked at, counted from 1970.
    last: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    pub from: usize,
    pub into: usize,
}

/// A segment, and its bytes as it is stored.
pub type Listed = (SegmentName, u64);

/// In order: segments that may become one, since they follow each other, are whole, and were seen within the same
/// span, which is over; and each of the others by itself.
pub fn runs(mut segments: Vec<Listed>, span_ms: u64, now: Millis) -> Vec<Vec<Listed>> {
    segments.sort_unstable_by_key(|(it, _)| (it.epoch, it.first, it.last));
    let over = over(now, span_ms);
    let mut runs: Vec<Vec<Listed>> = Vec::new();
    for segment in segments.into_iter().filter(|(it, _)| it.time.0 / span_ms < over) {
        let is_whole = |it: &SegmentName| it.part == Part::WHOLE && it.bridge.is_none();
        let follows = |(one, _): &Listed, (two, _): &Listed| {
            let adjoins = one.epoch == two.epoch && one.last.next() == two.first;
            adjoins && is_whole(one) && is_whole(two) && one.time.0 / span_ms == two.time.0 / span_ms
        };
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| follows(last, &segment)) => run.push(segment),
            _ => runs.push(vec![segment]),
        }
    }
    runs
}

/// The first span that is not over.
fn over(now: Millis, span_ms: u64) -> u64 {
    let settled = u64::try_from(SETTLED.as_millis()).unwrap_or(u64::MAX);
    now.0.saturating_sub(settled) / span_ms
}

/// Segments whose transactions are all in another, larger one: that one was stored, and these not deleted yet.
pub fn covered(segments: &[SegmentName]) -> Vec<SegmentName> {
    let mut whole: Vec<&SegmentName> =
        segments.iter().filter(|it| it.part == Part::WHOLE && it.bridge.is_none()).collect();
    // The larger one comes first.
    whole.sort_unstable_by_key(|it| (it.epoch, it.first, Reverse(it.last)));
    let mut larger: Option<&SegmentName> = None;
    let mut covered = Vec::new();
    for segment in whole {
        let range = |it: &SegmentName| (it.first, it.last);
        match larger {
            Some(it) if it.epoch == segment.epoch && segment.last <= it.last => {
                if range(it) != range(segment) {
                    covered.push(*segment);
                }
            }
            _ => larger = Some(segment),
        }
    }
    covered
}

pub fn run(engine: &Engine, now: Millis) -> Result<Merged> {
    let mut done: [Done; SPANS_MS.len()] = engine.state.read(DONE).unwrap_or_default();
    let before = done;
    let mut work = Work { engine, now, merged: Merged::default(), left: RUN_MAX };
    let outcome = SPANS_MS.iter().zip(&mut done).try_for_each(|(span, done)| work.span(*span, done));
    if done != before {
        engine.state.write(DONE, &done)?;
    }
    outcome.map(|()| work.merged)
}

struct Work<'a> {
    engine: &'a Engine,
    now: Millis,
    merged: Merged,
    /// Segments that may still be read or deleted.
    left: usize,
}

impl Work<'_> {
    fn span(&mut self, span_ms: u64, done: &mut Done) -> Result<()> {
        let over = over(self.now, span_ms);
        if done.last == over {
            return Ok(());
        }
        let segments = self.uncovered(done.upto)?;
        let mut failed = None;
        for run in runs(segments, span_ms, self.now) {
            if self.left == 0 {
                return failed.map_or(Ok(()), Err);
            }
            match self.join(&run) {
                Ok(()) if failed.is_none() => {
                    let last = run.last().map(|(it, _)| (it.epoch, it.last));
                    done.upto = done.upto.max(last);
                }
                Ok(()) => {}
                // It is tried again, and told; what is behind it is merged all the same.
                Err(error) if error.is_refusal() => failed = failed.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        if failed.is_none() {
            done.last = over;
        }
        failed.map_or(Ok(()), Err)
    }

    /// What is in the store behind a position, without what is in it twice.
    fn uncovered(&mut self, upto: Option<(Epoch, Tx)>) -> Result<Vec<Listed>> {
        let store = self.engine.store();
        let listed = match upto {
            Some((epoch, tx)) => store.list_after(names::LOG, &SegmentName::least(epoch, tx.next()))?,
            None => store.list(names::LOG)?,
        };
        let parsed = listed.iter().filter_map(|it| Some((it.name.parse().ok()?, it.bytes)));
        let mut segments: Vec<Listed> = parsed.collect();
        let names: Vec<SegmentName> = segments.iter().map(|(name, _)| *name).collect();
        let covered: HashSet<SegmentName> = covered(&names).into_iter().collect();
        for gone in covered.iter().take(self.left) {
            store.delete(&gone.to_string())?;
        }
        self.left = self.left.saturating_sub(covered.len());
        segments.retain(|(name, _)| !covered.contains(name));
        Ok(segments)
    }

    /// Makes as few of them as may be.
    fn join(&mut self, run: &[Listed]) -> Result<()> {
        if run.len() < 2 {
            return Ok(());
        }
        let engine = self.engine;
        let mut group = Group::new(&engine.common.seal);
        for (index, (segment, bytes)) in run.iter().enumerate() {
            let fits = |others: u64| others.saturating_add(*bytes) <= MERGED_BYTES_MAX as u64;
            if !fits(group.bytes() as u64) {
                self.replace(group.take())?;
            }
            // What fits to neither side is not read.
            let has_next = run.get(index + 1).is_some_and(|(_, next)| fits(*next));
            if group.names.is_empty() && !has_next {
                continue;
            }
            let name = segment.to_string();
            let stored = engine.outbox().get_checked(&name, segment.hash)?;
            self.left = self.left.saturating_sub(1);
            match group.add(&stored, *segment, &name) {
                Ok(true) => {}
                Ok(false) => {
                    self.replace(group.take())?;
                    group.add(&stored, *segment, &name)?;
                }
                // It is of another key: it stays as it is.
                Err(Error::Key { .. }) => self.replace(group.take())?,
                Err(error) => return Err(error),
            }
        }
        self.replace(group)
    }

    /// The new one is stored before the old ones go: both say the same.
    fn replace(&mut self, group: Group<'_>) -> Result<()> {
        let names = group.names.clone();
        let [first, .., last] = names[..] else { return Ok(()) };
        let stored = group.stored()?;
        let name = SegmentName { first: first.first, hash: Hash::of(&stored), ..last };
        self.engine.store().put(&name.to_string(), stored)?;
        for old in &names {
            self.engine.store().delete(&old.to_string())?;
        }
        self.merged.from += names.len();
        self.merged.into += 1;
        Ok(())
    }
}

/// Segments on their way to be one.
struct Group<'a> {
    seal: &'a Seal,
    names: Vec<SegmentName>,
    whole: Whole,
}

enum Whole {
    Opened(Merger),
    /// Where there is no key to open them.
    Closed(Pack),
}

impl<'a> Group<'a> {
    fn new(seal: &'a Seal) -> Self {
        let whole = if seal.can_open() {
            Whole::Opened(Merger::with_capacity(MERGED_BYTES_MAX + FRONT_BYTES))
        } else {
            Whole::Closed(Pack::default())
        };
        Self { seal, names: Vec::new(), whole }
    }

    /// All that is in it; what comes next begins another.
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new(self.seal))
    }

    fn bytes(&self) -> usize {
        match &self.whole {
            Whole::Opened(merger) => merger.bytes(),
            Whole::Closed(pack) => pack.bytes(),
        }
    }

    /// False where there is no room for it; for one there always is.
    fn add(&mut self, stored: &[u8], segment: SegmentName, name: &str) -> Result<bool> {
        let left = MERGED_BYTES_MAX.saturating_sub(self.bytes());
        let has_room = |more: usize| self.names.is_empty() || more <= left;
        match &mut self.whole {
            Whole::Opened(merger) => {
                let opened = pack::open(self.seal, stored, name)?;
                if !has_room(opened.raw().len()) {
                    return Ok(false);
                }
                merger.push(&opened).map_err(|source| Error::Segment { name: name.to_owned(), source })?;
            }
            Whole::Closed(pack) => {
                if !has_room(stored.len()) {
                    return Ok(false);
                }
                pack.push(stored, name)?;
            }
        }
        self.names.push(segment);
        Ok(true)
    }

    fn stored(self) -> Result<Vec<u8>> {
        match self.whole {
            Whole::Opened(merger) => {
                let one = merger.finish().ok_or(Error::Ended("nothing was to be merged"))?;
                self.seal.pack(one.raw(), Effort::Thorough)
            }
            Whole::Closed(pack) => Ok(pack.finish()),
        }
    }
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

    /// The first transactions of each run.
    fn firsts(segments: &[SegmentName], span_ms: u64, now: u64) -> Vec<Vec<u64>> {
        let listed = segments.iter().map(|it| (*it, 1)).collect();
        let runs = runs(listed, span_ms, Millis(now * 1000));
        runs.iter().map(|it| it.iter().map(|(it, _)| it.first.0).collect()).collect()
    }

    #[test]
    fn what_follows_each_other_within_a_minute_that_is_over_becomes_one() {
        let segments =
            [segment(4, 4, 70), segment(5, 6, 80), segment(8, 8, 90), segment(1, 1, 10), segment(2, 3, 50)];
        let [minute, hour] = SPANS_MS;
        assert_eq!(firsts(&segments, minute, 200), [vec![1, 2], vec![4, 5], vec![8]]);
        assert_eq!(firsts(&segments, minute, 139), [[1, 2]]);
        assert!(firsts(&segments, minute, 79).is_empty() && firsts(&segments, hour, 3619).is_empty());
        assert_eq!(firsts(&segments, hour, 3620), [vec![1, 2, 4, 5], vec![8]]);
    }

    #[test]
    fn parts_and_bridges_are_left_alone() {
        let part = SegmentName { part: Part { index: 0, is_last: false }, ..segment(2, 2, 20) };
        let bridge = SegmentName { bridge: Some(Epoch { number: 0, nonce: 0 }), ..segment(3, 3, 20) };
        let segments = [segment(1, 1, 10), part, bridge, segment(4, 4, 20)];
        assert_eq!(firsts(&segments, SPANS_MS[0], 500), [[1], [2], [3], [4]]);
    }

    #[test]
    fn what_is_in_a_larger_one_is_covered() {
        let segments =
            [segment(1, 9, 10), segment(1, 3, 9), segment(4, 9, 9), segment(10, 11, 12), segment(1, 9, 10)];
        assert_eq!(covered(&segments), [segments[1], segments[2]]);
    }
}
