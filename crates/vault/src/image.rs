//! All pages of a database at one position, read while a reader stands there.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use rusqlite::Connection;

use crate::database::{Database, main_file, read_at};
use crate::error::{Error, Result};
use crate::leap::Reader;
use crate::position::Position;
use crate::tail::Tail;
use crate::wal::Header;

/// A reader that stands at a known position.
#[derive(Debug)]
pub struct Pin {
    pub(crate) reader: Reader,
    pub position: Position,
    /// The generation of the log and how many of its frames belong to the position; `None` where all of it is in the
    /// file already.
    pub(crate) log: Option<(Header, u32)>,
}

/// The pages at a pin. Those that are not in the file yet come from the log. Where the log is begun again meanwhile,
/// which it can be only once all is in the file, they come from there.
#[derive(Debug)]
pub struct Image<'a> {
    pub page_bytes: u32,
    pub pages: u32,
    database: &'a Database,
    file: &'static File,
    tail: Tail,
    log: Option<(Header, Arc<File>, HashMap<u32, u64>)>,
}

impl<'a> Image<'a> {
    pub fn open(database: &'a Database, pin: &Pin) -> Result<Self> {
        let connection = &pin.reader.connection;
        let tail = Tail::new(database);
        let log = match pin.log {
            Some((header, frames)) => match tail.open()? {
                Some(file) => Some((header, file, tail.index(header, frames)?)),
                None => None,
            },
            None => None,
        };
        Ok(Self {
            page_bytes: pragma(database, connection, "page_size")?,
            pages: pragma(database, connection, "page_count")?,
            database,
            file: main_file(database)?,
            tail,
            log,
        })
    }

    /// Reads pages from `first` on into `bytes`, as many as fit and as there are; how many those were.
    pub fn read(&self, first: u32, bytes: &mut [u8]) -> Result<u32> {
        let page_bytes = self.page_bytes as usize;
        let fitting = u32::try_from(bytes.len() / page_bytes).unwrap_or(u32::MAX);
        let count = (self.pages + 1).saturating_sub(first).min(fitting);
        let offset = u64::from(first - 1) * u64::from(self.page_bytes);
        let bytes = &mut bytes[..count as usize * page_bytes];
        self.read_file(bytes, offset)?;
        let Some((header, file, index)) = &self.log else { return Ok(count) };
        for (number, page) in (first..).zip(bytes.chunks_exact_mut(page_bytes)) {
            let Some(at) = index.get(&number) else { continue };
            if !self.tail.page_at(file, header.salt, *at, page)? {
                self.read_file(page, u64::from(number - 1) * u64::from(self.page_bytes))?;
            }
        }
        Ok(count)
    }

    /// What is behind the end of the file is in the log, or was never written.
    fn read_file(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        match read_at(self.file, bytes, offset) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                bytes.fill(0);
                let length = self.file.metadata().map_or(0, |meta| meta.len());
                let there = usize::try_from(length.saturating_sub(offset)).unwrap_or(0).min(bytes.len());
                read_at(self.file, &mut bytes[..there], offset)
                    .map_err(Error::file("read", &self.database.path))
            }
            Err(error) => Err(Error::file("read", &self.database.path)(error)),
        }
    }
}

fn pragma(database: &Database, connection: &Connection, name: &str) -> Result<u32> {
    connection
        .query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
        .map_err(Error::database(&database.path))
}
