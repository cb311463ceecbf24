//! A lock file: one holder at a time, and the holder's pid in it for the message that the other one prints.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::text::wait_until;
use crate::{Error, Result};

/// Held until dropped, or until the process ends in whatever way. The file itself stays: removing it would let two
/// processes each hold a lock on a file of the same name.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock, or fails with [`Error::Held`] where somebody else still has it after so long. Blocks. The file is
    /// made when missing, mode 0600.
    pub fn take(path: &Path, within: Duration) -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| Error::file("open", path, error))?;
        let is_taken = wait_until(within, || {
            match rustix::io::retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
                Ok(()) => Ok(true),
                Err(Errno::WOULDBLOCK) => Ok(false),
                Err(error) => Err(Error::file("lock", path, error)),
            }
        })?;
        if !is_taken {
            return Err(Error::Held { path: path.to_owned(), holder: holder(&mut file) });
        }
        // The number is a courtesy to whoever is refused; on a full disk the lock holds without it.
        let _ = write_holder(&mut file);
        Ok(Self { file, path: path.to_owned() })
    }

    /// The lock that another process took and handed over, open: it is held as long as one copy is.
    pub fn handed_over(file: File, path: &Path) -> Self {
        let mut file = file;
        let _ = write_holder(&mut file);
        Self { file, path: path.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for handing the lock over to another process: it is held as long as one copy is open.
    pub fn file(&self) -> &File {
        &self.file
    }
}

fn holder(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_learns_who_holds_it_and_gets_it_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::take(&path, Duration::ZERO).unwrap();
        match Lock::take(&path, Duration::ZERO) {
            Err(Error::Held { holder, .. }) => assert_eq!(holder, Some(std::process::id().cast_signed())),
            other => panic!("expected a held lock, got {other:?}"),
        }
        drop(first);
        Lock::take(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn one_that_is_about_to_end_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::take(&path, Duration::ZERO).unwrap();
        std::thread::scope(|threads| {
            let second = threads.spawn(|| Lock::take(&path, Duration::from_mins(1)));
            std::thread::park_timeout(Duration::from_millis(20));
            drop(first);
            second.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let error = Lock::take(Path::new("/nonexistent/lock"), Duration::ZERO).unwrap_err();
        assert!(error.to_string().starts_with("open /nonexistent/lock: "), "{error}");
    }
}
