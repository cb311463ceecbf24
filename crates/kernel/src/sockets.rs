//! Who is at the other end of a unix socket.

use std::os::fd::AsFd;

use crate::{Error, Result};

/// The process that connected, as it was at that moment (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

pub fn peer_of(stream: impl AsFd) -> Result<Peer> {
    let peer = rustix::net::sockopt::socket_peercred(stream)
        .map_err(|error| Error::call("read the peer's credentials", error))?;
    Ok(Peer { pid: peer.pid.as_raw_nonzero().get(), uid: peer.uid.as_raw(), gid: peer.gid.as_raw() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_peer_in_the_same_process_is_ourselves() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = peer_of(&ours).unwrap();
        assert_eq!(peer.pid, std::process::id().cast_signed());
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
    }
}
