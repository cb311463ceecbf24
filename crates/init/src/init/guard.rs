//! A guard, as init sees it: a process with a socket.

use std::os::fd::OwnedFd;
use std::time::Instant;

use plimsoll_kernel::Roots;
use plimsoll_kernel::process::{self, Identity, Signal};

use crate::outbox::{Deaf, Outbox};
use crate::protocol::Role;
use crate::watchdog::Watchdog;

/// A guard and what we have of it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, in any combination")]
pub(super) struct Guard {
    pub(super) identity: Identity,
    pub(super) socket: OwnedFd,
    pub(super) outbox: Outbox,
    pub(super) role: Role,
    pub(super) greeted: bool,
    pub(super) ready_since: Option<Instant>,
    /// It knows that everything is to be stopped.
    pub(super) told_to_end: bool,
    /// It has said that it ends on purpose.
    pub(super) bye: Option<u8>,
    /// Its end of the socket is closed, and everything that it has said is heard.
    pub(super) silent: bool,
    /// It cannot be told anything any more; what it has said before is heard all the same.
    pub(super) deaf: bool,
    pub(super) watchdog: Watchdog,
}

impl Guard {
    pub(super) fn new(identity: Identity, socket: OwnedFd, role: Role) -> Self {
        Self {
            identity,
            socket,
            outbox: Outbox::default(),
            role,
            greeted: false,
            ready_since: None,
            told_to_end: false,
            bye: None,
            silent: false,
            deaf: false,
            watchdog: Watchdog::default(),
        }
    }

    /// Takes in whether it could be told.
    pub(super) fn mind(&mut self, outcome: Result<(), Deaf>) {
        let Err(deaf) = outcome else { return };
        self.outbox = Outbox::default();
        // One that is stuck has to be told what it cannot be told: another one is. One that is gone ends by itself.
        if !std::mem::replace(&mut self.deaf, true) && deaf == Deaf::Stuck {
            self.kill(&Roots::default());
        }
    }

    pub(super) fn signal(&self, roots: &Roots, signal: Signal) {
        // Gone already: its end is on the way to us.
        let _ = process::signal(roots, self.identity, signal);
    }

    pub(super) fn end(&mut self, roots: &Roots) {
        self.told_to_end = true;
        self.signal(roots, Signal::TERM);
    }

    pub(super) fn kill(&self, roots: &Roots) {
        self.signal(roots, Signal::KILL);
    }
}
