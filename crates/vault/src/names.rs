//! What objects in a store are called. A name says what is in it, so that listings alone answer most questions, and
//! carries the hash of the bytes, so that a spoiled object is known without opening it.
//!
//! ```text
//! vault.json                                             which vault this is
//! writer.json                                            who writes to it
//! chunks/ab/HASH                                         pages, and the facts of a snapshot
//! log/EPOCH/FIRST-LAST-TIME-PART-KIND-HASH               transactions
//! snapshots/TIME-EPOCH-TX-HASH                           manifests
//! verified/SNAPSHOT-TIME-OUTCOME                         what came of restoring one
//! ```
//!
//! Numbers are hexadecimal and of one width, so that the order of names is that of time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::position::{Epoch, Tx};

pub const VAULT: &str = "vault.json";
pub const WRITER: &str = "writer.json";
pub const CHUNKS: &str = "chunks";
pub const LOG: &str = "log";
pub const SNAPSHOTS: &str = "snapshots";
pub const VERIFIED: &str = "verified";

/// blake3 over the bytes of an object as they are stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Where a chunk of this hash is.
    pub fn chunk(&self) -> String {
        let text = self.to_string();
        format!("{CHUNKS}/{}/{text}", &text[..2])
    }

    /// The hash in the name of a chunk.
    pub fn from_chunk(name: &str) -> Option<Self> {
        name.strip_prefix(CHUNKS)?.strip_prefix('/')?.split_once('/')?.1.parse().ok()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl FromStr for Hash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| ())
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|()| serde::de::Error::custom("not a hash"))
    }
}

/// Milliseconds since 1970, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    pub fn now() -> Self {
        Self::from_timestamp(jiff::Timestamp::now())
    }

    pub fn from_timestamp(time: jiff::Timestamp) -> Self {
        Self(u64::try_from(time.as_millisecond()).unwrap_or(0))
    }

    pub fn timestamp(self) -> jiff::Timestamp {
        let milliseconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX)
    }

    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Which part of a transaction too large for one segment; whole transactions are part 0 and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    pub index: u16,
    pub is_last: bool,
}

impl Part {
    pub const WHOLE: Self = Self { index: 0, is_last: true };
}

/// Transactions `first` to `last`, as shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentName {
    pub epoch: Epoch,
    pub first: Tx,
    pub last: Tx,
    /// When the last of them was seen.
    pub time: Millis,
    pub part: Part,
    /// It is what differs from the end of this epoch.
    pub bridge: Option<Epoch>,
    pub hash: Hash,
}

impl SegmentName {
    /// What comes before the names of all segments of this epoch that begin with `first` or later.
    pub fn least(epoch: Epoch, first: Tx) -> String {
        format!("{LOG}/{epoch}/{:016x}", first.0)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, first, last, time, part, bridge, hash } = self;
        let end = if part.is_last { 'z' } else { 'm' };
        write!(
            out,
            "{LOG}/{epoch}/{:016x}-{:016x}-{:012x}-{:04x}{end}-",
            first.0, last.0, time.0, part.index
        )?;
        match bridge {
            Some(from) => write!(out, "{from}-{hash}"),
            None => write!(out, "w-{hash}"),
        }
    }
}

impl FromStr for SegmentName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, name) = text.strip_prefix("log/").and_then(|it| it.split_once('/')).ok_or(())?;
        let fields: Vec<&str> = name.split('-').collect();
        let [first, last, time, part, kind, hash] = fields[..] else { return Err(()) };
        let index = part.get(..4).ok_or(())?;
        let is_last = match &part[4..] {
            "z" => true,
            "m" => false,
            _ => return Err(()),
        };
        let (first, last) = (number(first)?, number(last)?);
        // The first transaction of all is 1.
        if first == 0 || last < first {
            return Err(());
        }
        Ok(Self {
            epoch: epoch.parse()?,
            first: Tx(first),
            last: Tx(last),
            time: Millis(number(time)?),
            part: Part { index: u16::from_str_radix(index, 16).map_err(|_| ())?, is_last },
            bridge: if kind == "w" { None } else { Some(kind.parse()?) },
            hash: hash.parse()?,
        })
    }
}

