//! The database, as one more program that reads it: connections that change nothing, and what its files are.
//!
//! POSIX locks belong to a process, and closing *any* descriptor of a file drops them all. So the file of the database
//! is never closed in this process once it was opened beside SQLite; see [`main_file`].

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, Result};
use crate::names::Hash;
use crate::page_one::{HEADER_BYTES, PageOne};

/// A reader is rarely in anybody's way, and never for long.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);
/// KiB of pages each connection keeps.
const CACHE_KIB: u32 = 256;

/// File systems on which locks and shared memory do not reach other hosts.
const NETWORK: [(u32, &str); 6] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x517b, "SMB"),
    (0x0102_1997, "9P"),
    (0x5346_544e, "NTFS over the network"),
];

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    pub device: u64,
    pub inode: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Without links in it, as SQLite names its log after the real file.
    pub path: PathBuf,
    pub id: FileId,
}

impl Database {
    /// Finds the file and refuses what cannot be copied from outside.
    pub fn find(path: &Path) -> Result<Self> {
        let path = path.canonicalize().map_err(Error::file("find", path))?;
        let id = file_id(&path)?;
        let kind =
            rustix::fs::statfs(&path).map_err(|error| Error::file("look at", &path)(error.into()))?.f_type;
        let kind = u32::try_from(kind & 0xffff_ffff).unwrap_or(0);
        if let Some(name) = network(kind) {
            let why = format!(
                "it is on {name}, where the write-ahead log is not safe to read from here; run the vault on the machine that has the disk"
            );
            return Err(Error::Unfit { path, why });
        }
        Ok(Self { path, id })
    }

    /// The file beside it: `-wal`, `-shm`, `-journal`.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        beside(&self.path, suffix)
    }

    /// A connection that takes part in locking and changes nothing: no checkpoint by itself, also not when it closes.
    pub fn connect(&self) -> Result<Connection> {
        let failed = Error::database(&self.path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(&failed)?;
        let set_up = |connection: &Connection| {
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "wal_autocheckpoint", 0)?;
            connection.pragma_update(None, "cache_size", -i64::from(CACHE_KIB))?;
            connection.pragma_update(None, "mmap_size", 0)
        };
        set_up(&connection).map_err(failed)?;
        Ok(connection)
    }

    /// `wal`, `delete`, `truncate`, `persist`, `memory` or `off`.
    pub fn journal_mode(&self, connection: &Connection) -> Result<String> {
        connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(Error::database(&self.path))
    }

    /// Is the file still the one that was found?
    pub fn is_in_place(&self) -> Result<bool> {
        Ok(file_id(&self.path)? == self.id)
    }

    /// What its first page says, in the file itself; and a hash of all of that page.
    pub fn page_one(&self) -> Result<(PageOne, Hash)> {
        let file = main_file(self)?;
        let unfit =
            || Error::Unfit { path: self.path.clone(), why: "it is not a database of SQLite".to_owned() };
        let mut head = [0; HEADER_BYTES];
        read_at(file, &mut head, 0).map_err(Error::file("read", &self.path))?;
        let one = PageOne::parse(&head).ok_or_else(unfit)?;
        let mut page = vec![0; one.page_bytes as usize];
        read_at(file, &mut page, 0).map_err(Error::file("read", &self.path))?;
        let again = PageOne::parse(&page).ok_or_else(unfit)?;
        Ok((again, Hash::of(&page)))
    }
}

/// What the file system is called, if it is one of another machine.
fn network(kind: u32) -> Option<&'static str> {
    NETWORK.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name)
}

/// The file beside a database: `-wal`, `-shm`, `-journal`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(crate) fn file_id(path: &Path) -> Result<FileId> {
    let meta = std::fs::metadata(path).map_err(Error::file("look at", path))?;
    if !meta.is_file() {
        return Err(Error::Unfit { path: path.to_owned(), why: "it is not a file".to_owned() });
    }
    Ok(FileId { device: meta.dev(), inode: meta.ino() })
}

/// The database's file, opened once for the life of this process and never closed: closing it would drop the locks
/// that SQLite holds on it. There are as many as there are databases, and one more whenever one was replaced.
pub(crate) fn main_file(database: &Database) -> Result<&'static File> {
    static OPENED: Mutex<Vec<(FileId, &'static File)>> = Mutex::new(Vec::new());
    let mut opened = OPENED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((_, file)) = opened.iter().find(|(id, _)| *id == database.id) {
        return Ok(file);
    }
    let file = File::open(&database.path).map_err(Error::file("open", &database.path))?;
    let meta = file.metadata().map_err(Error::file("look at", &database.path))?;
    let id = FileId { device: meta.dev(), inode: meta.ino() };
    let file: &'static File = Box::leak(Box::new(file));
    opened.push((id, file));
    if id == database.id {
        return Ok(file);
    }
    Err(Error::Unfit { path: database.path.clone(), why: "it was replaced just now".to_owned() })
}

pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_connections_leave_the_log_as_it_is_when_they_close() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let app = Connection::open(&path).unwrap();
        app.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES (1);").unwrap();
        let database = Database::find(&path).unwrap();
        let ours = database.connect().unwrap();
        assert_eq!(database.journal_mode(&ours).unwrap(), "wal");
        let before = std::fs::read(database.beside("-wal")).unwrap();
        drop(app);
        drop(ours);
        assert_eq!(std::fs::read(database.beside("-wal")).unwrap(), before);
    }

    #[test]
    fn file_systems_of_other_machines_are_known_by_their_numbers() {
        // As <linux/magic.h> has them: NFS, SMB2, v9fs; ext4, tmpfs, overlayfs.
        assert_eq!([0x6969, 0xfe53_4d42, 0x0102_1997].map(network), [Some("NFS"), Some("SMB"), Some("9P")]);
        assert_eq!([0xef53, 0x0102_1994, 0x794c_7630].map(network), [None; 3]);
    }

    #[test]
    fn what_is_no_database_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        assert!(Database::find(&path).unwrap_err().to_string().contains("a.db"));
        std::fs::write(&path, vec![7; 4096]).unwrap();
        let error = Database::find(&path).unwrap().page_one().unwrap_err();
        assert!(error.to_string().ends_with("it is not a database of SQLite"), "{error}");
    }
}
