//! Finds what goes on from a transaction without looking at every name.

use std::collections::{BTreeMap, HashMap};

use crate::names::{Part, SegmentName};
use crate::position::{Epoch, Tx};

/// By epoch, of segments in one: sorted by their first transaction, each with the one that leads furthest of it and all
/// before.
type Whole<'a> = HashMap<Epoch, Vec<(Tx, &'a SegmentName)>>;

#[derive(Debug)]
pub(super) struct Index<'a> {
    whole: Whole<'a>,
    /// Of a transaction in parts.
    parts: HashMap<(Epoch, Tx), Vec<&'a SegmentName>>,
    /// By the epoch that they go on from, whole and in parts.
    bridges: HashMap<Epoch, Vec<&'a SegmentName>>,
}

impl<'a> Index<'a> {
    pub(super) fn new(segments: &'a [SegmentName]) -> Self {
        let mut index = Self { whole: HashMap::new(), parts: HashMap::new(), bridges: HashMap::new() };
        for segment in segments {
            if let Some(from) = segment.bridge {
                index.bridges.entry(from).or_default().push(segment);
            } else if segment.part == Part::WHOLE {
                index.whole.entry(segment.epoch).or_default().push((segment.first, segment));
            } else if segment.first == segment.last {
                index.parts.entry((segment.epoch, segment.first)).or_default().push(segment);
            }
        }
        for segments in index.whole.values_mut() {
            segments.sort_unstable_by_key(|(first, _)| *first);
            let mut furthest: Option<&SegmentName> = None;
            for (_, segment) in segments {
                match furthest {
                    Some(it) if (it.last, it.hash) >= (segment.last, segment.hash) => *segment = it,
                    _ => furthest = Some(segment),
                }
            }
        }
        index
    }

    /// The transaction after which a later epoch goes on from this one.
    pub(super) fn leaves_at(&self, epoch: Epoch, tx: Tx) -> Option<Tx> {
        let bridges = self.bridges.get(&epoch)?.iter();
        bridges.map(|it| Tx(it.first.0 - 1)).filter(|it| *it >= tx).min()
    }

    /// All parts of what goes on within the epoch; of segments in one that which leads furthest.
    pub(super) fn next(&self, epoch: Epoch, tx: Tx) -> Option<Vec<SegmentName>> {
        let whole = self.whole.get(&epoch).map_or([].as_slice(), Vec::as_slice);
        let behind = whole.partition_point(|(first, _)| *first <= tx.next());
        let furthest = whole[..behind].last().map(|(_, segment)| *segment);
        if let Some(segment) = furthest.filter(|it| it.last > tx) {
            return Some(vec![*segment]);
        }
        all_parts(self.parts.get(&(epoch, tx.next()))?)
    }

    /// All parts of what leads into the epoch that goes on here, the latest if there are several.
    pub(super) fn bridge(&self, from: Epoch, tx: Tx) -> Option<Vec<SegmentName>> {
        let bridges = self.bridges.get(&from)?.iter();
        let fitting: Vec<_> = bridges.filter(|it| it.first <= tx.next() && it.last > tx).copied().collect();
        let whole = fitting.iter().filter(|it| it.part == Part::WHOLE);
        match whole.max_by_key(|it| (it.epoch, it.last, it.hash)) {
            Some(whole) => Some(vec![**whole]),
            None => all_parts(&fitting),
        }
    }
}

/// In their order, up to the last one; `None` where one is missing.
fn all_parts(parts: &[&SegmentName]) -> Option<Vec<SegmentName>> {
    let end = **parts.iter().filter(|it| it.part.is_last).max_by_key(|it| (it.epoch, it.hash))?;
    let mut by_index: BTreeMap<u16, SegmentName> = BTreeMap::new();
    for part in parts.iter().filter(|it| it.epoch == end.epoch) {
        let kept = by_index.entry(part.part.index).or_insert(**part);
        *kept = std::cmp::max_by_key(*kept, **part, |it| it.hash);
    }
    by_index.insert(end.part.index, end);
    (0..=end.part.index).map(|index| by_index.get(&index).copied()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::{Hash, Millis};

    fn epoch(number: u32) -> Epoch {
        Epoch { number, nonce: 0 }
    }

    /// By looking at every name.
    fn plainly(segments: &[SegmentName], here: (Epoch, Tx), is_bridge: bool) -> Option<Vec<SegmentName>> {
        let (epoch, tx) = here;
        let wanted = |it: &&SegmentName| {
            let is_here = if is_bridge { it.bridge == Some(epoch) } else { it.epoch == epoch };
            is_here && it.bridge.is_some() == is_bridge && it.first <= tx.next() && it.last > tx
        };
        let fitting: Vec<&SegmentName> = segments.iter().filter(wanted).collect();
        let whole = fitting.iter().filter(|it| it.part == Part::WHOLE);
        match whole.max_by_key(|it| (it.epoch, it.last, it.hash)) {
            Some(whole) => Some(vec![**whole]),
            None => all_parts(&fitting),
        }
    }

    fn segment() -> impl Strategy<Value = SegmentName> {
        let part = (0..3_u16, any::<bool>(), 0..4_u8);
        (0..3_u32, 1..12_u64, 0..5_u64, part, any::<u8>(), 0..4_u8).prop_map(
            |(number, first, more, (index, is_last, is_whole), salt, is_bridge)| {
                let part = if is_whole > 0 { Part::WHOLE } else { Part { index, is_last } };
                // One transaction alone is in parts.
                let last = if part == Part::WHOLE { first + more } else { first };
                SegmentName {
                    epoch: epoch(number),
                    first: Tx(first),
                    last: Tx(last),
                    time: Millis(last),
                    part,
                    bridge: (is_bridge == 0).then(|| epoch(number.saturating_sub(1))),
                    hash: Hash::of(&[salt]),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_looking_at_every_name_finds(
            segments in proptest::collection::vec(segment(), 0..40),
            number in 0..3_u32,
            tx in 0..16_u64,
        ) {
            let index = Index::new(&segments);
            let here = (epoch(number), Tx(tx));
            prop_assert_eq!(index.next(here.0, here.1), plainly(&segments, here, false));
            prop_assert_eq!(index.bridge(here.0, here.1), plainly(&segments, here, true));
        }
    }

    #[test]
    fn a_week_of_names_is_walked_at_once() {
        let name = |tx: u64| SegmentName {
            epoch: epoch(1),
            first: Tx(tx),
            last: Tx(tx),
            time: Millis(tx),
            part: Part::WHOLE,
            bridge: None,
            hash: Hash::of(&tx.to_le_bytes()),
        };
        let segments: Vec<SegmentName> = (1..=300_000).map(name).collect();
        assert_eq!(super::super::follow(&segments, epoch(1), Tx(0), Tx(u64::MAX)).len(), segments.len());
    }
}
