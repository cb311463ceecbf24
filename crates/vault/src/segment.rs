//! Transactions as they are shipped: cut out of the log, tied by the chain, and read again.
//!
//! ```text
//! "PLIMSEG1" · length of the header, 4 bytes · header, JSON · 8 bytes per frame: page, pages after commit · pages
//! ```
//!
//! All of it is compressed, and perhaps encrypted, before it is stored.

mod merging;

use serde::{Deserialize, Serialize};

use crate::names::{Millis, Part};
use crate::page_hash::PageHash;
use crate::position::{Chain, Epoch, Link, Position, Tx};
use crate::wal::Frame;

pub use merging::Merger;

const MAGIC: &[u8; 8] = b"PLIMSEG1";
/// A segment is cut at so many bytes of pages; one transaction may be larger and is then in parts.
pub const CUT_BYTES: usize = 4 << 20;
/// No header is longer: an hour of marks, ten a second.
const HEADER_BYTES_MAX: usize = 8 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHeader {
    /// The vault's own name, so that no segment of another is taken for its.
    pub vault: String,
    pub epoch: Epoch,
    pub first: Tx,
    pub last: Tx,
    /// The chain before `first` and after `last`.
    pub before: Chain,
    pub after: Chain,
    pub part: Part,
    /// Where this goes on from, if not from within its epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Position>,
    pub page_bytes: u32,
    pub frames: u32,
    /// By when a transaction had been seen, in order.
    pub marks: Vec<(Tx, Millis)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    #[error("it does not begin as a segment")]
    Magic,
    #[error("its header cannot be read")]
    Header,
    #[error("it is not as long as its header says")]
    Length,
    #[error("its transactions are not those that its header names")]
    Transactions,
    #[error("its transactions do not lead on from those before")]
    Chain,
}

/// A segment, unpacked.
#[derive(Clone, Debug)]
pub struct Segment {
    pub header: SegmentHeader,
    /// With whatever is before `begin`.
    raw: Vec<u8>,
    begin: usize,
    table: usize,
    pages: usize,
}

impl PartialEq for Segment {
    fn eq(&self, other: &Self) -> bool {
        self.raw() == other.raw()
    }
}

impl Eq for Segment {}

impl Segment {
    pub fn parse(raw: Vec<u8>) -> Result<Self, SegmentError> {
        if raw.get(..8) != Some(MAGIC.as_slice()) {
            return Err(SegmentError::Magic);
        }
        let length = raw.get(8..12).and_then(|it| it.try_into().ok()).map(u32::from_be_bytes);
        let length = length.map_or(usize::MAX, |it| it as usize);
        if length > HEADER_BYTES_MAX {
            return Err(SegmentError::Header);
        }
        let table = 12 + length;
        let header = raw.get(12..table).ok_or(SegmentError::Length)?;
        let header: SegmentHeader = serde_json::from_slice(header).map_err(|_| SegmentError::Header)?;
        if header.first.0 == 0 || header.last < header.first {
            return Err(SegmentError::Transactions);
        }
        let frames = header.frames as usize;
        let pages = table + frames * 8;
        if frames.checked_mul(header.page_bytes as usize).and_then(|it| it.checked_add(pages))
            != Some(raw.len())
        {
            return Err(SegmentError::Length);
        }
        Ok(Self { header, raw, begin: 0, table, pages })
    }

    pub fn raw(&self) -> &[u8] {
        &self.raw[self.begin..]
    }

    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        let page_bytes = self.header.page_bytes as usize;
        let (table, _) = self.raw[self.table..self.pages].as_chunks::<8>();
        let pages = self.raw[self.pages..].chunks_exact(page_bytes.max(1));
        table.iter().zip(pages).map(|(&[a, b, c, d, e, f, g, h], data)| Frame {
            page: u32::from_be_bytes([a, b, c, d]),
            commit_pages: u32::from_be_bytes([e, f, g, h]),
            data,
        })
    }

    /// The last transaction that had been seen by `time`, if any of these had.
    pub fn seen_by(&self, time: Millis) -> Option<Tx> {
        self.header.marks.iter().filter(|(_, seen)| *seen <= time).map(|(tx, _)| *tx).max()
    }
}

