//! Who listens on an address: for "port taken, by whom".

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use super::sockets::{TcpState, each_line, entry};
use crate::process::{Stat, list_of_process, pids};
use crate::{Result, Roots};

/// A process with a listening TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub pid: i32,
    pub comm: String,
    pub address: SocketAddr,
}

/// The process that keeps us from listening on `address` in our network namespace. `None` when there is none, when it
/// may not be seen (another user's), or when looking took longer than `within`.
pub fn listener_of(roots: &Roots, address: SocketAddr, within: Duration) -> Result<Option<Listener>> {
    let deadline = Instant::now() + within;
    let Some((inode, found)) = listening_socket(&roots.proc.join("self/net"), address, deadline) else {
        return Ok(None);
    };
    let wanted = format!("socket:[{inode}]");
    for pid in pids(roots)? {
        if Instant::now() >= deadline {
            return Ok(None);
        }
        if holds(roots, pid, Path::new(&wanted)) {
            let comm = Stat::of(roots, pid).map(|stat| stat.comm).unwrap_or_default();
            return Ok(Some(Listener { pid, comm, address: found }));
        }
    }
    Ok(None)
}

fn listening_socket(net: &Path, wanted: SocketAddr, deadline: Instant) -> Option<(u64, SocketAddr)> {
    let mut found = None;
    for name in ["tcp", "tcp6"] {
        each_line(&net.join(name), deadline, |line| {
            let listens =
                |at: &super::sockets::Entry| at.state == TcpState::Listen && collides(at.local, wanted);
            if let Some(entry) = entry(line).filter(listens) {
                found = Some((entry.inode, entry.local));
            }
        });
    }
    found
}

/// A wildcard takes the port on every address.
fn collides(taken: SocketAddr, wanted: SocketAddr) -> bool {
    let any = |ip: IpAddr| ip.is_unspecified();
    taken.port() == wanted.port() && (taken.ip() == wanted.ip() || any(taken.ip()) || any(wanted.ip()))
}

fn holds(roots: &Roots, pid: i32, wanted: &Path) -> bool {
    let Ok(entries) = list_of_process(roots, pid, "fd") else { return false };
    entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).any(|target| target == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn our_own_listener_is_found_by_its_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = listener_of(&Roots::default(), address, Duration::from_secs(10)).unwrap().unwrap();
        assert_eq!(found.pid, std::process::id().cast_signed());
        assert_eq!(found.address, address);
        drop(listener);
        assert_eq!(listener_of(&Roots::default(), address, Duration::from_secs(10)).unwrap(), None);
    }

    #[test]
    fn a_wildcard_collides_with_every_address() {
        let at = |text: &str| text.parse().unwrap();
        assert!(collides(at("0.0.0.0:80"), at("127.0.0.1:80")));
        assert!(collides(at("127.0.0.1:80"), at("[::]:80")));
        assert!(!collides(at("127.0.0.2:80"), at("127.0.0.1:80")));
        assert!(!collides(at("0.0.0.0:81"), at("127.0.0.1:80")));
    }
}
