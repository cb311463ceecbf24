//! What is kept in the state folder: the account, the certificates, and orders in progress.
//!
//! `acme/DIRECTORY/account.key`, `account.json`, `certificates/DOMAIN.pem` (key and chain in one file, so that one
//! rename swaps both) and `orders/DOMAIN.json`. Folders are 0700 and files 0600, since there are keys in them. Blocks.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::config::Directory;
use super::error::AcmeError;

/// More than any file of ours.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The rights of the group and of everybody else.
const OTHERS: u32 = 0o077;
/// How many stored certificates are looked through at the start.
const CERTIFICATES_MAX: usize = 256;

#[derive(Clone, Debug)]
pub(super) struct Store {
    acme: PathBuf,
    folder: PathBuf,
}

impl Store {
    pub(super) fn new(state: &Path, directory: &Directory) -> Self {
        let acme = state.join("acme");
        Self { folder: acme.join(directory.folder()), acme }
    }

    /// `None` where there is no such file, nor a folder for it.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, AcmeError> {
        read(&self.folder.join(name))
    }

    /// Replaces the file as a whole or not at all. `verify` reads back what reached the disk, and says what is wrong.
    pub(super) fn write(
        &self,
        name: &str,
        content: &str,
        verify: impl FnOnce(&str) -> Result<(), String>,
    ) -> Result<(), AcmeError> {
        let path = self.folder.join(name);
        let folder = path.parent().unwrap_or(&self.folder);
        for folder in [&self.acme, &self.folder, folder] {
            private_folder(folder)?;
        }
        let temporary = path.with_extension("tmp");
        let written = write_new(&temporary, content).and_then(|()| {
            let back = read(&temporary)?.unwrap_or_default();
            let verified = if back == content { verify(&back) } else { Err("it differs".to_owned()) };
            verified.map_err(|why| AcmeError::StoreContent { path: path.clone(), why })?;
            std::fs::rename(&temporary, &path).map_err(fault(&path, "renamed"))?;
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(fault(folder, "synced"))
        });
        if written.is_err() {
            // Whatever is left of it; on a full disk these bytes may be the ones that are missing.
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }

    /// As [`Self::write`], beside the runtime's thread: a disk that takes a second to sync must not hold up requests.
    /// Once begun it is finished, even if nobody waits any more.
    pub(super) async fn put(
        &self,
        name: String,
        content: String,
        verify: impl FnOnce(&str) -> Result<(), String> + Send + 'static,
    ) -> Result<(), AcmeError> {
        let store = self.clone();
        let beside = tokio::task::spawn_blocking(move || store.write(&name, &content, verify));
        beside.await.unwrap_or(Err(AcmeError::Interrupted))
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), AcmeError> {
        let path = self.folder.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if !is_absent(error.kind()) => Err(fault(&path, "removed")(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Every stored certificate with its path, whatever domain it was stored for.
    pub(super) fn certificates(&self) -> Vec<(PathBuf, String)> {
        let Ok(entries) = std::fs::read_dir(self.folder.join("certificates")) else { return Vec::new() };
        let paths = entries.flatten().map(|entry| entry.path());
        let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "pem"));
        paths
            .take(CERTIFICATES_MAX)
            .filter_map(|path| read(&path).ok().flatten().map(|text| (path, text)))
            .collect()
    }
}

fn read(path: &Path) -> Result<Option<String>, AcmeError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_absent(error.kind()) => return Ok(None),
        Err(error) => return Err(fault(path, "read")(error)),
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(fault(path, "read"))?;
    Ok(Some(text))
}

fn is_absent(kind: ErrorKind) -> bool {
    kind == ErrorKind::NotFound || kind == ErrorKind::NotADirectory
}

fn write_new(path: &Path, content: &str) -> Result<(), AcmeError> {
    // One from before a crash may be there, with other rights.
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(fault(path, "created"))?;
    file.write_all(content.as_bytes()).map_err(fault(path, "written"))?;
    file.sync_all().map_err(fault(path, "synced"))
}

fn private_folder(folder: &Path) -> Result<(), AcmeError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fault(folder, "created"))?;
    let now = std::fs::metadata(folder).map_err(fault(folder, "read"))?.permissions().mode();
    if now & OTHERS == 0 {
        return Ok(());
    }
    std::fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(fault(folder, "made private"))
}

fn fault(path: &Path, verb: &'static str) -> impl FnOnce(std::io::Error) -> AcmeError {
    let path = path.to_owned();
    move |error| AcmeError::Store { path, verb, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(state: &Path) -> Store {
        Store::new(state, &Directory::LetsEncrypt)
    }

    #[test]
    fn what_is_written_is_private_and_read_back() {
        let state = tempfile::tempdir().unwrap();
        let store = store(state.path());
        assert_eq!(store.read("account.key").unwrap(), None);
        store.write("certificates/a.pem", "secret", |_| Ok(())).unwrap();
        store.write("certificates/a.pem", "newer", |_| Ok(())).unwrap();
        assert_eq!(store.read("certificates/a.pem").unwrap().as_deref(), Some("newer"));
        let mode =
            |path: &str| std::fs::metadata(state.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("acme"), 0o700);
        assert_eq!(mode("acme/letsencrypt/certificates"), 0o700);
        assert_eq!(mode("acme/letsencrypt/certificates/a.pem"), 0o600);
        assert_eq!(store.certificates().len(), 1);
        store.remove("certificates/a.pem").unwrap();
        store.remove("certificates/a.pem").unwrap();
        assert!(store.certificates().is_empty());
    }

    #[test]
    fn what_does_not_verify_leaves_the_old_file_and_no_rubbish() {
        let state = tempfile::tempdir().unwrap();
        let store = store(state.path());
        store.write("account.key", "good", |_| Ok(())).unwrap();
        let error = store.write("account.key", "bad", |_| Err("it is bad".to_owned())).unwrap_err();
        assert!(error.to_string().ends_with("account.key is not what was written: it is bad"), "{error}");
        assert_eq!(store.read("account.key").unwrap().as_deref(), Some("good"));
        let names: Vec<_> = std::fs::read_dir(state.path().join("acme/letsencrypt")).unwrap().collect();
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn a_state_folder_that_cannot_be_is_an_error_that_names_it() {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join("acme"), "").unwrap();
        let error = store(state.path()).write("account.key", "x", |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("/acme"), "{error}");
        assert_eq!(store(state.path()).read("account.key").unwrap(), None);
    }
}
