//! Finds an instance the address that it shall listen on.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll_core::SpawnFailure;
use plimsoll_kernel::{Roots, procfs};

use crate::endpoint::Endpoint;
use crate::workload::{Address, Workload};

/// Ports tried before an instance goes without.
const PORT_TRIES: u32 = 8;
const SOCKET_NAME: &str = "listen.sock";
/// How long the holder of a taken address is looked for, just to name it.
const HOLDER_SEARCH: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub(super) enum AddressError {
    #[error("address {address} is taken{}", holder.as_ref().map(|it| format!(" by {it}")).unwrap_or_default())]
    Taken { address: SocketAddr, holder: Option<String> },
    #[error("no loopback port could be had: {0}")]
    NoPort(io::Error),
    #[error("socket folder {path}: {source}")]
    SocketFolder { path: PathBuf, source: io::Error },
}

impl AddressError {
    pub(super) const fn failure(&self) -> SpawnFailure {
        match self {
            Self::Taken { .. } => SpawnFailure::AddressTaken,
            Self::NoPort(_) | Self::SocketFolder { .. } => SpawnFailure::Exhausted,
        }
    }
}

/// Where this instance shall listen; `None` for one that listens nowhere.
pub(super) fn find(
    roots: &Roots,
    workload: &Workload,
    name: &str,
    state: &Path,
) -> Result<Option<Endpoint>, AddressError> {
    match &workload.address {
        Address::None => Ok(None),
        Address::Fixed(address) => free(roots, *address).map(|()| Some(Endpoint::Tcp(*address))),
        Address::Picked { .. } => pick().map(|address| Some(Endpoint::Tcp(address))),
        Address::Socket => socket(workload, name, state).map(|path| Some(Endpoint::Unix(path))),
    }
}

/// The folder of an instance's own socket, removed when the instance is gone.
pub(super) fn socket_folder(state: &Path, name: &str) -> PathBuf {
    state.join("sockets").join(name)
}

fn free(roots: &Roots, address: SocketAddr) -> Result<(), AddressError> {
    let taken = TcpListener::bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
    if !taken {
        // Any other error is not ours to judge: a port that the service may bind and we may not, say.
        return Ok(());
    }
    let holder = procfs::listener_of(roots, address, HOLDER_SEARCH).ok().flatten();
    let holder = holder.map(|holder| format!("{} (pid {})", holder.comm, holder.pid));
    Err(AddressError::Taken { address, holder })
}

fn pick() -> Result<SocketAddr, AddressError> {
    let mut last = None;
    for _ in 0..PORT_TRIES {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr()) {
            Ok(address) => return Ok(address),
            Err(error) => last = Some(error),
        }
    }
    Err(AddressError::NoPort(last.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into())))
}

/// A folder of the instance's own, in which it may make its socket.
fn socket(workload: &Workload, name: &str, state: &Path) -> Result<PathBuf, AddressError> {
    let folder = socket_folder(state, name);
    let made = fs::create_dir_all(&folder).and_then(|()| match &workload.ids {
        Some(ids) => std::os::unix::fs::chown(&folder, Some(ids.uid), Some(ids.gid)),
        None => Ok(()),
    });
    made.map_err(|source| AddressError::SocketFolder { path: folder.clone(), source })?;
    Ok(folder.join(SOCKET_NAME))
}
