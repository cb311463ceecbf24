//! Up to where was shipped, written ten times a second: two places in one file, taking turns. A place that was torn is
//! known by its hash, and then the other one counts.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::database::read_at;
use crate::error::{Error, Result};
use crate::fault;
use crate::position::Position;
use crate::wal::Walker;

const PLACES: u64 = 2;
const PLACE_BYTES: usize = 1024;

/// Up to where was shipped, and where that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub position: Position,
    /// `None` where there was no log.
    pub walker: Option<Walker>,
    pub device: u64,
    pub inode: u64,
}

/// One place: a line of JSON, and its hash.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    turn: u64,
    head: Head,
}

#[derive(Debug)]
pub struct HeadFile {
    path: PathBuf,
    file: File,
    last: Mutex<(u64, Option<Head>)>,
}

impl HeadFile {
    pub fn open(path: &Path) -> Result<Self> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(Error::file("open", path))?;
        let newest = (0..PLACES).filter_map(|place| read(&file, place)).max_by_key(|it| it.turn);
        let last = newest.map_or((0, None), |it| (it.turn, Some(it.head)));
        Ok(Self { path: path.to_owned(), file, last: Mutex::new(last) })
    }

    pub fn get(&self) -> Option<Head> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Not synced: after a crash of the machine the store says what was shipped, or a new epoch begins.
    pub fn set(&self, head: Head) -> Result<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place { turn: last.0 + 1, head };
        let failed = || Error::file("write", &self.path);
        let mut bytes = serde_json::to_vec(&place).map_err(|error| failed()(error.into()))?;
        let hash = blake3::hash(&bytes).to_hex();
        bytes.push(b'\n');
        bytes.extend(hash.as_bytes());
        bytes.resize(PLACE_BYTES, b'\n');
        let (first, rest) = bytes.split_at(PLACE_BYTES / 4);
        let write = || {
            fault::step()?;
            self.file.write_all_at(first, offset(place.turn))?;
            fault::step()?;
            self.file.write_all_at(rest, offset(place.turn) + first.len() as u64)
        };
        write().map_err(failed())?;
        *last = (place.turn, Some(head));
        Ok(())
    }

    /// As if nothing had ever been shipped.
    pub fn forget(&self) -> Result<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.file.set_len(0).map_err(Error::file("empty", &self.path))?;
        last.1 = None;
        Ok(())
    }
}

fn offset(turn: u64) -> u64 {
    turn % PLACES * PLACE_BYTES as u64
}

fn read(file: &File, place: u64) -> Option<Place> {
    let mut bytes = [0; PLACE_BYTES];
    read_at(file, &mut bytes, offset(place)).ok()?;
    parse(&bytes)
}

pub(crate) fn parse(bytes: &[u8]) -> Option<Place> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let (text, hash) = (lines.next()?, lines.next()?);
    let is_whole = blake3::hash(text).to_hex().as_bytes() == hash;
    is_whole.then(|| serde_json::from_slice(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Epoch, Tx};

    fn head(tx: u64) -> Head {
        let position = Position::begin(Epoch { number: 1, nonce: 2 }, Tx(tx));
        Head { position, walker: None, device: u64::MAX, inode: u64::MAX }
    }

    #[test]
    fn a_place_that_was_torn_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head");
        let open = || HeadFile::open(&path).unwrap();
        assert_eq!(open().get(), None);
        let file = open();
        for tx in 1..6 {
            file.set(head(tx)).unwrap();
            assert_eq!(open().get(), Some(head(tx)));
        }
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            std::fs::write(&path, &torn).unwrap();
            let found = open().get().map(|it| it.position.tx.0);
            assert!(found == Some(5) || found == Some(4), "{at}: {found:?}");
        }
        std::fs::write(&path, &whole).unwrap();
        open().forget().unwrap();
        assert_eq!(open().get(), None);
    }
}
