//! The end of the write-ahead log: what was committed since the last look, verified frame by frame.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;

use crate::database::{Database, read_at};
use crate::error::{Error, Result};
use crate::wal::{FRAME_HEADER_BYTES, Frame, HEADER_BYTES, Header, Salt, Walker};

/// Read at once.
const BATCH_BYTES: usize = 1 << 20;

/// Frames that are committed, and how many of them are in the database's file by now; from the wal-index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub frames: u32,
    pub backfilled: u32,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing new; so many frames are committed.
    Same(Committed),
    /// Frames up to here are committed and belong to the generation that is being followed.
    More(Committed),
    /// The log was begun again. If all of the former generation was copied, nothing is lost.
    Began(Header, Committed),
}

#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    database: PathBuf,
    buffer: Vec<u8>,
    /// The log as it was opened last: to open it costs as much as what is read of it, ten times a second.
    opened: RefCell<Option<Arc<File>>>,
}

impl Tail {
    pub fn new(database: &Database) -> Self {
        Self {
            path: database.beside("-wal"),
            database: database.path.clone(),
            buffer: Vec::new(),
            opened: RefCell::default(),
        }
    }

    /// This one with its memory, so that somebody else can be told what it reads; another stays, without.
    pub(crate) fn take(&mut self) -> Self {
        let buffer = std::mem::take(&mut self.buffer);
        Self { path: self.path.clone(), database: self.database.clone(), buffer, opened: self.opened.clone() }
    }

    /// What is committed, by SQLite's own word and without any lock. `connection` holds no transaction.
    pub fn committed(&self, connection: &Connection) -> Result<Committed> {
        let ask = || {
            let mut statement = connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
            statement.query_row([], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
        };
        let (frames, backfilled) = ask().map_err(Error::database(&self.database))?;
        // -1: there is no log yet.
        let count = |it: i64| u32::try_from(it).unwrap_or(0);
        Ok(Committed { frames: count(frames), backfilled: count(backfilled) })
    }

    /// The log's header; `None` while there is no log, or an empty one.
    pub fn header(&self) -> Result<Option<Header>> {
        let Some(file) = self.open()? else { return Ok(None) };
        let mut bytes = [0; HEADER_BYTES];
        match read_at(&file, &mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(Error::file("read", &self.path)(error)),
        }
        // One that is being written is read again at the next look.
        Ok(Header::parse(&bytes).ok())
    }

    pub fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |meta| meta.len())
    }

    /// Looks whether there is more. The count belongs to the generation of the header only if the header is the same
    /// before and after it was asked for: a log that is begun again counts from 0 until its new header is written.
    pub fn look(&self, connection: &Connection, walker: Option<&Walker>) -> Result<Look> {
        let before = self.header()?;
        let committed = self.committed(connection)?;
        let Some(header) = before.filter(|_| committed.frames > 0) else {
            return Ok(Look::Same(committed));
        };
        if self.header()? != Some(header) {
            return Ok(Look::Same(committed));
        }
        Ok(match walker {
            Some(walker) if walker.header.salt == header.salt => {
                if committed.frames > walker.frames {
                    Look::More(committed)
                } else {
                    Look::Same(committed)
                }
            }
            Some(_) | None => Look::Began(header, committed),
        })
    }

    /// Reads on until `frames`, which are committed, and hands each out. It is an error if one does not follow on.
    pub fn read(
        &mut self,
        walker: &mut Walker,
        frames: u32,
        mut each: impl FnMut(Frame<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(file) = self.open()? else {
            return Err(Error::Unfit { path: self.path.clone(), why: "it is gone".to_owned() });
        };
        let frame_bytes = walker.header.frame_bytes();
        while walker.frames < frames {
            let count = ((frames - walker.frames) as usize).min((BATCH_BYTES / frame_bytes).max(1));
            let length = count * frame_bytes;
            if self.buffer.len() < length {
                self.buffer.resize(length, 0);
            }
            let batch = &mut self.buffer[..length];
            read_at(&file, batch, walker.offset()).map_err(Error::file("read", &self.path))?;
            for bytes in batch.chunks_exact(frame_bytes) {
                let at = walker.frames;
                let frame = walker.next(bytes).ok_or_else(|| Error::Unfit {
                    path: self.path.clone(),
                    why: format!("frame {at} of {frames} committed ones does not follow on: its salts or checksum are wrong"),
                })?;
                each(frame)?;
            }
        }
        Ok(())
    }

    /// Whether there is a frame behind the walker that follows on, committed or not.
    pub fn has_next(&self, walker: &Walker) -> Result<bool> {
        let Some(file) = self.open()? else { return Ok(false) };
        let mut bytes = vec![0; walker.header.frame_bytes()];
        match read_at(&file, &mut bytes, walker.offset()) {
            Ok(()) => Ok(walker.clone().next(&bytes).is_some()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(Error::file("read", &self.path)(error)),
        }
    }

    /// For each page with a frame among the first `frames`, where its last one begins.
    pub(crate) fn index(&self, header: Header, frames: u32) -> Result<std::collections::HashMap<u32, u64>> {
        let mut index = std::collections::HashMap::new();
        let Some(file) = self.open()? else { return Ok(index) };
        for frame in 0..frames {
            let offset = header.offset_of(frame);
            if let Some((page, _)) = self.page_of(&file, header.salt, offset)? {
                index.insert(page, offset);
            }
        }
        Ok(index)
    }

    /// Page and commit size of the frame at `offset`, if it is of this generation.
    fn page_of(&self, file: &File, salt: Salt, offset: u64) -> Result<Option<(u32, u32)>> {
        let mut head = [0; FRAME_HEADER_BYTES];
        match read_at(file, &mut head, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(Error::file("read", &self.path)(error)),
        }
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Ok((Salt(word(8), word(12)) == salt).then(|| (word(0), word(4))))
    }

    /// The page in the frame at `offset` into `page`; false where the log was begun again meanwhile. A frame's header is
    /// written before its page, so a header that is the same afterwards stands for the page.
    pub(crate) fn page_at(&self, file: &File, salt: Salt, offset: u64, page: &mut [u8]) -> Result<bool> {
        let before = self.page_of(file, salt, offset)?;
        if before.is_none() {
            return Ok(false);
        }
        match read_at(file, page, offset + FRAME_HEADER_BYTES as u64) {
            Ok(()) => Ok(self.page_of(file, salt, offset)? == before),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(Error::file("read", &self.path)(error)),
        }
    }

    /// The log has no locks of its own, so that it may be closed again. One that was removed is not the log any more.
    pub(crate) fn open(&self) -> Result<Option<Arc<File>>> {
        let mut opened = self.opened.borrow_mut();
        if let Some(file) = &*opened
            && file.metadata().is_ok_and(|meta| meta.nlink() > 0)
        {
            return Ok(Some(Arc::clone(file)));
        }
        *opened = match File::open(&self.path) {
            Ok(file) => Some(Arc::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::file("open", &self.path)(error)),
        };
        Ok(opened.clone())
    }
}
