//! Unix sockets: who is at the other end, and packets with descriptors in them.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::{Error, Result};

/// Descriptors in one packet. The kernel takes up to 253; nobody here has a use for so many.
pub const PACKET_FILES_MAX: usize = 16;

/// Two ends that keep the borders of packets and notice when the other one is gone. Both are close-on-exec.
pub fn packet_pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|error| Error::call("make a socket pair", error))
}

/// Sends one packet, whole or not at all. `EAGAIN` where it would block and `may_block` is not set.
pub fn send_packet(
    socket: impl AsFd,
    bytes: &[u8],
    files: &[BorrowedFd<'_>],
    may_block: bool,
) -> std::result::Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FILES_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(Errno::TOOBIG);
    }
    let wait = if may_block { SendFlags::empty() } else { SendFlags::DONTWAIT };
    let flags = SendFlags::NOSIGNAL | wait;
    let sent = rustix::io::retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, flags))?;
    if sent == bytes.len() { Ok(()) } else { Err(Errno::MSGSIZE) }
}

/// Takes one packet into `buffer` and says how long it is; 0 when the other end is gone. A packet that does not fit is
/// an error (`EMSGSIZE`) and lost. The descriptors are close-on-exec.
pub fn receive_packet(
    socket: impl AsFd,
    buffer: &mut [u8],
    may_block: bool,
) -> std::result::Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FILES_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let wait = if may_block { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC | wait;
    let capacity = buffer.len();
    let mut receive = || {
        rustix::io::retry_on_intr(|| recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags))
    };
    let received = match receive() {
        // The other end went without reading all that it was told. The kernel says so once, before what it said itself.
        Err(Errno::CONNRESET) => receive()?,
        received => received?,
    };
    let mut files = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            files.extend(rights);
        }
    }
    if received.bytes > capacity { Err(Errno::MSGSIZE) } else { Ok((received.bytes, files)) }
}

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
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn packets_keep_their_borders_and_bring_descriptors_along() {
        let (ours, theirs) = packet_pair().unwrap();
        let (mut far, near) = UnixStream::pair().unwrap();
        send_packet(&ours, b"one", &[near.as_fd()], true).unwrap();
        send_packet(&ours, b"second", &[], false).unwrap();
        let mut buffer = [0; 6];
        let (length, mut files) = receive_packet(&theirs, &mut buffer, true).unwrap();
        assert_eq!((&buffer[..length], files.len()), (&b"one"[..], 1));
        UnixStream::from(files.remove(0)).write_all(b"hello").unwrap();
        drop(near);
        let mut said = String::new();
        far.read_to_string(&mut said).unwrap();
        assert_eq!(said, "hello");
        assert_eq!(receive_packet(&theirs, &mut buffer, true).unwrap().0, 6);
        assert_eq!(receive_packet(&theirs, &mut buffer, false).unwrap_err(), Errno::AGAIN);
    }

    #[test]
    fn a_packet_that_is_too_long_is_an_error_and_the_end_is_noticed() {
        let (ours, theirs) = packet_pair().unwrap();
        send_packet(&ours, b"too long", &[], true).unwrap();
        assert_eq!(receive_packet(&theirs, &mut [0; 3], true).unwrap_err(), Errno::MSGSIZE);
        drop(ours);
        assert_eq!(receive_packet(&theirs, &mut [0; 3], true).unwrap().0, 0);
    }

    #[test]
    fn what_was_said_before_the_end_is_heard_though_not_all_was_listened_to() {
        let (ours, theirs) = packet_pair().unwrap();
        send_packet(&ours, b"never read", &[], true).unwrap();
        send_packet(&theirs, b"bye", &[], true).unwrap();
        drop(theirs);
        let mut buffer = [0; 3];
        assert_eq!(receive_packet(&ours, &mut buffer, false).unwrap().0, 3);
        assert_eq!(&buffer, b"bye");
        assert_eq!(receive_packet(&ours, &mut buffer, false).unwrap().0, 0);
    }

    #[test]
    fn a_peer_in_the_same_process_is_ourselves() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = peer_of(&ours).unwrap();
        assert_eq!(peer.pid, std::process::id().cast_signed());
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
    }
}
