//! Certificates from files: read, checked, and read again when they change.
//!
//! Whoever renews them may replace a link (certbot), rename, or write in place, the chain first and the key later. What
//! was good stays served until both files are good again.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use super::certificate::{Certificate, CertificateError};
use super::certificates::{Certificates, Slot, Source};
use super::event::{Events, Kind, Severity};
use super::expiry::{Stage, stage};
use super::{date, unix_now};

/// How often the files are looked at: four stats, far below any renewal's pace.
pub const POLL_EVERY: Duration = Duration::from_secs(5);

/// More than any chain or key; a wrong path may be a log or a device.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePair {
    /// PEM: the server's own certificate first, then the intermediates.
    pub certificate: PathBuf,
    /// PEM, not encrypted.
    pub key: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("{path} cannot be read: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{path} is not a file of at most 1 MiB")]
    NotAFile { path: PathBuf },
    #[error("{path} {error}")]
    Content { path: PathBuf, error: CertificateError },
}

/// Keeps one [`Slot`] in step with its files.
#[derive(Debug)]
pub struct Files {
    pair: FilePair,
    slot: Slot,
    events: Events,
    /// What the served certificate was read from.
    served: Prints,
    /// The last attempt that failed, and whether it was told.
    failed: Option<Failed>,
    stage: Stage,
    reload: Reloader,
}

/// Has the files read now; for SIGHUP and `reload`.
#[derive(Clone, Debug, Default)]
pub struct Reloader(Arc<Notify>);

/// Which files these were: enough to see a swapped link, a rename, and a change in place.
type Prints = [Option<Print>; 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug)]
struct Failed {
    prints: Prints,
    told: Option<String>,
}

impl FilePair {
    /// Reads and checks both. Blocks; an expired certificate is not an error, since it is for the operator to decide
    /// whether that is better than none.
    pub fn load(&self) -> Result<Certificate, FilesError> {
        let chain = read(&self.certificate)?;
        let key = read(&self.key)?;
        Certificate::from_pem(&chain, &key).map_err(|error| {
            let path = if error.is_of_key() { &self.key } else { &self.certificate };
            FilesError::Content { path: path.clone(), error }
        })
    }

    fn prints(&self) -> Prints {
        [Print::of(&self.certificate), Print::of(&self.key)]
    }
}

impl Files {
    /// Reads the files for the first time, and serves them. Blocks; fails where a running front would keep the old one,
    /// since here there is none.
    pub fn open(
        pair: FilePair,
        certificates: &Arc<Certificates>,
        events: Events,
    ) -> Result<Self, FilesError> {
        // Taken before reading: a change in between is then seen as one more change, and not missed.
        let served = pair.prints();
        let certificate = Arc::new(pair.load()?);
        let slot = certificates.add(Source::Files, certificate.names().to_vec());
        slot.set(certificate);
        let mut files = Self {
            pair,
            slot,
            events,
            served,
            failed: None,
            stage: Stage::Fine,
            reload: Reloader::default(),
        };
        files.look_at_expiry(unix_now());
        Ok(files)
    }

    pub fn reloader(&self) -> Reloader {
        self.reload.clone()
    }

    /// Keeps looking, for ever. Dropping it stops the looking; what is served stays.
    pub async fn run(mut self, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                () = self.reload.asked() => true,
            };
            // A stalled network file system must not stall the requests of this thread.
            let beside = tokio::task::spawn_blocking(move || {
                self.look(asked);
                self
            });
            match beside.await {
                Ok(files) => self = files,
                // The runtime is shutting down.
                Err(_) => return,
            }
        }
    }

    /// One look; `asked` reads even what seems unchanged, and says at once what is wrong with it.
    fn look(&mut self, asked: bool) {
        let prints = self.pair.prints();
        let changed = prints != self.served;
        if asked || changed || self.failed.is_some() {
            match self.pair.load() {
                Ok(certificate) => self.serve(certificate, prints),
                Err(error) => self.keep(prints, asked, &error),
            }
        }
        self.look_at_expiry(unix_now());
    }

    fn serve(&mut self, certificate: Certificate, prints: Prints) {
        let message = format!(
            "{} read again: for {}, until {}",
            self.pair.certificate.display(),
            certificate.names().join(", "),
            date(certificate.not_after())
        );
        let new = self
            .slot
            .certificate()
            .is_none_or(|old| old.certified_key().cert != certificate.certified_key().cert);
        self.slot.set(Arc::new(certificate));
        self.served = prints;
        let told = self.failed.take().is_some_and(|failed| failed.told.is_some());
        if new || told {
            self.events.tell(Severity::Info, Kind::CertificateReloaded, message);
        }
        if new {
            self.stage = Stage::Fine;
        }
    }

    /// The old one stays. Files that are being written are given until the next look before anybody is told.
    fn keep(&mut self, prints: Prints, asked: bool, error: &FilesError) {
        let before = self.failed.take();
        let settled = before.as_ref().is_some_and(|failed| failed.prints == prints);
        let mut told = before.and_then(|failed| failed.told);
        if asked || settled {
            let problem = error.to_string();
            self.slot.set_problem(Some(problem.clone()));
            if asked || told.as_ref() != Some(&problem) {
                let message = format!("{problem}; the certificate from before is still served");
                self.events.tell(Severity::Error, Kind::CertificateReloadFailed, message);
            }
            told = Some(problem);
        }
        self.failed = Some(Failed { prints, told });
    }

    fn look_at_expiry(&mut self, now: i64) {
        let Some(certificate) = self.slot.certificate() else { return };
        let stage = stage(certificate.not_before(), certificate.not_after(), now);
        if stage > self.stage {
            let severity = if stage >= Stage::Near { Severity::Error } else { Severity::Warning };
            let verb = if stage == Stage::Over { "has expired at" } else { "expires at" };
            let message = format!(
                "{} for {} {verb} {}; whatever renews the file has not done so",
                self.pair.certificate.display(),
                certificate.names().join(", "),
                date(certificate.not_after())
            );
            self.events.tell(severity, Kind::CertificateExpiring, message);
        }
        self.stage = stage;
    }
}

impl Reloader {
    pub fn reload(&self) {
        self.0.notify_one();
    }

    pub(crate) async fn asked(&self) {
        self.0.notified().await;
    }
}

impl Print {
    /// Follows links, since what they lead to is what is served.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FilesError> {
    let fault = |error| FilesError::Read { path: path.to_owned(), error };
    let metadata = std::fs::metadata(path).map_err(fault)?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(FilesError::NotAFile { path: path.to_owned() });
    }
    std::fs::read(path).map_err(fault)
}
