//! A hash of every page as it was shipped last, so that after a gap only what differs has to be shipped.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::page_hash::PageHash;
use crate::position::Position;

/// Eight bytes a page: 2 MiB for 1 GiB of 4-KiB pages. Above this many pages (64 GiB) none are kept, and a gap costs a
/// whole snapshot.
pub const PAGES_MAX: u32 = 16 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(Vec<u64>);

/// What the table on disk is of.
#[derive(Serialize, Deserialize)]
struct Label {
    position: Position,
    pages: usize,
    check: String,
}

impl Table {
    /// None for a database that is too large.
    pub fn with_pages(pages: u32) -> Option<Self> {
        (pages <= PAGES_MAX).then(|| Self(vec![0; pages as usize]))
    }

    pub fn pages(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// `page` from 1 on.
    pub fn set(&mut self, page: u32, hash: PageHash) {
        let Some(index) = page.checked_sub(1).map(|it| it as usize).filter(|_| page <= PAGES_MAX) else {
            return;
        };
        if index >= self.0.len() {
            self.0.resize(index + 1, 0);
        }
        self.0[index] = hash.number();
    }

    pub fn is(&self, page: u32, hash: PageHash) -> bool {
        page.checked_sub(1).and_then(|it| self.0.get(it as usize)) == Some(&hash.number())
    }

    /// The database has so many pages now.
    pub fn resize(&mut self, pages: u32) {
        self.0.resize(pages.min(PAGES_MAX) as usize, 0);
    }

    /// In how many pages they differ; `ignore` is not compared.
    pub fn differences(&self, other: &Self, ignore: u32) -> usize {
        let longer = self.0.len().max(other.0.len());
        let differs = |index: usize| self.0.get(index) != other.0.get(index) && index + 1 != ignore as usize;
        (0..longer).filter(|index| differs(*index)).count()
    }

    pub fn save(&self, path: &Path, position: Position) -> Result<()> {
        // A large table is in memory once more, and not twice.
        let mut hasher = blake3::Hasher::new();
        for hash in &self.0 {
            hasher.update(&hash.to_le_bytes());
        }
        let check = hasher.finalize().to_hex().to_string();
        let label = Label { position, pages: self.0.len(), check };
        let label = serde_json::to_vec(&label).unwrap_or_default();
        let mut bytes = Vec::with_capacity(label.len() + 1 + self.0.len() * 8);
        bytes.extend(label);
        bytes.push(b'\n');
        for hash in &self.0 {
            bytes.extend(hash.to_le_bytes());
        }
        crate::state::write_whole(path, &bytes)
    }

    /// What was saved, if it is whole.
    pub fn load(path: &Path) -> Result<Option<(Self, Position)>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("read", path)(error)),
        };
        Ok(Self::parse(&bytes))
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, Position)> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let label: Label = serde_json::from_slice(&bytes[..end]).ok()?;
        let hashes = &bytes[end + 1..];
        if hashes.len() != label.pages * 8 || blake3::hash(hashes).to_hex().as_str() != label.check {
            return None;
        }
        let (hashes, _) = hashes.as_chunks::<8>();
        Some((Self(hashes.iter().map(|it| u64::from_le_bytes(*it)).collect()), label.position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Epoch, Tx};

    #[test]
    fn a_table_is_loaded_as_it_was_saved_and_a_spoiled_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages");
        let position = Position::begin(Epoch { number: 1, nonce: 2 }, Tx(3));
        let mut table = Table::with_pages(2).unwrap();
        table.set(3, PageHash::of(b"x"));
        table.save(&path, position).unwrap();
        assert_eq!(Table::load(&path).unwrap(), Some((table.clone(), position)));
        assert!(
            table.is(3, PageHash::of(b"x"))
                && !table.is(4, PageHash::of(b"x"))
                && !table.is(0, PageHash::of(b"x"))
        );
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(Table::load(&path).unwrap(), None);
        assert_eq!(Table::load(&folder.path().join("none")).unwrap(), None);
    }

    #[test]
    fn differences_are_counted_also_where_one_is_longer() {
        let mut one = Table::with_pages(3).unwrap();
        let mut two = one.clone();
        one.set(2, PageHash::of(b"a"));
        two.set(5, PageHash::of(b"b"));
        assert_eq!((one.differences(&two, 0), one.differences(&two, 2)), (3, 2));
    }
}