/// Cuts segments out of the frames that come by.
#[derive(Debug)]
pub struct Builder {
    vault: String,
    page_bytes: u32,
    /// After the last whole transaction.
    position: Position,
    /// Of the transaction that has begun.
    link: Option<Link>,
    /// What is not cut yet begins behind this.
    before: Position,
    bridge: Option<Position>,
    part: u16,
    table: Vec<u8>,
    /// Behind [`FRONT_BYTES`], so that what is cut needs not be copied once more.
    pages: Vec<u8>,
    /// Of each page.
    hashes: Vec<PageHash>,
    /// Frames of whole transactions.
    whole: usize,
}

/// Room for what stands before the pages: enough for a thousand of them.
const FRONT_BYTES: usize = 16 * 1024;

/// A segment, and the hash of each of its pages in their order.
#[derive(Debug)]
pub struct Cut {
    pub segment: Segment,
    pub hashes: Vec<PageHash>,
}

impl Builder {
    /// Goes on from `position`. With `bridge`, the first transaction is what differs from there.
    pub fn new(vault: &str, page_bytes: u32, position: Position, bridge: Option<Position>) -> Self {
        Self {
            vault: vault.to_owned(),
            page_bytes,
            position,
            link: None,
            before: position,
            bridge,
            part: 0,
            table: Vec::new(),
            pages: Vec::new(),
            hashes: Vec::new(),
            whole: 0,
        }
    }

    /// After the last whole transaction that came by.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Is there a transaction without its end?
    pub fn is_open(&self) -> bool {
        self.link.is_some()
    }

    /// Takes one more frame; what has become long enough comes back as segments.
    pub fn push(&mut self, frame: Frame<'_>, time: Millis) -> Vec<Cut> {
        let link = self.link.get_or_insert_with(|| Link::after(self.position.chain));
        self.hashes.push(link.add(frame));
        self.table.extend(frame.page.to_be_bytes());
        self.table.extend(frame.commit_pages.to_be_bytes());
        if self.pages.is_empty() {
            self.pages.resize(FRONT_BYTES, 0);
        }
        self.pages.extend(frame.data);
        if frame.commit_pages > 0 {
            self.position = Position { tx: self.position.tx.next(), chain: link.finish(), ..self.position };
            self.link = None;
            self.whole = self.table.len() / 8;
        }
        let mut cut = Vec::new();
        // A transaction in parts ends with its last part, and the first of an epoch stands alone.
        let is_alone = self.part > 0 || self.bridge.is_some();
        if self.is_long() || (is_alone && self.link.is_none()) {
            cut.extend(self.take(time));
            if self.is_long() {
                cut.push(self.cut(self.table.len() / 8, time, true));
            }
        }
        cut
    }

    fn is_long(&self) -> bool {
        self.pages.len() >= FRONT_BYTES + CUT_BYTES
    }

    /// All whole transactions that are not cut yet.
    pub fn take(&mut self, time: Millis) -> Option<Cut> {
        (self.whole > 0).then(|| self.cut(self.whole, time, false))
    }

    fn cut(&mut self, frames: usize, time: Millis, is_open: bool) -> Cut {
        let last = if is_open { self.position.tx.next() } else { self.position.tx };
        let header = SegmentHeader {
            vault: self.vault.clone(),
            epoch: self.position.epoch,
            first: self.before.tx.next(),
            last,
            before: self.before.chain,
            after: self.position.chain,
            part: Part { index: self.part, is_last: !is_open },
            bridge: self.bridge,
            page_bytes: self.page_bytes,
            frames: u32::try_from(frames).unwrap_or(u32::MAX),
            marks: vec![(last, time)],
        };
        let segment = self.cut_pages(header, frames);
        let hashes = self.hashes.drain(..frames).collect();
        self.whole = 0;
        if is_open {
            self.part += 1;
        } else {
            self.part = 0;
            self.bridge = None;
            self.before = self.position;
        }
        Cut { segment, hashes }
    }

