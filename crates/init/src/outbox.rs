//! What waits to be sent to a guard that does not read at the moment.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};

use plimsoll_kernel::send_packet;
use rustix::io::Errno;

use crate::protocol::ToGuard;

/// A guard that lies this many packets behind reads no more.
const WAITING_MAX: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<(ToGuard, Option<OwnedFd>)>,
}

/// The guard cannot be told any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deaf {
    /// Its end is closed: it is about to end, and its exit will say how.
    Gone,
    /// It does not read, or cannot be written to.
    Stuck,
}

impl Outbox {
    /// Sends it, or has it wait behind the others.
    pub(crate) fn say(&mut self, socket: &OwnedFd, said: ToGuard, file: Option<OwnedFd>) -> Result<(), Deaf> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(Deaf::Stuck);
        }
        self.waiting.push_back((said, file));
        self.flush(socket)
    }

    /// Sends as much as is taken.
    pub(crate) fn flush(&mut self, socket: &OwnedFd) -> Result<(), Deaf> {
        while let Some((said, file)) = self.waiting.front() {
            let file = file.as_ref().map(|file| file.as_fd());
            match send_packet(socket, &said.encode(), file.as_slice(), false) {
                Ok(()) => _ = self.waiting.pop_front(),
                // Also when too many descriptors are on their way: they arrive first.
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::TOOMANYREFS | Errno::NOMEM) => return Ok(()),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Deaf::Gone),
                Err(_) => return Err(Deaf::Stuck),
            }
        }
        self.waiting.shrink_to(0);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
