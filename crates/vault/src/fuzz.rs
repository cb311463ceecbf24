//! For `plimsoll-fuzz`: each takes any bytes, and panics where a rule of this crate does not hold.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::catalogue::Identity;
use crate::head::{self, Head};
use crate::manifest::{Facts, Manifest};
use crate::names::{Hash, Millis, SegmentName, SnapshotName, VerifiedName};
use crate::pack::{self, Pack};
use crate::page_one::PageOne;
use crate::plan::{self, Target};
use crate::position::{Position, Tx};
use crate::segment::{Follow, Follower, Merger, Segment, SegmentError};
use crate::snapshot::Remembered;
use crate::table::Table;
use crate::wal::{HEADER_BYTES, Header, Walker};

/// A write-ahead log, and a first page: what the application left beside us.
pub fn log(bytes: &[u8]) {
    let _ = PageOne::parse(bytes);
    let Ok(header) = Header::parse(bytes) else { return };
    let mut walker = Walker::new(header);
    for frame in bytes[HEADER_BYTES..].chunks(header.frame_bytes()) {
        let before = walker;
        match walker.next(frame) {
            Some(it) => {
                assert!(it.page > 0 && it.data.len() == header.page_bytes as usize);
                assert_eq!(walker.frames, before.frames + 1);
                assert_eq!(walker.offset() - before.offset(), frame.len() as u64);
            }
            None => return assert_eq!(walker, before, "it went on over what does not follow"),
        }
    }
}

/// A segment. What is followed to its end is what its header says, and merged with nothing it is itself. A pack of them
/// is what its parts make.
pub fn segment(bytes: &[u8]) {
    if let Ok(parts) = pack::parts(bytes, "x") {
        let mut again = Pack::default();
        for part in &parts {
            again.push(part, "x").expect("a part is no pack");
        }
        assert!(parts == [bytes] || again.finish() == bytes);
    }
    let Ok(segment) = Segment::parse(bytes.to_vec()) else { return };
    assert_eq!(segment.raw(), bytes);
    let header = &segment.header;
    assert_eq!(segment.frames().count(), if header.page_bytes == 0 { 0 } else { header.frames as usize });
    let _ = segment.seen_by(Millis(u64::MAX / 2));
    let begins = Position { epoch: header.epoch, tx: Tx(header.first.0 - 1), chain: header.before };
    let mut follower = Follower::new(header.bridge.unwrap_or(begins));
    let outcome = follower.follow::<SegmentError>(&segment, Tx(u64::MAX), |_| Ok(()));
    if outcome == Ok(Follow::Apply) && header.part.is_last {
        let position = follower.position();
        assert_eq!((position.tx, position.chain), (header.last, header.after));
    }
    let mut merger = Merger::default();
    if merger.push(&segment).is_ok()
        && let Some(merged) = merger.finish()
    {
        assert_eq!(Segment::parse(merged.raw().to_vec()).as_ref(), Ok(&merged));
        assert!(merged.frames().eq(segment.frames()));
    }
}

/// A listing of a store, a name on each line, and what could be restored from it.
pub fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (mut snapshots, mut segments) = (Vec::new(), Vec::new());
    for name in text.lines() {
        let _ = Hash::from_chunk(name);
        segments.extend(again::<SegmentName>(name));
        snapshots.extend(again::<SnapshotName>(name));
        let _ = again::<VerifiedName>(name);
    }
    let _ = plan::end(&snapshots, &segments);
    for target in [Target::Latest, Target::Time(Millis(1 << 40)), Target::Tx(Tx(7))] {
        if let Ok(plan) = plan::plan(&snapshots, &segments, target) {
            assert!(snapshots.contains(&plan.snapshot));
            assert!(plan.steps.iter().all(|step| segments.contains(&step.segment)));
        }
    }
}

/// What is read as a name is written as one that means the same.
fn again<T: std::str::FromStr + std::fmt::Display + PartialEq + std::fmt::Debug>(name: &str) -> Option<T> {
    let read: T = name.parse().ok()?;
    assert_eq!(read.to_string().parse::<T>().ok().as_ref(), Some(&read), "{name:?}");
    Some(read)
}

/// Manifests, and what is remembered on this machine.
pub fn records(bytes: &[u8]) {
    if let Some(manifest) = json::<Manifest>(bytes) {
        let _ = (manifest.objects(), manifest.stored_bytes());
    }
    let _ = (json::<Facts>(bytes), json::<Identity>(bytes), json::<Head>(bytes), json::<Remembered>(bytes));
    let _ = head::parse(bytes);
    if let Some((table, _)) = Table::parse(bytes) {
        assert!(table.pages() as usize * 8 <= bytes.len());
    }
}

/// What was read can be written, and read again as the same text.
fn json<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let text = serde_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&text).expect("and read again");
    assert_eq!(serde_json::to_vec(&again).expect("and written"), text);
    Some(value)
}