    fn cut_pages(&mut self, header: SegmentHeader, frames: usize) -> Segment {
        let (front, table) = front(&header, &self.table[..frames * 8]);
        let end = FRONT_BYTES + frames * self.page_bytes as usize;
        self.table.drain(..frames * 8);
        if let Some(begin) = FRONT_BYTES.checked_sub(front.len())
            && end == self.pages.len()
        {
            let next = Vec::with_capacity(end);
            let mut raw = std::mem::replace(&mut self.pages, next);
            raw[begin..FRONT_BYTES].copy_from_slice(&front);
            return Segment { header, raw, begin, table: begin + table, pages: FRONT_BYTES };
        }
        let pages = front.len();
        let mut raw = front;
        raw.extend_from_slice(&self.pages[FRONT_BYTES..end]);
        self.pages.drain(FRONT_BYTES..end);
        Segment { header, raw, begin: 0, table, pages }
    }
}

/// All that stands before the pages, and where the table begins in it.
fn front(header: &SegmentHeader, table: &[u8]) -> (Vec<u8>, usize) {
    let text = serde_json::to_vec(header).expect("a header is plain data with text keys");
    let length = u32::try_from(text.len()).expect("a header is far below 4 GiB");
    let front = [MAGIC.as_slice(), &length.to_be_bytes(), &text, table].concat();
    (front, 12 + text.len())
}

/// Follows the chain over segments and stops at a transaction.
#[derive(Debug)]
pub struct Follower {
    position: Position,
    link: Option<Link>,
}

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// It belongs to a transaction that is wanted, or to one that was applied before.
    Apply,
    /// It is behind the last one wanted.
    Done,
}

impl Follower {
    pub fn new(position: Position) -> Self {
        Self { position, link: None }
    }

    pub fn position(&self) -> Position {
        self.position
    }

    /// Goes through one segment, up to and with transaction `upto`, and calls `apply` for each frame of those not
    /// applied yet. A segment may begin before our position: what is known already is checked and passed over.
    pub fn follow<'a, E: From<SegmentError>>(
        &mut self,
        segment: &'a Segment,
        upto: Tx,
        mut apply: impl FnMut(Frame<'a>) -> Result<(), E>,
    ) -> Result<Follow, E> {
        let header = &segment.header;
        if let Some(from) = header.bridge
            && header.part.index == 0
        {
            if from != self.position {
                return Err(SegmentError::Chain.into());
            }
            self.position = Position::begin(header.epoch, from.tx);
        }
        if header.epoch != self.position.epoch || header.first > self.position.tx.next() {
            return Err(SegmentError::Chain.into());
        }
        let mut tx = Tx(header.first.0 - 1);
        let (mut chain, known) = (header.before, self.position);
        let mut link = if header.part.index > 0 { self.link.take() } else { None };
        if tx == known.tx && chain != known.chain {
            return Err(SegmentError::Chain.into());
        }
        for frame in segment.frames() {
            if link.is_none() && tx >= upto {
                return Ok(Follow::Done);
            }
            let open = link.get_or_insert_with(|| Link::after(chain));
            open.add(frame);
            let is_new = tx >= known.tx;
            if frame.commit_pages > 0 {
                (tx, chain) = (tx.next(), open.finish());
                link = None;
                if tx == known.tx && chain != known.chain {
                    return Err(SegmentError::Chain.into());
                }
            }
            if is_new {
                apply(frame)?;
                if link.is_none() {
                    self.position = Position { tx, chain, ..self.position };
                }
            }
        }
        let ends_right = if header.part.is_last {
            link.is_none() && tx == header.last && chain == header.after
        } else {
            link.is_some()
        };
        self.link = link;
        if ends_right { Ok(Follow::Apply) } else { Err(SegmentError::Chain.into()) }
    }
}

#[cfg(test)]
mod tests;
