//! Segments that follow each other, on their way to be one.

use crate::names::Part;

use super::{Segment, SegmentError, SegmentHeader, front};

/// Takes segments in one by one, so that they are in memory once. Nothing in them is lost: every transaction stays its
/// own.
#[derive(Debug, Default)]
pub struct Merger {
    header: Option<SegmentHeader>,
    table: Vec<u8>,
    pages: Vec<u8>,
    /// Of all that was taken in.
    bytes: usize,
}

impl Merger {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { pages: Vec::with_capacity(bytes), ..Self::default() }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Only whole transactions of one epoch are merged, each segment with the one that it follows.
    pub fn push(&mut self, segment: &Segment) -> Result<(), SegmentError> {
        let two = &segment.header;
        if two.part != Part::WHOLE || two.bridge.is_some() {
            return Err(SegmentError::Chain);
        }
        match &mut self.header {
            None => self.header = Some(two.clone()),
            Some(one) => {
                let follows =
                    one.last.next() == two.first && one.after == two.before && one.epoch == two.epoch;
                if !follows || one.page_bytes != two.page_bytes || one.vault != two.vault {
                    return Err(SegmentError::Chain);
                }
                one.frames = one.frames.checked_add(two.frames).ok_or(SegmentError::Length)?;
                (one.last, one.after) = (two.last, two.after);
                one.marks.extend(&two.marks);
            }
        }
        self.table.extend(&segment.raw[segment.table..segment.pages]);
        self.pages.extend(&segment.raw[segment.pages..]);
        self.bytes += segment.raw().len();
        Ok(())
    }

    /// `None`: nothing was taken in.
    pub fn finish(self) -> Option<Segment> {
        let header = self.header?;
        let (front, table) = front(&header, &self.table);
        let pages = front.len();
        let mut raw = self.pages;
        raw.splice(0..0, front);
        Some(Segment { header, raw, begin: 0, table, pages })
    }
}