/// A consistent copy of the whole database at one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotName {
    pub time: Millis,
    pub epoch: Epoch,
    pub tx: Tx,
    /// Of the manifest's bytes.
    pub hash: Hash,
}

impl SnapshotName {
    /// How people name it: the first eight digits of its hash.
    pub fn short(&self) -> String {
        let mut text = self.hash.to_string();
        text.truncate(8);
        text
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, epoch, tx, hash } = self;
        write!(out, "{SNAPSHOTS}/{:012x}-{epoch}-{:016x}-{hash}", time.0, tx.0)
    }
}

impl FromStr for SnapshotName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let fields: Vec<&str> = text.strip_prefix("snapshots/").ok_or(())?.split('-').collect();
        let [time, epoch, tx, hash] = fields[..] else { return Err(()) };
        Ok(Self {
            time: Millis(number(time)?),
            epoch: epoch.parse()?,
            tx: Tx(number(tx)?),
            hash: hash.parse()?,
        })
    }
}

/// That a snapshot was restored, when, and whether it was what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VerifiedName {
    /// The hash of the snapshot's manifest.
    pub snapshot: Hash,
    pub time: Millis,
    pub is_good: bool,
}

impl fmt::Display for VerifiedName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = if self.is_good { "good" } else { "bad" };
        write!(out, "{VERIFIED}/{}-{:012x}-{outcome}", self.snapshot, self.time.0)
    }
}

impl FromStr for VerifiedName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let fields: Vec<&str> = text.strip_prefix("verified/").ok_or(())?.split('-').collect();
        let [snapshot, time, outcome] = fields[..] else { return Err(()) };
        let is_good = match outcome {
            "good" => true,
            "bad" => false,
            _ => return Err(()),
        };
        Ok(Self { snapshot: snapshot.parse()?, time: Millis(number(time)?), is_good })
    }
}

fn number(text: &str) -> Result<u64, ()> {
    if text.starts_with('+') {
        return Err(());
    }
    u64::from_str_radix(text, 16).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch { number: 2, nonce: 0xabcd };

    #[test]
    fn names_are_read_as_they_were_written() {
        let hash = Hash::of(b"x");
        for (bridge, part) in [(None, Part::WHOLE), (Some(EPOCH), Part { index: 3, is_last: false })] {
            let name = SegmentName {
                epoch: EPOCH,
                first: Tx(1),
                last: Tx(0x1f),
                time: Millis(1_700_000_000_000),
                part,
                bridge,
                hash,
            };
            assert_eq!(name.to_string().parse(), Ok(name), "{name}");
        }
        let snapshot = SnapshotName { time: Millis(5), epoch: EPOCH, tx: Tx(7), hash };
        assert_eq!(snapshot.to_string().parse(), Ok(snapshot));
        let verified = VerifiedName { snapshot: hash, time: Millis(6), is_good: false };
        assert_eq!(verified.to_string().parse(), Ok(verified));
        assert_eq!(Hash::from_chunk(&hash.chunk()), Some(hash));
    }

    #[test]
    fn what_is_no_name_of_ours_is_refused() {
        for text in
            ["log/x", "log/0000000200000000/1-2-3-0000z-w", "snapshots/", "log/é-é", "log/a/0-0-0-é-w-x"]
        {
            assert!(text.parse::<SegmentName>().is_err() && text.parse::<SnapshotName>().is_err(), "{text}");
        }
        // Transactions are counted from 1 on, and forwards.
        for (first, last) in [(0, 0), (0, 3), (4, 3)] {
            let name = SegmentName {
                epoch: EPOCH,
                first: Tx(first),
                last: Tx(last),
                time: Millis(1),
                part: Part::WHOLE,
                bridge: None,
                hash: Hash::of(b"x"),
            };
            assert_eq!(name.to_string().parse::<SegmentName>(), Err(()), "{name}");
        }
    }

    #[test]
    fn the_order_of_names_is_that_of_time() {
        let name = |time| SnapshotName { time: Millis(time), epoch: EPOCH, tx: Tx(1), hash: Hash::of(b"x") };
        assert!(name(9).to_string() < name(1_700_000_000_000).to_string());
    }
}
