//! Who starts processes and reaps them: init, or, where there is none, the guard itself.

use std::os::fd::BorrowedFd;

use plimsoll_init::Link;
use plimsoll_init::protocol::{ChildKind, ToInit};
use plimsoll_kernel::process::Identity;
use plimsoll_kernel::spawn::{self, Child, Command, SpawnError};

#[derive(Clone, Debug)]
pub(crate) enum Nursery {
    Own,
    Init(Link),
}

impl Nursery {
    /// Blocks until the program runs. `note` and `output` (the read end) are for the next guard.
    pub(crate) fn spawn(
        &self,
        kind: ChildKind,
        name: &str,
        note: &str,
        command: &Command,
        output: Option<BorrowedFd<'_>>,
    ) -> Result<Child, SpawnError> {
        match self {
            Self::Own => spawn::spawn(command),
            Self::Init(link) => link.spawn(kind, name, note, command, output),
        }
    }

    /// Nothing more is to be learned of a child that has ended.
    pub(crate) fn forget(&self, child: Identity) {
        self.say(&ToInit::Forget { child });
    }

    pub(crate) fn say(&self, said: &ToInit) {
        if let Self::Init(link) = self {
            // Without init the kernel ends us, too.
            let _ = link.say(said);
        }
    }
}
