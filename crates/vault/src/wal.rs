//! The write-ahead log of SQLite, as bytes: its header, its frames, and the running checksum that ties them together.
//!
//! Shapes from <https://sqlite.org/fileformat2.html#the_write_ahead_log>. Not known here: files, and which frames are
//! committed. A frame that follows on is *possible*; that it is committed, only the wal-index says.

/// Bytes before the first frame.
pub const HEADER_BYTES: usize = 32;
/// Bytes before the page of each frame.
pub const FRAME_HEADER_BYTES: usize = 24;

const MAGIC_LITTLE: u32 = 0x377f_0682;
const MAGIC_BIG: u32 = 0x377f_0683;
const VERSION: u32 = 3_007_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    #[error("it is shorter than its header")]
    Short,
    #[error("its header does not begin as that of a write-ahead log")]
    Magic,
    #[error("its version is {0}, and {VERSION} is known")]
    Version(u32),
    #[error("its page size {0} is impossible")]
    PageSize(u32),
    #[error("the checksum of its header is wrong")]
    HeaderChecksum,
}

/// How words are read for the checksum: the order of bytes of the machine that created the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    Little,
    Big,
}

/// The two halves of the running checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Checksum(pub u32, pub u32);

/// What makes one generation of the log: the salts change each time it is begun again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Salt(pub u32, pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Header {
    pub order: Order,
    pub page_bytes: u32,
    pub salt: Salt,
    /// Where the running checksum begins.
    pub checksum: Checksum,
}

impl Header {
    pub fn parse(bytes: &[u8]) -> Result<Self, WalError> {
        let bytes: &[u8; HEADER_BYTES] =
            bytes.get(..HEADER_BYTES).and_then(|it| it.try_into().ok()).ok_or(WalError::Short)?;
        let order = match word(bytes, 0) {
            MAGIC_LITTLE => Order::Little,
            MAGIC_BIG => Order::Big,
            _ => return Err(WalError::Magic),
        };
        if word(bytes, 4) != VERSION {
            return Err(WalError::Version(word(bytes, 4)));
        }
        let page_bytes = word(bytes, 8);
        if !page_bytes.is_power_of_two() || !(512..=65_536).contains(&page_bytes) {
            return Err(WalError::PageSize(page_bytes));
        }
        let checksum = Checksum(word(bytes, 24), word(bytes, 28));
        if order.sum(Checksum::default(), &bytes[..24]) != checksum {
            return Err(WalError::HeaderChecksum);
        }
        Ok(Self { order, page_bytes, salt: Salt(word(bytes, 16), word(bytes, 20)), checksum })
    }

    /// Bytes of one frame, its header included.
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.page_bytes as usize
    }

    /// Where frame `index` begins, counted from 0.
    pub fn offset_of(&self, index: u32) -> u64 {
        HEADER_BYTES as u64 + u64::from(index) * self.frame_bytes() as u64
    }
}

impl Order {
    /// Adds `bytes`, whose length is a multiple of 8.
    pub fn sum(self, from: Checksum, bytes: &[u8]) -> Checksum {
        debug_assert!(bytes.len().is_multiple_of(8), "the checksum takes words in pairs");
        let read = |bytes: [u8; 4]| match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        };
        let Checksum(mut one, mut two) = from;
        let (pairs, _) = bytes.as_chunks::<8>();
        for &[a, b, c, d, e, f, g, h] in pairs {
            one = one.wrapping_add(read([a, b, c, d])).wrapping_add(two);
            two = two.wrapping_add(read([e, f, g, h])).wrapping_add(one);
        }
        Checksum(one, two)
    }
}

/// One frame, borrowed from the bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// From 1 on.
    pub page: u32,
    /// Pages of the database after the commit; 0 in all frames but the last of a transaction.
    pub commit_pages: u32,
    pub data: &'a [u8],
}

/// Goes from frame to frame. It stands behind the last one that followed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Walker {
    pub header: Header,
    /// Frames that followed on so far.
    pub frames: u32,
    pub checksum: Checksum,
}

impl Walker {
    pub fn new(header: Header) -> Self {
        Self { header, frames: 0, checksum: header.checksum }
    }

    /// Where the next frame begins in the file.
    pub fn offset(&self) -> u64 {
        self.header.offset_of(self.frames)
    }

