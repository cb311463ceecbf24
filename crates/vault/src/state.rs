//! What a vault remembers on its own machine: one folder for each, held by one process at a time.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::fault;
use crate::head::HeadFile;

#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    pub head: HeadFile,
    // Locked for as long as this lives.
    _lock: File,
}

impl State {
    /// `None`: another process has it.
    pub fn take(folder: &Path) -> Result<Option<Self>> {
        fs::create_dir_all(folder).map_err(Error::file("make", folder))?;
        let path = folder.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::file("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(Error::file("lock", &path)(error)),
        }
        let head = HeadFile::open(&folder.join("head"))?;
        Ok(Some(Self { folder: folder.to_owned(), head, _lock: lock }))
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn spool(&self) -> PathBuf {
        self.folder.join("spool")
    }

    pub fn table(&self) -> PathBuf {
        self.folder.join("pages")
    }

    pub fn scratch(&self) -> PathBuf {
        self.folder.join("scratch")
    }

    /// What is in the file; nothing where it is missing or spoiled, since all of it can be found again.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.folder.join(name)).ok()?).ok()
    }

    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let path = self.folder.join(name);
        let text = serde_json::to_vec(value).map_err(|error| Error::file("write", &path)(error.into()))?;
        replace(&path, &text, false)
    }

    /// Done where it was not there.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", &path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Writes a file so that it is either the old one or the new one, also after a crash of the machine.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, true)
}

fn replace(path: &Path, bytes: &[u8], sync: bool) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let beside = PathBuf::from(name);
    let write = || {
        fault::step()?;
        let mut file = File::create(&beside)?;
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        file.write_all(first)?;
        fault::step()?;
        file.write_all(rest)?;
        if sync {
            fault::step()?;
            file.sync_all()?;
        }
        fault::step()?;
        fs::rename(&beside, path)?;
        fault::step()?;
        if sync { sync_folder(path) } else { Ok(()) }
    };
    write().map_err(Error::file("write", path))
}

/// Makes the names in the folder of `path` lasting.
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// The folder that `path` is in; a name alone is in the current one.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_has_it_and_what_is_spoiled_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::take(folder.path()).unwrap().unwrap();
        assert!(State::take(folder.path()).unwrap().is_none());
        state.write("x.json", &7).unwrap();
        assert_eq!(state.read::<u32>("x.json"), Some(7));
        fs::write(folder.path().join("x.json"), "{").unwrap();
        assert_eq!(state.read::<u32>("x.json"), None);
        drop(state);
        assert!(State::take(folder.path()).unwrap().is_some());
    }
}
