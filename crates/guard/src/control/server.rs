//! Listening, and who may talk to us.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{Asker, routes};
use crate::ledger::LedgerHandle;

/// Conversations at once; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 64;
/// A client that says nothing is let go.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The kernel's limit for a socket's path, less its closing zero.
const PATH_BYTES_MAX: usize = 107;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(
        "control socket {path}: another guard answers there; stop it, or give this one another --state or --socket"
    )]
    InUse { path: PathBuf },
    #[error(
        "control socket {path}: the path has {length} bytes and the kernel allows {PATH_BYTES_MAX}; choose a shorter --socket"
    )]
    PathTooLong { path: PathBuf, length: usize },
    #[error("control socket {path}: cannot {verb}: {source}")]
    Io { path: PathBuf, verb: &'static str, source: io::Error },
}

/// The control socket, bound. It is removed when dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Init holds it for the next guard.
    outlives_us: bool,
}

impl Server {
    /// Binds the socket, owner-only. A socket file that nobody answers on is a dead guard's and is replaced.
    pub async fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |verb| {
            let path = path.to_owned();
            move |source| ControlError::Io { path, verb, source }
        };
        let length = path.as_os_str().len();
        if length > PATH_BYTES_MAX {
            return Err(ControlError::PathTooLong { path: path.to_owned(), length });
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed("create its folder"))?;
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(ControlError::InUse { path: path.to_owned() });
        }
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("remove the one a dead guard left")(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed("bind"))?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed("set its permissions"))?;
        Ok(Self { listener, path: path.to_owned(), outlives_us: false })
    }

    /// The socket that an earlier guard bound; `None` where it is another's, or its file is gone from its place.
    pub fn handed_over(socket: OwnedFd, path: &Path) -> Option<Self> {
        let listener = std::os::unix::net::UnixListener::from(socket);
        let is_bound = listener.local_addr().ok()?.as_pathname() == Some(path) && path.exists();
        listener.set_nonblocking(true).ok()?;
        let listener = UnixListener::from_std(listener).ok().filter(|_| is_bound)?;
        Some(Self { listener, path: path.to_owned(), outlives_us: true })
    }

    /// Its file stays when this guard ends.
    pub const fn outlive_us(&mut self) {
        self.outlives_us = true;
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until the task is dropped. Errors of one conversation end that conversation only.
    pub async fn serve(self, asker: Asker, ledger: LedgerHandle) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of descriptors: wait rather than spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if !may_talk(&stream) {
                continue;
            }
            let (asker, ledger) = (asker.clone(), ledger.clone());
            tokio::task::spawn_local(async move {
                let service =
                    service_fn(move |request| routes::answer(request, asker.clone(), ledger.clone()));
                let conversation = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                let _ = conversation.await;
                drop(place);
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.outlives_us {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The guard's own user and root, by the kernel's word rather than the file's mode.
fn may_talk(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}