    /// The frame at the beginning of `bytes`, if it is whole and follows on: same salts, right checksum.
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> Option<Frame<'a>> {
        let bytes = bytes.get(..self.header.frame_bytes())?;
        let (head, data) = bytes.split_at(FRAME_HEADER_BYTES);
        let head: &[u8; FRAME_HEADER_BYTES] = head.try_into().ok()?;
        let page = word(head, 0);
        if page == 0 || Salt(word(head, 8), word(head, 12)) != self.header.salt {
            return None;
        }
        let order = self.header.order;
        let checksum = order.sum(order.sum(self.checksum, &head[..8]), data);
        if checksum != Checksum(word(head, 16), word(head, 20)) {
            return None;
        }
        self.frames += 1;
        self.checksum = checksum;
        Some(Frame { page, commit_pages: word(head, 4), data })
    }
}

fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(word)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A log as SQLite would write it: `(page, commit_pages, fill)` for each frame.
    pub(crate) fn log(order: Order, salt: Salt, frames: &[(u32, u32, u8)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let magic = if order == Order::Little { MAGIC_LITTLE } else { MAGIC_BIG };
        for word in [magic, VERSION, 512, 0, salt.0, salt.1] {
            bytes.extend(word.to_be_bytes());
        }
        let mut sum = order.sum(Checksum::default(), &bytes);
        bytes.extend([sum.0.to_be_bytes(), sum.1.to_be_bytes()].concat());
        for (page, commit, fill) in frames {
            let head = [page.to_be_bytes(), commit.to_be_bytes()].concat();
            let data = [*fill; 512];
            sum = order.sum(order.sum(sum, &head), &data);
            bytes.extend(head);
            for word in [salt.0, salt.1, sum.0, sum.1] {
                bytes.extend(word.to_be_bytes());
            }
            bytes.extend(data);
        }
        bytes
    }

    fn walk(bytes: &[u8]) -> Vec<(u32, u32, u8)> {
        let Ok(header) = Header::parse(bytes) else { return Vec::new() };
        let mut walker = Walker::new(header);
        let mut found = Vec::new();
        while let Some(frame) =
            bytes.get(usize::try_from(walker.offset()).unwrap()..).and_then(|rest| walker.next(rest))
        {
            found.push((frame.page, frame.commit_pages, frame.data[0]));
        }
        found
    }

    #[test]
    fn a_real_log_of_sqlite_is_read_to_its_last_frame() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(
            "PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES (randomblob(9000));",
        )
        .unwrap();
        let frames: u32 = db.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1)).unwrap();
        let bytes = std::fs::read(folder.path().join("a.db-wal")).unwrap();
        let mut walker = Walker::new(Header::parse(&bytes).unwrap());
        let mut last_commit = 0;
        while let Some(frame) =
            bytes.get(usize::try_from(walker.offset()).unwrap()..).and_then(|rest| walker.next(rest))
        {
            last_commit = if frame.commit_pages > 0 { walker.frames } else { last_commit };
        }
        assert_eq!((walker.frames, last_commit), (frames, frames));
    }

    #[test]
    fn frames_of_another_generation_do_not_follow_on() {
        let mut bytes = log(Order::Little, Salt(1, 2), &[(1, 0, 7), (2, 2, 8)]);
        let older = log(Order::Little, Salt(0, 2), &[(1, 0, 7), (2, 2, 8), (3, 3, 9)]);
        bytes.extend(&older[bytes.len()..]);
        assert_eq!(walk(&bytes), [(1, 0, 7), (2, 2, 8)]);
    }

    #[test]
    fn a_header_that_is_none_is_named() {
        assert_eq!(Header::parse(&[0; 31]), Err(WalError::Short));
        assert_eq!(Header::parse(&[0; 32]), Err(WalError::Magic));
        let mut bytes = log(Order::Big, Salt(1, 2), &[]);
        bytes[11] = 3;
        assert_eq!(Header::parse(&bytes), Err(WalError::PageSize(515)));
        bytes[11] = 0;
        bytes[20] ^= 1;
        assert_eq!(Header::parse(&bytes), Err(WalError::HeaderChecksum));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_a_flipped_bit_ends_it(
            frames in proptest::collection::vec((1..9_u32, 0..3_u32, 0..=255_u8), 1..6),
            big in any::<bool>(),
            flip in any::<proptest::sample::Index>(),
        ) {
            let order = if big { Order::Big } else { Order::Little };
            let mut bytes = log(order, Salt(5, 6), &frames);
            prop_assert_eq!(walk(&bytes), frames.clone());
            let at = HEADER_BYTES * 8 + flip.index((bytes.len() - HEADER_BYTES) * 8);
            bytes[at / 8] ^= 1 << (at % 8);
            let hit = (at / 8 - HEADER_BYTES) / (512 + FRAME_HEADER_BYTES);
            prop_assert_eq!(walk(&bytes), &frames[..hit]);
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            walk(&bytes);
        }
    }
}
